//! HTTP routes: which RPC a method and a path mean.
//!
//! The table comes from `google.api.http` at build time. Matching works on the raw path: a segment is decoded only after it
//! has matched, so an encoded `/` or `:` stays in its value (and fails name validation) and never changes the route. Segments
//! are never empty; a trailing slash is another path.

use std::fmt;

use http::Method;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use smallvec::SmallVec;

use crate::access::{Audience, Rpc};

/// One way to call an RPC over HTTP.
#[derive(Debug)]
pub struct HttpRule {
    /// The HTTP method.
    pub method: Method,
    /// As in the proto, e.g. `/v1/{name=namespaces/*/topics/*}:metadata`.
    pub template: &'static str,
    /// What the body is.
    pub body: Body,
    pub(crate) segments: &'static [Segment],
    pub(crate) verb: Option<&'static str>,
    pub(crate) vars: &'static [Var],
}

/// What the HTTP body maps to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// No body.
    None,
    /// `body: "*"`: the request message without what the path holds; then there are no query parameters.
    Whole,
    /// This field of the request message.
    Field(&'static str),
}

/// A part of a path between slashes.
#[derive(Debug)]
pub(crate) enum Segment {
    Literal(&'static str),
    /// `*`: any one segment, not empty.
    Any,
}

/// A variable of a template: a field and the segments that make up its value.
#[derive(Debug)]
pub(crate) struct Var {
    pub(crate) field: &'static str,
    pub(crate) start: usize,
    pub(crate) end: usize,
}

/// The values of the path variables: field path and decoded value.
pub type Vars = SmallVec<[(&'static str, String); 2]>;

/// A path that was understood.
#[derive(Clone, Debug)]
pub struct RouteMatch {
    /// The RPC.
    pub rpc: &'static Rpc,
    /// The rule that matched, one of `rpc.http`.
    pub rule: &'static HttpRule,
    /// E.g. `("topic.name", "namespaces/prod/topics/orders")`.
    pub vars: Vars,
}

/// A path that was not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteError {
    /// No such path: 404.
    NotFound,
    /// The path exists with other methods: 405, and `allow` is the value of the `Allow` header.
    MethodNotAllowed {
        /// E.g. `GET, PATCH`.
        allow: String,
    },
    /// A `%` escape that is none, or that is not UTF-8: 400.
    Malformed {
        /// The field whose value is malformed.
        field: &'static str,
    },
}

impl fmt::Display for RouteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound => f.write_str("no such path"),
            Self::MethodNotAllowed { allow } => write!(f, "this path takes {allow}"),
            Self::Malformed { field } => write!(f, "the path's {field} is not well percent-encoded UTF-8"),
        }
    }
}

impl std::error::Error for RouteError {}

/// What must be encoded in a segment: all but RFC 3986's unreserved characters.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Finds the RPC of `audience` for a method and a raw path (no query). `HEAD` is not special here.
pub fn match_route(audience: Audience, method: &Method, path: &str) -> Result<RouteMatch, RouteError> {
    let Some(parts) = split(path) else { return Err(RouteError::NotFound) };
    let mut found = None;
    for (rpc, rule) in rules(audience).filter(|(_, rule)| rule.method == *method) {
        match rule.fit(&parts) {
            // A verb is the better match: `…/orders:metadata` also looks like a topic.
            Some(Fit::Verb) => {
                found = Some((rpc, rule));
                break;
            }
            Some(Fit::Plain) => found = found.or(Some((rpc, rule))),
            None => {}
        }
    }
    // The verb of another method: no name has a colon, so this is not a resource either.
    let is_verb = |rule: &HttpRule| rule.verb.is_some() && rule.fit(&parts).is_some();
    let found = found.filter(|(_, rule)| rule.verb.is_some() || !rules(audience).any(|(_, rule)| is_verb(rule)));
    let Some((rpc, rule)) = found else {
        let allow = allowed_methods(audience, path);
        return Err(match allow.is_empty() {
            true => RouteError::NotFound,
            false => {
                RouteError::MethodNotAllowed { allow: allow.iter().map(Method::as_str).collect::<Vec<_>>().join(", ") }
            }
        });
    };
    let vars = rule.vars.iter().map(|var| Ok((var.field, rule.value(var, &parts)?)));
    Ok(RouteMatch { rpc, rule, vars: vars.collect::<Result<_, _>>()? })
}

/// The methods that a path takes, in the table's order; empty: there is no such path.
pub fn allowed_methods(audience: Audience, path: &str) -> Vec<Method> {
    let Some(parts) = split(path) else { return Vec::new() };
    let fits: Vec<_> = rules(audience).filter_map(|(_, rule)| Some((rule, rule.fit(&parts)?))).collect();
    // Where a verb fits, only its methods count.
    let verb = fits.iter().any(|(_, fit)| *fit == Fit::Verb);
    let mut methods = Vec::new();
    for (rule, fit) in fits {
        if (!verb || fit == Fit::Verb) && !methods.contains(&rule.method) {
            methods.push(rule.method.clone());
        }
    }
    methods
}

