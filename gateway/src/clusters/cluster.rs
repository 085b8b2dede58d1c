//! One cluster: our client, producers, reader and memberships of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use sluice_kafka::{ProduceSink, Sasl, SinkError};
use sluice_process::ClusterAccess;
use sluice_types::ClusterUid;
use sluice_types::physical::PhysicalTopic;
use sluice_wire::{Client, Groups, Reader};

use crate::clusters::{Shared, producers};
use crate::view::ResolvedTopic;

/// Bound of one look whether a topic can be served: one dead partition must not hold back every tenant's changes.
const READY_WITHIN: Duration = Duration::from_millis(1_500);
const READY_PAUSE: Duration = Duration::from_millis(20);
/// Topics of a cluster made servable at the same time.
const READY_AT_ONCE: usize = 64;

/// See the module.
pub struct Cluster {
    uid: ClusterUid,
    wire: Client,
    reader: Reader,
    groups: Groups,
    sink: Arc<dyn ProduceSink>,
    permits: Semaphore,
    /// A look ended in vain while no broker answered.
    gave_up: AtomicBool,
}

/// Why a cluster cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// A file of its configuration cannot be read.
    #[error("read the CA of the cluster")]
    Ca(#[source] std::io::Error),
    /// The same.
    #[error("read the password of the cluster")]
    Password(#[source] sluice_runtime::config::FileError),
    /// Its producers do not start.
    #[error("start the producers")]
    Producers(#[from] SinkError),
}

impl Cluster {
    /// Waits for no broker.
    pub(super) fn set_up(access: &ClusterAccess, credentials: &Sasl, shared: &Shared) -> Result<Arc<Self>, SetupError> {
        let producers = producers::start(access, credentials, shared)?;
        let cluster = Arc::new(Self::with(access.uid, access.client.clone(), producers));
        let watch = producers::watch(Arc::downgrade(&cluster), shared.health.clone(), shared.tasks.shutdown());
        shared.tasks.spawn("produce-health", watch);
        Ok(cluster)
    }

    /// With a sink of the caller's.
    pub(super) fn with(uid: ClusterUid, wire: Client, sink: Arc<dyn ProduceSink>) -> Self {
        Self {
            uid,
            reader: Reader::new(wire.clone()),
            groups: Groups::new(wire.clone()),
            wire,
            sink,
            permits: Semaphore::new(READY_AT_ONCE),
            gave_up: AtomicBool::new(false),
        }
    }

    /// Its uid.
    pub fn uid(&self) -> ClusterUid {
        self.uid
    }

    /// Whether brokers answer its producers.
    pub fn answers(&self) -> bool {
        self.sink.is_available()
    }

    /// Our client of it.
    pub(crate) fn wire(&self) -> &Client {
        &self.wire
    }

    /// Reads for many.
    pub(crate) fn reader(&self) -> &Reader {
        &self.reader
    }

    /// Memberships of groups.
    pub(crate) fn groups(&self) -> &Groups {
        &self.groups
    }

    /// Appends records.
    pub(super) fn sink(&self) -> &Arc<dyn ProduceSink> {
        &self.sink
    }

    /// See [`super::Clusters::ready`].
    pub(super) async fn ready(&self, topic: &ResolvedTopic) -> bool {
        let until = Instant::now() + READY_WITHIN;
        let Ok(Ok(_permit)) = tokio::time::timeout_at(until.into(), self.permits.acquire()).await else { return false };
        // The first cluster carries the control log, so whoever reads of a topic has it answering. Of another one many topics may be
        // read of while it is down, and none of them may hold back what others wait for.
        if self.uid != ClusterUid::FIRST && self.gave_up.load(Ordering::Relaxed) && !self.answers() {
            return false;
        }
        let (producer, reader) = tokio::join!(
            self.sink.ensure_topic(topic.physical.as_str(), topic.partitions, until),
            self.reader_ready(&topic.physical, topic.partitions, until),
        );
        let is_ready = producer && reader;
        self.gave_up.store(!is_ready && !self.answers(), Ordering::Relaxed);
        is_ready
    }

    /// Waits until fresh metadata shows a leader of each partition; it stays cached for reading.
    async fn reader_ready(&self, name: &PhysicalTopic, partitions: i32, until: Instant) -> bool {
        let wanted = usize::try_from(partitions).unwrap_or(usize::MAX);
        let left = || until.saturating_duration_since(Instant::now());
        while !left().is_zero() {
            if let Ok(metadata) = self.wire.metadata(&[name.as_str()], left()).await
                && let Some(topic) = metadata.topics.first()
                && topic.partitions.values().filter(|partition| partition.leader.is_some()).count() >= wanted
            {
                return true;
            }
            tokio::time::sleep(READY_PAUSE).await;
        }
        false
    }

    /// See [`super::Clusters::forget`].
    pub(super) fn forget(&self, topic: &ResolvedTopic) {
        self.sink.forget(topic.physical.as_str());
    }

    /// See [`super::Clusters::flush`].
    pub(super) async fn flush(&self, deadline: Instant) -> bool {
        self.sink.flush(deadline).await
    }
}
