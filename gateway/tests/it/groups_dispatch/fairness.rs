//! Who gets what of the memory for reading: partitions of a group, and groups of tenants.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use sluice_gateway::groups::dispatch::Timing;
use sluice_gateway::groups::model::{AttachCommand, AttachOptions, Attachment, Dispatch as _, Settle, TakeOptions};
use sluice_kafka::{Batch, ProduceSink as _, RecordOutcome, SinkRecord};
use sluice_wire::OutRecord;

use super::node::{Node, PATIENCE, Tenant, Topic, keys};

/// A backlog of records of one size.
pub(super) async fn backlog(tenant: &Tenant, topic: &Topic, partition: i32, count: usize, bytes: usize) {
    let value = bytes::Bytes::from(vec![7; bytes]);
    for from in (0..count).step_by(1_000) {
        let timestamp_ms = sluice_devstack::now_ms();
        let one = |_| OutRecord { value: Some(value.clone()), timestamp_ms, ..OutRecord::default() };
        let records: Vec<OutRecord> = (from..count.min(from + 1_000)).map(one).collect();
        tenant.admin.produce_batch(&topic.physical(), partition, &records, PATIENCE).await.expect("produce");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_with_backlogs_take_turns() {
    const PARTITIONS: i32 = 12;
    const EACH: usize = 9_000;
    let tenant = Tenant::new().await;
    let topic = tenant.topic("orders", PARTITIONS).await;
    tenant.group(&["orders"], |group| group.key_ordered = false);
    for partition in 0..PARTITIONS {
        backlog(&tenant, &topic, partition, EACH, 1).await;
    }
    let node = tenant.node("a").await.alone();
    let mut seen = BTreeSet::new();
    let mut taken = 0;
    while seen.len() < PARTITIONS as usize {
        let records = node.take(500, Duration::from_secs(5)).await.map(|taken| taken.records).unwrap_or_default();
        taken += records.len();
        seen.extend(records.iter().map(|leased| leased.key.partition));
        assert!(taken <= 30_000, "of {taken} records none is from another partition than {seen:?}");
        node.settle(Settle::Acknowledge, &keys(&records)).await;
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_that_inflate_come_one_share_after_the_other() {
    const RECORDS: usize = 141;
    let tenant = Tenant::new().await;
    let topic = tenant.topic("orders", 1).await;
    tenant.group(&["orders"], |group| group.key_ordered = false);
    // Kafka holds some KiB of each; all of them together fit one read, and inflate beyond what one may.
    let value = bytes::Bytes::from(vec![0; (1 << 20) - 100]);
    let sink = tenant.sink();
    for _ in 0..RECORDS / 3 {
        let timestamp_ms = sluice_devstack::now_ms();
        let record =
            || SinkRecord { partition: 0, key: None, value: Some(value.clone()), headers: Vec::new(), timestamp_ms };
        let batch = Batch { records: vec![record(), record(), record()], on_resolved: None };
        let outcomes = sink.submit(&topic.physical(), batch, Instant::now() + PATIENCE).await;
        assert!(outcomes.iter().all(|outcome| matches!(outcome, RecordOutcome::Persisted { .. })), "{outcomes:?}");
    }
    let node = tenant.node("a").await.alone();
    let mut offsets = Vec::new();
    while offsets.len() < RECORDS {
        let taken = node.take(10, Duration::from_secs(5)).await.expect("an answer");
        assert!(!taken.records.is_empty(), "{:?} after {} records", taken.state, offsets.len());
        offsets.extend(taken.records.iter().map(|leased| leased.key.offset));
        node.ack(&taken.records).await;
    }
    assert_eq!(offsets, (0..RECORDS as i64).collect::<Vec<_>>());
    node.stop().await;
}

/// A stream that takes a record and does not read on.
async fn slow(node: &Node, tenant: &Tenant, stream: u64) -> Attachment {
    let options = AttachOptions {
        credit_records: 10_000,
        credit_bytes: 64 << 20,
        batch_records: 1,
        returns_credit: false,
        stream,
        paced: true,
    };
    node.dispatchers.attach(&node.call_of(tenant), options).await.expect("attached")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups_that_take_their_backlogs_slowly_leave_memory_to_others() {
    const SLOW: usize = 4;
    let tenants = futures::future::join_all((0..=SLOW).map(|_| Tenant::new())).await;
    for tenant in &tenants {
        let topic = tenant.topic("orders", 1).await;
        tenant.group(&["orders"], |group| group.key_ordered = false);
        backlog(tenant, &topic, 0, 2_000, 500).await;
    }
    // The least that one group needs, for each but one.
    let timing = Timing { cached_bytes: SLOW * (64 << 10), ..Timing::default() };
    let node = tenants[0].node_with("a", timing).await.alone();
    tenants.iter().for_each(|tenant| node.follow(tenant));
    let mut streams = Vec::new();
    for (at, tenant) in tenants[..SLOW].iter().enumerate() {
        streams.push(slow(&node, tenant, at as u64 + 1).await);
    }
    // All the while, each takes a record now and then.
    let slowly = async {
        loop {
            for stream in &mut streams {
                stream.commands.send(AttachCommand::Room { bytes: 1 }).await.expect("taken");
                while let Ok(_event) = stream.events.try_recv() {}
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let late = async {
        let call = node.call_of(&tenants[SLOW]);
        let mut got = 0;
        let until = Instant::now() + PATIENCE;
        while got < 1_000 {
            let options = TakeOptions { records: 500, bytes: 1 << 20, wait: Duration::from_secs(2) };
            got += node.dispatchers.take(&call, options).await.map(|taken| taken.records.len()).unwrap_or_default();
            assert!(Instant::now() < until, "got {got} only");
        }
    };
    tokio::select! {
        () = slowly => {}
        () = late => {}
    }
    node.stop().await;
}
