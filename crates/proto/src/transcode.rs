//! From an HTTP request to a request message: path variables, query parameters and a JSON body.
//!
//! Strict, and every error names the field: unknown fields and parameters, duplicate keys, both spellings of a field, two
//! members of a oneof, a query parameter for what the path or the body holds. Names are accepted in `lowerCamelCase` and
//! `snake_case`. JSON may be nested 127 levels deep; more is refused.

mod body;
mod mask;
mod query;
mod shape;

use std::fmt;

use http::Method;
use serde_json::{Map, Value};

use crate::access::ApiRequest;
use crate::route::{Body, RouteMatch};
use crate::schema::Kind;

/// What is wrong with an HTTP request: INVALID_ARGUMENT, one `BadRequest` violation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TranscodeError {
    /// The path of the field in the request message as the client spelled it, e.g. `topic.partitionCount`; empty for the
    /// body as a whole.
    pub field: String,
    /// A sentence that continues "field …", e.g. "must be true or false".
    pub reason: String,
}

impl TranscodeError {
    fn new(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { field: field.into(), reason: reason.into() }
    }
}

impl fmt::Display for TranscodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.field.as_str() {
            "" => write!(f, "the request {}", self.reason),
            field => write!(f, "{field}: {}", self.reason),
        }
    }
}

impl std::error::Error for TranscodeError {}

/// Builds the request message of a matched route. `query` has decoded names and values, in order.
///
/// ```
/// use http::Method;
/// use sluice_proto::{admin::v1::UpdateTopicRequest, decode_request, match_route, Audience};
/// let route = match_route(Audience::Tenant, &Method::PATCH, "/v1/namespaces/prod/topics/orders")?;
/// let request: UpdateTopicRequest = decode_request(&route, &[], br#"{"partitionCount": 6}"#)?;
/// let topic = request.topic.unwrap_or_default();
/// assert_eq!((topic.name.as_str(), topic.partition_count), ("namespaces/prod/topics/orders", Some(6)));
/// assert_eq!(request.update_mask.unwrap_or_default().paths, ["partition_count"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// With `PATCH`, an absent update mask is filled with the fields present in the body (a null clears its field), without those
/// that only the server sets and without `etag`. An empty mask that is present changes nothing.
///
/// # Errors
/// See [`TranscodeError`].
pub fn decode_request<R: ApiRequest>(
    route: &RouteMatch,
    query: &[(String, String)],
    body: &[u8],
) -> Result<R, TranscodeError> {
    debug_assert_eq!(route.rpc, R::rpc());
    let schema = route.rpc.request;
    let mut root = Map::new();
    let mut mask = None;
    match route.rule.body {
        Body::None if body.iter().all(u8::is_ascii_whitespace) => {}
        Body::None => return Err(TranscodeError::new("", "takes no body")),
        Body::Whole => root = shape::object(schema, body::parse(body)?, &mut String::new())?,
        Body::Field(name) => {
            let sent = body::parse(body)?;
            let field = schema.field(name).ok_or_else(|| TranscodeError::new(name, "no such field"))?;
            let Kind::Message(inner) = field.kind else { return Err(TranscodeError::new(name, "is not a message")) };
            if route.rule.method == Method::PATCH {
                mask = Some(mask::infer(inner, &sent));
            }
            let mut path = field.json.to_owned();
            root.insert(field.json.into(), shape::object(inner, sent, &mut path)?.into());
        }
    }
    for (field, value) in &route.vars {
        insert_var(&mut root, route, field, value)?;
    }
    query::apply(&mut root, route, query)?;
    if let (Some(mask), Some(field)) = (mask, schema.field("update_mask"))
        && !root.contains_key(field.json)
    {
        root.insert(field.json.into(), mask.into());
    }
    serde_path_to_error::deserialize(Value::Object(root)).map_err(|e| {
        let field = e.path().to_string();
        TranscodeError::new(if field == "." { String::new() } else { field }, e.into_inner().to_string())
    })
}

/// Sets what the path holds. The body may repeat it, not contradict it.
fn insert_var(
    root: &mut Map<String, Value>,
    route: &RouteMatch,
    field: &str,
    value: &str,
) -> Result<(), TranscodeError> {
    let (mut schema, mut object) = (route.rpc.request, root);
    let mut names = field.split('.').peekable();
    while let Some(name) = names.next() {
        let known = schema.field(name).ok_or_else(|| TranscodeError::new(field, "no such field"))?;
        if names.peek().is_none() {
            match object.get(known.json) {
                Some(sent) if sent != value && sent != "" => {
                    return Err(TranscodeError::new(field, format!("differs from the path, which says {value:?}")));
                }
                _ => drop(object.insert(known.json.into(), value.into())),
            }
            break;
        }
        let Kind::Message(inner) = known.kind else { break };
        schema = inner;
        match object.entry(known.json).or_insert_with(|| Map::new().into()) {
            Value::Object(next) => object = next,
            _ => break,
        }
    }
    Ok(())
}
