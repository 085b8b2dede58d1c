//! Writes an OpenAPI 3.1 document of one audience's HTTP API.

use std::collections::BTreeMap;

use prost_reflect::{DescriptorPool, EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor};
use serde_json::{Map, Value, json};

use crate::model::{HttpRule, Rpc, comment_at};
use crate::schema::behaviors;

/// `google.api.FieldBehavior`.
const REQUIRED: i32 = 2;
const OUTPUT_ONLY: i32 = 3;

/// The document of the RPCs of `audience`.
pub(crate) fn write(pool: &DescriptorPool, rpcs: &[Rpc], audience: &str, title: &str) -> String {
    let mut document = Document { pool, schemas: BTreeMap::new() };
    let (mut paths, mut tags) = (BTreeMap::<String, Map<String, Value>>::new(), BTreeMap::new());
    for rpc in rpcs.iter().filter(|rpc| rpc.audience == audience) {
        let service = rpc.method.parent_service();
        let about = comment_at(&service.parent_file(), service.path());
        tags.insert(service.name().to_owned(), about);
        for (i, rule) in rpc.http.iter().enumerate() {
            let (path, parameters) = path(rule);
            let operation = document.operation(rpc, rule, i, parameters);
            paths.entry(path).or_default().insert(rule.verb.to_lowercase(), operation);
        }
    }
    document.reference(pool.get_message_by_name("google.rpc.Status").as_ref());
    let tags: Vec<Value> = tags.iter().map(|(name, about)| json!({"name": name, "description": about})).collect();
    let document = json!({
        "openapi": "3.1.0",
        "info": {"title": title, "version": "v1", "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"}},
        "security": [{"bearer": []}],
        "tags": tags,
        "paths": paths,
        "components": {
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
            "responses": {"Error": {
                "description": "Anything but success: the status, with its details.",
                "content": {"application/json": {"schema": {
                    "type": "object",
                    "required": ["error"],
                    "properties": {"error": {
                        "type": "object",
                        "required": ["code", "message", "status"],
                        "properties": {
                            "code": {"type": "integer", "description": "The HTTP status."},
                            "message": {"type": "string", "description": "A sentence for people."},
                            "status": {"type": "string", "description": "The code's name, e.g. NOT_FOUND."},
                            "details": {"type": "array", "items": any()},
                        },
                    }},
                }}},
            }},
            "schemas": document.schemas,
        },
    });
    document.to_string()
}

struct Document<'a> {
    pool: &'a DescriptorPool,
    schemas: BTreeMap<String, Value>,
}

