//! Where a topic's records lie, as far as this gateway can serve it.

use std::collections::BTreeSet;
use std::sync::Arc;

use sluice_log::Placement;
use sluice_proto::internal::control::v1::TopicState;
use sluice_types::{ClusterUid, TopicUid};

use crate::view::ResolvedTopic;

/// The clusters whose topics a gateway serves: those that it is configured for. By default the installation's first one.
#[derive(Debug, Clone)]
pub struct ServedClusters(Arc<BTreeSet<ClusterUid>>);

impl ServedClusters {
    fn contains(&self, cluster: ClusterUid) -> bool {
        self.0.contains(&cluster)
    }
}

impl Default for ServedClusters {
    fn default() -> Self {
        [ClusterUid::FIRST].into_iter().collect()
    }
}

impl FromIterator<ClusterUid> for ServedClusters {
    fn from_iter<I: IntoIterator<Item = ClusterUid>>(clusters: I) -> Self {
        Self(Arc::new(clusters.into_iter().collect()))
    }
}

/// The placement in a topic's record, if it may follow the one `before` it. It must be on a cluster that is served, and never have
/// moved: reading across spans is not there yet.
pub(super) fn of_topic(
    topic: &TopicState,
    uid: TopicUid,
    before: Option<&ResolvedTopic>,
    served: &ServedClusters,
) -> Result<Placement, &'static str> {
    let placement =
        Placement::of_record(topic.placement.as_ref(), uid).map_err(|_| "the placement cannot be understood")?;
    if let Some(before) = before {
        let follows = before.placement.check_next(&placement, before.partitions);
        follows.map_err(|_| "the placement cannot follow the one before")?;
    }
    if !served.contains(placement.appends().0) {
        return Err("the topic is on a cluster that this gateway is not configured for");
    }
    if placement.moved().len() > 0 {
        return Err("the topic has moved, which this gateway cannot serve");
    }
    Ok(placement)
}
