//! `google.protobuf.Value`, `Struct`, `ListValue`: any JSON.
//!
//! Object keys keep their order and whole numbers stay whole, so that JSON that goes in comes out the same. The wire format
//! holds numbers as doubles: a number that a double cannot hold exactly as an integer is refused, never changed.

use std::fmt;

use serde::de::{Error as _, MapAccess, SeqAccess, Visitor};
use serde::ser::{Error as _, SerializeMap, SerializeSeq};

pub use self::kind::Kind;

/// The largest magnitude up to which every integer is a double.
const EXACT: u64 = 1 << 53;

/// Any JSON value.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Value {
    /// What it is; absent is read as null.
    #[prost(oneof = "Kind", tags = "1, 2, 3, 4, 5, 6")]
    pub kind: Option<Kind>,
}

/// A JSON object.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Struct {
    /// Its members, in order.
    #[prost(message, repeated, tag = "1")]
    pub fields: Vec<Member>,
}

/// A member of an object: what a map entry is on the wire.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Member {
    /// The key.
    #[prost(string, tag = "1")]
    pub key: String,
    /// The value; absent is null.
    #[prost(message, optional, tag = "2")]
    pub value: Option<Value>,
}

/// A JSON array.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ListValue {
    /// Its elements.
    #[prost(message, repeated, tag = "1")]
    pub values: Vec<Value>,
}

/// JSON null.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum NullValue {
    /// The only value.
    NullValue = 0,
}

mod kind {
    //! The oneof, in a module of its own as for generated code.

    /// The kinds of JSON values.
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub enum Kind {
        /// null.
        #[prost(enumeration = "super::NullValue", tag = "1")]
        NullValue(i32),
        /// A number.
        #[prost(double, tag = "2")]
        NumberValue(f64),
        /// A string.
        #[prost(string, tag = "3")]
        StringValue(String),
        /// A boolean.
        #[prost(bool, tag = "4")]
        BoolValue(bool),
        /// An object.
        #[prost(message, tag = "5")]
        StructValue(super::Struct),
        /// An array.
        #[prost(message, tag = "6")]
        ListValue(super::ListValue),
    }
}

impl From<Kind> for Value {
    fn from(kind: Kind) -> Self {
        Self { kind: Some(kind) }
    }
}

impl serde::Serialize for Value {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.kind {
            None | Some(Kind::NullValue(_)) => serializer.serialize_unit(),
            Some(Kind::NumberValue(n)) if !n.is_finite() => Err(S::Error::custom("JSON has no NaN and no infinity")),
            Some(Kind::NumberValue(n)) if n.fract() == 0.0 && n.abs() <= EXACT as f64 => {
                serializer.serialize_i64(*n as i64)
            }
            Some(Kind::NumberValue(n)) => serializer.serialize_f64(*n),
            Some(Kind::StringValue(s)) => serializer.serialize_str(s),
            Some(Kind::BoolValue(b)) => serializer.serialize_bool(*b),
            Some(Kind::StructValue(s)) => s.serialize(serializer),
            Some(Kind::ListValue(l)) => l.serialize(serializer),
        }
    }
}

impl serde::Serialize for Struct {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.fields.len()))?;
        for member in &self.fields {
            map.serialize_entry(&member.key, &member.value)?;
        }
        map.end()
    }
}

impl serde::Serialize for ListValue {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut seq = serializer.serialize_seq(Some(self.values.len()))?;
        for value in &self.values {
            seq.serialize_element(value)?;
        }
        seq.end()
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Kind::NullValue(0).into())
    }

    fn visit_none<E: serde::de::Error>(self) -> Result<Value, E> {
        self.visit_unit()
    }

    fn visit_some<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_bool<E>(self, b: bool) -> Result<Value, E> {
        Ok(Kind::BoolValue(b).into())
    }

    fn visit_i64<E: serde::de::Error>(self, n: i64) -> Result<Value, E> {
        if n.unsigned_abs() > EXACT {
            return Err(E::custom(format_args!("{n} is too large to be kept exactly: send the JSON as text")));
        }
        Ok(Kind::NumberValue(n as f64).into())
    }

    fn visit_u64<E: serde::de::Error>(self, n: u64) -> Result<Value, E> {
        if n > EXACT {
            return Err(E::custom(format_args!("{n} is too large to be kept exactly: send the JSON as text")));
        }
        Ok(Kind::NumberValue(n as f64).into())
    }

    fn visit_f64<E>(self, n: f64) -> Result<Value, E> {
        Ok(Kind::NumberValue(n).into())
    }

    fn visit_str<E>(self, s: &str) -> Result<Value, E> {
        Ok(Kind::StringValue(s.into()).into())
    }

    fn visit_string<E>(self, s: String) -> Result<Value, E> {
        Ok(Kind::StringValue(s).into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = seq.next_element()? {
            values.push(value);
        }
        Ok(Kind::ListValue(ListValue { values }).into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut fields = Vec::new();
        while let Some((key, value)) = map.next_entry()? {
            fields.push(Member { key, value: Some(value) });
        }
        Ok(Kind::StructValue(Struct { fields }).into())
    }
}

impl<'de> serde::Deserialize<'de> for Value {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

impl<'de> serde::Deserialize<'de> for Struct {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)?.kind {
            Some(Kind::StructValue(s)) => Ok(s),
            _ => Err(D::Error::custom("must be a JSON object")),
        }
    }
}

impl<'de> serde::Deserialize<'de> for ListValue {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)?.kind {
            Some(Kind::ListValue(l)) => Ok(l),
            _ => Err(D::Error::custom("must be a JSON array")),
        }
    }
}
