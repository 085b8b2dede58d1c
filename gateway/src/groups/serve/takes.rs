//! Answers to takes that may not have arrived: what each was given is known until its door must have spoken up.

use std::sync::Arc;
use std::time::Duration;

use moka::ops::compute::Op;
use moka::sync::Cache;

use sluice_types::GroupUid;

use crate::groups::model::LeaseKey;

/// A door notices within seconds that an answer does not come, and says so for some seconds more.
const KEPT: Duration = Duration::from_secs(30);
/// Leases that are known of all takes, and takes. Of what is forgotten sooner, leases run out.
const WEIGHT_MAX: u64 = 200_000;

/// See the module; clones are the same.
#[derive(Clone)]
pub(super) struct Takes(Cache<(GroupUid, String), Given>);

#[derive(Clone)]
enum Given {
    Leases(Arc<[LeaseKey]>),
    /// The door does not wait for the answer any more.
    Unheard,
}

impl Takes {
    pub(super) fn new() -> Self {
        let weight = |_: &(GroupUid, String), given: &Given| match given {
            Given::Leases(leases) => u32::try_from(leases.len()).unwrap_or(u32::MAX).saturating_add(1),
            Given::Unheard => 1,
        };
        Self(Cache::builder().max_capacity(WEIGHT_MAX).weigher(weight).time_to_live(KEPT).build())
    }

    /// This take is answered with these leases now. False: nobody waits for it.
    pub(super) fn answered(&self, group: GroupUid, take_id: &str, leases: &[LeaseKey]) -> bool {
        if take_id.is_empty() || leases.is_empty() {
            return true;
        }
        self.0.entry((group, take_id.to_owned())).or_insert(Given::Leases(leases.into())).is_fresh()
    }

    /// The answer to this take has not arrived, and will not any more: what it was given. Told once: a record that was handed back
    /// is leased to the next one under the same key.
    pub(super) fn unheard(&self, group: GroupUid, take_id: String) -> Vec<LeaseKey> {
        let mut leases = Vec::new();
        self.0.entry((group, take_id)).and_compute_with(|given| {
            if let Some(Given::Leases(given)) = given.map(moka::Entry::into_value) {
                leases = given.to_vec();
            }
            Op::Put(Given::Unheard)
        });
        leases
    }
}

#[cfg(test)]
mod tests {
    use sluice_types::TopicUid;

    use super::*;

    #[test]
    fn what_was_given_is_known_to_who_missed_it_whichever_comes_first() {
        let (takes, group) = (Takes::new(), GroupUid::random());
        let lease = LeaseKey { topic: TopicUid::random(), partition: 0, offset: 7, term: 1, attempt: 1 };
        assert!(takes.answered(group, "first", &[lease]));
        assert_eq!(takes.unheard(GroupUid::random(), "first".into()), [], "another group's");
        assert_eq!(takes.unheard(group, "first".into()), [lease]);
        assert_eq!(takes.unheard(group, "first".into()), [], "told once");
        assert_eq!(takes.unheard(group, "second".into()), []);
        assert!(!takes.answered(group, "second", &[lease]), "nobody waits for it");
        assert!(takes.answered(group, "", &[lease]), "a door that names no calls waits for all");
    }
}
