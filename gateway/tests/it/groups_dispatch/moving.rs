//! Groups that move between dispatchers.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use sluice_gateway::groups::model::{Dispatch as _, DispatchError, Settle};
use sluice_proto::internal::control::v1::MemberPhase::{Draining, Left, Serving};
use sluice_proto::stream::v1::SettleOutcome;

use super::node::{Node, Tenant, keys, until, values};

/// Both hear that one of them serves.
fn owns(owner: &Node, other: &Node) {
    let heartbeats = [owner.heartbeat(Serving), other.heartbeat(Draining)];
    owner.hears(&heartbeats);
    other.hears(&heartbeats);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hand_over_loses_nothing_and_brings_only_what_was_not_acknowledged() {
    let tenant = Tenant::new().await;
    let topic = tenant.topic("orders", 3).await;
    tenant.group(&["orders"], |group| group.key_ordered = false);
    let (mut a, mut b) = (tenant.node("a").await, tenant.node("b").await);
    owns(&a, &b);
    let mut stored = BTreeSet::new();
    for round in 0..4_usize {
        for partition in 0..3 {
            tenant.produce(&topic, partition, &["x"; 5], round * 100 + partition as usize * 10).await;
        }
        let got = a.collect(15).await;
        a.ack(&got[..8]).await;
        stored.extend(values(&got[..8]));
        let moved = Instant::now();
        owns(&b, &a);
        let refused = a.dispatchers.take(&a.call(), options()).await.expect_err("another one owns it");
        assert!(matches!(refused, DispatchError::NotDispatcher | DispatchError::Moving(_)), "{refused}");
        let again = b.collect(7).await;
        eprintln!("moved in {:?}", moved.elapsed());
        let expected: BTreeSet<usize> = values(&got[8..]).into_iter().collect();
        assert_eq!(values(&again).into_iter().collect::<BTreeSet<_>>(), expected);
        let stale = b.settle(Settle::Acknowledge, &keys(&got[8..])).await;
        assert!(stale.iter().all(|outcome| *outcome == SettleOutcome::StaleLease), "{stale:?}");
        b.ack(&again).await;
        stored.extend(values(&again));
        assert_eq!(stored.len(), (round + 1) * 15);
        (a, b) = (b, a);
    }
    a.stop().await;
    b.stop().await;
}

fn options() -> sluice_gateway::groups::model::TakeOptions {
    sluice_gateway::groups::model::TakeOptions { records: 1, bytes: 1, wait: Duration::ZERO }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_was_replaced_unawares_stores_nothing_more() {
    let tenant = Tenant::new().await;
    let topic = tenant.topic("orders", 1).await;
    tenant.group(&["orders"], |group| group.key_ordered = false);
    tenant.produce(&topic, 0, &["x"; 6], 0).await;
    let a = tenant.node("a").await.alone();
    let got = a.collect(6).await;
    a.ack(&got[..2]).await;
    // The other one hears that it is gone; it hears nothing.
    let b = tenant.node("b").await;
    b.hears(&[a.heartbeat(Left), b.heartbeat(Serving)]);
    let began = Instant::now();
    let again = b.collect(4).await;
    eprintln!("taken in {:?}", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    assert_eq!(values(&again), [2, 3, 4, 5]);
    match a.dispatchers.settle(&a.call(), Settle::Acknowledge, keys(&got[2..4])).await {
        Ok(outcomes) => assert_eq!(outcomes, [SettleOutcome::StaleLease; 2]),
        // It has heard of it before we asked, and gave up.
        Err(error) => assert!(matches!(error, DispatchError::Moving(_)), "{error}"),
    }
    // Who lost it gives up; it does not fight for it, however often it is asked within its pause.
    until("it gives up", async || a.dispatchers.is_empty()).await;
    a.hears(&[b.heartbeat(Serving), a.heartbeat(Left)]);
    b.ack(&again).await;
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_may_be_alive_is_made_to_leave_after_a_moment() {
    let tenant = Tenant::new().await;
    let topic = tenant.topic("orders", 1).await;
    tenant.group(&["orders"], |group| group.key_ordered = false);
    tenant.produce(&topic, 0, &["x"; 2], 0).await;
    let a = tenant.node("a").await.alone();
    let got = a.collect(2).await;
    let b = tenant.node("b").await;
    b.hears(&[a.heartbeat(Draining), b.heartbeat(Serving)]);
    let began = Instant::now();
    let again = b.collect(2).await;
    eprintln!("taken in {:?}", began.elapsed());
    assert_eq!(values(&again), values(&got));
    let outcomes = a.dispatchers.settle(&a.call(), Settle::Acknowledge, keys(&got)).await;
    match outcomes {
        Ok(outcomes) => assert_eq!(outcomes, [SettleOutcome::StaleLease; 2]),
        Err(error) => assert!(matches!(error, DispatchError::Moving(_)), "{error}"),
    }
    b.ack(&again).await;
    a.stop().await;
    b.stop().await;
}
