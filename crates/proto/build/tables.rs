//! Writes the table of RPCs and `ApiRequest` for every request message.

use std::fmt::Write;

use crate::model::{HttpRule, Rpc, resolve, rust_type};
use crate::schema;

/// The statics of all RPCs, in module `rpcs`, and `RPCS`.
pub(crate) fn write(rpcs: &[Rpc]) -> String {
    let mut out = String::from("pub mod rpcs {\n    //! Every RPC as a static of its own.\n    use super::*;\n\n");
    for rpc in rpcs {
        let http: String = rpc.http.iter().map(rule).collect();
        let resource = Some(&rpc.resource_field).filter(|f| !f.is_empty());
        let _ = writeln!(
            out,
            "    /// `{path}`\n    pub static {ident}: Rpc = Rpc {{ service: {service:?}, method: {method:?}, path: {path:?}, \
             audience: Audience::{audience}, permission: {permission:?}, resource_field: {resource:?}, mutation: {mutation}, \
             gives_records: {gives_records}, http: &[{http}], request_type: {request:?}, response_type: {response:?}, client_streaming: {cs}, \
             server_streaming: {ss}, doc: {doc:?}, request: &{schema} }};\n",
            ident = rpc.ident(),
            service = rpc.service(),
            method = rpc.method.name(),
            path = rpc.path(),
            audience = rpc.audience,
            permission = rpc.permission,
            mutation = rpc.mutation,
            gives_records = rpc.gives_records,
            request = rpc.method.input().full_name(),
            response = rpc.method.output().full_name(),
            cs = rpc.method.is_client_streaming(),
            ss = rpc.method.is_server_streaming(),
            doc = rpc.doc,
            schema = schema::ident(&rpc.method.input()),
        );
    }
    let all: Vec<_> = rpcs.iter().map(|rpc| format!("&rpcs::{}", rpc.ident())).collect();
    let _ = writeln!(out, "}}\n\npub static RPCS: &[&Rpc] = &[{}];\n", all.join(", "));
    for rpc in rpcs {
        out.push_str(&request(rpc));
    }
    out
}

fn rule(rule: &HttpRule) -> String {
    let segment = |s: &Option<String>| match s {
        Some(text) => format!("Segment::Literal({text:?}), "),
        None => "Segment::Any, ".into(),
    };
    let segments: String = rule.template.segments.iter().map(segment).collect();
    let vars: String = rule
        .template
        .vars
        .iter()
        .map(|v| format!("Var {{ field: {:?}, start: {}, end: {} }}, ", v.field, v.start, v.end))
        .collect();
    let body = match rule.body.as_str() {
        "" => "Body::None".into(),
        "*" => "Body::Whole".into(),
        field => format!("Body::Field({field:?})"),
    };
    format!(
        "HttpRule {{ method: http::Method::{}, template: {:?}, body: {body}, segments: &[{segments}], verb: {:?}, vars: &[{vars}] }}, ",
        rule.verb, rule.template.text, rule.template.verb,
    )
}

fn request(rpc: &Rpc) -> String {
    let message = rpc.method.input();
    let resource = match rpc.resource_field.as_str() {
        "" => "None".into(),
        path => getter(path),
    };
    let (id, id_mut) = match resolve(&message, "request_id") {
        Some(_) => ("Some(&self.request_id)", "Some(&mut self.request_id)"),
        None => ("None", "None"),
    };
    format!(
        "impl ApiRequest for {} {{\n    fn rpc() -> &'static Rpc {{ &rpcs::{} }}\n    fn resource_name(&self) -> Option<&str> {{ {resource} }}\n    \
         fn request_id(&self) -> Option<&str> {{ {id} }}\n    fn request_id_mut(&mut self) -> Option<&mut String> {{ {id_mut} }}\n}}\n\n",
        rust_type(&message),
        rpc.ident(),
    )
}

/// `topic.name` as an expression of type `Option<&str>`, `None` for an empty one.
fn getter(path: &str) -> String {
    let mut parts: Vec<&str> = path.split('.').collect();
    let last = parts.pop().unwrap_or_default();
    let mut expression = String::from("Some(self)");
    for part in parts {
        let _ = write!(expression, ".and_then(|m| m.{part}.as_ref())");
    }
    format!("{expression}.map(|m| m.{last}.as_str()).filter(|s| !s.is_empty())")
}
