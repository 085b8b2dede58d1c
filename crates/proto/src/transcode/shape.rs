//! Brings a JSON object into the shape its message wants, with errors that name the field.
//!
//! Checks names, JSON types and number ranges; drops nulls (absent, in proto3 JSON) except where null is a value. What is left
//! for the type itself is the inside of strings: base64, times, durations.

use serde_json::{Map, Number, Value};

use super::TranscodeError;
use crate::schema::{FieldSchema, Kind, Label, MessageSchema};

/// `path` is where the object stands in the request; it is restored before returning.
pub(super) fn object(
    schema: &MessageSchema,
    sent: Map<String, Value>,
    path: &mut String,
) -> Result<Map<String, Value>, TranscodeError> {
    let mut out = Map::new();
    let mut oneofs: Vec<(&str, String)> = Vec::new();
    let len = path.len();
    for (key, value) in sent {
        if !path.is_empty() {
            path.push('.');
        }
        path.push_str(&key);
        let Some(field) = schema.field(&key) else {
            return Err(TranscodeError::new(path.as_str(), "no such field; remove it, or correct its name"));
        };
        if out.contains_key(field.json) {
            return Err(TranscodeError::new(
                path.as_str(),
                format!("is there twice, as {} and {}", field.json, field.name),
            ));
        }
        if !value.is_null() || matches!((&field.kind, field.label), (Kind::Json, Label::One)) {
            if let Some(oneof) = field.oneof {
                if let Some((_, other)) = oneofs.iter().find(|(o, _)| *o == oneof) {
                    return Err(TranscodeError::new(
                        path.as_str(),
                        format!("cannot be set together with {other}; send one of them"),
                    ));
                }
                oneofs.push((oneof, key));
            }
            out.insert(field.json.into(), labelled(field, value, path)?);
        }
        path.truncate(len);
    }
    Ok(out)
}

fn labelled(field: &FieldSchema, value: Value, path: &mut String) -> Result<Value, TranscodeError> {
    let len = path.len();
    match (field.label, value) {
        (Label::One, value) => single(&field.kind, value, path),
        (Label::Repeated, Value::Array(values)) => {
            let mut out = Vec::with_capacity(values.len());
            for (i, value) in values.into_iter().enumerate() {
                path.push_str(&format!("[{i}]"));
                out.push(single(&field.kind, value, path)?);
                path.truncate(len);
            }
            Ok(out.into())
        }
        (Label::Repeated, _) => Err(TranscodeError::new(path.as_str(), "must be an array")),
        (Label::Map, Value::Object(values)) => {
            let mut out = Map::new();
            for (key, value) in values {
                path.extend([".", &key]);
                let value = single(&field.kind, value, path)?;
                out.insert(key, value);
                path.truncate(len);
            }
            Ok(out.into())
        }
        (Label::Map, _) => Err(TranscodeError::new(path.as_str(), "must be an object")),
    }
}

fn single(kind: &Kind, value: Value, path: &mut String) -> Result<Value, TranscodeError> {
    let wrong = |path: &str, what: &str| Err(TranscodeError::new(path, format!("must be {what}")));
    match (kind, value) {
        (Kind::Message(schema), Value::Object(fields)) => Ok(object(schema, fields, path)?.into()),
        (Kind::Message(_), _) => wrong(path, "an object"),
        (Kind::Bool, value @ Value::Bool(_)) => Ok(value),
        (Kind::Bool, _) => wrong(path, "true or false"),
        (Kind::Bytes, Value::String(text)) if !is_base64(&text) => {
            wrong(path, "base64, in the standard or the URL-safe alphabet; text goes into the field for text")
        }
        (Kind::String | Kind::Bytes | Kind::Text | Kind::Mask, value @ Value::String(_)) => Ok(value),
        (Kind::String | Kind::Text | Kind::Mask, _) => wrong(path, "a string"),
        (Kind::Bytes, _) => wrong(path, "a string in base64"),
        (Kind::Enum(values), value) => enumeration(values, value, path),
        (Kind::Int32, value) => integer(&value, i32::MIN.into(), i32::MAX.into(), path),
        (Kind::Int64, value) => integer(&value, i64::MIN.into(), i64::MAX.into(), path),
        (Kind::Uint32, value) => integer(&value, 0, u32::MAX.into(), path),
        (Kind::Uint64, value) => integer(&value, 0, u64::MAX.into(), path),
        (Kind::Float, Value::Number(n)) => Ok(Value::Number(n)),
        (Kind::Float, Value::String(s)) if s.parse::<f64>().is_ok() => Ok(s.into()),
        (Kind::Float, _) => wrong(path, "a number"),
        (Kind::Json | Kind::Opaque, value) => Ok(value),
    }
}

/// Whether the type will take it: either alphabet, padded or not.
fn is_base64(text: &str) -> bool {
    use pbjson::private::base64::alphabet::{Alphabet, STANDARD, URL_SAFE};
    use pbjson::private::base64::engine::{DecodePaddingMode, Engine, GeneralPurpose, GeneralPurposeConfig};
    let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let fits = |alphabet: &Alphabet| GeneralPurpose::new(alphabet, config).decode(text).is_ok();
    fits(&STANDARD) || fits(&URL_SAFE)
}

/// A name, or a number that has one.
pub(super) fn enumeration(values: &[(&str, i32)], value: Value, path: &str) -> Result<Value, TranscodeError> {
    let known = match &value {
        Value::String(name) => values.iter().find(|(n, _)| n == name),
        Value::Number(number) => values.iter().find(|(_, n)| number.as_i64() == Some((*n).into())),
        _ => None,
    };
    match known {
        Some((name, _)) => Ok((*name).into()),
        None => {
            let names: Vec<&str> = values.iter().map(|(n, _)| *n).collect();
            Err(TranscodeError::new(path, format!("must be one of {}", names.join(", "))))
        }
    }
}

/// A whole number as JSON number (`3`, `3.0`, `3e0`) or string.
pub(super) fn integer(value: &Value, min: i128, max: i128, path: &str) -> Result<Value, TranscodeError> {
    let number: Option<i128> = match value {
        Value::Number(n) => n.as_i64().map(i128::from).or_else(|| n.as_u64().map(i128::from)).or_else(|| whole(n)),
        Value::String(s) => s.parse().ok(),
        _ => None,
    };
    match number.filter(|n| (min..=max).contains(n)) {
        Some(n) => Ok(i64::try_from(n).map_or_else(|_| Value::from(n as u64), Value::from)),
        None => Err(TranscodeError::new(path, format!("must be a whole number, {min}..={max}"))),
    }
}

/// A float without a fraction, as far as floats are exact.
fn whole(n: &Number) -> Option<i128> {
    n.as_f64().filter(|f| f.fract() == 0.0 && f.abs() <= 9_007_199_254_740_992.0).map(|f| f as i128)
}
