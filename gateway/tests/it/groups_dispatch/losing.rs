//! What retention takes while a group has it, and what an idle group says of it.

use std::collections::BTreeSet;
use std::time::Duration;

use sluice_gateway::groups::model::Settle;
use sluice_proto::internal::control::v1::group_state::Start;
use sluice_proto::stream::v1::SettleOutcome;
use sluice_wire::{CommitOffset, Committer};

use super::node::{Tenant, keys, until, values};
use super::{LONG, NO_WAIT};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn losses_of_a_live_group_are_counted_to_the_record_and_told_by_whoever_has_it_next() {
    let tenant = Tenant::new().await;
    let topic = tenant.topic("orders", 1).await;
    tenant.group(&["orders"], |_| {});
    let keys_of: Vec<String> = (0..40).map(|at| format!("k{}", at % 7)).collect();
    let keys_of: Vec<&str> = keys_of.iter().map(String::as_str).collect();
    tenant.produce(&topic, 0, &keys_of, 0).await;
    let node = tenant.node("a").await.alone();
    let first = node.collect(7).await;
    assert_eq!(values(&first), (0..7).collect::<Vec<_>>());
    // What was read ahead is given up after a second without a call; then the beginning of the log goes.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    tenant.admin.delete_records_before(&topic.physical(), 0, 20, LONG).await.expect("deleted");
    // Who has a record may acknowledge it, wherever the log begins.
    node.ack(&first).await;
    let mut got = BTreeSet::new();
    until("all is done", async || {
        let taken = node.take(10, Duration::from_secs(1)).await.expect("an answer");
        node.ack(&taken.records).await;
        got.extend(values(&taken.records));
        got.contains(&39) && node.status().await.1.lag == 0
    })
    .await;
    assert!((20..40).all(|value| got.contains(&value)), "{got:?}");
    let lost = (7..20).filter(|value| !got.contains(value)).count() as i64;
    assert!(lost > 0, "all of them were cached");
    let (_, status) = node.status().await;
    let skipped = status.partitions[0].skipped.expect("told");
    assert_eq!((skipped.total_offsets, skipped.to_offset), (lost, 20), "{skipped:?}");
    node.stop().await;

    // By an idle group, and by its next dispatcher, who adds to it.
    let node = tenant.node("b").await.alone();
    assert_eq!(node.status().await.1.partitions[0].skipped, Some(skipped));
    tenant.produce(&topic, 0, &["x", "y"], 40).await;
    tenant.admin.delete_records_before(&topic.physical(), 0, 41, LONG).await.expect("deleted");
    let left = node.collect(1).await;
    assert_eq!(values(&left), [41]);
    node.ack(&left).await;
    let skipped = node.status().await.1.partitions[0].skipped.expect("told");
    assert_eq!((skipped.total_offsets, skipped.from_offset, skipped.to_offset), (lost + 1, 40, 41));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lag_of_an_idle_group_counts_what_can_be_read() {
    let tenant = Tenant::new().await;
    let topic = tenant.topic("orders", 1).await;
    tenant.group(&["orders"], |group| group.key_ordered = false);
    tenant.produce(&topic, 0, &["a"; 20], 0).await;
    let node = tenant.node("a").await.alone();
    let got = node.collect(12).await;
    node.ack(&got[..2]).await;
    // Done out of turn: one that will be lost anyway, one that stays.
    node.ack(&got[5..6]).await;
    node.ack(&got[11..12]).await;
    node.stop().await;
    tenant.admin.delete_records_before(&topic.physical(), 0, 10, LONG).await.expect("deleted");

    let node = tenant.node("a").await.alone();
    let (dispatching, status) = node.status().await;
    assert!(!dispatching);
    assert_eq!((status.lag, status.partitions[0].committed_offset), (9, Some(2)));
    let skipped = status.partitions[0].skipped.expect("told before anybody consumes");
    assert_eq!((skipped.total_offsets, skipped.from_offset, skipped.to_offset), (7, 2, 10));
    let rest = node.collect(9).await;
    assert_eq!(values(&rest), [10, 12, 13, 14, 15, 16, 17, 18, 19]);
    let late = node.settle(Settle::Acknowledge, &keys(&got[2..3])).await;
    assert_ne!(late, [SettleOutcome::Unavailable], "an answer, also for what is lost");
    node.ack(&rest).await;
    assert_eq!(node.take(1, NO_WAIT).await.expect("an answer").records.len(), 0);
    node.stop().await;
}

/// What comes late must not decide where a group begins: that is the first record that is left, also under `latest`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_acknowledgement_or_commit_of_what_retention_took_moves_no_position_and_skips_nothing() {
    let tenant = Tenant::new().await;
    let topic = tenant.topic("orders", 1).await;
    tenant.group(&["orders"], |group| {
        group.start = Some(Start::StartEarliest(false));
        group.key_ordered = false;
    });
    let node = tenant.node("a").await.alone();
    node.take(1, NO_WAIT).await.expect("it begins here");
    tenant.produce(&topic, 0, &["a"; 6], 0).await;
    let lost = node.collect(3).await;
    until("what was read ahead is given up", async || node.status().await.1.consumers.is_empty()).await;
    tenant.admin.delete_records_before(&topic.physical(), 0, 5, LONG).await.expect("deleted");
    // It hits upon the log's beginning, and goes on there.
    let mut left = Vec::new();
    let committed = async || node.status().await.1.partitions[0].committed_offset.expect("a position");
    until("it goes on at what is left", async || {
        left.extend(node.take(1, Duration::from_millis(300)).await.expect("an answer").records);
        committed().await >= 5
    })
    .await;
    let before = committed().await;
    let late = node.settle(Settle::Acknowledge, &keys(&lost)).await;
    assert!(!late.contains(&SettleOutcome::Unavailable), "{late:?}");
    assert_eq!(committed().await, before, "not back to what was lost, nor beyond what is left");
    let group = node.resolved().physical.as_str().to_owned();
    node.stop().await;

    // The commit of a dispatcher that is gone arrives now.
    let position =
        CommitOffset { topic: topic.physical(), partition: 0, offset: 3, leader_epoch: None, metadata: String::new() };
    let stored = tenant.admin.commit_offsets(&group, Committer::Outside, &[position], LONG).await.expect("stored");
    assert!(stored.values().all(Result::is_ok), "{stored:?}");
    tenant.produce(&topic, 0, &["a"; 2], 6).await;
    let node = tenant.node("b").await.alone();
    let got = node.collect(3).await;
    assert_eq!(values(&got), [5, 6, 7], "from the first that is left, and not from the end");
    node.ack(&got).await;
    let (_, status) = node.status().await;
    assert_eq!((status.lag, status.partitions[0].committed_offset), (0, Some(8)));
    node.stop().await;
}

