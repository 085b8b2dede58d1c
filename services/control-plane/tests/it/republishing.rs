//! Many states at once into a log that lacks them.

use sluice_devstack::{ADMIN, Stack};

use crate::comparison::held;
use crate::support::{Plant, eventually};

/// Resources of which the log holds nothing, each with a state that was published.
///
/// The fault was one statement for all of them, which from some 220,000 on ran over the limit of its time and could never commit.
/// A statement for all has more rows than [`STATEMENT_ROWS`] here already, so it fails this test; and one that keeps the bound
/// takes as long beside a million resources as beside these. Reading and marking 250,000 takes most of a minute on a busy machine
/// and would show the same: that is the measurement of loadtest/results.
const RESOURCES: usize = 3_000;
/// Rows that one statement may change, far from what the limit of its time allows.
const STATEMENT_ROWS: i64 = 2_000;

/// Tells how many rows each statement changed.
const COUNT_ROWS: &str = "
    CREATE TABLE control.statement (rows bigint NOT NULL);
    CREATE FUNCTION control.count_rows() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
    BEGIN INSERT INTO control.statement SELECT count(*) FROM changed; RETURN NULL; END $$;
    CREATE TRIGGER count_rows AFTER UPDATE ON control.outbox REFERENCING NEW TABLE AS changed
        FOR EACH STATEMENT EXECUTE FUNCTION control.count_rows();";

#[tokio::test]
async fn a_new_log_gets_thousands_of_states_in_statements_of_a_bounded_number_of_rows() {
    let stack = Stack::builder().build().await.unwrap();
    let mut plant = Plant::prepare(stack.connection()).await;
    plant.run().await;
    plant.stop().await;
    plant
        .sql(&format!(
            "INSERT INTO control.outbox (tenant_uid, aggregate_uid, version, payload, published_offset, publish_time)
             SELECT 1, i, 1, decode(rpad('0801', 600, '0801'), 'hex'), i, now() FROM generate_series(1, {RESOURCES}) i"
        ))
        .await;
    plant.sql(COUNT_ROWS).await;
    plant.run().await;
    let told = || async { plant.health().component("control_log").is_some_and(|log| log.ok) };
    eventually("all is in the log", || async {
        told().await && plant.sql("SELECT count(*) FROM control.outbox WHERE published_offset IS NULL").await == "0"
    })
    .await;
    let kafka = stack.connection().kafka().unwrap().client(ADMIN).unwrap();
    assert!(held(&kafka).await.len() > RESOURCES);
    let [largest, statements]: [i64; 2] = plant
        .sql("SELECT max(rows), count(*) FROM control.statement WHERE rows > 0")
        .await
        .split('|')
        .map(|number| number.parse().unwrap())
        .collect::<Vec<_>>()
        .try_into()
        .unwrap();
    assert!(largest <= STATEMENT_ROWS, "{largest} rows in one of {statements} statements");
    plant.stop().await;
    stack.stop().await;
}
