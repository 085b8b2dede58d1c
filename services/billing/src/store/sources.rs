//! The sources of usage windows.

use sluice_db::sqlx;
use sluice_db::{DbError, SystemScope};

/// How many sources stand still behind a missing window.
pub async fn source_count_stopped(system: &SystemScope) -> Result<i64, DbError> {
    let mut tx = system.begin().await?;
    let count = sqlx::query_scalar("SELECT count(*) FROM billing.source WHERE highest_window > last_window")
        .fetch_one(tx.conn())
        .await?;
    tx.rollback().await?;
    Ok(count)
}
