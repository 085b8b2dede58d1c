//! Refused records: backoff, attempts, dead letters.

use std::time::{Duration, Instant};

use sluice_gateway::groups::model::Settle;
use sluice_proto::stream::v1::SettleOutcome;

use super::node::{PATIENCE, Tenant, keys, until, values};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_record_comes_after_its_backoff_and_at_last_goes_to_the_dead_letters() {
    let tenant = Tenant::new().await;
    let topic = tenant.topic("orders", 1).await;
    tenant.group(&["orders"], |group| {
        group.dead_letter_topic_id = "dead".into();
        group.max_attempts = 3;
        group.minimum_backoff_ms = 500;
    });
    tenant.produce(&topic, 0, &["a", "a", "b"], 0).await;
    let node = tenant.node("a").await.alone();
    let first = node.collect(2).await;
    assert_eq!(values(&first), [0, 2]);
    node.ack(&first[1..]).await;
    let mut poison = first[..1].to_vec();
    for (attempt, backoff_ms) in [(2, 500.0), (3, 1_000.0)] {
        let refused = Instant::now();
        node.nack(&poison, "it is poison").await;
        poison = node.collect(1).await;
        let waited = refused.elapsed().as_secs_f64() * 1_000.0;
        assert!((backoff_ms * 0.95..backoff_ms * 1.2 + 50.0).contains(&waited), "{waited} ms for {backoff_ms}");
        assert_eq!((poison[0].key.attempt, values(&poison)), (attempt, vec![0]));
    }
    node.nack(&poison, "it is poison").await;
    // Its topic is not there yet: nothing is lost, nothing of its key comes before it, and the status says why.
    until("the status says so", async || {
        let (_, status) = node.status().await;
        status.findings.iter().any(|finding| finding.message.contains("the dead-letter topic dead does not exist"))
    })
    .await;
    assert!(node.take(1, Duration::ZERO).await.expect("an answer").records.is_empty());
    let dead = tenant.topic("dead", 1).await;
    node.follow(&tenant);
    let next = node.collect(1).await;
    assert_eq!((values(&next), next[0].key.attempt), (vec![1], 1));
    node.ack(&next).await;
    let letters = tenant.records_of(&dead).await;
    assert_eq!(letters.len(), 1);
    let header = |name: &str| {
        let found = letters[0].headers.iter().find(|(of, _)| of.as_ref() == name.as_bytes());
        String::from_utf8(found.and_then(|(_, value)| value.clone()).expect(name).to_vec()).expect("text")
    };
    assert_eq!(header("sluice-dlq-topic"), "namespaces/prod/topics/orders");
    assert_eq!(header("sluice-dlq-reason"), "it is poison");
    assert_eq!((header("sluice-dlq-attempts"), header("sluice-dlq-offset")), ("3".into(), "0".into()));
    assert_eq!(header("sluice-dlq-group"), node.resolved().group_uid.to_string());
    assert!(header("sluice-dlq-first-delivery") < header("sluice-dlq-time"));
    assert!(header("sluice-dlq-record-time") < header("sluice-dlq-first-delivery"));
    let age_ms = sluice_devstack::now_ms() - letters[0].timestamp_ms;
    assert!((0..60_000).contains(&age_ms), "a letter is as old as itself: {age_ms} ms");
    let (_, status) = node.status().await;
    assert_eq!((status.lag, status.partitions[0].committed_offset), (0, Some(3)));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expired_lease_is_stale_and_attempts_outlive_the_dispatcher() {
    let tenant = Tenant::new().await;
    let topic = tenant.topic("orders", 1).await;
    tenant.group(&["orders"], |group| {
        group.ack_deadline_ms = 2_000;
        group.minimum_backoff_ms = 0;
        group.maximum_backoff_ms = 0;
    });
    tenant.produce(&topic, 0, &["a"], 0).await;
    let node = tenant.node("a").await.alone();
    let first = node.collect(1).await;
    let second = node.collect(1).await;
    assert_eq!(second[0].key.attempt, 2);
    assert_eq!(node.settle(Settle::Acknowledge, &keys(&first)).await, [SettleOutcome::StaleLease]);
    let more = Settle::Extend { time: Some(Duration::from_secs(30)) };
    assert_eq!(node.settle(more, &keys(&second)).await, [SettleOutcome::Ok]);
    let none = node.take(1, Duration::from_secs(3)).await.expect("an answer");
    assert!(none.records.is_empty(), "the lease was extended");
    node.stop().await;
    let node = tenant.node("a").await.alone();
    let third = node.collect(1).await;
    assert_eq!(third[0].key.attempt, 2, "a lease that nobody ended was no failure, the one before was");
    node.ack(&third).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_was_given_to_who_has_just_gone_costs_no_attempt() {
    let tenant = Tenant::new().await;
    let topic = tenant.topic("orders", 1).await;
    // Longer than this test waits for anything.
    tenant.group(&["orders"], |group| group.ack_deadline_ms = 60_000);
    let node = tenant.node("a").await.alone();
    assert!(node.take(1, Duration::ZERO).await.expect("an answer").records.is_empty());
    let mut asked = Box::pin(node.take(1, PATIENCE));
    assert!(futures::poll!(&mut asked).is_pending());
    tenant.produce(&topic, 0, &["a"], 0).await;
    until("it is leased", async || {
        node.status().await.1.partitions.iter().any(|partition| partition.outstanding_records == 1)
    })
    .await;
    drop(asked);
    let again = node.collect(1).await;
    assert_eq!((values(&again), again[0].key.attempt), (vec![0], 1));
    node.ack(&again).await;
    node.stop().await;
}
