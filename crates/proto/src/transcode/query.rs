//! Query parameters: fields of the request that are in neither path nor body.

use serde_json::{Map, Value};

use super::{TranscodeError, shape};
use crate::route::{Body, RouteMatch};
use crate::schema::{FieldSchema, Kind, Label, MessageSchema};

/// Sets the fields that the query names, `a.b` for a field of a message; a repeated field may come several times.
pub(super) fn apply(
    root: &mut Map<String, Value>,
    route: &RouteMatch,
    query: &[(String, String)],
) -> Result<(), TranscodeError> {
    for (name, text) in query {
        let fail = |reason: &str| Err(TranscodeError::new(name.as_str(), reason));
        let Some((parents, field)) = resolve(route.rpc.request, name) else {
            return fail("no such query parameter; remove it, or correct its name");
        };
        let full: Vec<&str> = parents.iter().chain(std::iter::once(&field)).map(|f| f.name).collect();
        if route.rule.variables().any(|var| var == full.join(".")) {
            return fail("is given by the path");
        }
        match route.rule.body {
            Body::Whole => return fail("belongs in the body: this call takes no query parameters"),
            Body::Field(body) if body == full[0] => return fail("belongs in the body"),
            _ => {}
        }
        let value = value(field, text, name)?;
        let mut object = &mut *root;
        for parent in parents {
            match object.entry(parent.json).or_insert_with(|| Map::new().into()) {
                Value::Object(next) => object = next,
                _ => return fail("no such query parameter"),
            }
        }
        if let Some(oneof) = field.oneof {
            let siblings = field_siblings(route.rpc.request, &full);
            let other =
                siblings.iter().find(|f| f.oneof == Some(oneof) && f.name != field.name && object.contains_key(f.json));
            if let Some(other) = other {
                return fail(&format!("cannot be set together with {}; send one of them", other.json));
            }
        }
        match (field.label, object.get_mut(field.json)) {
            (Label::Repeated, Some(Value::Array(values))) => values.push(value),
            (Label::Repeated, _) => drop(object.insert(field.json.into(), vec![value].into())),
            (_, Some(_)) => return fail("is given twice; send it once"),
            (_, None) => drop(object.insert(field.json.into(), value)),
        }
    }
    Ok(())
}

/// The fields on the way, and the last one.
fn resolve(
    mut schema: &'static MessageSchema,
    name: &str,
) -> Option<(Vec<&'static FieldSchema>, &'static FieldSchema)> {
    let mut parents = Vec::new();
    let mut parts = name.split('.').peekable();
    loop {
        let field = schema.field(parts.next()?)?;
        if parts.peek().is_none() {
            return Some((parents, field));
        }
        match (&field.kind, field.label) {
            (Kind::Message(inner), Label::One) => schema = inner,
            _ => return None,
        }
        parents.push(field);
    }
}

/// All fields of the message that the last name belongs to.
fn field_siblings(mut schema: &'static MessageSchema, full: &[&str]) -> &'static [FieldSchema] {
    for name in &full[..full.len() - 1] {
        if let Some(FieldSchema { kind: Kind::Message(inner), .. }) = schema.field(name) {
            schema = inner;
        }
    }
    schema.fields
}

/// One value, as JSON.
fn value(field: &FieldSchema, text: &str, name: &str) -> Result<Value, TranscodeError> {
    if field.label == Label::Map {
        return Err(TranscodeError::new(name, "cannot be a query parameter"));
    }
    let whole = |min, max| shape::integer(&text.into(), min, max, name);
    match field.kind {
        Kind::Bool => match text {
            "true" => Ok(true.into()),
            "false" => Ok(false.into()),
            _ => Err(TranscodeError::new(name, "must be true or false")),
        },
        Kind::Int32 => whole(i32::MIN.into(), i32::MAX.into()),
        Kind::Int64 => whole(i64::MIN.into(), i64::MAX.into()),
        Kind::Uint32 => whole(0, u32::MAX.into()),
        Kind::Uint64 => whole(0, u64::MAX.into()),
        Kind::Float => match text.parse::<f64>() {
            Ok(n) if n.is_finite() => Ok(n.into()),
            _ => Err(TranscodeError::new(name, "must be a number")),
        },
        Kind::Enum(values) => {
            let sent = text.parse::<i32>().map_or_else(|_| text.into(), Value::from);
            shape::enumeration(values, sent, name)
        }
        Kind::String | Kind::Bytes | Kind::Text | Kind::Mask => Ok(text.into()),
        Kind::Message(_) => Err(TranscodeError::new(name, "is a message: name one of its fields, as in a.b")),
        Kind::Json | Kind::Opaque => Err(TranscodeError::new(name, "cannot be a query parameter")),
    }
}
