//! On which cluster a group lives: on that of its topics, where it is a member and commits its positions.

use std::sync::Arc;

use sluice_types::error::Error;
use sluice_types::{ClusterUid, ErrorKind, Reason};

use crate::groups::model::ResolvedGroup;
use crate::view::{ResolvedTopic, TenantEntry};

/// Where the group lives. While none of its topics is in service there is nothing to read or to commit: then it is the installation's
/// first cluster.
///
/// FAILED_PRECONDITION, `TOPICS_ON_SEVERAL_CLUSTERS`: its topics lie on more than one. One cluster cannot hold what is done of both
/// in one commit.
pub fn of_group(config: &ResolvedGroup, tenant: &TenantEntry) -> Result<ClusterUid, Error> {
    let names = tenant.names();
    let topics = config.topics.iter().filter_map(|id| names.topic_in(config.namespace_uid, id));
    of_topics(topics).map_err(|Several| several(&config.name))
}

/// Topics lie on more than one cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Several;

/// The one cluster of topics in service.
pub fn of_topics(topics: impl IntoIterator<Item = Arc<ResolvedTopic>>) -> Result<ClusterUid, Several> {
    let mut clusters = topics.into_iter().map(|topic| topic.placement.appends().0);
    let first = clusters.next();
    match clusters.all(|cluster| Some(cluster) == first) {
        true => Ok(first.unwrap_or(ClusterUid::FIRST)),
        false => Err(Several),
    }
}

fn several(group: &str) -> Error {
    Error::new(
        ErrorKind::FailedPrecondition,
        Reason::TopicsOnSeveralClusters,
        format!(
            "the topics of {group} lie on several clusters, and a group reads topics of one; change its topics so that they lie on one"
        ),
    )
}
