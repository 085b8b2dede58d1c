//! Writes the shape of every message that a request can hold.

use std::collections::BTreeMap;
use std::fmt::Write;

use prost_reflect::{DescriptorPool, FieldDescriptor, Kind, MessageDescriptor, Value};

use crate::model::Rpc;

/// The statics of all messages reachable from requests.
pub(crate) fn write(pool: &DescriptorPool, rpcs: &[Rpc]) -> String {
    let mut messages = BTreeMap::new();
    for rpc in rpcs {
        collect(&rpc.method.input(), &mut messages);
    }
    let mut out = String::new();
    for message in messages.values() {
        let fields: String = message.fields().map(|f| field(pool, &f)).collect();
        let name = ident(message);
        let _ = writeln!(out, "static {name}: MessageSchema = MessageSchema {{ fields: &[\n{fields}] }};\n");
    }
    out
}

/// The name of a message's static.
pub(crate) fn ident(message: &MessageDescriptor) -> String {
    message.full_name().replace('.', "_").to_uppercase()
}

fn collect(message: &MessageDescriptor, found: &mut BTreeMap<String, MessageDescriptor>) {
    if found.insert(message.full_name().into(), message.clone()).is_some() {
        return;
    }
    for field in message.fields() {
        if let Kind::Message(inner) = element(&field)
            && !inner.full_name().starts_with("google.protobuf.")
        {
            collect(&inner, found);
        }
    }
}

/// The type of a field's values: for a map, of the map's values.
fn element(field: &FieldDescriptor) -> Kind {
    match field.kind() {
        Kind::Message(entry) if field.is_map() => entry.map_entry_value_field().kind(),
        kind => kind,
    }
}

fn field(pool: &DescriptorPool, field: &FieldDescriptor) -> String {
    let label = match () {
        () if field.is_map() => "Map",
        () if field.is_list() => "Repeated",
        () => "One",
    };
    let oneof = field.containing_oneof().filter(|o| !o.is_synthetic()).map(|o| o.name().to_owned());
    // FieldBehavior: OUTPUT_ONLY = 3, IDENTIFIER = 8.
    let fixed = behaviors(pool, field).iter().any(|b| matches!(b, 3 | 8)) || field.name() == "etag";
    format!(
        "    FieldSchema {{ name: {:?}, json: {:?}, kind: {}, label: Label::{label}, oneof: {oneof:?}, not_maskable: {fixed} }},\n",
        field.name(),
        field.json_name(),
        kind(&element(field)),
    )
}

fn kind(kind: &Kind) -> String {
    match kind {
        Kind::Bool => "Kind::Bool".into(),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => "Kind::Int32".into(),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => "Kind::Int64".into(),
        Kind::Uint32 | Kind::Fixed32 => "Kind::Uint32".into(),
        Kind::Uint64 | Kind::Fixed64 => "Kind::Uint64".into(),
        Kind::Float | Kind::Double => "Kind::Float".into(),
        Kind::String => "Kind::String".into(),
        Kind::Bytes => "Kind::Bytes".into(),
        Kind::Enum(e) => {
            let values: Vec<_> = e.values().map(|v| format!("({:?}, {})", v.name(), v.number())).collect();
            format!("Kind::Enum(&[{}])", values.join(", "))
        }
        Kind::Message(m) => match m.full_name() {
            "google.protobuf.Timestamp" | "google.protobuf.Duration" => "Kind::Text".into(),
            "google.protobuf.FieldMask" => "Kind::Mask".into(),
            "google.protobuf.Value" => "Kind::Json".into(),
            name if name.starts_with("google.protobuf.") => "Kind::Opaque".into(),
            _ => format!("Kind::Message(&{})", ident(m)),
        },
    }
}

/// The numbers of the field's `google.api.field_behavior`.
pub(crate) fn behaviors(pool: &DescriptorPool, field: &FieldDescriptor) -> Vec<i32> {
    let Some(extension) = pool.get_extension_by_name("google.api.field_behavior") else { return Vec::new() };
    let options = field.options();
    match options.get_extension(&extension).as_ref() {
        Value::List(values) => values.iter().filter_map(Value::as_enum_number).collect(),
        _ => Vec::new(),
    }
}
