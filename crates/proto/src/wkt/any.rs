//! `google.protobuf.Any`: a message with its type. In JSON the message's own fields plus `@type`.
//!
//! JSON needs to know the type: there is a static list of the messages that we pack. A message of another type is written as
//! `{"@type": …, "value": base64}` (an answer must not fail for it) and refused when read.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use bytes::Bytes;
use prost::{DecodeError, Message, Name};
use serde::de::{DeserializeOwned, Error as _};
use serde::ser::Error as _;
use serde_json::{Map, Value};

use crate::google::rpc;
use crate::wkt::Empty;

/// Any message, packed.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Any {
    /// `type.googleapis.com/{full name}`.
    #[prost(string, tag = "1")]
    pub type_url: String,
    /// The encoded message.
    #[prost(bytes = "bytes", tag = "2")]
    pub value: Bytes,
}

impl Any {
    /// Packs a message.
    pub fn pack<M: Message + Name>(message: &M) -> Self {
        Self { type_url: M::type_url(), value: message.encode_to_vec().into() }
    }

    /// Whether it holds an `M`.
    pub fn is<M: Name>(&self) -> bool {
        self.type_name() == M::full_name()
    }

    /// The message, if it is an `M`; an error if its bytes are not one.
    pub fn unpack<M: Message + Name + Default>(&self) -> Option<Result<M, DecodeError>> {
        self.is::<M>().then(|| M::decode(self.value.clone()))
    }

    /// The full name of the type, e.g. `google.rpc.ErrorInfo`.
    pub fn type_name(&self) -> &str {
        self.type_url.rsplit('/').next().unwrap_or_default()
    }
}

/// How a type that we pack gets to JSON and back.
struct Entry {
    name: fn() -> String,
    /// Its JSON is special: it stands in `value`.
    wrapped: bool,
    to_json: fn(Bytes) -> Result<Value, String>,
    from_json: fn(Value) -> Result<Bytes, String>,
}

const fn entry<M: Message + Name + Default + serde::Serialize + DeserializeOwned>() -> Entry {
    Entry {
        name: M::full_name,
        wrapped: false,
        to_json: |bytes| {
            let message = M::decode(bytes).map_err(|e| e.to_string())?;
            serde_json::to_value(message).map_err(|e| e.to_string())
        },
        from_json: |json| {
            let message: M = serde_json::from_value(json).map_err(|e| e.to_string())?;
            Ok(message.encode_to_vec().into())
        },
    }
}

static TYPES: &[Entry] = &[
    entry::<crate::admin::v1::Topic>(),
    entry::<crate::admin::v1::Namespace>(),
    entry::<crate::admin::v1::OperationMetadata>(),
    entry::<rpc::ErrorInfo>(),
    entry::<rpc::BadRequest>(),
    entry::<rpc::QuotaFailure>(),
    entry::<rpc::PreconditionFailure>(),
    entry::<rpc::RetryInfo>(),
    entry::<rpc::ResourceInfo>(),
    entry::<rpc::RequestInfo>(),
    entry::<rpc::Help>(),
    entry::<rpc::LocalizedMessage>(),
    Entry { wrapped: true, ..entry::<Empty>() },
];

fn find(name: &str) -> Option<&'static Entry> {
    TYPES.iter().find(|e| (e.name)() == name)
}

impl serde::Serialize for Any {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = Map::new();
        object.insert("@type".into(), self.type_url.clone().into());
        match find(self.type_name()) {
            Some(entry) => match (entry.to_json)(self.value.clone()).map_err(S::Error::custom)? {
                Value::Object(fields) if !entry.wrapped => object.extend(fields),
                other => drop(object.insert("value".into(), other)),
            },
            None => drop(object.insert("value".into(), BASE64_STANDARD.encode(&self.value).into())),
        }
        object.serialize(serializer)
    }
}

impl<'de> serde::Deserialize<'de> for Any {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut object = Map::deserialize(deserializer)?;
        let Some(Value::String(type_url)) = object.shift_remove("@type") else {
            return Err(D::Error::custom("needs `@type`, a string"));
        };
        let any = Self { type_url, value: Bytes::new() };
        let entry = find(any.type_name())
            .ok_or_else(|| D::Error::custom(format_args!("unknown `@type` {:?}", any.type_url)))?;
        let json =
            if entry.wrapped { object.shift_remove("value").unwrap_or(Value::Object(object)) } else { object.into() };
        Ok(Self { value: (entry.from_json)(json).map_err(D::Error::custom)?, ..any })
    }
}

impl serde::Serialize for Empty {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serde::ser::SerializeMap::end(serializer.serialize_map(Some(0))?)
    }
}

impl<'de> serde::Deserialize<'de> for Empty {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Map::deserialize(deserializer)?.keys().next() {
            Some(key) => Err(D::Error::custom(format_args!("unknown field `{key}`"))),
            None => Ok(Self {}),
        }
    }
}
