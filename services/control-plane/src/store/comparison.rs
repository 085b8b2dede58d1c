//! What the comparison of the database with `sluice.control` reads and changes: the newest row of each aggregate in the
//! outbox, and the versions of what the rows tell of.

use sluice_db::{SystemTx, TenantTx};
use sluice_proto::internal::control::v1::control_record::Resource;
use sluice_types::{TenantUid, Uid};

use super::Result;

/// The newest row of an aggregate, without its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::FromRow)]
pub(crate) struct NewestRow {
    pub(crate) id: i64,
    pub(crate) tenant_uid: i64,
    pub(crate) aggregate_uid: i64,
    pub(crate) version: i64,
    pub(crate) published_offset: Option<i64>,
    /// As [`digest`](crate::domain::record::digest) computes it; `None` for a tombstone.
    pub(crate) digest: Option<i64>,
}

impl NewestRow {
    pub(crate) fn aggregate(&self) -> Uid {
        Uid::from_u64(self.aggregate_uid as u64)
    }

    pub(crate) fn tenant(&self) -> TenantUid {
        TenantUid::from_i64(self.tenant_uid)
    }
}

/// The newest row with its payload.
#[derive(Debug, Clone, sqlx::FromRow)]
pub(crate) struct NewestState {
    pub(crate) id: i64,
    pub(crate) version: i64,
    pub(crate) published_offset: Option<i64>,
    pub(crate) payload: Option<Vec<u8>>,
    pub(crate) gone: bool,
}

macro_rules! newest {
    ($condition:literal) => {
        concat!(
            "SELECT DISTINCT ON (aggregate_uid) id, tenant_uid, aggregate_uid, version, published_offset, \
             ('x' || encode(substr(sha256(payload), 1, 8), 'hex'))::bit(64)::bigint AS digest \
             FROM control.outbox WHERE ",
            $condition,
            " ORDER BY aggregate_uid, id DESC LIMIT $2"
        )
    };
}

/// A page of newest rows, by aggregate, from this one on.
pub(crate) async fn newest_page(tx: &mut SystemTx, from: i64, limit: i64) -> Result<Vec<NewestRow>> {
    Ok(sqlx::query_as(newest!("aggregate_uid >= $1")).bind(from).bind(limit).fetch_all(tx.conn()).await?)
}

/// The newest rows of these aggregates.
pub(crate) async fn newest_of(tx: &mut SystemTx, aggregates: &[i64]) -> Result<Vec<NewestRow>> {
    let limit = aggregates.len() as i64;
    Ok(sqlx::query_as(newest!("aggregate_uid = ANY($1)")).bind(aggregates).bind(limit).fetch_all(tx.conn()).await?)
}

/// The newest state of one aggregate.
pub(crate) async fn newest_state(tx: &mut TenantTx, aggregate: Uid) -> Result<Option<NewestState>> {
    let sql = "SELECT id, version, published_offset, payload, gone FROM control.outbox \
               WHERE aggregate_uid = $1 ORDER BY id DESC LIMIT 1";
    Ok(sqlx::query_as(sql).bind(aggregate.as_u64() as i64).fetch_optional(tx.conn()).await?)
}

/// Has rows published again, unless something happened to them since they were read or a later one came. Gives the
/// aggregates of which it was done.
pub(crate) async fn rows_publish_again(tx: &mut SystemTx, rows: &[NewestRow]) -> Result<Vec<Uid>> {
    let ids: Vec<i64> = rows.iter().map(|row| row.id).collect();
    let offsets: Vec<Option<i64>> = rows.iter().map(|row| row.published_offset).collect();
    let sql = "UPDATE control.outbox o SET published_offset = NULL \
               FROM unnest($1::bigint[], $2::bigint[]) AS seen (id, at) \
               WHERE o.id = seen.id AND o.published_offset = seen.at AND NOT EXISTS (SELECT 1 FROM control.outbox later \
                   WHERE later.aggregate_uid = o.aggregate_uid AND later.id > o.id) RETURNING o.aggregate_uid";
    let done: Vec<i64> = sqlx::query_scalar(sql).bind(ids).bind(offsets).fetch_all(tx.conn()).await?;
    Ok(done.into_iter().map(|uid| Uid::from_u64(uid as u64)).collect())
}

/// Gives a row that is not published yet another version; the caller holds the tenant's lock.
pub(crate) async fn row_raise(tx: &mut TenantTx, id: i64, version: i64, payload: &[u8]) -> Result<bool> {
    let sql = "UPDATE control.outbox SET version = $2, payload = $3 WHERE id = $1 AND published_offset IS NULL";
    let raised = sqlx::query(sql).bind(id).bind(version).bind(payload).execute(tx.conn()).await?;
    Ok(raised.rows_affected() == 1)
}

/// Makes the resource itself have at least this version, so that its next change comes after what was published of it.
pub(crate) async fn resource_raise(tx: &mut TenantTx, aggregate: Uid, resource: &Resource, version: i64) -> Result<()> {
    let sql = match resource {
        Resource::Tenant(_) => "UPDATE control.tenant SET version = greatest(version, $2) WHERE uid = $1",
        Resource::Namespace(_) => "UPDATE control.namespace SET version = greatest(version, $2) WHERE uid = $1",
        Resource::Topic(_) => "UPDATE control.topic SET version = greatest(version, $2) WHERE uid = $1",
        Resource::Account(_) => "UPDATE control.service_account SET version = greatest(version, $2) WHERE uid = $1",
        Resource::Key(_) => "UPDATE control.api_key SET version = greatest(version, $2) WHERE uid = $1",
        Resource::Group(_) => "UPDATE control.consumer_group SET version = greatest(version, $2) WHERE uid = $1",
        Resource::Complete(_) => return Ok(()),
    };
    sqlx::query(sql).bind(aggregate.as_u64() as i64).bind(version).execute(tx.conn()).await?;
    Ok(())
}

/// Makes the ids of later rows greater than this one: they order the lives of a name.
pub(crate) async fn outbox_ids_above(tx: &mut SystemTx, id: i64) -> Result<()> {
    let sql = "SELECT setval('control.outbox_id_seq', $1) FROM control.outbox_id_seq WHERE last_value < $1";
    sqlx::query(sql).bind(id).execute(tx.conn()).await?;
    Ok(())
}

/// Removes published rows that a later one of their aggregate replaced: their offsets were those of another log. Looks at
/// `limit` rows from `from` on; gives where to look next.
pub(crate) async fn replaced_rows_forget(tx: &mut SystemTx, from: i64, limit: i64) -> Result<Option<i64>> {
    let sql = "WITH page AS (SELECT id FROM control.outbox WHERE id >= $1 ORDER BY id LIMIT $2), \
               gone AS (DELETE FROM control.outbox o USING page WHERE o.id = page.id \
                   AND o.published_offset IS NOT NULL AND EXISTS (SELECT 1 FROM control.outbox later \
                       WHERE later.aggregate_uid = o.aggregate_uid AND later.id > o.id)) \
               SELECT max(id) + 1 FROM page";
    Ok(sqlx::query_scalar(sql).bind(from).bind(limit).fetch_one(tx.conn()).await?)
}

#[cfg(test)]
mod tests;
