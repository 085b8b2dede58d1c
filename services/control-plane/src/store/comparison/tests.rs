//! Rows that change between the look at them and the mend.

use super::*;
use crate::store::fixture::TestDatabase;

/// Five aggregates, each with a state that was published.
const ROWS: &str = "
    INSERT INTO control.outbox (tenant_uid, aggregate_uid, version, payload, published_offset)
        SELECT 1, i, 1, '', i FROM generate_series(1, 5) i";

#[tokio::test]
async fn only_rows_that_nobody_touched_since_they_were_read_are_published_again() {
    let test = TestDatabase::prepare().await;
    test.sql(ROWS).await;
    let mut tx = test.database.system().begin().await.expect("begin");
    let rows = newest_page(&mut tx, 1, 10).await.expect("read");
    tx.rollback().await.expect("rollback");
    assert_eq!(rows.len(), 5);

    // The second has a later state, the third was published by another relay, the fourth waits for that, the fifth is gone.
    test.sql(
        "INSERT INTO control.outbox (tenant_uid, aggregate_uid, version, payload) VALUES (1, 2, 2, '');
         UPDATE control.outbox SET published_offset = 30 WHERE aggregate_uid = 3;
         UPDATE control.outbox SET published_offset = NULL WHERE aggregate_uid = 4;
         DELETE FROM control.outbox WHERE aggregate_uid = 5;",
    )
    .await;
    let mut tx = test.database.system().begin().await.expect("begin");
    let again = rows_publish_again(&mut tx, &rows).await.expect("mend");
    tx.commit().await.expect("commit");
    assert_eq!(again, [Uid::from_u64(1)]);
    let left = "SELECT string_agg(aggregate_uid || ':' || coalesce(published_offset::text, 'waits'), ' ' ORDER BY id)
                FROM control.outbox";
    assert_eq!(test.sql(left).await, "1:waits 2:2 3:30 4:waits 2:waits");
}
