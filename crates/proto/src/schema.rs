//! The shape of request messages, as static tables: what transcoding needs to know and types cannot tell it.

/// A message.
#[derive(Debug)]
pub(crate) struct MessageSchema {
    /// By number.
    pub(crate) fields: &'static [FieldSchema],
}

/// A field.
#[derive(Debug)]
pub(crate) struct FieldSchema {
    /// `display_name`.
    pub(crate) name: &'static str,
    /// `displayName`.
    pub(crate) json: &'static str,
    pub(crate) kind: Kind,
    pub(crate) label: Label,
    /// The oneof it belongs to (not the synthetic one of `optional`).
    pub(crate) oneof: Option<&'static str>,
    /// OUTPUT_ONLY or IDENTIFIER, or the etag: never part of an inferred mask.
    pub(crate) not_maskable: bool,
}

/// What a field holds.
#[derive(Debug)]
#[allow(dead_code, reason = "the build script names those that the protos use")]
pub(crate) enum Kind {
    Bool,
    Int32,
    Int64,
    Uint32,
    Uint64,
    Float,
    String,
    /// base64 in JSON.
    Bytes,
    /// The names of the values with their numbers.
    Enum(&'static [(&'static str, i32)]),
    Message(&'static MessageSchema),
    /// A well-known type that is a string in JSON.
    Text,
    /// A field mask, also a string.
    Mask,
    /// Any JSON, null too.
    Json,
    /// Left to the type.
    Opaque,
}

/// How often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Label {
    One,
    Repeated,
    /// A map with string keys; the kind is the values'.
    Map,
}

impl MessageSchema {
    /// The field with this name in either spelling.
    pub(crate) fn field(&self, name: &str) -> Option<&'static FieldSchema> {
        self.fields.iter().find(|f| f.json == name || f.name == name)
    }
}
