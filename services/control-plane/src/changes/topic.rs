//! Changes of topics: intent only. Provisioning makes Kafka follow; its reports end the operations (`report.rs`).

use serde_json::json;
use sluice_proto::admin::v1::{CreateTopicRequest, DeleteTopicRequest, Topic, UpdateTopicRequest};
use sluice_proto::wkt::Any;
use sluice_types::{Error, ErrorKind, Reason, ResourceName};

use super::finish::{exists, missing};
use super::transaction::fields_changed;
use super::{Call, Committed, Envelope, Started, Txn, change};
use crate::domain::topic::{self, Defaults, check_deletable};
use crate::domain::{access, etag, fields, mask, present, record};
use crate::error::Fault;
use crate::plane::SharedPlane;
use crate::store::namespace::namespace_by_id;
use crate::store::operation::{Ending, Verb, operation_end, operation_insert, operation_raises};
use crate::store::tenant::tenant_get;
use crate::store::topic::{
    TopicRow, TopicState, topic_by_id, topic_insert, topic_of_groups_elsewhere, topic_update, topic_usage,
};
use crate::store::work::{INTENT_CHANNEL, notify};

/// Creates a topic: listed at once in CREATING.
pub(crate) async fn create(
    plane: &SharedPlane,
    call: Call,
    request: CreateTopicRequest,
) -> Result<Committed<Started>, Error> {
    let envelope = Envelope::of(&request, request.validate_only)?;
    let namespace_id = fields::named("parent", &request.parent, ResourceName::parse_namespace)?;
    let id = fields::parsed("topic_id", &request.topic_id)?;
    let sent = request.topic.clone().unwrap_or_default();
    topic::validate(&sent)?;
    let defaults = defaults(plane);
    change(plane, call, envelope, move |txn| {
        Box::pin(async move {
            txn.authorize(&request)?;
            let namespace =
                namespace_by_id(txn.tx(), &namespace_id).await?.ok_or_else(|| Error::not_found(&request.parent))?;
            if topic_by_id(txn.tx(), namespace.uid(), &id).await?.is_some() {
                return Err(exists(&format!("{}/topics/{id}", request.parent)).into());
            }
            let row = topic::create(&sent, &id, &namespace, defaults)?;
            check_groups(txn, &row).await?;
            check_room(txn, 1, row.effective_partitions).await?;
            let row = topic_insert(txn.tx(), &row).await?;
            notify(txn.tx().conn(), INTENT_CHANNEL).await?;
            start(txn, &row, Verb::Create, json!({ "partitions": row.effective_partitions })).await
        })
    })
    .await
}

/// Changes a topic. What gateways and Kafka need not know is done with the transaction.
pub(crate) async fn update(
    plane: &SharedPlane,
    call: Call,
    request: UpdateTopicRequest,
) -> Result<Committed<Started>, Error> {
    let envelope = Envelope::of(&request, request.validate_only)?;
    let sent = fields::required("topic", request.topic.clone())?;
    let (namespace_id, id) = fields::named("topic.name", &sent.name, ResourceName::parse_topic)?;
    topic::validate(&sent)?;
    let paths = mask::paths(request.update_mask.as_ref(), topic::MUTABLE, |path| topic::is_present(&sent, path))?;
    let defaults = defaults(plane);
    change(plane, call, envelope, move |txn| {
        Box::pin(async move {
            txn.authorize(&request)?;
            let namespace = namespace_by_id(txn.tx(), &namespace_id).await?;
            let namespace = namespace.ok_or_else(|| Error::not_found(&sent.name))?;
            let old = topic_by_id(txn.tx(), namespace.uid(), &id).await?.ok_or_else(|| Error::not_found(&sent.name))?;
            etag::check(&sent.etag, old.uid().uid(), old.version)?;
            let row = topic::update(&old, &sent, &paths, defaults)?;
            if row.effective_partitions > old.effective_partitions {
                check_room(txn, 0, row.effective_partitions - old.effective_partitions).await?;
            }
            let row = match topic::differs(&old, &row) {
                true => topic_update(txn.tx(), &row, 0).await?,
                false => old.clone(),
            };
            if row.generation == old.generation {
                return finish(txn, &row, &paths).await;
            }
            notify(txn.tx().conn(), INTENT_CHANNEL).await?;
            let started = start(txn, &row, Verb::Update, fields_changed(&paths)).await?;
            // An increase that was refused, or runs still, has changed nothing yet.
            let (before, after) = (old.observed_partitions, row.effective_partitions);
            if before > 0 && after > before {
                operation_raises(txn.tx(), started.operation, before, after).await?;
            }
            Ok(started)
        })
    })
    .await
}