fn rules(audience: Audience) -> impl Iterator<Item = (&'static Rpc, &'static HttpRule)> {
    let rpcs = crate::access::RPCS.iter().filter(move |rpc| rpc.audience == audience);
    rpcs.flat_map(|rpc| rpc.http.iter().map(move |rule| (*rpc, rule)))
}

type Parts<'a> = SmallVec<[&'a str; 8]>;

/// The segments; `None` if the path does not begin with `/` or is absurdly deep.
fn split(path: &str) -> Option<Parts<'_>> {
    let parts: Parts<'_> = path.strip_prefix('/')?.split('/').take(17).collect();
    (parts.len() <= 16).then_some(parts)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fit {
    Verb,
    Plain,
}

impl HttpRule {
    fn fit(&self, parts: &[&str]) -> Option<Fit> {
        if parts.len() != self.segments.len() {
            return None;
        }
        let (last, front) = parts.split_last()?;
        let last = match self.verb {
            Some(verb) => split_verb(last).filter(|(_, v)| *v == verb)?.0,
            None => last,
        };
        let mut all = front.iter().chain(std::iter::once(&last)).zip(self.segments);
        let fits = all.all(|(part, segment)| match segment {
            Segment::Literal(text) => part == text,
            Segment::Any => !part.is_empty(),
        });
        fits.then_some(if self.verb.is_some() { Fit::Verb } else { Fit::Plain })
    }

    fn value(&self, var: &Var, parts: &[&str]) -> Result<String, RouteError> {
        let mut value = String::new();
        for (i, part) in parts.iter().enumerate().take(var.end).skip(var.start) {
            let part = match self.verb {
                Some(_) if i + 1 == parts.len() => split_verb(part).map_or(*part, |(front, _)| front),
                _ => part,
            };
            if i > var.start {
                value.push('/');
            }
            value.push_str(&decode(part).ok_or(RouteError::Malformed { field: var.field })?);
        }
        Ok(value)
    }

    /// The fields that the path holds, e.g. `topic.name`.
    pub fn variables(&self) -> impl Iterator<Item = &'static str> {
        self.vars.iter().map(|v| v.field)
    }

    /// The path for given values of the variables, percent-encoded: the inverse of [`match_route`].
    ///
    /// ```
    /// use sluice_proto::rpcs::TOPIC_SERVICE_UPDATE_TOPIC;
    /// let path = TOPIC_SERVICE_UPDATE_TOPIC.http[0].expand(&[("topic.name", "namespaces/prod/topics/orders")]);
    /// assert_eq!(path.as_deref(), Ok("/v1/namespaces/prod/topics/orders"));
    /// ```
    ///
    /// # Errors
    /// A variable is missing, or its value does not fit the template.
    pub fn expand(&self, values: &[(&str, &str)]) -> Result<String, String> {
        let mut path = String::new();
        let mut at = 0;
        let literal = |path: &mut String, segment: &Segment| match segment {
            Segment::Literal(text) => path.extend(["/", text]),
            Segment::Any => path.push_str("/*"),
        };
        for var in self.vars {
            self.segments[at..var.start].iter().for_each(|s| literal(&mut path, s));
            at = var.end;
            let Some((_, value)) = values.iter().find(|(field, _)| *field == var.field) else {
                return Err(format!("{} is missing", var.field));
            };
            let parts: Vec<&str> = value.split('/').collect();
            let wanted = &self.segments[var.start..var.end];
            let fits = parts.len() == wanted.len()
                && parts.iter().zip(wanted).all(|(part, segment)| match segment {
                    Segment::Literal(text) => part == text,
                    Segment::Any => !part.is_empty(),
                });
            if !fits {
                return Err(format!("{} {value:?} does not fit {}", var.field, self.template));
            }
            for part in parts {
                path.push('/');
                path.extend(utf8_percent_encode(part, SEGMENT));
            }
        }
        self.segments[at..].iter().for_each(|s| literal(&mut path, s));
        if let Some(verb) = self.verb {
            path.extend([":", verb]);
        }
        Ok(path)
    }
}

/// What is before and after the colon of a verb, which careful clients write as `%3A`: no name has a colon, so both mean the
/// same.
fn split_verb(part: &str) -> Option<(&str, &str)> {
    let colons = [":", "%3A", "%3a"].into_iter();
    let (at, len) = colons.filter_map(|colon| Some((part.rfind(colon)?, colon.len()))).max()?;
    Some((&part[..at], &part[at + len..]))
}

/// Decodes one segment; `None` for a broken escape or bytes that are not UTF-8.
fn decode(part: &str) -> Option<String> {
    let bytes = part.as_bytes();
    let broken = bytes
        .iter()
        .enumerate()
        .any(|(i, b)| *b == b'%' && !bytes.get(i + 1..i + 3).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit)));
    if broken {
        return None;
    }
    percent_decode_str(part).decode_utf8().ok().map(std::borrow::Cow::into_owned)
}
