//! Operations: what became of a mutation.

use sluice_db::TenantTx;
use sluice_types::{OperationUid, Uid};

use super::Result;
use super::work::OPERATION_CHANNEL;

/// A row.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub(crate) struct OperationRow {
    pub(crate) uid: i64,
    pub(crate) target: String,
    pub(crate) target_uid: i64,
    pub(crate) verb: String,
    pub(crate) state: OperationState,
    pub(crate) generation: i64,
    pub(crate) effect_outbox_id: Option<i64>,
    pub(crate) revision: Option<String>,
    pub(crate) response: Option<Vec<u8>>,
    pub(crate) error_code: Option<i32>,
    pub(crate) error_reason: Option<String>,
    pub(crate) error_message: Option<String>,
    pub(crate) create_us: i64,
    pub(crate) end_us: Option<i64>,
    /// The deleted topic's records still wait for their removal.
    pub(crate) purging: bool,
    /// Of one that raises partitions: how many there were, and how many there are to be.
    pub(crate) partitions_before: Option<i32>,
    pub(crate) partitions_after: Option<i32>,
}

/// Where an operation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::Type)]
#[sqlx(type_name = "text", rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum OperationState {
    Running,
    Succeeded,
    Failed,
}

/// What an operation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Create,
    Update,
    Delete,
}

impl Verb {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Delete => "delete",
        }
    }
}

/// How an operation ends.
#[derive(Debug, Clone)]
pub(crate) enum Ending {
    /// With this resource, in force with this outbox row.
    Succeeded { response: Vec<u8>, outbox_id: Option<i64> },
    /// With this status.
    Failed { code: i32, reason: String, message: String },
}

impl OperationRow {
    pub(crate) fn uid(&self) -> OperationUid {
        OperationUid::from_i64(self.uid)
    }
}

macro_rules! columns {
    () => {
        "uid, target, target_uid, verb, state, generation, effect_outbox_id, revision, response, error_code, \
         error_reason, error_message, control.micros(create_time) AS create_us, control.micros(end_time) AS end_us, \
         verb = 'delete' AND EXISTS (SELECT 1 FROM control.topic t WHERE t.uid = target_uid AND t.state = 'DELETING') \
         AS purging, partitions_before, partitions_after"
    };
}

/// By uid.
pub(crate) async fn operation_get(tx: &mut TenantTx, uid: OperationUid) -> Result<Option<OperationRow>> {
    let tenant = tx.tenant().as_i64();
    let sql = concat!("SELECT ", columns!(), " FROM control.operation WHERE tenant_uid = $1 AND uid = $2");
    Ok(sqlx::query_as(sql).bind(tenant).bind(uid.as_i64()).fetch_optional(tx.conn()).await?)
}

/// A page, the newest first, those older than `before` (time and uid).
pub(crate) async fn operation_list(
    tx: &mut TenantTx,
    before: Option<(i64, i64)>,
    limit: i64,
) -> Result<Vec<OperationRow>> {
    let tenant = tx.tenant().as_i64();
    let sql = concat!(
        "SELECT ",
        columns!(),
        " FROM control.operation WHERE tenant_uid = $1 \
         AND ($2::bigint IS NULL OR (create_time, uid) < (control.from_micros($2), $3)) \
         ORDER BY create_time DESC, uid DESC LIMIT $4"
    );
    let (time, uid) = before.unzip();
    Ok(sqlx::query_as(sql).bind(tenant).bind(time).bind(uid).bind(limit).fetch_all(tx.conn()).await?)
}

/// Begins one.
pub(crate) async fn operation_insert(
    tx: &mut TenantTx,
    target: &str,
    target_uid: Uid,
    verb: Verb,
    generation: i64,
) -> Result<OperationUid> {
    let uid = OperationUid::random();
    let tenant = tx.tenant().as_i64();
    let sql = "INSERT INTO control.operation (uid, tenant_uid, target, target_uid, verb, state, generation) \
               VALUES ($1, $2, $3, $4, $5, 'RUNNING', $6)";
    let query = sqlx::query(sql)
        .bind(uid.as_i64())
        .bind(tenant)
        .bind(target)
        .bind(target_uid.as_u64() as i64)
        .bind(verb.as_str())
        .bind(generation);
    query.execute(tx.conn()).await?;
    Ok(uid)
}

/// Remembers that one raises partitions.
pub(crate) async fn operation_raises(tx: &mut TenantTx, uid: OperationUid, before: i32, after: i32) -> Result<()> {
    let tenant = tx.tenant().as_i64();
    let sql = "UPDATE control.operation SET partitions_before = $3, partitions_after = $4 \
               WHERE tenant_uid = $1 AND uid = $2";
    sqlx::query(sql).bind(tenant).bind(uid.as_i64()).bind(before).bind(after).execute(tx.conn()).await?;
    Ok(())
}

/// Ends the running ones of a target up to a generation, and wakes those that wait for them when the transaction commits.
pub(crate) async fn operation_end(tx: &mut TenantTx, target_uid: Uid, generation: i64, ending: &Ending) -> Result<()> {
    let tenant = tx.tenant().as_i64();
    let target = target_uid.as_u64() as i64;
    // Nobody waits for one that was begun in this transaction.
    let succeeded = "WITH ended AS (\
             UPDATE control.operation SET state = 'SUCCEEDED', end_time = now(), response = $4, effect_outbox_id = $5 \
             WHERE tenant_uid = $1 AND target_uid = $2 AND state = 'RUNNING' AND generation <= $3 \
             RETURNING uid, create_time) \
         SELECT pg_notify($6, uid::text) FROM ended WHERE create_time <> now()";
    let failed = "WITH ended AS (\
             UPDATE control.operation SET state = 'FAILED', end_time = now(), error_code = $4, error_reason = $5, \
             error_message = $6 \
             WHERE tenant_uid = $1 AND target_uid = $2 AND state = 'RUNNING' AND generation <= $3 \
             RETURNING uid, create_time) \
         SELECT pg_notify($7, uid::text) FROM ended WHERE create_time <> now()";
    let query = match ending {
        Ending::Succeeded { response, outbox_id } => sqlx::query(succeeded)
            .bind(tenant)
            .bind(target)
            .bind(generation)
            .bind(response)
            .bind(outbox_id)
            .bind(OPERATION_CHANNEL),
        Ending::Failed { code, reason, message } => sqlx::query(failed)
            .bind(tenant)
            .bind(target)
            .bind(generation)
            .bind(code)
            .bind(reason)
            .bind(message)
            .bind(OPERATION_CHANNEL),
    };
    query.execute(tx.conn()).await?;
    Ok(())
}

#[cfg(test)]
mod tests;
