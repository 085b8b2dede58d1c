//! Which Kafka configs a topic may have, with the floors that billing needs, and how to get there.
//!
//! A config that is not on the list is refused, never passed on: the list is what keeps a tenant's request from reaching
//! settings that touch others. Records must outlive the hour that bills them, hence the floors: retention and compaction
//! lag of 3 h at least.

use std::collections::BTreeMap;

use sluice_wire::{ConfigChange, ConfigEntry};

/// Configs that an intent may set; all others stay at the cluster's default.
pub const ALLOWED: [&str; 10] = [
    CLEANUP_POLICY,
    "compression.type",
    "delete.retention.ms",
    "max.message.bytes",
    "message.timestamp.after.max.ms",
    "message.timestamp.type",
    MIN_COMPACTION_LAG_MS,
    "retention.bytes",
    RETENTION_MS,
    "segment.ms",
];
/// Shortest retention and compaction lag: a seal of the hour comes first.
pub const BILLING_FLOOR_MS: i64 = 3 * 3_600_000;

const CLEANUP_POLICY: &str = "cleanup.policy";
const MIN_COMPACTION_LAG_MS: &str = "min.compaction.lag.ms";
const RETENTION_MS: &str = "retention.ms";

/// A config that cannot be set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Not on the list.
    #[error("config {0} is not allowed")]
    NotAllowed(String),
    /// Not a number of milliseconds.
    #[error("config {0} is not a number")]
    NotANumber(&'static str),
}

/// The configs to set on the topic: those wanted, with the floors applied.
pub fn effective(wanted: &BTreeMap<String, String>) -> Result<BTreeMap<String, String>, ConfigError> {
    if let Some(name) = wanted.keys().find(|name| !ALLOWED.contains(&name.as_str())) {
        return Err(ConfigError::NotAllowed(name.clone()));
    }
    let mut configs = wanted.clone();
    if let Some(retention) = number(wanted, RETENTION_MS)?
        && (0..BILLING_FLOOR_MS).contains(&retention)
    {
        configs.insert(RETENTION_MS.into(), BILLING_FLOOR_MS.to_string());
    }
    let lag = number(wanted, MIN_COMPACTION_LAG_MS)?;
    let compacts = wanted.get(CLEANUP_POLICY).is_some_and(|policy| policy.contains("compact"));
    if compacts && lag.is_none_or(|lag| lag < BILLING_FLOOR_MS) {
        configs.insert(MIN_COMPACTION_LAG_MS.into(), BILLING_FLOOR_MS.to_string());
    }
    Ok(configs)
}

/// What to change so that what is set on the topic becomes what is wanted.
pub fn changes(
    wanted: &BTreeMap<String, String>,
    actual: &BTreeMap<String, ConfigEntry>,
) -> BTreeMap<String, ConfigChange> {
    let change = |name: &&str| {
        let set = actual.get(*name).filter(|entry| entry.is_set);
        match (wanted.get(*name), set) {
            (Some(want), Some(entry)) if entry.value.as_deref() == Some(want.as_str()) => None,
            (Some(want), _) => Some(((*name).to_owned(), ConfigChange::Set(want.clone()))),
            (None, Some(_)) => Some(((*name).to_owned(), ConfigChange::Unset)),
            (None, None) => None,
        }
    };
    ALLOWED.iter().filter_map(change).collect()
}

fn number(configs: &BTreeMap<String, String>, name: &'static str) -> Result<Option<i64>, ConfigError> {
    configs.get(name).map(|text| text.parse().map_err(|_| ConfigError::NotANumber(name))).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
    }

    #[test]
    fn short_retention_is_raised_and_endless_retention_stays() {
        assert_eq!(effective(&map(&[("retention.ms", "1000")])), Ok(map(&[("retention.ms", "10800000")])));
        assert_eq!(effective(&map(&[("retention.ms", "-1")])), Ok(map(&[("retention.ms", "-1")])));
        assert_eq!(effective(&map(&[("retention.ms", "86400000")])), Ok(map(&[("retention.ms", "86400000")])));
    }

    #[test]
    fn compaction_always_waits_for_the_bill() {
        let configs = effective(&map(&[("cleanup.policy", "compact")])).expect("allowed");
        assert_eq!(configs["min.compaction.lag.ms"], "10800000");
    }

    #[test]
    fn what_is_not_listed_is_refused() {
        let refused = effective(&map(&[("follower.replication.throttled.replicas", "*")]));
        assert!(matches!(refused, Err(ConfigError::NotAllowed(_))));
        assert_eq!(effective(&map(&[("retention.ms", "soon")])), Err(ConfigError::NotANumber("retention.ms")));
    }

    #[test]
    fn only_differences_are_changed_and_only_on_the_list() {
        let entry = |value: &str, is_set| ConfigEntry { value: Some(value.into()), is_set };
        let actual = BTreeMap::from([
            ("retention.ms".to_owned(), entry("5", true)),
            ("cleanup.policy".to_owned(), entry("compact", true)),
            ("compression.type".to_owned(), entry("producer", false)),
            ("unclean.leader.election.enable".to_owned(), entry("true", true)),
        ]);
        let wanted = map(&[("retention.ms", "6")]);
        let expected = BTreeMap::from([
            ("retention.ms".to_owned(), ConfigChange::Set("6".into())),
            ("cleanup.policy".to_owned(), ConfigChange::Unset),
        ]);
        assert_eq!(changes(&wanted, &actual), expected);
        assert_eq!(changes(&map(&[("retention.ms", "5"), ("cleanup.policy", "compact")]), &actual), BTreeMap::new());
    }
}
