//! Mends: how often one is done, and what is not mended because it changed meanwhile.

use sluice_proto::internal::control::v1::NamespaceState;
use sluice_proto::internal::control::v1::control_record::Resource;

use super::*;
use crate::store::fixture::TestDatabase;

#[test]
fn each_kind_of_mend_is_done_so_often_and_then_not_for_a_while() {
    let (resource, now) = (Uid::random(), Instant::now());
    let mut mends = Mends::default();
    let raises: Vec<_> = (6..11)
        .filter(|version| {
            let verdict = Verdict::Raise(*version);
            let may = mends.may(resource, verdict);
            // One that failed is not told, and may be done again.
            assert_eq!(mends.may(resource, verdict), may);
            if may {
                mends.done(resource, verdict, now);
            }
            may
        })
        .collect();
    assert_eq!(raises, [6, 7, 8], "another version is no other mend");
    assert!(mends.may(resource, Verdict::Publish));
    mends.done(resource, Verdict::Publish, now);
    assert!(!mends.may(resource, Verdict::Publish) && mends.may(Uid::random(), Verdict::Publish));
    mends.age(now + MEND_AGAIN - Duration::from_secs(1));
    assert!(!mends.may(resource, Verdict::Publish));
    mends.age(now + MEND_AGAIN);
    assert!(mends.may(resource, Verdict::Publish) && mends.may(resource, Verdict::Raise(11)));
}

/// A namespace and its published state in the outbox.
async fn publish(test: &TestDatabase, uid: i64, version: i64) {
    let payload = hex(uid, version);
    test.sql(&format!(
        "INSERT INTO control.namespace (uid, tenant_uid, id, display_name, state, version)
             VALUES ({uid}, 1, 'n{uid}', '', 'ACTIVE', {version});
         INSERT INTO control.outbox (tenant_uid, aggregate_uid, version, payload, published_offset)
             VALUES (1, {uid}, {version}, decode('{payload}', 'hex'), {uid})"
    ))
    .await;
}

fn hex(uid: i64, version: i64) -> String {
    let namespace = NamespaceState { uid: Uid::from_u64(uid as u64).to_string(), ..NamespaceState::default() };
    let resource = Some(Resource::Namespace(namespace));
    let record = ControlRecord { version, resource, ..ControlRecord::default() };
    record.encode_to_vec().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn a_state_that_changed_since_it_was_compared_is_not_raised() {
    let test = TestDatabase::prepare().await;
    test.sql("INSERT INTO control.tenant (uid, id, display_name, state) VALUES (1, 'a', '', 'ACTIVE')").await;
    for uid in 1..=4 {
        publish(&test, uid, 2).await;
    }
    let mut tx = test.database.system().begin().await.expect("begin");
    let rows = newest_of(&mut tx, &[1, 2, 3, 4]).await.expect("read");
    tx.rollback().await.expect("rollback");
    // The second changes, another process raises the third higher, the fourth is taken for publishing again.
    test.sql(&format!(
        "INSERT INTO control.outbox (tenant_uid, aggregate_uid, version, payload)
             VALUES (1, 2, 3, decode('{}', 'hex'));
         UPDATE control.outbox SET version = 9, payload = decode('{}', 'hex') WHERE aggregate_uid = 3;
         UPDATE control.outbox SET published_offset = NULL WHERE aggregate_uid = 4;",
        hex(2, 3),
        hex(3, 9)
    ))
    .await;
    let mut raised = Vec::new();
    for row in rows {
        if raise(&test.database, row, 7).await.expect("raise") {
            raised.push(row.aggregate_uid);
        }
    }
    assert_eq!(raised, [1, 4]);
    let rows =
        "SELECT string_agg(aggregate_uid || ':' || version || coalesce('@' || published_offset, ''), ' ' ORDER BY id)
                FROM control.outbox";
    assert_eq!(test.sql(rows).await, "1:2@1 2:2@2 3:9@3 4:7 2:3 1:7", "the one that waits keeps its row");
    let versions = "SELECT string_agg(version::text, ' ' ORDER BY uid) FROM control.namespace";
    assert_eq!(test.sql(versions).await, "7 2 2 7", "the next change comes above what was published");
    let payloads = "SELECT encode(payload, 'hex') FROM control.outbox WHERE aggregate_uid = 1 ORDER BY id DESC LIMIT 1";
    let published = test.sql(payloads).await;
    let bytes: Vec<u8> = (0..published.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&published[at..at + 2], 16).expect("hex"))
        .collect();
    let record = ControlRecord::decode(bytes.as_slice()).expect("a record");
    assert_eq!(record.version, 7, "what is published says its version");
}
