//! Reads our RPCs out of the descriptors and refuses what must not be built.

use std::error::Error;

use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, FileDescriptor, Kind, MessageDescriptor, MethodDescriptor, Value,
};

use crate::template::Template;

/// One RPC of a `sluice.*` service.
pub(crate) struct Rpc {
    pub(crate) method: MethodDescriptor,
    pub(crate) audience: &'static str,
    pub(crate) permission: String,
    pub(crate) resource_field: String,
    pub(crate) mutation: bool,
    pub(crate) gives_records: bool,
    pub(crate) http: Vec<HttpRule>,
    pub(crate) doc: String,
}

/// One `google.api.http` rule.
pub(crate) struct HttpRule {
    pub(crate) verb: &'static str,
    pub(crate) template: Template,
    pub(crate) body: String,
}

impl Rpc {
    pub(crate) fn service(&self) -> String {
        self.method.parent_service().full_name().to_owned()
    }

    pub(crate) fn path(&self) -> String {
        format!("/{}/{}", self.service(), self.method.name())
    }

    /// Name of its static, e.g. `TOPIC_SERVICE_CREATE_TOPIC`.
    pub(crate) fn ident(&self) -> String {
        format!("{}_{}", snake(self.method.parent_service().name()), snake(self.method.name())).to_uppercase()
    }

    pub(crate) fn streaming(&self) -> bool {
        self.method.is_client_streaming() || self.method.is_server_streaming()
    }
}

/// All RPCs, sorted by path.
pub(crate) fn read(pool: &DescriptorPool) -> Result<Vec<Rpc>, Box<dyn Error>> {
    let mut rpcs = Vec::new();
    for service in pool.services().filter(|s| s.full_name().starts_with("sluice.")) {
        for method in service.methods() {
            rpcs.push(rpc(pool, method)?);
        }
    }
    rpcs.sort_by_key(Rpc::path);
    check(&rpcs)?;
    Ok(rpcs)
}

fn rpc(pool: &DescriptorPool, method: MethodDescriptor) -> Result<Rpc, Box<dyn Error>> {
    let name = method.full_name().to_owned();
    let authorization = extension(pool, &method, "sluice.options.v1.authorization")
        .ok_or_else(|| format!("{name} has no option sluice.options.v1.authorization"))?;
    let audience = match number(&authorization, "audience") {
        1 => "Tenant",
        2 => "Operator",
        3 => "Internal",
        _ => return Err(format!("{name} has no audience").into()),
    };
    let permission = text(&authorization, "permission");
    if permission.is_empty() {
        return Err(format!("{name} has no permission").into());
    }
    let mut http = Vec::new();
    match extension(pool, &method, "google.api.http") {
        Some(rule) => rules(&rule, &mut http).map_err(|e| format!("{name}: {e}"))?,
        // A client cannot stream over HTTP with JSON: such an RPC has a sibling that it can.
        None if audience == "Internal" || method.is_client_streaming() => {}
        None => return Err(format!("{name} has no google.api.http rule").into()),
    }
    let rpc = Rpc {
        audience,
        permission,
        resource_field: text(&authorization, "resource_field"),
        mutation: flag(&authorization, "mutation"),
        gives_records: method.is_server_streaming() || option(pool, &method, "sluice.options.v1.gives_records"),
        http,
        doc: comment_at(&method.parent_service().parent_file(), method.path()),
        method,
    };
    check_fields(&rpc).map_err(|e| format!("{name}: {e}"))?;
    Ok(rpc)
}

/// A rule and its additional bindings.
fn rules(rule: &DynamicMessage, found: &mut Vec<HttpRule>) -> Result<(), String> {
    let verbs = [("get", "GET"), ("put", "PUT"), ("post", "POST"), ("delete", "DELETE"), ("patch", "PATCH")];
    let (field, verb) = *verbs.iter().find(|(field, _)| rule.has_field_by_name(field)).ok_or("no HTTP method")?;
    if !text(rule, "response_body").is_empty() {
        return Err("response_body is not supported".into());
    }
    let template = Template::parse(&text(rule, field))?;
    found.push(HttpRule { verb, template, body: text(rule, "body") });
    if let Some(Value::List(more)) = rule.get_field_by_name("additional_bindings").as_deref() {
        for rule in more.iter().filter_map(Value::as_message) {
            rules(rule, found)?;
        }
    }
    Ok(())
}

