//! Changes of consumer groups. They need nothing of the world, so their operations end with their transactions.
//!
//! A group reads and writes in its maker's name, so whoever makes one must have the rights: `records.consume` on its topics
//! and `records.produce` on its dead-letter topic.

use serde_json::json;
use sluice_proto::admin::v1::{CreateGroupRequest, DeleteGroupRequest, Group, UpdateGroupRequest};
use sluice_types::{Error, ErrorKind, Reason, ResourceName};

use super::finish::{exists, finish, missing};
use super::transaction::fields_changed;
use super::{Call, Committed, Envelope, Started, Txn, change};
use crate::domain::topic::{check_deletable, check_quota, is_compacted};
use crate::domain::{etag, fields, group, mask, present, record};
use crate::error::Fault;
use crate::plane::SharedPlane;
use crate::store::group::{GroupRow, GroupState, group_by_id, group_count_in, group_insert, group_update};
use crate::store::namespace::namespace_by_id;
use crate::store::operation::Verb;
use crate::store::topic::{TopicRow, topic_by_id, topic_clusters};

/// Creates a group.
pub(crate) async fn create(
    plane: &SharedPlane,
    call: Call,
    request: CreateGroupRequest,
) -> Result<Committed<Started>, Error> {
    let envelope = Envelope::of(&request, request.validate_only)?;
    let namespace_id = fields::named("parent", &request.parent, ResourceName::parse_namespace)?;
    let id = fields::parsed("group_id", &request.group_id)?;
    let sent = group::read(&request.group.clone().unwrap_or_default(), &id, &namespace_id)?;
    group::check(&sent)?;
    change(plane, call, envelope, move |txn| {
        Box::pin(async move {
            txn.authorize(&request)?;
            let namespace =
                namespace_by_id(txn.tx(), &namespace_id).await?.ok_or_else(|| Error::not_found(&request.parent))?;
            if group_by_id(txn.tx(), namespace.uid(), &id).await?.is_some() {
                return Err(exists(&sent.name()).into());
            }
            let row = GroupRow { namespace_uid: namespace.uid, ..sent };
            check_topics(txn, None, &row).await?;
            let max = txn.settings().limits.groups_per_namespace;
            check_quota("groups in one namespace", group_count_in(txn.tx(), namespace.uid()).await?, 1, max)?;
            let row = group_insert(txn.tx(), &row).await?;
            let detail = json!({ "topics": row.topic_ids, "dead_letter_topic": row.dead_letter_topic_id });
            written(txn, &row, Verb::Create, detail).await
        })
    })
    .await
}

/// Changes a group; its consumers stay connected.
pub(crate) async fn update(
    plane: &SharedPlane,
    call: Call,
    request: UpdateGroupRequest,
) -> Result<Committed<Started>, Error> {
    let envelope = Envelope::of(&request, request.validate_only)?;
    let sent = fields::required("group", request.group.clone())?;
    let (namespace_id, id) = fields::named("group.name", &sent.name, ResourceName::parse_group)?;
    let body = group::read(&sent, &id, &namespace_id)?;
    let paths = mask::paths(request.update_mask.as_ref(), group::MUTABLE, |path| group::is_present(&sent, path))?;
    change(plane, call, envelope, move |txn| {
        Box::pin(async move {
            txn.authorize(&request)?;
            let not_found = || Error::not_found(&sent.name);
            let namespace = namespace_by_id(txn.tx(), &namespace_id).await?.ok_or_else(not_found)?;
            let old = group_by_id(txn.tx(), namespace.uid(), &id).await?.ok_or_else(not_found)?;
            etag::check(&sent.etag, old.uid().uid(), old.version)?;
            let row = group::update(&old, &body, &paths)?;
            check_topics(txn, Some(&old), &row).await?;
            let row = group_update(txn.tx(), &row).await?;
            written(txn, &row, Verb::Update, fields_changed(&paths)).await
        })
    })
    .await
}

