//! Our own client as the producers' second path: whether a producer without progress is to blame, or the cluster.

use std::time::Duration;

use tokio::runtime::Handle;

use sluice_kafka::SecondPath;
use sluice_wire::{Client, Isolation, OffsetAt};

/// Asks brokers through our own client, on the runtime it was made on.
pub struct WirePath {
    wire: Client,
    runtime: Handle,
}

impl WirePath {
    /// Call it on the runtime that it shall use.
    pub fn new(wire: Client) -> Self {
        Self { wire, runtime: Handle::current() }
    }
}

impl SecondPath for WirePath {
    fn serves(&self, partition: Option<(&str, i32)>, within: Duration) -> bool {
        let asked = async {
            match partition {
                // A leader answers; where the partition ends does not matter.
                Some((topic, partition)) => {
                    let isolation = Isolation::ReadUncommitted;
                    self.wire.list_offset(topic, partition, OffsetAt::Latest, isolation, within).await.is_ok()
                }
                None => self.wire.metadata(&[], within).await.is_ok_and(|cluster| !cluster.brokers.is_empty()),
            }
        };
        self.runtime.block_on(asked)
    }
}
