//! Where a group stands, and what of it survives.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use sluice_gateway::groups::dispatch::Timing;
use sluice_gateway::groups::model::Settle;
use sluice_proto::internal::control::v1::Life;
use sluice_proto::internal::control::v1::group_state::Start;
use sluice_proto::stream::v1::{DeliveryState, SettleOutcome};
use sluice_wire::{Committer, ConfigChange, OutRecord};

use super::LONG;
use super::node::{Tenant, keys, until, values};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn latest_means_when_the_group_was_made_not_when_somebody_first_asks() {
    let tenant = Tenant::new().await;
    let topic = tenant.topic("orders", 1).await;
    let made_ms = sluice_devstack::now_ms();
    tenant.group(&["orders"], |group| {
        group.start = Some(Start::StartEarliest(false));
        group.create_time_ms = made_ms;
    });
    let record = |value: &'static str, timestamp_ms| OutRecord {
        key: None,
        value: Some(Bytes::from_static(value.as_bytes())),
        headers: Vec::new(),
        timestamp_ms,
    };
    let records = [record("1", made_ms - 1), record("2", made_ms), record("3", made_ms + 5)];
    tenant.admin.produce_batch(&topic.physical(), 0, &records, LONG).await.expect("produce");
    let node = tenant.node("a").await.alone();
    let (_, status) = node.status().await;
    assert_eq!((status.lag, status.state()), (2, DeliveryState::NoCredit), "told before the first pull, too");
    let got = node.collect(2).await;
    assert_eq!(values(&got), [2, 3]);
    node.ack(&got).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_delay_of_a_refusal_outlives_the_dispatcher() {
    const DELAY: Duration = Duration::from_secs(4);
    let tenant = Tenant::new().await;
    let topic = tenant.topic("orders", 1).await;
    tenant.group(&["orders"], |_| {});
    tenant.produce(&topic, 0, &["a", "b"], 0).await;
    let timing = Timing { idle: Duration::from_millis(300), ..Timing::default() };
    let node = tenant.node_with("a", timing).await.alone();
    let got = node.collect(2).await;
    let refused = Instant::now();
    let refuse = Settle::Refuse { delay: Some(DELAY), reason: "later".into() };
    assert_eq!(node.settle(refuse, &keys(&got[..1])).await, [SettleOutcome::Ok]);
    node.ack(&got[1..]).await;
    until("nobody dispatches it", async || node.dispatchers.is_empty()).await;
    assert!(refused.elapsed() < DELAY, "too slow to show anything");
    let again = node.collect(1).await;
    assert!(refused.elapsed() >= DELAY, "after {:?}", refused.elapsed());
    assert_eq!((values(&again), again[0].key.attempt), (vec![0], 2));
    node.ack(&again).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_between_two_heartbeats_waits_for_the_next_and_is_taken() {
    let tenant = Tenant::new().await;
    let topic = tenant.topic("orders", 1).await;
    tenant.group(&["orders"], |group| group.ack_deadline_ms = 60_000);
    tenant.produce(&topic, 0, &["a", "b"], 0).await;
    let node = tenant.node("a").await.alone();
    let set = |value: &str| ConfigChange::Set(value.to_owned());
    let configs = BTreeMap::from([
        ("consumer.session.timeout.ms".to_owned(), set("20000")),
        ("consumer.heartbeat.interval.ms".to_owned(), set("10000")),
    ]);
    tenant.admin.alter_group_configs(node.resolved().physical.as_str(), &configs, LONG).await.expect("configs");
    let got = node.collect(2).await;
    // Longer than a confirmation is good for, shorter than the next heartbeat takes to come by itself.
    tokio::time::sleep(Duration::from_secs(6)).await;
    let extend = Settle::Extend { time: Some(Duration::from_secs(60)) };
    assert_eq!(node.settle(extend, &keys(&got[1..])).await, [SettleOutcome::Ok]);
    node.nack(&got[..1], "no").await;
    node.ack(&got[1..]).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn positions_are_committed_again_though_nothing_changed_whether_the_group_is_dispatched_or_not() {
    let tenant = Tenant::new().await;
    let topic = tenant.topic("orders", 2).await;
    tenant.group(&["orders"], |_| {});
    let node = tenant.node("a").await.alone();
    assert_eq!(node.dispatchers.refresh_positions().await, 1, "nobody ever consumed; there is nothing to refresh");
    tenant.produce(&topic, 0, &["a"], 0).await;
    let got = node.collect(1).await;
    node.ack(&got).await;
    let commits = || {
        let text = node.metrics.encode();
        let line = text.lines().find(|line| line.starts_with("sluice_groups_commit_seconds_count")).expect("counted");
        line.rsplit(' ').next().and_then(|count| count.parse::<u64>().ok()).expect("a number")
    };
    let before = commits();
    assert_eq!(node.dispatchers.refresh_positions().await, 1);
    until("they are committed", async || commits() > before).await;
    node.stop().await;
    let (_, status) = node.status().await;
    assert_eq!(status.partitions[0].committed_offset, Some(1));
    assert_eq!(node.dispatchers.refresh_positions().await, 1, "in nobody's name");
    let (_, status) = node.status().await;
    assert_eq!((status.partitions[0].committed_offset, status.partitions[1].committed_offset), (Some(1), Some(0)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_that_was_deleted_is_not_made_again_by_refreshing_positions() {
    let tenant = Tenant::new().await;
    let topic = tenant.topic("orders", 1).await;
    tenant.group(&["orders"], |_| {});
    tenant.produce(&topic, 0, &["a"], 0).await;
    let node = tenant.node("a").await.alone();
    let got = node.collect(1).await;
    node.ack(&got).await;
    node.stop().await;
    let group = node.resolved().physical.as_str().to_owned();
    let is_there = async || {
        let listed = tenant.admin.committed_offsets(&group, Committer::Outside, None, LONG).await;
        listed.is_ok_and(|positions| !positions.is_empty())
    };
    assert!(is_there().await);
    // Kafka hears of the deletion before this gateway does.
    tenant.admin.delete_group(&group, LONG).await.expect("deleted");
    node.dispatchers.refresh_positions().await;
    assert!(!is_there().await);
    tenant.group(&["orders"], |group| group.life = Life::Gone.into());
    node.follow(&tenant);
    assert_eq!(node.dispatchers.refresh_positions().await, 0);
    assert!(!is_there().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_flows_in_a_group_that_is_dispatched_and_that_nobody_consumes() {
    let tenant = Tenant::new().await;
    let topic = tenant.topic("orders", 1).await;
    tenant.group(&["orders"], |group| group.key_ordered = false);
    tenant.produce(&topic, 0, &["a"; 6], 0).await;
    let node = tenant.node("a").await.alone();
    let got = node.collect(2).await;
    node.ack(&got).await;
    // Who pulled lately is a consumer, for some seconds.
    until("the consumer is forgotten", async || node.status().await.1.consumers.is_empty()).await;
    let (dispatching, status) = node.status().await;
    assert_eq!((dispatching, status.lag, status.state()), (true, 4, DeliveryState::NoCredit));
    assert_eq!(status.partitions[0].state(), DeliveryState::NoCredit);
    assert!(status.findings[0].message.contains("nobody consumes"), "{:?}", status.findings);
    node.stop().await;
}