impl Document<'_> {
    fn operation(&mut self, rpc: &Rpc, rule: &HttpRule, i: usize, mut parameters: Vec<Value>) -> Value {
        let request = rpc.method.input();
        let in_path: Vec<&str> = rule.template.vars.iter().map(|v| v.field.as_str()).collect();
        let mut operation = Map::new();
        let suffix = if i == 0 { String::new() } else { format!("_{i}") };
        let service = rpc.method.parent_service();
        operation.insert("operationId".into(), format!("{}_{}{suffix}", service.name(), rpc.method.name()).into());
        operation.insert("tags".into(), json!([service.name()]));
        operation.insert("summary".into(), sentence(&rpc.doc).into());
        operation.insert("description".into(), rpc.doc.clone().into());
        if rule.body == "*" {
            let mut body = self.object(&request, |f| !in_path.contains(&f.name()));
            if let Some(body) = body.as_object_mut() {
                body.shift_remove("description");
            }
            operation.insert("requestBody".into(), json!({"content": {"application/json": {"schema": body}}}));
        } else {
            for field in request.fields().filter(|f| f.name() != rule.body && !in_path.contains(&f.name())) {
                parameters.extend(self.parameter(&field));
            }
        }
        if let Some(field) = request.get_field_by_name(&rule.body) {
            let schema = self.element(&field.kind());
            let body = json!({"required": true, "content": {"application/json": {"schema": schema}}});
            operation.insert("requestBody".into(), body);
        }
        if rpc.mutation {
            parameters.push(json!({
                "name": "Idempotency-Key", "in": "header", "schema": {"type": "string"},
                "description": "The same as `requestId`.",
            }));
        }
        operation.insert("parameters".into(), parameters.into());
        let answer = self.reference(Some(&rpc.method.output()));
        operation.insert(
            "responses".into(),
            json!({
                "200": {"description": "Success.", "content": {"application/json": {"schema": answer}}},
                "default": {"$ref": "#/components/responses/Error"},
            }),
        );
        operation.into()
    }

    /// A query parameter; messages are none.
    fn parameter(&mut self, field: &FieldDescriptor) -> Option<Value> {
        let inner = match field.kind() {
            Kind::Message(m) => matches!(
                m.full_name(),
                "google.protobuf.Timestamp" | "google.protobuf.Duration" | "google.protobuf.FieldMask"
            ),
            _ => true,
        };
        inner.then(|| {
            json!({
                "name": field.json_name(), "in": "query", "schema": self.typed(field),
                "required": behaviors(self.pool, field).contains(&REQUIRED),
                "description": comment_at(&field.parent_message().parent_file(), field.path()),
            })
        })
    }

    fn reference(&mut self, message: Option<&MessageDescriptor>) -> Value {
        let Some(message) = message else { return json!({}) };
        let name = name(message.full_name());
        if !self.schemas.contains_key(&name) {
            self.schemas.insert(name.clone(), Value::Null);
            let schema = self.object(message, |_| true);
            self.schemas.insert(name.clone(), schema);
        }
        json!({"$ref": format!("#/components/schemas/{name}")})
    }

    fn object(&mut self, message: &MessageDescriptor, take: impl Fn(&FieldDescriptor) -> bool) -> Value {
        let (mut properties, mut required) = (Map::new(), Vec::new());
        for field in message.fields().filter(take) {
            let mut schema = self.typed(&field);
            let behaviors = behaviors(self.pool, &field);
            if let Some(schema) = schema.as_object_mut() {
                schema.insert("description".into(), comment_at(&message.parent_file(), field.path()).into());
                if behaviors.contains(&OUTPUT_ONLY) {
                    schema.insert("readOnly".into(), true.into());
                }
            }
            if behaviors.contains(&REQUIRED) {
                required.push(field.json_name().to_owned());
            }
            properties.insert(field.json_name().into(), schema);
        }
        let about = comment_at(&message.parent_file(), message.path());
        let mut object = json!({"type": "object", "description": about, "properties": properties});
        if let (false, Some(object)) = (required.is_empty(), object.as_object_mut()) {
            object.insert("required".into(), required.into());
        }
        object
    }

    fn typed(&mut self, field: &FieldDescriptor) -> Value {
        match field.kind() {
            Kind::Message(entry) if field.is_map() => {
                let values = self.element(&entry.map_entry_value_field().kind());
                json!({"type": "object", "additionalProperties": values})
            }
            kind if field.is_list() => json!({"type": "array", "items": self.element(&kind)}),
            kind => self.element(&kind),
        }
    }

    fn element(&mut self, kind: &Kind) -> Value {
        match kind {
            Kind::Bool => json!({"type": "boolean"}),
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => json!({"type": "integer", "format": "int32"}),
            Kind::Uint32 | Kind::Fixed32 => json!({"type": "integer", "format": "int32", "minimum": 0}),
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => json!({"type": "string", "format": "int64"}),
            Kind::Uint64 | Kind::Fixed64 => json!({"type": "string", "format": "uint64"}),
            Kind::Float | Kind::Double => json!({"type": "number"}),
            Kind::String => json!({"type": "string"}),
            Kind::Bytes => json!({"type": "string", "contentEncoding": "base64"}),
            Kind::Enum(e) => self.enumeration(e),
            Kind::Message(m) => match m.full_name() {
                "google.protobuf.Timestamp" => json!({"type": "string", "format": "date-time"}),
                "google.protobuf.Duration" => json!({"type": "string", "pattern": r"^-?[0-9]+(\.[0-9]{1,9})?s$"}),
                "google.protobuf.FieldMask" => json!({"type": "string"}),
                "google.protobuf.Any" => any(),
                name if name.starts_with("google.protobuf.") => json!({}),
                _ => self.reference(Some(m)),
            },
        }
    }

    fn enumeration(&mut self, e: &EnumDescriptor) -> Value {
        let name = name(e.full_name());
        let values: Vec<String> = e.values().map(|v| v.name().to_owned()).collect();
        let meaning = |v: &prost_reflect::EnumValueDescriptor| {
            format!("\n- `{}`: {}", v.name(), comment_at(&e.parent_file(), v.path()).replace('\n', " "))
        };
        let about: String = e.values().map(|v| meaning(&v)).collect();
        let about = format!("{}\n{about}", comment_at(&e.parent_file(), e.path()));
        self.schemas.insert(name.clone(), json!({"type": "string", "enum": values, "description": about}));
        json!({"$ref": format!("#/components/schemas/{name}")})
    }
}

/// The path with a parameter per `*`, named after the collection before it, and the parameters.
fn path(rule: &HttpRule) -> (String, Vec<Value>) {
    let (mut path, mut parameters, mut before) = (String::new(), Vec::new(), "part");
    for segment in &rule.template.segments {
        match segment {
            Some(text) => {
                path.push_str(&format!("/{text}"));
                before = text;
            }
            None => {
                let name = before.strip_suffix('s').unwrap_or(before);
                path.push_str(&format!("/{{{name}}}"));
                parameters.push(json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}));
            }
        }
    }
    if let Some(verb) = &rule.template.verb {
        path.push_str(&format!(":{verb}"));
    }
    (path, parameters)
}

/// The schema's name: the message's without `sluice`.
fn name(full: &str) -> String {
    full.strip_prefix("sluice.").unwrap_or(full).into()
}

/// A packed message.
fn any() -> Value {
    json!({"type": "object", "required": ["@type"], "properties": {"@type": {"type": "string"}}})
}

/// The first sentence, on one line.
fn sentence(doc: &str) -> String {
    let paragraph = doc.split("\n\n").next().unwrap_or_default().replace('\n', " ");
    paragraph.split(". ").next().unwrap_or_default().trim_end_matches('.').to_owned()
}