/// Deletes a topic: gone for readers and writers when gateways have applied it; its name is free at once.
pub(crate) async fn delete(
    plane: &SharedPlane,
    call: Call,
    request: DeleteTopicRequest,
) -> Result<Committed<Started>, Error> {
    let envelope = Envelope::of(&request, request.validate_only)?;
    let (namespace_id, id) = fields::named("name", &request.name, ResourceName::parse_topic)?;
    change(plane, call, envelope, move |txn| {
        Box::pin(async move {
            txn.authorize(&request)?;
            let namespace = namespace_by_id(txn.tx(), &namespace_id).await?;
            let row = match &namespace {
                Some(namespace) => topic_by_id(txn.tx(), namespace.uid(), &id).await?,
                None => None,
            };
            let Some(row) = row else {
                let shown = Topic { name: request.name.clone(), ..Topic::default() };
                return missing(txn, &request.name, request.allow_missing, &shown).await;
            };
            etag::check(&request.etag, row.uid().uid(), row.version)?;
            check_deletable(row.deletion_protection, &request.name)?;
            begin_deletion(txn, row).await
        })
    })
    .await
}

/// Takes a topic out of service; the physical one is removed later.
pub(super) async fn begin_deletion(txn: &mut Txn, mut row: TopicRow) -> Result<Started, Fault> {
    row.state = TopicState::Deleting;
    row.generation += 1;
    row.attempts = 0;
    let row = topic_update(txn.tx(), &row, 0).await?;
    let uid = row.uid().uid();
    let overtaken = Ending::Failed {
        code: 10,
        reason: "RESOURCE_STATE".to_owned(),
        message: format!("{} was deleted before this was done", row.name()),
    };
    operation_end(txn.tx(), uid, row.generation, &overtaken).await?;
    let tenant = txn.tenant();
    let outbox_id = txn.publish(&record::topic(tenant, &row)).await?;
    txn.audit(&row.name(), uid, json!({})).await?;
    let shown = present::topic(&row);
    let operation = operation_insert(txn.tx(), &row.name(), uid, Verb::Delete, row.generation).await?;
    let ending = Ending::Succeeded { response: present::packed(&shown), outbox_id: Some(outbox_id) };
    operation_end(txn.tx(), uid, row.generation, &ending).await?;
    notify(txn.tx().conn(), INTENT_CHANNEL).await?;
    Ok(Started { operation, resource: Any::pack(&shown) })
}

/// Publishes, audits, and writes an operation that runs until provisioning reports.
async fn start(txn: &mut Txn, row: &TopicRow, verb: Verb, detail: serde_json::Value) -> Result<Started, Fault> {
    let tenant = txn.tenant();
    txn.publish(&record::topic(tenant, row)).await?;
    txn.audit(&row.name(), row.uid().uid(), detail).await?;
    let operation = operation_insert(txn.tx(), &row.name(), row.uid().uid(), verb, row.generation).await?;
    Ok(Started { operation, resource: Any::pack(&present::topic(row)) })
}

/// The same for a change that only people see: nothing to publish, nothing to wait for.
async fn finish(txn: &mut Txn, row: &TopicRow, paths: &[&'static str]) -> Result<Started, Fault> {
    let uid = row.uid().uid();
    txn.audit(&row.name(), uid, fields_changed(paths)).await?;
    let shown = present::topic(row);
    // An earlier change of the same generation may still run; this one must not end it.
    let operation = operation_insert(txn.tx(), &row.name(), uid, Verb::Update, i64::MIN).await?;
    let ending = Ending::Succeeded { response: present::packed(&shown), outbox_id: None };
    operation_end(txn.tx(), uid, i64::MIN, &ending).await?;
    Ok(Started { operation, resource: Any::pack(&shown) })
}

/// Refuses to bring a group that names the topic onto a second cluster.
async fn check_groups(txn: &mut Txn, row: &TopicRow) -> Result<(), Fault> {
    let Some((group, other)) = topic_of_groups_elsewhere(txn.tx(), row).await? else { return Ok(()) };
    let in_namespace = |kind: &str, id: &str| format!("namespaces/{}/{kind}/{id}", row.namespace_id);
    let message = format!(
        "{} names this topic, and would read topics on several Kafka clusters: {} is on another one; take it out of the group first",
        in_namespace("groups", &group),
        in_namespace("topics", &other),
    );
    Err(Error::new(ErrorKind::FailedPrecondition, Reason::TopicsOnSeveralClusters, message).into())
}

async fn check_room(txn: &mut Txn, topics: i64, partitions: i32) -> Result<(), Fault> {
    let tenant = tenant_get(txn.tx()).await?.ok_or_else(access::credential_invalid)?;
    let (topics_used, partitions_used) = topic_usage(txn.tx()).await?;
    let limits = &txn.settings().limits;
    topic::check_room("topics", topics_used, topics, fields::or_default(tenant.topics_max, limits.topics))?;
    let max = fields::or_default(tenant.partitions_max, limits.partitions);
    topic::check_room("partitions", partitions_used, i64::from(partitions), max)?;
    Ok(())
}

fn defaults(plane: &SharedPlane) -> Defaults {
    let defaults = &plane.settings.defaults;
    let retention_ms = i64::try_from(defaults.retention.get().as_millis()).unwrap_or(i64::MAX);
    Defaults { partitions: defaults.partitions, retention_ms }
}
