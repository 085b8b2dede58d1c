//! The Kafka clusters that tenants' topics lie on, each for itself.
//!
//! Everything that belongs to a cluster hangs on its [`Cluster`]: our client with its connections and metadata, the producers with
//! their threads, queues and health, the reader with its lanes, the memberships of groups. It is made when it is needed first, and
//! two clusters share none of it: one that is down, slow or misconfigured fails the calls for its own topics, with
//! CLUSTER_UNAVAILABLE, and no others.
//!
//! What serves topics asks for [`Clusters::log`]. A [`Log`] speaks of partitions and logical offsets. Physical names, physical
//! offsets and brokers stay in this room.

mod cluster;
mod log;
mod producers;
mod second_path;
#[cfg(test)]
mod testing;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;

use sluice_kafka::{Sasl, SinkFigures};
use sluice_process::ClusterAccess;
use sluice_runtime::{ComponentStatus, Health, Metrics, TaskSet};
use sluice_types::error::{Error, Source};
use sluice_types::{ClusterUid, Reason};

use crate::view::{ResolvedTopic, ServedClusters};

pub use self::cluster::{Cluster, SetupError};
pub use self::log::{Log, Offsets, Read, ReadRequest};

/// When to come back after the cluster did not answer.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// A cluster that could not be set up is tried again after this long.
const SETUP_AGAIN_AFTER: Duration = Duration::from_secs(5);

/// What the clusters are made with.
pub struct ClustersParts {
    /// `{gateway id}`, stable over restarts: the producers' client id.
    pub gateway_id: String,
    /// All clusters that this gateway is configured for.
    pub access: Vec<ClusterAccess>,
    /// Where each cluster says how it fares.
    pub health: Health,
    /// Where their figures go, labelled with the cluster.
    pub metrics: Metrics,
    /// Their tasks.
    pub tasks: TaskSet,
}

/// The clusters that this gateway is configured for; clones are the same.
#[derive(Clone)]
pub struct Clusters(Arc<Inner>);

struct Inner {
    slots: BTreeMap<ClusterUid, Slot>,
    shared: Shared,
}

/// What clusters have in common: names and sinks for what they say, nothing that one could use up.
struct Shared {
    gateway_id: String,
    health: Health,
    figures: SinkFigures,
    tasks: TaskSet,
}

/// A cluster that is configured, and made or not.
struct Slot {
    access: ClusterAccess,
    credentials: Sasl,
    made: ArcSwapOption<Cluster>,
    /// When it could not be set up. Held while it is made: the others wait and find it.
    failed_at: Mutex<Option<Instant>>,
}

/// Why a cluster is of no use.
#[derive(Debug, Clone, Copy, thiserror::Error)]
enum Unusable {
    #[error("this gateway is not configured for cluster {0}")]
    Unknown(ClusterUid),
    #[error("cluster {0} could not be set up; see the log")]
    NotSetUp(ClusterUid),
}

impl Clusters {
    /// Sets up the installation's first cluster; the others wait until they are needed. Waits for no broker. The process is ready
    /// only while the producers of the first cluster are of use. Call it on the runtime that shall serve.
    ///
    /// # Errors
    /// A file of the configuration of a cluster cannot be read, or the producers of the first one do not start.
    pub fn start(parts: ClustersParts) -> Result<Self, SetupError> {
        let figures = SinkFigures::default();
        parts.metrics.register("produce", |registry| figures.register(registry));
        let slot = |access: ClusterAccess| {
            let (credentials, made) = (producers::credentials(&access)?, ArcSwapOption::empty());
            Ok::<_, SetupError>((access.uid, Slot { access, credentials, made, failed_at: Mutex::default() }))
        };
        let slots = parts.access.into_iter().map(slot).collect::<Result<_, _>>()?;
        let shared = Shared { gateway_id: parts.gateway_id, health: parts.health, figures, tasks: parts.tasks };
        let clusters = Self(Arc::new(Inner { slots, shared }));
        // Such a gateway is of no use for producing although others are.
        clusters.0.shared.health.require(producers::USEFUL);
        if let Some(first) = clusters.0.slots.get(&ClusterUid::FIRST) {
            first.made.store(Some(Cluster::set_up(&first.access, &first.credentials, &clusters.0.shared)?));
        }
        Ok(clusters)
    }

