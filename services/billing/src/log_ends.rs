//! Where topics' logs end, asked from the cluster that each lies on.
//!
//! A cluster that does not answer costs each question its whole time. So a look at many topics asks such a cluster a bounded number
//! of times, and the ends of topics on other clusters do not wait for it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use sluice_process::Clusters;
use sluice_types::physical::PhysicalTopic;
use sluice_types::{ClusterUid, NamespaceUid, TopicUid};
use sluice_wire::{Client, Error, Isolation, ListedOffset, OffsetAt};

/// Questions of one look that a cluster may leave without an answer. One that has a broker less leaves some, and answers others.
const UNANSWERED_MAX: usize = 16;

/// A topic whose ends are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// Its uid.
    pub topic: TopicUid,
    /// Its namespace's.
    pub namespace: NamespaceUid,
    /// The cluster it lies on; `None`: it is not known.
    pub cluster: Option<ClusterUid>,
    /// How many partitions it has.
    pub partitions: i32,
}

/// The clusters with the tenants' topics. Clones are the same.
#[derive(Clone)]
pub struct LogEnds {
    clusters: Arc<BTreeMap<ClusterUid, Client>>,
}

impl LogEnds {
    /// Over these clusters.
    pub fn new(clusters: impl IntoIterator<Item = (ClusterUid, Client)>) -> Self {
        Self { clusters: Arc::new(clusters.into_iter().collect()) }
    }

    /// Begins a look at many topics.
    pub fn look(&self) -> Look<'_> {
        Look { ends: self, unanswered: Mutex::default() }
    }
}

impl From<&Clusters> for LogEnds {
    fn from(clusters: &Clusters) -> Self {
        Self::new(clusters.iter().map(|cluster| (cluster.uid, cluster.client.clone())))
    }
}

/// One look at many topics.
pub struct Look<'a> {
    ends: &'a LogEnds,
    unanswered: Mutex<BTreeMap<ClusterUid, usize>>,
}

fn is_no_answer(end: &Result<ListedOffset, Error>) -> bool {
    end.as_ref().is_err_and(|error| error.kafka_code().is_none())
}

impl Look<'_> {
    /// Where the partitions of a topic end; those missing are not known.
    pub async fn of(&self, wanted: Wanted, within: Duration) -> BTreeMap<i32, i64> {
        let Some(cluster) = wanted.cluster.filter(|cluster| !self.is_given_up(*cluster)) else {
            return BTreeMap::new();
        };
        let Some(client) = self.ends.clusters.get(&cluster) else {
            // The configuration does not name it.
            *self.unanswered.lock().entry(cluster).or_default() += 1;
            return BTreeMap::new();
        };
        let name = PhysicalTopic::new(wanted.namespace, wanted.topic);
        let partitions: Vec<i32> = (0..wanted.partitions).collect();
        let listed =
            client.list_offsets(name.as_str(), &partitions, OffsetAt::Latest, Isolation::ReadUncommitted, within).await;
        match listed {
            // Known leaders that are all silent: each partition says so.
            Ok(ends) if !ends.is_empty() && ends.values().all(is_no_answer) => {
                *self.unanswered.lock().entry(cluster).or_default() += 1;
                BTreeMap::new()
            }
            Ok(ends) => ends.into_iter().filter_map(|(id, end)| Some((id, end.ok()?.offset?))).collect(),
            Err(error) => {
                tracing::debug!(topic = %wanted.topic, %cluster, %error, "end offsets are not known");
                if error.kafka_code().is_none() {
                    *self.unanswered.lock().entry(cluster).or_default() += 1;
                }
                BTreeMap::new()
            }
        }
    }

    /// Clusters that left questions without an answer, or that the configuration does not name.
    pub fn silent(&self) -> BTreeSet<ClusterUid> {
        self.unanswered.lock().keys().copied().collect()
    }

    fn is_given_up(&self, cluster: ClusterUid) -> bool {
        self.unanswered.lock().get(&cluster).is_some_and(|unanswered| *unanswered >= UNANSWERED_MAX)
    }
}
