//! What following an operation costs.

use sluice_proto::admin::v1::{Topic, WaitOperationRequest};
use sluice_proto::wkt::Duration;

use crate::support::{Plant, eventually};

/// Counts each operation that is read: its row's times are converted, and nobody else's meanwhile.
const COUNT_LOOKS: &str = "
    CREATE SEQUENCE control.looks;
    GRANT USAGE ON SEQUENCE control.looks TO sluice_control_owner;
    CREATE OR REPLACE FUNCTION control.micros(t timestamptz) RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER AS $$
    BEGIN PERFORM nextval('control.looks'); RETURN (extract(epoch FROM t) * 1000000)::bigint; END $$;";
/// Two times of a row.
const LOOKS: &str = "SELECT CASE WHEN is_called THEN last_value / 2 ELSE 0 END FROM control.looks";
const WAIT_MS: i64 = 2_500;
/// At the beginning, and then once a second.
const LOOKS_MAX: i64 = 4;

#[tokio::test]
async fn who_waits_for_an_operation_reads_it_once_a_second_whatever_else_ends() {
    let plant = Plant::start().await;
    let owner = plant.tenant("acme").await;
    owner.make_namespace("prod").await;
    // Nobody provisions it.
    let request = owner.create_topic("prod", "orders", Topic::default());
    let name = owner.topics().create_topic(request).await.unwrap().into_inner().name;
    plant.sql(COUNT_LOOKS).await;
    let waiting = WaitOperationRequest { name, timeout: Some(Duration::from_millis(WAIT_MS)) };
    let (waiter, call) = (owner.clone(), owner.call(waiting));
    let waiter = tokio::spawn(async move { waiter.operations().wait_operation(call).await.unwrap().into_inner() });
    eventually("it was read", || async { plant.sql(LOOKS).await != "0" }).await;

    // As many others end as the plane has tenants for.
    for _ in 0..10 {
        plant.sql("SELECT pg_notify('sluice_operation', i::text) FROM generate_series(1, 1000) i").await;
    }

    assert!(!waiter.await.unwrap().done);
    let looks: i64 = plant.sql(LOOKS).await.parse().unwrap();
    assert!(looks <= LOOKS_MAX, "{looks} looks in {WAIT_MS} ms");
}
