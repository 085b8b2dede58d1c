//! A JSON object as it stands in a line: its members in order, repeated ones too, each as its own text.
//!
//! A value that is parsed is changed: numbers become doubles, objects lose repeated members. So what becomes a payload is
//! never parsed, and goes out as the text that came in.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// Members of an object.
pub(super) struct Members(pub(super) Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

/// What a value is as a payload: a string's text, nothing for null, anything else as it stands there.
pub(super) fn payload(raw: &RawValue) -> serde_json::Result<Option<String>> {
    match raw.get().as_bytes().first() {
        Some(b'"') => serde_json::from_str(raw.get()).map(Some),
        Some(b'n') => Ok(None),
        _ => Ok(Some(raw.get().to_owned())),
    }
}
