//! Leases: who does something alone, and the epoch that its reports carry. Judged by the database's clock.

use sluice_db::SystemTx;

use super::Result;

/// Takes or renews a lease; `None` while another holder's runs. The epoch grows with every change of the holder.
pub(crate) async fn lease_acquire(tx: &mut SystemTx, name: &str, holder: &str, ttl_ms: i64) -> Result<Option<i64>> {
    let sql = "INSERT INTO control.lease AS held (name, holder, epoch, expire_time) \
               VALUES ($1, $2, 1, now() + $3 * interval '1 millisecond') \
               ON CONFLICT (name) DO UPDATE SET \
                   epoch = CASE WHEN held.holder = excluded.holder THEN held.epoch ELSE held.epoch + 1 END, \
                   holder = excluded.holder, expire_time = excluded.expire_time \
               WHERE held.holder = excluded.holder OR held.expire_time <= now() \
               RETURNING epoch";
    Ok(sqlx::query_scalar(sql).bind(name).bind(holder).bind(ttl_ms).fetch_optional(tx.conn()).await?)
}

/// Gives a lease back, so that the next holder need not wait.
pub(crate) async fn lease_release(tx: &mut SystemTx, name: &str, holder: &str) -> Result<()> {
    let sql = "UPDATE control.lease SET expire_time = now() WHERE name = $1 AND holder = $2";
    sqlx::query(sql).bind(name).bind(holder).execute(tx.conn()).await?;
    Ok(())
}

/// The epoch of a lease, locked until the transaction ends, so that it cannot change hands under a report.
pub(crate) async fn lease_epoch_locked(conn: &mut sqlx::PgConnection, name: &str) -> Result<Option<i64>> {
    let sql = "SELECT epoch FROM control.lease WHERE name = $1 FOR SHARE";
    Ok(sqlx::query_scalar(sql).bind(name).fetch_optional(conn).await?)
}