/// Fields that options name must be there, and be of a type that can be used.
fn check_fields(rpc: &Rpc) -> Result<(), String> {
    let request = rpc.method.input();
    let string = |path: &str| match resolve(&request, path).and_then(|fields| fields.last().cloned()) {
        Some(field) if field.kind() == Kind::String && !field.is_list() => Ok(()),
        _ => Err(format!("{} has no string field {path}", request.full_name())),
    };
    if !rpc.resource_field.is_empty() {
        string(&rpc.resource_field)?;
    }
    if rpc.mutation {
        string("request_id")?;
    }
    for rule in &rpc.http {
        rule.template.vars.iter().try_for_each(|var| string(&var.field))?;
        let is_message = |f: &FieldDescriptor| matches!(f.kind(), Kind::Message(_)) && !f.is_list() && !f.is_map();
        match rule.body.as_str() {
            "" | "*" => {}
            field if request.get_field_by_name(field).is_some_and(|f| is_message(&f)) => {}
            field => return Err(format!("{} has no message field {field} for the body", request.full_name())),
        }
        if matches!(rule.verb, "GET" | "DELETE") && !rule.body.is_empty() {
            return Err(format!("{} takes no body", rule.verb));
        }
    }
    Ok(())
}

/// No request message twice, no two routes for the same path.
fn check(rpcs: &[Rpc]) -> Result<(), String> {
    for (i, a) in rpcs.iter().enumerate() {
        for b in &rpcs[i + 1..] {
            if a.method.input() == b.method.input() {
                return Err(format!("{} and {} share a request message", a.path(), b.path()));
            }
            if a.audience != b.audience {
                continue;
            }
            for (x, y) in a.http.iter().flat_map(|x| b.http.iter().map(move |y| (x, y))) {
                if x.verb == y.verb && x.template.overlaps(&y.template) {
                    return Err(format!("{} and {} share a route", a.path(), b.path()));
                }
            }
        }
    }
    Ok(())
}

/// The fields of a dotted path.
pub(crate) fn resolve(message: &MessageDescriptor, path: &str) -> Option<Vec<FieldDescriptor>> {
    let mut message = Some(message.clone());
    let mut fields = Vec::new();
    for name in path.split('.') {
        let field = message?.get_field_by_name(name)?;
        message = field.kind().as_message().cloned();
        fields.push(field);
    }
    Some(fields)
}

/// A boolean option, which is not set by default.
fn option(pool: &DescriptorPool, method: &MethodDescriptor, name: &str) -> bool {
    let extension = pool.get_extension_by_name(name);
    extension.and_then(|extension| method.options().get_extension(&extension).as_bool()).unwrap_or_default()
}

fn extension(pool: &DescriptorPool, method: &MethodDescriptor, name: &str) -> Option<DynamicMessage> {
    let extension = pool.get_extension_by_name(name)?;
    let options = method.options();
    options.has_extension(&extension).then(|| options.get_extension(&extension).as_message().cloned())?
}

/// The comment above the thing at `path` in a file, trimmed.
pub(crate) fn comment_at(file: &FileDescriptor, path: &[i32]) -> String {
    let source = file.file_descriptor_proto().source_code_info.as_ref();
    let location = source.into_iter().flat_map(|s| &s.location).find(|l| l.path == path);
    let text = location.map(|l| l.leading_comments()).unwrap_or_default();
    text.lines().map(|l| l.strip_prefix(' ').unwrap_or(l).trim_end()).collect::<Vec<_>>().join("\n").trim().into()
}

fn text(message: &DynamicMessage, field: &str) -> String {
    message.get_field_by_name(field).and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
}

fn number(message: &DynamicMessage, field: &str) -> i32 {
    message.get_field_by_name(field).and_then(|v| v.as_enum_number()).unwrap_or_default()
}

fn flag(message: &DynamicMessage, field: &str) -> bool {
    message.get_field_by_name(field).and_then(|v| v.as_bool()).unwrap_or_default()
}

/// `TopicService` to `topic_service`.
pub(crate) fn snake(name: &str) -> String {
    let mut out = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() && !out.is_empty() {
            out.push('_');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}

/// `key_kind` to `KeyKind`.
pub(crate) fn camel(name: &str) -> String {
    let capital = |word: &str| word[..1].to_uppercase() + &word[1..];
    name.split('_').filter(|word| !word.is_empty()).map(capital).collect()
}

/// The path of a message's Rust type.
pub(crate) fn rust_type(message: &MessageDescriptor) -> String {
    let path = message.full_name().strip_prefix("sluice.").unwrap_or(message.full_name());
    format!("crate::{}", path.replace('.', "::"))
}
