//! How the internal topics are laid out and set.
//!
//! Only what something relies on is here; an operator may set the rest, and more than the least of what is a minimum.

use sluice_types::physical::{CONTROL_TOPIC, MEMBERS_TOPIC};

use crate::setting::Setting;

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;

/// The layout of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layout {
    /// Partitions it is made with.
    pub(super) partitions: u8,
    /// Another number would break its readers.
    pub(super) partitions_fixed: bool,
    pub(super) settings: Vec<Setting>,
}

/// How this topic must be, with so many replicas.
pub(super) fn layout(name: &str, replication: usize) -> Layout {
    let exactly = |key, value: &str| Setting::exactly(key, value);
    let (least, most) = (Setting::at_least, Setting::at_most);
    // An acknowledged record must outlive a broker.
    let in_sync = least("min.insync.replicas", if replication >= 3 { 2 } else { 1 });
    match name {
        CONTROL_TOPIC => Layout {
            partitions: 1,
            partitions_fixed: true,
            settings: vec![
                exactly("cleanup.policy", "compact"),
                exactly("message.timestamp.type", "LogAppendTime"),
                least("delete.retention.ms", 7 * DAY_MS),
                least("min.compaction.lag.ms", HOUR_MS),
                // What is not in a closed segment is never compacted, and a start reads it all.
                most("segment.ms", 6 * HOUR_MS),
                in_sync,
            ],
        },
        MEMBERS_TOPIC => Layout {
            partitions: 1,
            partitions_fixed: true,
            settings: vec![
                exactly("cleanup.policy", "compact,delete"),
                exactly("message.timestamp.type", "LogAppendTime"),
                least("retention.ms", HOUR_MS),
                most("segment.ms", HOUR_MS / 6),
                in_sync,
            ],
        },
        _ => Layout {
            partitions: 4,
            partitions_fixed: false,
            settings: vec![
                exactly("cleanup.policy", "delete"),
                // Usage is of the hour in which it was appended, by the log's clock.
                exactly("message.timestamp.type", "LogAppendTime"),
                least("retention.ms", 30 * DAY_MS),
                in_sync,
            ],
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setting(name: &str, key: &str) -> Setting {
        layout(name, 3).settings.into_iter().find(|setting| setting.key == key).expect("a setting")
    }

    #[test]
    fn more_than_the_least_is_an_operators_choice_and_less_is_not() {
        let retention = setting("sluice.usage", "retention.ms");
        assert!(retention.is_met(Some("-1"), true), "kept for ever");
        assert!(retention.is_met(Some("9999999999"), true));
        assert!(!retention.is_met(Some("604800000"), false), "the broker's default");
        let segment = setting(CONTROL_TOPIC, "segment.ms");
        assert!(!segment.is_met(Some("604800000"), false));
        assert!(!segment.is_met(Some("1000"), false), "a broker's default may change");
        assert!(segment.is_met(Some("1000"), true));
        let policy = setting(MEMBERS_TOPIC, "cleanup.policy");
        assert!(policy.is_met(Some("delete,compact"), true));
        assert!(!policy.is_met(Some("compact"), true));
        assert!(!policy.is_met(None, false));
    }
}
