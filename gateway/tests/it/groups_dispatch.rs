//! The dispatcher of consumer groups, driven directly, on a real Kafka.

mod crowd;
mod fairness;
mod frozen;
mod letters;
mod losing;
mod moving;
mod node;
mod positions;
mod retrying;
mod soak;
mod streaming;

use std::time::Duration;

use sluice_gateway::groups::dispatch::Timing;
use sluice_gateway::groups::model::{DispatchError, Settle};
use sluice_proto::internal::control::v1::Life;
use sluice_proto::internal::control::v1::group_state::Start;
use sluice_proto::stream::v1::reset_offsets_request::To;
use sluice_proto::stream::v1::{DeliveryState, PartitionStatus, Position, ResetOffsetsRequest, SettleOutcome};
use sluice_types::Reason;

use self::node::{Tenant, keys, until, values};

const NO_WAIT: Duration = Duration::ZERO;
const LONG: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_does_not_come_again_after_a_restart_and_all_else_does() {
    let tenant = Tenant::new().await;
    let topic = tenant.topic("orders", 1).await;
    tenant.group(&["orders"], |group| group.key_ordered = false);
    let keys_of: Vec<String> = (0..20).map(|at| format!("k{at}")).collect();
    let keys_of: Vec<&str> = keys_of.iter().map(String::as_str).collect();
    tenant.produce(&topic, 0, &keys_of, 0).await;

    let first = tenant.node("a").await.alone();
    let got = first.collect(20).await;
    assert_eq!(values(&got), (0..20).collect::<Vec<_>>());
    first.ack(&got[..5]).await;
    first.ack(&got[10..15]).await;
    first.ack(&got[..1]).await;
    let (dispatching, status) = first.status().await;
    assert!(dispatching);
    let partition = &status.partitions[0];
    assert_eq!((partition.committed_offset, partition.end_offset, partition.lag), (Some(5), 20, 10));
    assert_eq!((partition.outstanding_records, partition.acked_ahead_records), (10, 5));
    assert_eq!(status.dispatcher, "a");
    first.stop().await;

    let second = tenant.node("a").await.alone();
    let (dispatching, status) = second.status().await;
    assert!(!dispatching);
    assert_eq!((status.lag, status.partitions[0].acked_ahead_records), (10, 5));
    assert_eq!((status.state(), status.partitions[0].state()), (DeliveryState::NoCredit, DeliveryState::NoCredit));
    let again = second.collect(10).await;
    assert_eq!(values(&again), [5, 6, 7, 8, 9, 15, 16, 17, 18, 19]);
    let stale = second.settle(Settle::Acknowledge, &keys(&got[5..6])).await;
    assert_eq!(stale, [SettleOutcome::StaleLease], "a lease of the former dispatcher");
    second.ack(&again).await;
    let empty = second.take(1, NO_WAIT).await.expect("an answer");
    assert_eq!((empty.records.len(), empty.state), (0, DeliveryState::NoRecords));
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_again_hears_what_became_of_its_acknowledgement() {
    let tenant = Tenant::new().await;
    let topic = tenant.topic("orders", 2).await;
    tenant.group(&["orders"], |group| group.key_ordered = false);
    tenant.produce(&topic, 0, &["a", "b", "c"], 0).await;
    tenant.produce(&topic, 1, &["a", "b", "c"], 10).await;
    let first = tenant.node("a").await.alone();
    let mut got = first.collect(6).await;
    got.sort_by_key(|leased| (leased.key.partition, leased.key.offset));
    // One behind a gap, one at the beginning.
    first.ack(&[got[1].clone(), got[3].clone()]).await;
    first.stop().await;

    // The first thing that the next one hears of the group.
    let second = tenant.node("b").await.alone();
    let outcomes = second.settle(Settle::Acknowledge, &keys(&got)).await;
    let (done, stale) = (SettleOutcome::Ok, SettleOutcome::StaleLease);
    assert_eq!(outcomes, [stale, done, stale, done, stale, stale]);
    let again = second.collect(4).await;
    assert_eq!(values(&again).into_iter().collect::<std::collections::BTreeSet<_>>(), [0, 2, 11, 12].into());
    second.ack(&again).await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiting_pull_returns_with_the_first_record() {
    let tenant = Tenant::new().await;
    let topic = tenant.topic("orders", 2).await;
    tenant.group(&["orders"], |group| group.start = Some(Start::StartEarliest(false)));
    let node = tenant.node("a").await.alone();
    let nothing = node.take(10, NO_WAIT).await.expect("an answer");
    assert!(nothing.records.is_empty());
    let (taken, ()) = tokio::join!(node.take(10, LONG), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        tenant.produce(&topic, 1, &["a"], 7).await;
    });
    let taken = taken.expect("an answer");
    assert_eq!(values(&taken.records), [7]);
    node.ack(&taken.records).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_of_a_key_come_one_after_the_other_and_other_keys_do_not_wait() {
    let tenant = Tenant::new().await;
    let topic = tenant.topic("orders", 1).await;
    tenant.group(&["orders"], |_| {});
    tenant.produce(&topic, 0, &["a", "a", "b", "a", "c", "b"], 0).await;
    let node = tenant.node("a").await.alone();
    let first = node.collect(3).await;
    assert_eq!(values(&first), [0, 2, 4]);
    let none = node.take(10, NO_WAIT).await.expect("an answer");
    assert_eq!((none.records.len(), none.state), (0, DeliveryState::WaitingForAcks));
    let (_, status) = node.status().await;
    assert_eq!(status.partitions[0].blocked_records, 3);
    assert!(status.findings.iter().any(|finding| finding.message.contains("earlier record of their key")));
    node.ack(&first[..1]).await;
    let second = node.collect(1).await;
    assert_eq!(values(&second), [1]);
    node.ack(&second).await;
    node.ack(&first[1..]).await;
    let rest = node.collect(2).await;
    assert_eq!(values(&rest), [3, 5]);
    node.ack(&rest).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn added_partitions_and_topics_are_read_while_leases_go_on() {
    let tenant = Tenant::new().await;
    let topic = tenant.topic("orders", 1).await;
    tenant.group(&["orders", "returns"], |group| group.start = Some(Start::StartEarliest(false)));
    let node = tenant.node("a").await.alone();
    node.take(1, NO_WAIT).await.expect("an answer");
    tenant.produce(&topic, 0, &["a"], 1).await;
    let held = node.collect(1).await;
    let (_, status) = node.status().await;
    assert_eq!(status.missing_topics, ["namespaces/prod/topics/returns"]);

    // Read from its beginning, though the group starts at the end.
    tenant.admin.create_partitions(&topic.physical(), 2, false, LONG).await.expect("partitions");
    tenant.wait_for_leaders(&topic, 2).await;
    tenant.produce(&topic, 1, &["b"], 2).await;
    tenant.publish_topic(&topic, 2, Life::Active);
    node.follow(&tenant);
    let added = node.collect(1).await;
    assert_eq!(values(&added), [2]);

    // A topic the group never saw: its start rule.
    let returns = tenant.topic("returns", 1).await;
    node.follow(&tenant);
    let taken = |partition: &&PartitionStatus| partition.state() != DeliveryState::Assigning;
    until("the topic is taken", async || node.status().await.1.partitions.iter().filter(taken).count() == 3).await;
    tenant.produce(&returns, 0, &["c"], 3).await;
    let new = node.collect(1).await;
    assert_eq!(values(&new), [3]);
    node.ack(&held).await;
    node.ack(&added).await;
    node.ack(&new).await;

    // Taken out of the group: no more of it.
    tenant.group(&["orders"], |_| {});
    node.follow(&tenant);
    until("the topic is given back", async || node.status().await.1.partitions.len() == 2).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn positions_are_moved_only_without_consumers_or_by_force() {
    let tenant = Tenant::new().await;
    let topic = tenant.topic("orders", 1).await;
    tenant.group(&["orders"], |_| {});
    tenant.produce(&topic, 0, &["a", "b", "c", "d"], 0).await;
    let node = tenant.node("a").await.alone();
    let to = |to: To| ResetOffsetsRequest { to: Some(to), ..Default::default() };
    let trial = ResetOffsetsRequest { dry_run: true, ..to(To::Offset(2)) };
    let planned = node.reset(trial).await.expect("a plan");
    assert_eq!((planned.partitions[0].from_offset, planned.partitions[0].to_offset), (None, 2));

    let got = node.collect(4).await;
    let refused = node.reset(to(To::Offset(2))).await.expect_err("a consumer is here");
    assert!(matches!(refused, DispatchError::Refused(error) if error.reason == Reason::ConsumersConnected));
    let forced = ResetOffsetsRequest { force: true, ..to(To::Offset(2)) };
    let moved = node.reset(forced).await.expect("moved");
    assert_eq!((moved.partitions[0].from_offset, moved.partitions[0].to_offset), (Some(0), 2));
    assert_eq!(node.settle(Settle::Acknowledge, &keys(&got[..1])).await, [SettleOutcome::StaleLease]);
    let again = node.collect(2).await;
    assert_eq!(values(&again), [2, 3]);
    node.ack(&again).await;
    node.stop().await;

    // Nobody consumes and nobody dispatches.
    let node = tenant.node("a").await.alone();
    let moved = node.reset(to(To::Position(Position::Earliest.into()))).await.expect("moved");
    assert_eq!((moved.partitions[0].from_offset, moved.partitions[0].to_offset), (Some(4), 0));
    for dry_run in [false, true] {
        for offset in [5, 1_764_500_000, i64::MAX] {
            let beyond = ResetOffsetsRequest { dry_run, ..to(To::Offset(offset)) };
            let refused = node.reset(beyond).await.expect_err("nothing is there");
            assert!(matches!(refused, DispatchError::Refused(error) if error.reason == Reason::OffsetOutOfRange));
        }
    }
    assert_eq!(node.status().await.1.lag, 4, "nothing was moved");
    let end = node.reset(to(To::Offset(4))).await.expect("moved");
    assert_eq!(end.partitions[0].to_offset, 4);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unused_group_is_left_and_taken_again_on_demand() {
    let tenant = Tenant::new().await;
    let topic = tenant.topic("orders", 1).await;
    tenant.group(&["orders"], |_| {});
    let timing = Timing { idle: Duration::from_millis(300), ..Timing::default() };
    let node = tenant.node_with("a", timing).await.alone();
    node.take(1, NO_WAIT).await.expect("an answer");
    assert_eq!(node.dispatchers.len(), 1);
    until("it ends", async || node.dispatchers.is_empty()).await;
    let described = tenant.admin.describe_group(node.resolved().physical.as_str(), LONG).await.expect("the group");
    assert!(described.members.is_empty());
    tenant.produce(&topic, 0, &["a"], 5).await;
    let got = node.collect(1).await;
    assert_eq!(values(&got), [5]);
    node.ack(&got).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_position_lost_to_retention_goes_on_at_what_is_left_and_is_told() {
    let tenant = Tenant::new().await;
    let topic = tenant.topic("orders", 1).await;
    // Also where it would begin at the end: what is left was published after its position.
    tenant.group(&["orders"], |group| group.start = Some(Start::StartEarliest(false)));
    let node = tenant.node("a").await.alone();
    node.take(1, NO_WAIT).await.expect("an answer");
    tenant.produce(&topic, 0, &["a", "b"], 0).await;
    let got = node.collect(2).await;
    node.ack(&got).await;
    node.stop().await;
    tenant.produce(&topic, 0, &["c", "d", "e"], 2).await;
    tenant.admin.delete_records_before(&topic.physical(), 0, 4, LONG).await.expect("deleted");

    let node = tenant.node("a").await.alone();
    let rest = node.collect(1).await;
    assert_eq!(values(&rest), [4]);
    let (_, status) = node.status().await;
    let skipped = status.partitions[0].skipped.expect("told");
    assert_eq!((skipped.from_offset, skipped.to_offset, skipped.total_offsets), (2, 4, 2));
    let metric = format!("sluice_groups_skipped_offsets_total{{tenant=\"{}\"}} 2", node.resolved().tenant_uid);
    assert!(node.metrics.encode().contains(&metric), "{metric}");
    node.ack(&rest).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_without_topics_says_so_and_a_deleted_one_is_not_found() {
    let tenant = Tenant::new().await;
    tenant.group(&["orders"], |_| {});
    let node = tenant.node("a").await.alone();
    let none = node.take(1, NO_WAIT).await.expect("an answer");
    assert_eq!(none.state, DeliveryState::NoTopics);
    let topic = tenant.topic("orders", 1).await;
    tenant.produce(&topic, 0, &["a"], 5).await;
    node.follow(&tenant);
    let got = node.collect(1).await;
    assert_eq!(values(&got), [5]);
    let call = node.call();
    tenant.group(&["orders"], |group| group.life = Life::Gone.into());
    node.follow(&tenant);
    until("it ends", async || node.dispatchers.is_empty()).await;
    let options = sluice_gateway::groups::model::TakeOptions { records: 1, bytes: 1, wait: NO_WAIT };
    let refused = sluice_gateway::groups::model::Dispatch::take(&*node.dispatchers, &call, options).await;
    assert!(matches!(refused, Err(DispatchError::Refused(error)) if error.reason == Reason::ResourceNotFound));
    node.stop().await;
}
