//! The revision: where in `sluice.control` a change stands.
//!
//! Text form `{topic id}-{offset}`, e.g. `3f2b…-1042`. The topic's id is part of it so that clients of a restored log do
//! not wait for an offset of the lost one: another id is not comparable and is ignored.

use std::fmt;
use std::str::FromStr;

/// A position in one life of `sluice.control`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Revision {
    /// Kafka's id of the topic.
    pub topic_id: [u8; 16],
    /// The offset of the last record it includes.
    pub offset: i64,
}

/// A text that is not a revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("parse revision")]
pub struct ParseRevisionError;

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", hex::encode(self.topic_id), self.offset)
    }
}

impl FromStr for Revision {
    type Err = ParseRevisionError;

    fn from_str(text: &str) -> Result<Self, ParseRevisionError> {
        let (id, offset) = text.split_once('-').ok_or(ParseRevisionError)?;
        let mut topic_id = [0; 16];
        hex::decode_to_slice(id, &mut topic_id).map_err(|_| ParseRevisionError)?;
        let offset: i64 = offset.parse().map_err(|_| ParseRevisionError)?;
        if offset < 0 {
            return Err(ParseRevisionError);
        }
        Ok(Self { topic_id, offset })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_comes_back_as_it_was() {
        let revision = Revision { topic_id: [0xab; 16], offset: 42 };
        assert_eq!(revision.to_string().parse(), Ok(revision));
        let id = "ab".repeat(16);
        for wrong in
            ["", "-", "abc-1", "ab-1", &format!("{id}--1"), &format!("{id}-x"), &format!("{}-1", "+1".repeat(16))]
        {
            assert_eq!(wrong.parse::<Revision>(), Err(ParseRevisionError), "{wrong}");
        }
    }
}
