//! Small value types shared by several calls.

use std::fmt;
use std::str::FromStr;

/// Kafka's id of a topic. A topic deleted and made again under the same name has another id.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KafkaTopicId(pub [u8; 16]);

impl KafkaTopicId {
    /// The id brokers use for "no id".
    pub const ZERO: Self = Self([0; 16]);

    /// True for [`KafkaTopicId::ZERO`].
    pub fn is_zero(self) -> bool {
        self == Self::ZERO
    }
}

impl fmt::Display for KafkaTopicId {
    /// The hyphenated lower-case UUID text.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        uuid::Uuid::from_bytes(self.0).hyphenated().fmt(f)
    }
}

impl fmt::Debug for KafkaTopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KafkaTopicId({self})")
    }
}

/// The text is not a hyphenated UUID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("topic id is not a UUID")]
pub struct ParseKafkaTopicIdError;

impl FromStr for KafkaTopicId {
    type Err = ParseKafkaTopicIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // The library also reads three other forms, of other lengths.
        let hyphenated = (text.len() == uuid::fmt::Hyphenated::LENGTH).then_some(text).ok_or(ParseKafkaTopicIdError)?;
        let id = uuid::Uuid::try_parse(hyphenated).map_err(|_| ParseKafkaTopicIdError)?;
        Ok(Self(id.into_bytes()))
    }
}

/// Which records a read may see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Isolation {
    /// Everything below the high watermark, also of open and aborted transactions.
    ReadUncommitted,
    /// Only what is below the last stable offset; aborted transactions are filtered at decoding.
    #[default]
    ReadCommitted,
}

impl Isolation {
    pub(crate) fn wire(self) -> i8 {
        match self {
            Self::ReadUncommitted => 0,
            Self::ReadCommitted => 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topic_id_text_round_trips_and_refuses_other_text() {
        let id = KafkaTopicId(*b"0123456789abcdef");
        assert_eq!(id.to_string().parse::<KafkaTopicId>(), Ok(id));
        assert_eq!(id.to_string(), "30313233-3435-3637-3839-616263646566");
        let plain = "30313233343536373839616263646566";
        for wrong in
            ["x", plain, &format!("{{{id}}}"), &format!("urn:uuid:{id}"), "é2345678-1234-1234-1234-12345678901"]
        {
            assert_eq!(wrong.parse::<KafkaTopicId>(), Err(ParseKafkaTopicIdError), "{wrong}");
        }
    }
}
