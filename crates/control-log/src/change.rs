//! One record of the log, decoded.

use bytes::Bytes;
use prost::Message as _;
use sluice_proto::internal::control::v1::ControlRecord;
use sluice_wire::Record;

/// What a reader takes of a resource's state.
pub trait Carried: Sized {
    /// Takes it of a value as it stands in the log. `record` is the same decoded; `None` if this build cannot decode it.
    /// `None`: the reader has no use for it, and the record is passed over.
    fn read(value: &Bytes, record: Option<ControlRecord>) -> Option<Self>;

    /// What is kept of it while a log is read anew: all, unless a part can be made again from the rest.
    #[must_use]
    fn for_later(self) -> Self {
        self
    }
}

/// One record of a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change<T> {
    /// The resource: the record's key.
    pub uid: String,
    /// Where it stands.
    pub offset: i64,
    /// The version of the state; `None` of a tombstone and of what this build cannot decode.
    pub version: Option<i64>,
    /// The state; `None` is a tombstone: nothing is known of the resource any more.
    pub now: Option<T>,
}

impl<T: Carried> Change<T> {
    /// Of the value under this key; `None` if the reader has no use for it.
    pub fn of(uid: &str, offset: i64, value: Option<&Bytes>) -> Option<Self> {
        let uid = uid.to_owned();
        let Some(value) = value else { return Some(Self { uid, offset, version: None, now: None }) };
        let record = decode(value);
        let version = record.as_ref().map(|record| record.version);
        T::read(value, record).map(|now| Self { uid, offset, version, now: Some(now) })
    }
}

/// The key of a record; one without text as its key is none of ours.
pub(crate) fn key(record: &Record) -> Option<&str> {
    record.key.as_deref().and_then(|key| std::str::from_utf8(key).ok())
}

pub(crate) fn decode(value: &Bytes) -> Option<ControlRecord> {
    ControlRecord::decode(value.clone()).ok()
}
