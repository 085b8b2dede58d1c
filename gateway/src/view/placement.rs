//! Where a topic's records lie, as far as this gateway can serve it.

use sluice_log::Placement;
use sluice_proto::internal::control::v1::TopicState;
use sluice_types::{ClusterUid, TopicUid};

use crate::view::ResolvedTopic;

/// The placement in a topic's record, if it may follow the one `before` it. It must be on the installation's first cluster and
/// never have moved: this gateway has one Kafka client.
pub(super) fn of_topic(
    topic: &TopicState,
    uid: TopicUid,
    before: Option<&ResolvedTopic>,
) -> Result<Placement, &'static str> {
    let placement =
        Placement::of_record(topic.placement.as_ref(), uid).map_err(|_| "the placement cannot be understood")?;
    if let Some(before) = before {
        let follows = before.placement.check_next(&placement, before.partitions);
        follows.map_err(|_| "the placement cannot follow the one before")?;
    }
    if placement.appends().0 != ClusterUid::FIRST {
        return Err("the topic is on a cluster that this gateway does not serve");
    }
    if placement.moved().len() > 0 {
        return Err("the topic has moved, which this gateway cannot serve");
    }
    Ok(placement)
}
