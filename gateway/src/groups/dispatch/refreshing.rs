//! Kafka forgets a position that was committed a week ago, once nobody is a member of its group: all positions are committed again
//! now and then, also those of groups that are dispatched, since a partition may be quiet for as long.
//!
//! A group that is dispatched does it itself. For one that nobody dispatches it is done in nobody's name, with what was read a moment
//! before: a group that is taken meanwhile refuses it, and one that was deleted meanwhile is left alone, or the commit would make it
//! again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use sluice_proto::internal::control::v1::control_record::Resource;
use sluice_types::physical::PhysicalGroup;
use sluice_types::{ClusterUid, GroupUid, TenantUid};
use sluice_wire::{Client, CommitOffset, Committer, Error};

use crate::groups::dispatch::command::Command;
use crate::groups::dispatch::shared::Shared;
use crate::groups::model::{Owner, Owners as _, ResolvedGroup};
use crate::view::ResolvedTopic;

/// Well below Kafka's week, and a gateway that starts anew every day still comes to it.
const EVERY: Duration = Duration::from_secs(8 * 3600);
/// The first time, for gateways that never live for long.
const FIRST: Duration = Duration::from_secs(15 * 60);
/// Between two groups: 10,000 take some minutes.
const PAUSE: Duration = Duration::from_millis(50);
const CALL: Duration = Duration::from_secs(10);

/// Runs for ever. `inbox` gives the task of a group that is dispatched here.
pub(super) async fn run(shared: Arc<Shared>, inbox: impl Fn(GroupUid) -> Option<mpsc::Sender<Command>> + Send) {
    tokio::time::sleep(FIRST).await;
    loop {
        sweep(&shared, &inbox).await;
        tokio::time::sleep(EVERY).await;
    }
}

/// Refreshes every group that this gateway owns.
pub(super) async fn sweep(shared: &Shared, inbox: &(impl Fn(GroupUid) -> Option<mpsc::Sender<Command>> + Send)) -> u64 {
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
        if shared.owners.owner(uid) != Owner::Here {
            continue;
        }
        let Some(tenant) = shared.view.tenant(tenant) else { continue };
        let Some(group) = tenant.names().group_of(uid) else { continue };
        let running = inbox(uid);
        if let Some(inbox) = &running {
            // One that does not take it now ends, or is so busy that it commits anyway.
            refreshed += u64::from(inbox.try_send(Command::Refresh).is_ok());
        }
        let (topics, letters) = {
            let names = tenant.names();
            let topic = |id| names.topic_in(group.namespace_uid, id);
            let topics: Vec<Arc<ResolvedTopic>> = group.topics.iter().filter_map(topic).collect();
            (topics, group.dead_letter_topic.as_ref().and_then(topic))
        };
        let is_there = || tenant.names().group_of(uid).is_some();
        for (name, topics) in names_of(&group, topics, letters, running.is_some()) {
            // If they lie on several clusters no group reads them for now; each cluster keeps what is done of its own.
            for (cluster, topics) in by_cluster(topics) {
                let Ok(cluster) = shared.clusters.get(cluster) else {
                    tracing::debug!(group = ?name, %cluster, "positions could not be refreshed; next time");
                    continue;
                };
                match refresh(cluster.wire(), name.as_str(), &topics, is_there).await {
                    Ok(()) => refreshed += 1,
                    // Somebody consumes now, or nobody ever did.
                    Err(error) if error.membership().is_some() => {}
                    Err(error) => tracing::debug!(group = ?name, %error, "positions could not be refreshed; next time"),
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    tracing::info!(refreshed, "positions were committed again");
    refreshed
}

/// What is kept in the group's name: its positions, and which dead letters were redriven.
fn names_of(
    group: &ResolvedGroup,
    topics: Vec<Arc<ResolvedTopic>>,
    letters: Option<Arc<ResolvedTopic>>,
    is_dispatched: bool,
) -> Vec<(PhysicalGroup, Vec<Arc<ResolvedTopic>>)> {
    let mut names = Vec::new();
    if !is_dispatched {
        names.push((group.physical.clone(), topics));
    }
    if let Some(letters) = letters {
        names.push((PhysicalGroup::redrive(group.namespace_uid, group.group_uid), vec![letters]));
    }
    names
}

/// Positions are held by the cluster of their topic.
fn by_cluster(topics: Vec<Arc<ResolvedTopic>>) -> BTreeMap<ClusterUid, Vec<Arc<ResolvedTopic>>> {
    let mut clusters = BTreeMap::<_, Vec<_>>::new();
    for topic in topics {
        clusters.entry(topic.placement.appends().0).or_default().push(topic);
    }
    clusters
}

/// Commits again what is committed, if the group is there still.
async fn refresh(
    wire: &Client,
    group: &str,
    topics: &[Arc<ResolvedTopic>],
    is_there: impl Fn() -> bool,
) -> Result<(), Error> {
    let found = match wire.committed_offsets(group, Committer::Outside, None, CALL).await {
        Ok(found) => found,
        Err(error) if error.kafka_code() == Some(sluice_wire::code::GROUP_ID_NOT_FOUND) => return Ok(()),
        Err(error) => return Err(error),
    };
    let commits: Vec<CommitOffset> = found
        .into_iter()
        .filter(|((name, _), _)| topics.iter().any(|topic| topic.physical.as_str() == name))
        .filter_map(|((topic, partition), found)| {
            let found = found.ok()??;
            let (offset, leader_epoch, metadata) = (found.offset, found.leader_epoch, found.metadata);
            Some(CommitOffset { topic, partition, offset, leader_epoch, metadata })
        })
        .collect();
    if commits.is_empty() || !is_there() {
        return Ok(());
    }
    wire.commit_offsets(group, Committer::Outside, &commits, CALL).await.map(drop)
}
