//! Physical topics with names of ours that no intent names.
//!
//! There should be none: an intent stays until its topic is gone. One can come of a create that reached Kafka long after
//! its process died. It counts as an orphan only when two full resyncs in a row saw it, because the world and the intents
//! are not read at the same instant.

use std::collections::{BTreeMap, HashSet};

use sluice_types::physical::PhysicalTopic;
use sluice_wire::KafkaTopicId;

/// What the last resync saw.
#[derive(Debug, Default)]
pub struct Orphans {
    suspects: BTreeMap<PhysicalTopic, KafkaTopicId>,
}

impl Orphans {
    /// Takes what stands in Kafka, read first, and what is intended, read after it. Returns the orphans seen twice.
    pub fn judge(
        &mut self,
        physical: impl IntoIterator<Item = (PhysicalTopic, KafkaTopicId)>,
        intended: &HashSet<PhysicalTopic>,
    ) -> Vec<(PhysicalTopic, KafkaTopicId)> {
        let now: BTreeMap<PhysicalTopic, KafkaTopicId> =
            physical.into_iter().filter(|(name, _)| !intended.contains(name)).collect();
        let before = std::mem::replace(&mut self.suspects, now);
        let twice = self.suspects.iter().filter(|(name, id)| before.get(*name) == Some(*id));
        twice.map(|(name, id)| (name.clone(), *id)).collect()
    }
}

#[cfg(test)]
mod tests {
    use sluice_types::{NamespaceUid, TopicUid};

    use super::*;

    #[test]
    fn an_orphan_is_believed_when_seen_twice_in_a_row() {
        let name = PhysicalTopic::new(NamespaceUid::from_i64(1), TopicUid::from_i64(2));
        let seen = || vec![(name.clone(), KafkaTopicId([1; 16]))];
        let none = HashSet::new();
        let mut orphans = Orphans::default();
        assert!(orphans.judge(seen(), &none).is_empty());
        assert!(orphans.judge(seen(), &HashSet::from([name.clone()])).is_empty());
        assert!(orphans.judge(seen(), &none).is_empty());
        assert_eq!(orphans.judge(seen(), &none), seen());
        assert!(orphans.judge(vec![(name.clone(), KafkaTopicId([9; 16]))], &none).is_empty());
    }
}
