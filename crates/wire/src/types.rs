//! Small value types shared by several calls.

use std::fmt;
use std::str::FromStr;

/// Kafka's id of a topic. A topic deleted and made again under the same name has another id.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicId(pub [u8; 16]);

impl TopicId {
    /// The id brokers use for "no id".
    pub const ZERO: Self = Self([0; 16]);

    /// True for [`TopicId::ZERO`].
    pub fn is_zero(self) -> bool {
        self == Self::ZERO
    }
}

impl fmt::Display for TopicId {
    /// The hyphenated lower-case UUID text.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = hex::encode(self.0);
        write!(f, "{}-{}-{}-{}-{}", &text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..])
    }
}

impl fmt::Debug for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TopicId({self})")
    }
}

/// The text is not a hyphenated UUID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("topic id is not a UUID")]
pub struct ParseTopicIdError;

impl FromStr for TopicId {
    type Err = ParseTopicIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let hyphens_fit = text.len() == 36 && [8, 13, 18, 23].iter().all(|&at| text.as_bytes()[at] == b'-');
        if !hyphens_fit {
            return Err(ParseTopicIdError);
        }
        let digits: String = text.split('-').collect();
        let mut id = [0; 16];
        hex::decode_to_slice(digits, &mut id).map_err(|_| ParseTopicIdError)?;
        Ok(Self(id))
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
        let id = TopicId(*b"0123456789abcdef");
        assert_eq!(id.to_string().parse::<TopicId>(), Ok(id));
        assert_eq!("x".parse::<TopicId>(), Err(ParseTopicIdError));
        assert_eq!("é2345678-1234-1234-1234-12345678901".parse::<TopicId>(), Err(ParseTopicIdError));
    }
}
