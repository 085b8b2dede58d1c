//! Unique ids: 64 random bits, written as 13 lower-case base32 characters, never reused.
//!
//! The alphabet is RFC 4648's in lower case (`a-z2-7`). 64 bits need 12.8 characters, so the first one carries only four
//! bits and is one of `a..=p`; anything else does not parse, which keeps text and number one to one.

use std::fmt;
use std::str::FromStr;

/// Characters of a uid's text.
pub const UID_TEXT_LEN: usize = 13;
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// A unique 64-bit number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uid(u64);

/// A text that is not 13 base32 characters of a 64-bit number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("parse uid")]
pub struct ParseUidError;

impl Uid {
    /// A new one from the operating system's random numbers.
    pub fn random() -> Self {
        let mut bytes = [0u8; 8];
        getrandom::fill(&mut bytes).expect("the operating system always has random numbers");
        Self(u64::from_be_bytes(bytes))
    }

    /// From its number, as stored in SQL.
    pub const fn from_u64(value: u64) -> Self {
        Self(value)
    }

    /// Its number.
    pub const fn as_u64(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0u8; UID_TEXT_LEN];
        let mut rest = self.0;
        for slot in text.iter_mut().rev() {
            *slot = ALPHABET[(rest & 31) as usize];
            rest >>= 5;
        }
        f.write_str(std::str::from_utf8(&text).expect("the alphabet is ASCII"))
    }
}

impl fmt::Debug for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Uid {
    type Err = ParseUidError;

    fn from_str(text: &str) -> Result<Self, ParseUidError> {
        if text.len() != UID_TEXT_LEN {
            return Err(ParseUidError);
        }
        let mut value: u128 = 0;
        for byte in text.bytes() {
            let digit = match byte {
                b'a'..=b'z' => byte - b'a',
                b'2'..=b'7' => byte - b'2' + 26,
                _ => return Err(ParseUidError),
            };
            value = value << 5 | u128::from(digit);
        }
        u64::try_from(value).map(Self).map_err(|_| ParseUidError)
    }
}

macro_rules! typed_uid {
    ($(#[$doc:meta] $name:ident;)*) => {$(
        #[$doc]
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Uid);

        impl $name {
            /// A new, random one.
            pub fn random() -> Self {
                Self(Uid::random())
            }

            /// From a plain uid, at the edges (SQL, protobuf).
            pub const fn from_uid(uid: Uid) -> Self {
                Self(uid)
            }

            /// From the signed number in which PostgreSQL keeps the same 64 bits.
            pub const fn from_i64(value: i64) -> Self {
                Self(Uid::from_u64(value as u64))
            }

            /// The plain uid.
            pub const fn uid(self) -> Uid {
                self.0
            }

            /// The same 64 bits as PostgreSQL keeps them.
            pub const fn as_i64(self) -> i64 {
                self.0.as_u64() as i64
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl FromStr for $name {
            type Err = ParseUidError;

            fn from_str(text: &str) -> Result<Self, ParseUidError> {
                text.parse().map(Self)
            }
        }
    )*};
}

typed_uid! {
    /// Uid of a tenant.
    TenantUid;
    /// Uid of a namespace.
    NamespaceUid;
    /// Uid of one life of a topic.
    TopicUid;
    /// Uid of a service account.
    AccountUid;
    /// Uid of an API key: the key id in its text.
    KeyUid;
    /// Uid of an operation.
    OperationUid;
    /// Uid of one life of a consumer group.
    GroupUid;
    /// Uid of a Kafka cluster.
    ClusterUid;
    /// Uid of one log of a topic: the second part of a physical topic's name. A move to another cluster begins another log.
    LogUid;
}

impl ClusterUid {
    /// The installation's own cluster, which every installation has. Topics whose record names no cluster are on it.
    pub const FIRST: Self = Self(Uid::from_u64(0));
}

impl LogUid {
    /// The log that a topic begins with: the only one of a topic that never moved.
    pub const fn first_of(topic: TopicUid) -> Self {
        Self(topic.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_number_are_one_to_one() {
        for value in [0, 1, 31, 32, u64::MAX, 0x0123_4567_89ab_cdef] {
            let uid = Uid::from_u64(value);
            assert_eq!(uid.to_string().len(), UID_TEXT_LEN);
            assert_eq!(uid.to_string().parse(), Ok(uid));
        }
        assert_eq!(Uid::from_u64(u64::MAX).to_string(), "p777777777777");
        for wrong in ["", "q777777777777", "P777777777777", "aaaaaaaaaaaaa1", "aaaaaaaaaaaa1"] {
            assert_eq!(wrong.parse::<Uid>(), Err(ParseUidError));
        }
    }
}
