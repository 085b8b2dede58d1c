//! Our own client as the producers' second path: whether a producer without progress is to blame, or the cluster.

use std::time::Duration;

use tokio::runtime::Handle;

use sluice_kafka::SecondPath;
use sluice_wire::{Client, Isolation, OffsetAt, Partition};

/// Asks brokers through our own client, on the runtime it was made on.
pub(super) struct WirePath {
    wire: Client,
    runtime: Handle,
}

impl WirePath {
    /// Call it on the runtime that it shall use.
    pub(super) fn new(wire: Client) -> Self {
        Self { wire, runtime: Handle::current() }
    }
}

impl SecondPath for WirePath {
    fn serves(&self, partition: Option<(&str, i32)>, within: Duration) -> bool {
        let asked = async {
            match partition {
                Some((topic, partition)) => self.takes_writes(topic, partition, within).await,
                None => self.wire.metadata(&[], within).await.is_ok_and(|cluster| !cluster.brokers.is_empty()),
            }
        };
        // One time for all that is asked.
        self.runtime.block_on(async { tokio::time::timeout(within, asked).await.unwrap_or(false) })
    }
}

impl WirePath {
    /// Whether this partition would take a write now. That its leader answers is not enough: one that lacks replicas in sync
    /// answers reads, and refuses every write of every producer.
    async fn takes_writes(&self, topic: &str, partition: i32, within: Duration) -> bool {
        let found = self.wire.metadata(&[topic], within).await.ok();
        let topics = found.iter().flat_map(|cluster| &cluster.topics);
        let is_in_sync = topics
            .filter(|found| found.name == topic)
            .any(|topic| topic.partitions.get(&partition).is_some_and(in_sync));
        // A leader answers; where the partition ends does not matter.
        let isolation = Isolation::ReadUncommitted;
        is_in_sync && self.wire.list_offset(topic, partition, OffsetAt::Latest, isolation, within).await.is_ok()
    }
}

/// As many replicas as Kafka wants in sync for a write, or as there are.
const IN_SYNC_MIN: usize = 2;

/// A leader, and enough replicas in sync. A topic that wants more than [`IN_SYNC_MIN`] is not known here.
fn in_sync(partition: &Partition) -> bool {
    partition.leader.is_some() && partition.isr.len() >= partition.replicas.len().min(IN_SYNC_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_that_lacks_replicas_in_sync_takes_no_writes() {
        let with = |leader, replicas: &[i32], isr: &[i32]| {
            let (replicas, isr) = (replicas.to_vec(), isr.to_vec());
            in_sync(&Partition { id: 0, error: None, leader, leader_epoch: 1, replicas, isr })
        };
        assert!(with(Some(1), &[1, 2, 3], &[1, 2, 3]));
        assert!(with(Some(1), &[1, 2, 3], &[1, 3]));
        assert!(!with(Some(1), &[1, 2, 3], &[1]), "reads are answered, writes are refused");
        assert!(with(Some(1), &[1], &[1]), "a topic of one replica");
        assert!(!with(None, &[1], &[1]));
    }
}
