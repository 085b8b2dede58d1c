//! The brokers' settings that we rely on. `docs/reference/kafka-settings.md` lists them for people; a test keeps both the same.
//!
//! They belong to everybody on the cluster, and most need a restart: they are told, never set. The local stack writes them into
//! the configuration of its own brokers.

use std::collections::BTreeMap;

use sluice_wire::ConfigEntry;

use super::Difference;
use crate::difference::{Remedy, State};
use crate::setting::Setting;

/// Records of 1 MiB and batches of 4 MiB are the product's limits; envelope and headers come on top.
const BATCH_BYTES_MAX: i64 = 4 * 1024 * 1024;
/// What the local stack sets: with room above the batch.
const MESSAGE_BYTES: i64 = 2 * BATCH_BYTES_MAX;

/// All of them.
pub fn settings() -> Vec<Setting> {
    vec![
        Setting::exactly("auto.create.topics.enable", false),
        Setting::at_least("message.max.bytes", BATCH_BYTES_MAX + 1).set_to(MESSAGE_BYTES),
        Setting::at_least("replica.fetch.max.bytes", BATCH_BYTES_MAX + 1).set_to(MESSAGE_BYTES),
        // A heartbeat is answered once what the coordinator wrote before it is replicated, and until then nothing else on
        // its connection is looked at: while a dead broker still counts as in sync, no session goes on. A session must
        // outlast that. Nobody waits for one to end: who takes a group over makes the others leave.
        Setting::at_most("group.consumer.min.session.timeout.ms", 6_000),
        Setting::at_least("group.consumer.session.timeout.ms", 20_000),
        Setting::at_most("group.consumer.min.heartbeat.interval.ms", 1_000),
        // A dispatcher delivers only if Kafka has confirmed it in the last 5 s.
        Setting::at_most("group.consumer.heartbeat.interval.ms", 4_000).set_to(2_000),
        // A group has one member, and for a moment its successors and those that died.
        Setting::at_least("group.consumer.max.size", 64),
        // By default a group gets a new assignment once a second at most, made aside and told with a later heartbeat.
        // Ours have one member, which waits for it.
        Setting::exactly("group.consumer.assignment.interval.ms", 0),
        Setting::exactly("group.consumer.assignor.offload.enable", false),
        // Incremental fetch sessions of a broker: one for each reading lane of each gateway and service, and one for each
        // fetching follower. When all are taken, readers fall back to naming every partition in every poll.
        Setting::at_least("max.incremental.fetch.session.cache.slots", 2_000),
    ]
}

/// What differs on one broker. A setting that this version of Kafka does not have, or does not tell, is no difference.
pub(super) fn plan(broker: i32, found: &BTreeMap<String, ConfigEntry>) -> Vec<Difference> {
    let wrong = settings().into_iter().filter_map(|setting| {
        let value = found.get(setting.key)?.value.as_deref()?;
        (!setting.is_met(Some(value), true)).then(|| Difference {
            kind: "broker",
            name: broker.to_string(),
            item: setting.key.to_owned(),
            state: State::Differs,
            is: Some(value.to_owned()),
            must: setting.wanted(),
            remedy: Remedy::Person(format!(
                "write {}={} into the broker's configuration and restart it",
                setting.key, setting.value
            )),
        })
    });
    wrong.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCS: &str = include_str!("../../../../docs/reference/kafka-settings.md");

    fn found(change: Option<(&str, &str)>) -> BTreeMap<String, ConfigEntry> {
        let entry = |value: String| ConfigEntry { value: Some(value), is_set: false };
        let mut all: BTreeMap<_, _> = settings().into_iter().map(|s| (s.key.to_owned(), entry(s.value))).collect();
        if let Some((key, value)) = change {
            all.insert(key.to_owned(), entry(value.to_owned()));
        }
        all
    }

    #[test]
    fn a_broker_that_is_set_as_we_set_ours_has_no_difference() {
        assert_eq!(plan(1, &found(None)), []);
    }

    #[test]
    fn a_wrong_setting_of_a_broker_is_told_and_not_mended() {
        let differences = plan(2, &found(Some(("message.max.bytes", "1048588"))));
        let [difference] = differences.as_slice() else { panic!("{differences:?}") };
        assert_eq!((difference.name.as_str(), difference.item.as_str()), ("2", "message.max.bytes"));
        assert_eq!(difference.action(), None);
    }

    #[test]
    fn a_setting_that_an_older_kafka_does_not_have_is_no_difference() {
        let mut older = found(None);
        older.remove("group.consumer.assignment.interval.ms");
        assert_eq!(plan(1, &older), []);
    }

    #[test]
    fn a_value_that_kafka_does_not_tell_is_no_difference() {
        let mut hidden = found(None);
        let entry = ConfigEntry { value: None, is_set: false };
        hidden.insert("group.consumer.assignor.offload.enable".to_owned(), entry);
        assert_eq!(plan(1, &hidden), []);
    }

    #[test]
    fn the_documentation_lists_each_setting_with_what_will_do() {
        for setting in settings() {
            let row = DOCS.lines().find(|line| line.starts_with("| `") && line.contains(&format!("`{}`", setting.key)));
            let row = row.unwrap_or_else(|| panic!("docs/reference/kafka-settings.md has no row for {}", setting.key));
            assert!(
                row.contains(&format!("| {} |", setting.wanted())),
                "{} must be {}: {row}",
                setting.key,
                setting.wanted()
            );
        }
    }
}
