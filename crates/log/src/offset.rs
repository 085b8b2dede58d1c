//! Offsets of two kinds that do not mix.

use std::fmt;

/// The number is no offset: it is negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} is no offset")]
pub struct OffsetError(pub i64);

macro_rules! offsets {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(i64);

        impl $name {
            /// The first one that there can be.
            pub const ZERO: Self = Self(0);

            /// From a number of protobuf or Kafka. Negative numbers, which Kafka uses for "none", are no offsets.
            pub const fn new(value: i64) -> Result<Self, OffsetError> {
                if value < 0 { Err(OffsetError(value)) } else { Ok(Self(value)) }
            }

            /// Its number, 0 or more.
            pub const fn get(self) -> i64 {
                self.0
            }

            /// The offset `count` behind it; `None` if there is none.
            pub const fn checked_add(self, count: i64) -> Option<Self> {
                match self.0.checked_add(count) {
                    Some(value) if value >= 0 => Some(Self(value)),
                    _ => None,
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }
    )*};
}

offsets! {
    /// An offset of a partition as tenants see it, 0 or more. It keeps its meaning wherever its record lies.
    LogicalOffset;
    /// An offset of a partition of one Kafka topic, 0 or more. It means something only together with its log.
    PhysicalOffset;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_negative_number_is_no_offset() {
        assert_eq!(LogicalOffset::new(-1), Err(OffsetError(-1)));
        assert_eq!(PhysicalOffset::new(i64::MIN), Err(OffsetError(i64::MIN)));
        assert_eq!(LogicalOffset::new(0), Ok(LogicalOffset::ZERO));
    }

    #[test]
    fn an_offset_beyond_the_last_does_not_exist() {
        let last = LogicalOffset::new(i64::MAX).expect("an offset");
        assert_eq!(last.checked_add(1), None);
        assert_eq!(LogicalOffset::ZERO.checked_add(-1), None);
        assert_eq!(last.checked_add(-i64::MAX), Some(LogicalOffset::ZERO));
    }
}
