//! Parses a JSON body: an object, without duplicate keys, at most 127 levels deep.

use std::fmt;

use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::TranscodeError;

/// What some programs put before UTF-8; RFC 8259 lets a reader pass over it.
const BOM: &[u8] = b"\xef\xbb\xbf";
/// What stands before UTF-16.
const BOMS_UTF16: [&[u8]; 2] = [b"\xff\xfe", b"\xfe\xff"];

/// The body's object; an empty body is an empty object.
pub(super) fn parse(body: &[u8]) -> Result<Map<String, Value>, TranscodeError> {
    let body = body.strip_prefix(BOM).unwrap_or(body);
    if BOMS_UTF16.iter().any(|mark| body.starts_with(mark)) {
        return Err(TranscodeError::new("", "is UTF-16; send JSON as UTF-8"));
    }
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(Map::new());
    }
    let mut parser = serde_json::Deserializer::from_slice(body);
    let value = Strict.deserialize(&mut parser).and_then(|value| parser.end().map(|()| value)).map_err(|e| {
        let text = e.to_string();
        match text.strip_prefix("recursion limit exceeded") {
            Some(place) => TranscodeError::new("", format!("is nested too deeply: at most 127 levels{place}")),
            None => TranscodeError::new("", format!("is not good JSON: {text}")),
        }
    })?;
    match value {
        Value::Object(object) => Ok(object),
        _ => Err(TranscodeError::new("", "must be a JSON object")),
    }
}

/// Like `Value`'s own, but a key that comes twice is an error.
struct Strict;

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, b: bool) -> Result<Value, E> {
        Ok(b.into())
    }

    fn visit_i64<E>(self, n: i64) -> Result<Value, E> {
        Ok(n.into())
    }

    fn visit_u64<E>(self, n: u64) -> Result<Value, E> {
        Ok(n.into())
    }

    fn visit_f64<E: serde::de::Error>(self, n: f64) -> Result<Value, E> {
        Number::from_f64(n).map(Value::Number).ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_str<E>(self, s: &str) -> Result<Value, E> {
        Ok(s.into())
    }

    fn visit_string<E>(self, s: String) -> Result<Value, E> {
        Ok(s.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = seq.next_element_seed(Strict)? {
            values.push(value);
        }
        Ok(values.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            if object.contains_key(&key) {
                return Err(A::Error::custom(format_args!("duplicate key {key:?}")));
            }
            let value = map.next_value_seed(Strict)?;
            object.insert(key, value);
        }
        Ok(object.into())
    }
}
