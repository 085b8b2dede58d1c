//! The update mask that a PATCH body means when the client sends none.

use serde_json::{Map, Value};

use crate::schema::{Kind, Label, MessageSchema};

/// The fields that are present, as a field mask in JSON; inside messages their members, so that what was not sent is kept.
pub(super) fn infer(schema: &MessageSchema, sent: &Map<String, Value>) -> String {
    let mut paths = Vec::new();
    collect(schema, sent, "", &mut paths);
    paths.join(",")
}

fn collect(schema: &MessageSchema, sent: &Map<String, Value>, prefix: &str, paths: &mut Vec<String>) {
    for (key, value) in sent {
        // Unknown ones are refused elsewhere.
        let Some(field) = schema.field(key).filter(|f| !f.not_maskable) else { continue };
        let path = format!("{prefix}{}", field.json);
        match (&field.kind, field.label, value) {
            (Kind::Message(inner), Label::One, Value::Object(fields)) => {
                collect(inner, fields, &format!("{path}."), paths);
            }
            _ => paths.push(path),
        }
    }
}