/// A group whose position is not in the log, as after an unclean election: what it had acknowledged is gone.
async fn goes_on(leader_epoch: Option<i32>) {
    let tenant = Tenant::new().await;
    let topic = tenant.topic("orders", 1).await;
    tenant.group(&["orders"], |_| {});
    tenant.produce(&topic, 0, &["a", "b", "c"], 0).await;
    let node = tenant.node("a").await.alone();
    let (offset, metadata) = (100, String::new());
    let position = CommitOffset { topic: topic.physical(), partition: 0, offset, leader_epoch, metadata };
    let group = node.resolved().physical.as_str().to_owned();
    let stored = tenant.admin.commit_offsets(&group, Committer::Outside, &[position], LONG).await.expect("stored");
    assert!(stored.values().all(Result::is_ok), "{stored:?}");
    let says = async |what: &str| node.status().await.1.findings.iter().any(|finding| finding.message.contains(what));
    assert!(says("the log ended at offset 3, before the group's position 100").await, "also when nobody consumes");
    assert_eq!(node.status().await.1.lag, 0);
    until("it goes on", async || {
        node.take(1, Duration::from_millis(300)).await.expect("an answer");
        says("reading goes on at 3").await && node.status().await.1.partitions[0].committed_offset == Some(3)
    })
    .await;
    tenant.produce(&topic, 0, &["d"], 7).await;
    let got = node.collect(1).await;
    assert_eq!(values(&got), [7]);
    node.ack(&got).await;
    node.stop().await;
    let positions = tenant.admin.committed_offsets(&group, Committer::Outside, None, LONG).await.expect("positions");
    let position = positions.into_values().next().expect("one").expect("known").expect("committed");
    assert_eq!((position.offset, position.leader_epoch), (4, Some(0)), "with the epoch of the record before it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_position_beyond_the_end_of_the_log_is_told_and_goes_on_with_what_comes() {
    goes_on(None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_was_cut_off_below_the_position_is_told_and_goes_on_with_what_comes() {
    goes_on(Some(0)).await;
}
