//! What provisioning has to do, over all tenants.

use sluice_db::SystemTx;
use sluice_types::{GroupUid, NamespaceUid, TopicUid};

use super::Result;
use super::topic::{TopicRow, columns};

/// Channel on which a changed intent wakes provisioning.
pub(crate) const INTENT_CHANNEL: &str = "sluice_intent";
/// Channel on which the end of an operation, whose uid is said, wakes those who wait for it.
pub(crate) const OPERATION_CHANNEL: &str = "sluice_operation";

/// Topics whose world does not match the intent and whose next attempt is due, the oldest first; and how long until the
/// next one is due, in ms, when there is one.
pub(crate) async fn work_due(tx: &mut SystemTx, limit: i64) -> Result<(Vec<TopicRow>, Option<i64>)> {
    let sql = concat!(
        "SELECT ",
        columns!(),
        " FROM control.topic WHERE state IN ('CREATING', 'UPDATING', 'DELETING') AND attempt_time <= now() \
         ORDER BY attempt_time LIMIT $1"
    );
    let due: Vec<TopicRow> = sqlx::query_as(sql).bind(limit).fetch_all(tx.conn()).await?;
    if !due.is_empty() {
        return Ok((due, None));
    }
    let sql = "SELECT ceil(extract(epoch FROM min(attempt_time) - now()) * 1000)::bigint FROM control.topic \
               WHERE state IN ('CREATING', 'UPDATING', 'DELETING')";
    Ok((due, sqlx::query_scalar(sql).fetch_one(tx.conn()).await?))
}

/// All topics that should exist or are on their way out, by uid, those after `after`.
pub(crate) async fn work_list(tx: &mut SystemTx, after: Option<TopicUid>, limit: i64) -> Result<Vec<TopicRow>> {
    let sql = concat!(
        "SELECT ",
        columns!(),
        " FROM control.topic WHERE state <> 'DELETED' AND ($1::bigint IS NULL OR uid > $1) ORDER BY uid LIMIT $2"
    );
    Ok(sqlx::query_as(sql).bind(after.map(TopicUid::as_i64)).bind(limit).fetch_all(tx.conn()).await?)
}

/// A deleted group that Kafka may still hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::FromRow)]
pub(crate) struct DeletedGroupRow {
    uid: i64,
    namespace_uid: i64,
    /// Where gateways read of the deletion.
    pub(crate) published_offset: i64,
}

impl DeletedGroupRow {
    pub(crate) fn uid(&self) -> GroupUid {
        GroupUid::from_i64(self.uid)
    }

    pub(crate) fn namespace_uid(&self) -> NamespaceUid {
        NamespaceUid::from_i64(self.namespace_uid)
    }
}

/// Deleted groups that Kafka may still hold, and whose deletion was published, by uid, those after `after`.
pub(crate) async fn work_deleted_groups(
    tx: &mut SystemTx,
    after: Option<GroupUid>,
    limit: i64,
) -> Result<Vec<DeletedGroupRow>> {
    let sql = "SELECT g.uid, g.namespace_uid, o.published_offset FROM control.consumer_group g \
               JOIN LATERAL (SELECT published_offset FROM control.outbox WHERE aggregate_uid = g.uid \
                             ORDER BY id DESC LIMIT 1) o ON o.published_offset IS NOT NULL \
               WHERE g.state = 'DELETED' AND g.kafka_gone < 2 AND g.kafka_look_time <= now() \
               AND ($1::bigint IS NULL OR g.uid > $1) ORDER BY g.uid LIMIT $2";
    Ok(sqlx::query_as(sql).bind(after.map(GroupUid::as_i64)).bind(limit).fetch_all(tx.conn()).await?)
}

/// Kafka does not hold a deleted group. To be looked at once more after a while; a report that comes again meanwhile changes nothing.
pub(crate) async fn work_group_gone(tx: &mut SystemTx, group: GroupUid) -> Result<()> {
    let sql = "UPDATE control.consumer_group SET kafka_gone = kafka_gone + 1, \
               kafka_look_time = now() + interval '2 minutes' \
               WHERE uid = $1 AND state = 'DELETED' AND kafka_gone < 2 AND kafka_look_time <= now()";
    sqlx::query(sql).bind(group.as_i64()).execute(tx.conn()).await?;
    Ok(())
}

/// Wakes the listeners of a channel when the transaction commits.
pub(crate) async fn notify(conn: &mut sqlx::PgConnection, channel: &str) -> Result<()> {
    sqlx::query("SELECT pg_notify($1, '')").bind(channel).execute(conn).await?;
    Ok(())
}
