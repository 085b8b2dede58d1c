//! The outbox: changes on their way to `sluice.control`.

use sluice_db::{SystemTx, TenantTx};
use sluice_types::Uid;

use super::Result;

/// Channel on which a commit wakes the relay.
pub(crate) const OUTBOX_CHANNEL: &str = "sluice_outbox";
/// Channel on which the relay tells that it published.
pub(crate) const PUBLISHED_CHANNEL: &str = "sluice_published";

/// A row that waits for its publication.
#[derive(Debug, Clone, sqlx::FromRow)]
pub(crate) struct OutboxRow {
    pub(crate) id: i64,
    pub(crate) aggregate_uid: i64,
    pub(crate) payload: Option<Vec<u8>>,
}

impl OutboxRow {
    pub(crate) fn aggregate(&self) -> Uid {
        Uid::from_u64(self.aggregate_uid as u64)
    }
}

/// Adds a change to the transaction and wakes the relay when it commits. Within a tenant, ids grow in the order of commits
/// (its changes hold one lock), which is all the order that readers need.
pub(crate) async fn outbox_insert(
    tx: &mut TenantTx,
    aggregate: Uid,
    version: i64,
    payload: &[u8],
    gone: bool,
) -> Result<i64> {
    let tenant = tx.tenant().as_i64();
    let sql = "WITH woken AS (SELECT pg_notify('sluice_outbox', '')) \
               INSERT INTO control.outbox (tenant_uid, aggregate_uid, version, payload, gone) \
               SELECT $1, $2, $3, $4, $5 FROM woken RETURNING id";
    let query =
        sqlx::query_scalar(sql).bind(tenant).bind(aggregate.as_u64() as i64).bind(version).bind(payload).bind(gone);
    Ok(query.fetch_one(tx.conn()).await?)
}

/// The oldest rows that are not published, in order.
pub(crate) async fn outbox_unpublished(tx: &mut SystemTx, limit: i64) -> Result<Vec<OutboxRow>> {
    let sql =
        "SELECT id, aggregate_uid, payload FROM control.outbox WHERE published_offset IS NULL ORDER BY id LIMIT $1";
    Ok(sqlx::query_as(sql).bind(limit).fetch_all(tx.conn()).await?)
}

/// Remembers where rows were published, with the operations whose effect they are, and which earlier rows they replace.
pub(crate) async fn outbox_published(
    tx: &mut SystemTx,
    ids: &[i64],
    offsets: &[i64],
    revisions: &[String],
) -> Result<()> {
    let sql = "UPDATE control.outbox o SET published_offset = p.at, publish_time = now() \
               FROM unnest($1::bigint[], $2::bigint[]) AS p (id, at) WHERE o.id = p.id";
    sqlx::query(sql).bind(ids).bind(offsets).execute(tx.conn()).await?;
    let sql = "UPDATE control.outbox o SET replaced_time = now() FROM control.outbox later \
               WHERE later.id = ANY($1) AND o.aggregate_uid = later.aggregate_uid AND o.id < later.id \
               AND o.published_offset IS NOT NULL AND o.replaced_time IS NULL";
    sqlx::query(sql).bind(ids).execute(tx.conn()).await?;
    let sql = "UPDATE control.operation o SET revision = p.revision \
               FROM unnest($1::bigint[], $2::text[]) AS p (id, revision) \
               WHERE o.effect_outbox_id = p.id AND o.revision IS NULL";
    sqlx::query(sql).bind(ids).bind(revisions).execute(tx.conn()).await?;
    sqlx::query("SELECT pg_notify('sluice_published', '')").execute(tx.conn()).await?;
    Ok(())
}

/// Where a row stands: `None` if there is no such row any more, `Some(None)` if it is not published.
pub(crate) async fn outbox_offset(tx: &mut SystemTx, id: i64) -> Result<Option<Option<i64>>> {
    let sql = "SELECT published_offset FROM control.outbox WHERE id = $1";
    Ok(sqlx::query_scalar(sql).bind(id).fetch_optional(tx.conn()).await?)
}

/// How many wait, and for how long the oldest has, in ms.
pub(crate) async fn outbox_backlog(tx: &mut SystemTx) -> Result<(i64, i64)> {
    let sql = "SELECT count(*), coalesce((extract(epoch FROM now() - min(create_time)) * 1000)::bigint, 0) \
               FROM control.outbox WHERE published_offset IS NULL";
    Ok(sqlx::query_as(sql).fetch_one(tx.conn()).await?)
}

/// The life of `sluice.control` that the rows were published to.
pub(crate) async fn control_log_get(tx: &mut SystemTx) -> Result<Option<String>> {
    Ok(sqlx::query_scalar("SELECT topic_id FROM control.control_log").fetch_optional(tx.conn()).await?)
}

/// Remembers it.
pub(crate) async fn control_log_set(tx: &mut SystemTx, topic_id: &str) -> Result<()> {
    let sql = "INSERT INTO control.control_log (topic_id) VALUES ($1) \
               ON CONFLICT (only_one) DO UPDATE SET topic_id = excluded.topic_id";
    sqlx::query(sql).bind(topic_id).execute(tx.conn()).await?;
    Ok(())
}