    /// Those that topics may lie on.
    pub fn served(&self) -> ServedClusters {
        self.0.slots.keys().copied().collect()
    }

    /// Whether there are more than one.
    pub fn are_several(&self) -> bool {
        self.0.slots.len() > 1
    }

    /// The cluster, set up if it was not needed before.
    ///
    /// UNAVAILABLE, `CLUSTER_UNAVAILABLE`: it cannot be set up.
    pub fn get(&self, uid: ClusterUid) -> Result<Arc<Cluster>, Error> {
        let slot = self.0.slots.get(&uid).ok_or_else(|| unavailable(Unusable::Unknown(uid)))?;
        match &*slot.made.load() {
            Some(made) => Ok(Arc::clone(made)),
            None => slot.make(&self.0.shared).map_err(unavailable),
        }
    }

    /// The cluster that takes the topic's appends. Errors as those of [`Clusters::get`].
    pub fn of(&self, topic: &ResolvedTopic) -> Result<Arc<Cluster>, Error> {
        self.get(topic.placement.appends().0)
    }

    /// The log of a topic. Errors as those of [`Clusters::get`].
    pub fn log(&self, topic: &Arc<ResolvedTopic>) -> Result<Log, Error> {
        Ok(Log::new(self.of(topic)?, Arc::clone(topic)))
    }

    /// Waits until the topic can be served: its producer and the reading side know the leaders of all partitions. False: that could
    /// not be seen in time, or its cluster is known not to answer.
    pub async fn ready(&self, topic: &ResolvedTopic) -> bool {
        match self.of(topic) {
            Ok(cluster) => cluster.ready(topic).await,
            Err(_) => false,
        }
    }

    /// The topic is gone for good: drops what is cached about it.
    pub fn forget(&self, topic: &ResolvedTopic) {
        let slot = self.0.slots.get(&topic.placement.appends().0);
        if let Some(made) = slot.and_then(|slot| slot.made.load_full()) {
            made.forget(topic);
        }
    }

    /// Waits until everything that was submitted to any of them is decided. False: not so by `deadline`.
    pub async fn flush(&self, deadline: Instant) -> bool {
        let made = self.0.slots.values().filter_map(|slot| slot.made.load_full());
        let flushed = futures::future::join_all(made.map(|cluster| async move { cluster.flush(deadline).await })).await;
        flushed.into_iter().all(|flushed| flushed)
    }
}

impl Slot {
    /// Starts threads; it is done once.
    fn make(&self, shared: &Shared) -> Result<Arc<Cluster>, Unusable> {
        let uid = self.access.uid;
        let mut failed_at = self.failed_at.lock();
        if let Some(made) = self.made.load_full() {
            return Ok(made);
        }
        if failed_at.is_some_and(|at| at.elapsed() < SETUP_AGAIN_AFTER) {
            return Err(Unusable::NotSetUp(uid));
        }
        match Cluster::set_up(&self.access, &self.credentials, shared) {
            Ok(made) => {
                tracing::info!(cluster = %uid, "serving topics of the cluster");
                self.made.store(Some(Arc::clone(&made)));
                *failed_at = None;
                Ok(made)
            }
            Err(error) => {
                tracing::error!(cluster = %uid, error = &error as &dyn std::error::Error, "set up the cluster");
                let status = ComponentStatus::failing(format!("it could not be set up: {error}"));
                shared.health.set_component(producers::component(uid), status);
                *failed_at = Some(Instant::now());
                Err(Unusable::NotSetUp(uid))
            }
        }
    }
}

/// The cluster did not answer in time, or cannot be used.
pub(crate) fn unavailable(source: impl Into<Source>) -> Error {
    Error::unavailable(Reason::ClusterUnavailable, "the streaming cluster does not answer at the moment; try again")
        .with_source(source)
        .with_retry_after(RETRY_AFTER)
}
