//! The next step for one topic, from the intent and the world alone. No step needs the memory of a step before it.
//!
//! Whose a physical topic is, is decided by its Kafka id. Without a recorded id it is ours only if a create was announced
//! before and nothing was ever written to it; everything else is somebody else's and is never touched. A topic that we made
//! and that is gone stays gone: made again under the same uid its offsets would start at 0, readers would skip records
//! and usage would count two lives as one. It is reported as lost; whoever wants it back deletes and creates it, which
//! gives a new uid.

use std::collections::BTreeMap;

use sluice_wire::{ConfigChange, KafkaTopicId};

use super::intent::{Intent, Want};

/// What all brokers together say of a physical topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum World {
    /// No broker knows it.
    Absent,
    /// Some broker knows it.
    Present(Physical),
}

/// A physical topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Physical {
    /// Kafka's id of it.
    pub topic_id: KafkaTopicId,
    /// Partitions, as the broker that knows most says.
    pub partitions: i32,
    /// Every live broker knows every partition with a leader.
    pub served: bool,
}

/// Whose a physical topic is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ownership {
    /// Its id is the recorded one.
    Ours,
    /// Ours if nothing was ever written to it.
    OursIfEmpty,
    /// Somebody else's.
    Foreign,
}

/// What to do next. Each is harmless to repeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Announce that it will be made.
    RecordAttempt,
    /// Make it.
    Create,
    /// Raise its partitions to this number.
    Extend(i32),
    /// Change these configs.
    Alter(BTreeMap<String, ConfigChange>),
    /// Wait until every broker serves it.
    AwaitServed,
    /// Report that it is as wanted.
    ReportReady,
    /// Report that it was lost.
    ReportLost,
    /// Report that somebody else's topic is there.
    ReportForeign,
    /// Store its end offsets, then delete it.
    Delete(KafkaTopicId),
    /// Report that it is gone.
    ReportGone,
}

/// Whose the topic that stands there is.
pub fn ownership(intent: &Intent, found: KafkaTopicId) -> Ownership {
    match intent.kafka_topic_id {
        Some(recorded) if recorded == found => Ownership::Ours,
        Some(_) => Ownership::Foreign,
        None if intent.create_attempted => Ownership::OursIfEmpty,
        None => Ownership::Foreign,
    }
}

/// What to do when no broker knows the topic.
pub fn step_absent(intent: &Intent) -> Step {
    match intent.want {
        Want::Absent => Step::ReportGone,
        Want::Present if intent.kafka_topic_id.is_some() => Step::ReportLost,
        Want::Present if intent.create_attempted => Step::Create,
        Want::Present => Step::RecordAttempt,
    }
}

/// What to do with a topic that is ours, given what its configs lack.
pub fn step_ours(intent: &Intent, physical: &Physical, config_changes: BTreeMap<String, ConfigChange>) -> Step {
    if intent.want == Want::Absent {
        return Step::Delete(physical.topic_id);
    }
    if physical.partitions < intent.partitions {
        return Step::Extend(intent.partitions);
    }
    if !config_changes.is_empty() {
        return Step::Alter(config_changes);
    }
    if physical.served { Step::ReportReady } else { Step::AwaitServed }
}

#[cfg(test)]
mod tests {
    use sluice_types::{ClusterUid, LogUid, NamespaceUid, TenantUid, TopicUid};

    use super::*;

    const ID: KafkaTopicId = KafkaTopicId([1; 16]);
    const OTHER: KafkaTopicId = KafkaTopicId([2; 16]);

    fn intent(want: Want) -> Intent {
        Intent {
            tenant: TenantUid::from_i64(1),
            namespace: NamespaceUid::from_i64(1),
            topic: TopicUid::from_i64(2),
            cluster: ClusterUid::FIRST,
            log: LogUid::first_of(TopicUid::from_i64(2)),
            generation: 1,
            want,
            partitions: 3,
            configs: BTreeMap::new(),
            create_attempted: false,
            kafka_topic_id: None,
            observed_generation: 0,
            final_end_offsets: vec![],
        }
    }

    fn physical(partitions: i32, served: bool) -> Physical {
        Physical { topic_id: ID, partitions, served }
    }

    #[test]
    fn a_create_is_announced_before_it_is_done() {
        assert_eq!(step_absent(&intent(Want::Present)), Step::RecordAttempt);
        let announced = Intent { create_attempted: true, ..intent(Want::Present) };
        assert_eq!(step_absent(&announced), Step::Create);
    }

    #[test]
    fn a_topic_that_vanished_is_never_made_again() {
        let made = Intent { create_attempted: true, kafka_topic_id: Some(ID), ..intent(Want::Present) };
        assert_eq!(step_absent(&made), Step::ReportLost);
        assert_eq!(step_absent(&Intent { want: Want::Absent, ..made }), Step::ReportGone);
    }

    #[test]
    fn only_an_announced_or_recorded_topic_is_ours() {
        let announced = Intent { create_attempted: true, ..intent(Want::Present) };
        let recorded = Intent { kafka_topic_id: Some(ID), ..announced.clone() };
        assert_eq!(ownership(&intent(Want::Present), ID), Ownership::Foreign);
        assert_eq!(ownership(&announced, ID), Ownership::OursIfEmpty);
        assert_eq!(ownership(&recorded, ID), Ownership::Ours);
        assert_eq!(ownership(&recorded, OTHER), Ownership::Foreign);
    }

    #[test]
    fn ready_is_said_last() {
        let want = intent(Want::Present);
        let change = BTreeMap::from([("retention.ms".to_owned(), ConfigChange::Unset)]);
        assert_eq!(step_ours(&want, &physical(2, true), change.clone()), Step::Extend(3));
        assert_eq!(step_ours(&want, &physical(3, true), change.clone()), Step::Alter(change));
        assert_eq!(step_ours(&want, &physical(3, false), BTreeMap::new()), Step::AwaitServed);
        assert_eq!(step_ours(&want, &physical(3, true), BTreeMap::new()), Step::ReportReady);
        // More than wanted cannot be taken back.
        assert_eq!(step_ours(&want, &physical(5, true), BTreeMap::new()), Step::ReportReady);
        assert_eq!(step_ours(&intent(Want::Absent), &physical(3, false), BTreeMap::new()), Step::Delete(ID));
    }
}
