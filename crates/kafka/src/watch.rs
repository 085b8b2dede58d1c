//! The watch thread of a sink: it notices a producer that is of no use although it did not fail.
//!
//! librdkafka takes an answer that names topics and no broker for the truth, forgets every broker, and has nobody left to ask
//! (confluentinc/librdkafka#5301): a cluster of one broker that was fenced while it stood still gives such an answer, and so may
//! one that is upgraded. Nothing but another client can tell such a producer from one whose cluster is away, so there is a
//! [`SecondPath`]. While that shows that the cluster serves, a producer without progress is first told the brokers again, which
//! loses nothing; if that does not help it is replaced, and what was outstanding is answered by what is known of it.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use crate::control::Job;
use crate::shared::Shared;

const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Time for the second path's answer.
const ASK_WITHIN: Duration = Duration::from_secs(1);
/// A producer that no broker answers for so long is suspicious. It connects again within 500 ms.
const SILENT_AFTER: Duration = Duration::from_secs(1);
/// A partition without a report for so long makes its producer suspicious. Brokers may let a producer wait for 11 s because of
/// a quota, and for 9 s before a follower that is gone no longer counts.
const STUCK_AFTER: Duration = Duration::from_secs(12);
/// Looks in a row that found a suspicious producer and a cluster that serves, until it is told the brokers again, until that has
/// not helped and it is said to be of no use, and until it is replaced.
const REMIND_AT: u32 = 1;
const BLAME_AT: u32 = 4;
const REPLACE_AT: u32 = 10;

/// Another client of the cluster.
pub trait SecondPath: Send + Sync + 'static {
    /// Whether this partition would take a write, or the cluster answers at all if none is named. May block for at most `within`.
    /// A partition whose leader only answers does not show that a producer is to blame: it may lack replicas in sync.
    fn serves(&self, partition: Option<(&str, i32)>, within: Duration) -> bool;
}

impl<F: Fn(Option<(&str, i32)>, Duration) -> bool + Send + Sync + 'static> SecondPath for F {
    fn serves(&self, partition: Option<(&str, i32)>, within: Duration) -> bool {
        self(partition, within)
    }
}

/// Runs until the sink ends, and drops the other end.
pub(crate) fn watch(shared: &Arc<Shared>, second: &dyn SecondPath, ended: &Receiver<Infallible>) {
    let mut found = vec![0; shared.instances().len()];
    while ended.recv_timeout(LOOK_EVERY) == Err(RecvTimeoutError::Timeout) {
        for (producer, found) in found.iter_mut().enumerate() {
            look(shared, second, producer, found);
        }
        shared.set_useless(found.iter().any(|found| *found >= BLAME_AT));
    }
}

fn look(shared: &Arc<Shared>, second: &dyn SecondPath, producer: usize, found: &mut u32) {
    let Some(instance) = shared.instance(producer) else { return };
    let stuck = shared.stuck_lane(producer, STUCK_AFTER);
    let partition = stuck.as_ref().map(|lane| (&*lane.topic, lane.partition));
    let suspicious = partition.is_some() || instance.is_silent_for(SILENT_AFTER);
    if !suspicious || !second.serves(partition, ASK_WITHIN) {
        *found = 0;
        return;
    }
    *found += 1;
    if *found == REMIND_AT {
        tracing::warn!(
            producer,
            "a producer makes no progress although the cluster serves; it is told the brokers again"
        );
        instance.remind();
    } else if found.is_multiple_of(REPLACE_AT) {
        tracing::error!(producer, "a producer makes no progress although the cluster serves; it is replaced");
        instance.give_up();
        let _ = shared.send(Job::Look);
    }
}
