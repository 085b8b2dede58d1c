//! Appends windows to `sluice.usage`, each until Kafka has it.

use std::time::Duration;

use bytes::Bytes;

use sluice_types::physical::USAGE_TOPIC;
use sluice_wire::{Client, OutRecord};

/// Bound of one try.
const TRY_WITHIN: Duration = Duration::from_secs(5);
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// The way to the usage log.
pub(crate) struct Publisher {
    wire: Client,
}

impl Publisher {
    pub(crate) fn new(wire: Client) -> Self {
        Self { wire }
    }

    /// Returns when the window is in the log. It may be there twice: a try whose outcome is unknown is repeated.
    pub(crate) async fn publish(&self, source: &str, window: Bytes) {
        let mut pause = PAUSE_MIN;
        while let Err(error) = self.append(source, window.clone()).await {
            tracing::debug!(%error, "publish a usage window");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    async fn append(&self, source: &str, window: Bytes) -> sluice_wire::Result<()> {
        let topic = self.wire.topic(USAGE_TOPIC, TRY_WITHIN).await?;
        let partition = partition_of(source, topic.partitions.len());
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let record = OutRecord {
            key: Some(Bytes::copy_from_slice(source.as_bytes())),
            value: Some(window),
            headers: Vec::new(),
            timestamp_ms: i64::try_from(now.as_millis()).unwrap_or(i64::MAX),
        };
        self.wire.produce_batch(USAGE_TOPIC, partition, &[record], TRY_WITHIN).await.map(drop)
    }
}

/// A source's windows are all in one partition, in order. The usage topic never gets more partitions.
fn partition_of(source: &str, partitions: usize) -> i32 {
    let partitions = u32::try_from(partitions.max(1)).unwrap_or(u32::MAX);
    i32::try_from(crc32fast::hash(source.as_bytes()) % partitions).unwrap_or(0)
}
