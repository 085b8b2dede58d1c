//! Positions of groups that nobody consumes: Kafka forgets those of an empty group after a week, so they are committed again now and
//! then. What is committed is what was read a moment before, in nobody's name: a group that is taken meanwhile refuses it.

use std::sync::Arc;
use std::time::Duration;

use sluice_proto::internal::control::v1::control_record::Resource;
use sluice_types::physical::GroupName;
use sluice_types::{GroupUid, TenantUid};
use sluice_wire::{CommitOffset, Committer, Error};

use crate::groups::dispatch::shared::Shared;
use crate::groups::model::{Owner, Owners as _, ResolvedGroup};

/// Well below Kafka's week, and a gateway that starts anew every day still comes to it.
const EVERY: Duration = Duration::from_secs(8 * 3600);
/// Between two groups: 10,000 take some minutes.
const PAUSE: Duration = Duration::from_millis(50);
const CALL: Duration = Duration::from_secs(10);

/// Runs for ever. `is_idle` tells whether nobody dispatches a group here.
pub(super) async fn run(shared: Arc<Shared>, is_idle: impl Fn(GroupUid) -> bool + Send) {
    loop {
        tokio::time::sleep(EVERY).await;
        sweep(&shared, &is_idle).await;
    }
}

/// Refreshes every group that this gateway owns and nobody consumes.
async fn sweep(shared: &Shared, is_idle: &(impl Fn(GroupUid) -> bool + Send)) {
    let groups: Vec<(TenantUid, GroupUid)> = shared
        .view
        .index()
        .records()
        .iter()
        .filter_map(|record| match &record.resource {
            Some(Resource::Group(group)) => Some((record.tenant_uid.parse().ok()?, group.uid.parse().ok()?)),
            _ => None,
        })
        .collect();
    let mut refreshed = 0_u64;
    for (tenant, uid) in groups {
        if shared.owners.owner(uid) != Owner::Here || !is_idle(uid) {
            continue;
        }
        let Some(tenant) = shared.view.tenant(tenant) else { continue };
        let Some(group) = tenant.names().group_of(uid) else { continue };
        let (topics, letters) = {
            let names = tenant.names();
            let physical = |id| Some(names.topic_in(group.namespace_uid, id)?.physical.as_str().to_owned());
            let topics: Vec<String> = group.topics.iter().filter_map(physical).collect();
            (topics, group.dead_letter_topic.as_ref().and_then(physical))
        };
        for (name, topics) in names_of(&group, topics, letters) {
            match refresh(shared, name.as_str(), &topics).await {
                Ok(()) => refreshed += 1,
                // Somebody consumes now, or nobody ever did.
                Err(error) if error.membership().is_some() => {}
                Err(error) => tracing::debug!(group = ?name, %error, "positions could not be refreshed; next time"),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
    tracing::info!(refreshed, "positions of idle groups were committed again");
}

/// What is kept in the group's name: its positions, and which dead letters were redriven.
fn names_of(group: &ResolvedGroup, topics: Vec<String>, letters: Option<String>) -> Vec<(GroupName, Vec<String>)> {
    let mut names = vec![(group.physical.clone(), topics)];
    if let Some(letters) = letters {
        names.push((GroupName::redrive(group.namespace_uid, group.group_uid), vec![letters]));
    }
    names
}

/// Commits again what is committed.
pub(super) async fn refresh(shared: &Shared, group: &str, topics: &[String]) -> Result<(), Error> {
    let found = match shared.wire.committed_offsets(group, Committer::Outside, None, CALL).await {
        Ok(found) => found,
        Err(error) if error.kafka_code() == Some(sluice_wire::code::GROUP_ID_NOT_FOUND) => return Ok(()),
        Err(error) => return Err(error),
    };
    let commits: Vec<CommitOffset> = found
        .into_iter()
        .filter(|((topic, _), _)| topics.contains(topic))
        .filter_map(|((topic, partition), found)| {
            let found = found.ok()??;
            let (offset, leader_epoch, metadata) = (found.offset, found.leader_epoch, found.metadata);
            Some(CommitOffset { topic, partition, offset, leader_epoch, metadata })
        })
        .collect();
    if commits.is_empty() {
        return Ok(());
    }
    shared.wire.commit_offsets(group, Committer::Outside, &commits, CALL).await.map(drop)
}