/// Deletes a group; gateways end its consumers and forget its positions.
pub(crate) async fn delete(
    plane: &SharedPlane,
    call: Call,
    request: DeleteGroupRequest,
) -> Result<Committed<Started>, Error> {
    let envelope = Envelope::of(&request, request.validate_only)?;
    let (namespace_id, id) = fields::named("name", &request.name, ResourceName::parse_group)?;
    change(plane, call, envelope, move |txn| {
        Box::pin(async move {
            txn.authorize(&request)?;
            let row = match namespace_by_id(txn.tx(), &namespace_id).await? {
                Some(namespace) => group_by_id(txn.tx(), namespace.uid(), &id).await?,
                None => None,
            };
            let Some(mut row) = row else {
                let shown = Group { name: request.name.clone(), ..Group::default() };
                return missing(txn, &request.name, request.allow_missing, &shown).await;
            };
            etag::check(&request.etag, row.uid().uid(), row.version)?;
            check_deletable(row.deletion_protection, &request.name)?;
            row.state = GroupState::Deleted;
            let row = group_update(txn.tx(), &row).await?;
            written(txn, &row, Verb::Delete, json!({})).await
        })
    })
    .await
}

async fn written(txn: &mut Txn, row: &GroupRow, verb: Verb, detail: serde_json::Value) -> Result<Started, Fault> {
    let entry = record::group(txn.tenant(), row);
    finish(txn, verb, &row.name(), &entry, &present::group(row), detail).await
}

/// Whether the topics that are new to the group are there, and the caller may have them read and written to. One that it
/// may not see is answered as an absent one.
async fn check_topics(txn: &mut Txn, old: Option<&GroupRow>, new: &GroupRow) -> Result<(), Fault> {
    let known = |id: &String| old.is_some_and(|old| old.topic_ids.contains(id));
    let added: Vec<&String> = new.topic_ids.iter().filter(|id| !known(id)).collect();
    for id in &added {
        txn.authorize_for("records.consume", &new.topic_name(id))?;
        let _there = check_exists(txn, new, id).await?;
    }
    if !added.is_empty() {
        check_one_cluster(txn, new).await?;
    }
    let Some(dead) = &new.dead_letter_topic_id else { return Ok(()) };
    let changed = old.is_none_or(|old| old.dead_letter_topic_id.as_ref() != Some(dead));
    // What is read in addition ends there as well.
    if changed || !added.is_empty() {
        txn.authorize_for("records.produce", &new.topic_name(dead))?;
    }
    if changed && is_compacted(&check_exists(txn, new, dead).await?) {
        let what = "is compacted, so letters would replace each other; name a topic with CLEANUP_POLICY_DELETE";
        return Err(Error::invalid("group.dead_letter_topic", what).into());
    }
    Ok(())
}

/// Whether its topics lie on one cluster, those of them that there are. Where its dead letters go does not matter.
async fn check_one_cluster(txn: &mut Txn, group: &GroupRow) -> Result<(), Fault> {
    let topics = topic_clusters(txn.tx(), group.namespace_uid(), &group.topic_ids).await?;
    let Some(((first, cluster), rest)) = topics.split_first() else { return Ok(()) };
    let Some((other, _)) = rest.iter().find(|(_, of)| of != cluster) else { return Ok(()) };
    let message = format!(
        "group.topics: {} and {} lie on different Kafka clusters, and a group reads topics of one; make a group for each",
        group.topic_name(first),
        group.topic_name(other),
    );
    let mut error = Error::new(ErrorKind::FailedPrecondition, Reason::TopicsOnSeveralClusters, message);
    error.field = Some("group.topics".into());
    Err(error.into())
}

async fn check_exists(txn: &mut Txn, group: &GroupRow, topic: &str) -> Result<TopicRow, Fault> {
    let id = topic.parse().map_err(Error::internal)?;
    match topic_by_id(txn.tx(), group.namespace_uid(), &id).await? {
        Some(row) => Ok(row),
        None => Err(Error::not_found(&group.topic_name(topic)).into()),
    }
}
