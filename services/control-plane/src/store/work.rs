//! What provisioning has to do, over all tenants.

use sluice_db::SystemTx;
use sluice_types::TopicUid;

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

/// Wakes the listeners of a channel when the transaction commits.
pub(crate) async fn notify(conn: &mut sqlx::PgConnection, channel: &str) -> Result<()> {
    sqlx::query("SELECT pg_notify($1, '')").bind(channel).execute(conn).await?;
    Ok(())
}
