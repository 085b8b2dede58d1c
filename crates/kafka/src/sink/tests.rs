//! What needs a hand inside: a producer that failed for good, and the end of a sink.

use std::sync::atomic::AtomicBool;

use bytes::Bytes;
use sluice_devstack::ADMIN;
use sluice_wire::NewTopic;

use super::*;
use crate::batch::SinkRecord;
use crate::config::Sasl;

const WITHIN: Duration = Duration::from_secs(10);

async fn sink_and_topic() -> (KafkaSink, String) {
    let kafka = sluice_devstack::shared().await.expect("stack").kafka().expect("kafka");
    let mut config = SinkConfig::new(&kafka.bootstrap);
    config.sasl = Some(Sasl {
        ca_pem: std::fs::read_to_string(&kafka.ca_file).expect("the CA"),
        username: ADMIN.to_owned(),
        password: kafka.password(ADMIN).expect("user").to_owned().into(),
    });
    let started = Instant::now();
    let name =
        format!("sink-unit-{}-{:?}", std::process::id(), started).replace(|c: char| !c.is_ascii_alphanumeric(), "-");
    let topic = NewTopic { name: name.clone(), partitions: 4, replication: -1, configs: Default::default() };
    kafka.client(ADMIN).expect("client").create_topic(&topic, WITHIN).await.expect("topic");
    let sink = KafkaSink::start(config, SinkMetrics::default(), Arc::new(|_: Option<(&str, i32)>, _: Duration| true))
        .expect("sink");
    assert!(sink.ensure_topic(&name, 4, started + WITHIN).await);
    (sink, name)
}

fn batch() -> Batch {
    let value = Some(Bytes::from_static(b"v"));
    let record = |partition| SinkRecord { partition, value: value.clone(), timestamp_ms: 1, ..Default::default() };
    Batch { records: (0..4).map(record).collect(), on_resolved: None }
}

fn all_persisted(outcomes: &[RecordOutcome]) -> bool {
    outcomes.iter().all(|outcome| matches!(outcome, RecordOutcome::Persisted { .. }))
}

#[tokio::test(flavor = "multi_thread")]
async fn producers_that_failed_for_good_are_replaced() {
    let (sink, topic) = sink_and_topic().await;
    assert!(all_persisted(&sink.submit(&topic, batch(), Instant::now() + WITHIN).await));
    let failed = sink.shared.instances();
    failed.iter().for_each(|instance| instance.fail());
    // What met the failed one is answered truly; the sink itself goes on.
    let until = Instant::now() + WITHIN;
    while !all_persisted(&sink.submit(&topic, batch(), Instant::now() + Duration::from_secs(2)).await) {
        assert!(Instant::now() < until, "no success");
    }
    assert!(sink.shared.instances().iter().all(|instance| !instance.is_fatal()));
    assert!(sink.flush(Instant::now() + WITHIN).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_producer_that_no_broker_answers_is_replaced_only_while_the_cluster_serves() {
    let serves = Arc::new(AtomicBool::new(false));
    let path = Arc::clone(&serves);
    let second = Arc::new(move |_: Option<(&str, i32)>, _: Duration| path.load(Ordering::SeqCst));
    // Nobody listens there.
    let sink = KafkaSink::start(SinkConfig::new(["127.0.0.1:1"]), SinkMetrics::default(), second).expect("sink");
    let first = sink.shared.instance(0).expect("an instance");
    let until = Instant::now() + WITHIN;
    while !first.is_silent_for(Duration::from_secs(2)) {
        assert!(Instant::now() < until, "never silent");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(!sink.is_useless() && !first.is_fatal(), "the cluster is away, too");
    serves.store(true, Ordering::SeqCst);
    let until = Instant::now() + WITHIN;
    while !sink.is_useless() || Arc::ptr_eq(&first, &sink.shared.instance(0).expect("an instance")) {
        assert!(Instant::now() < until, "not replaced");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    serves.store(false, Ordering::SeqCst);
    while sink.is_useless() {
        assert!(Instant::now() < until, "still blamed");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn what_reaches_a_producer_after_its_end_is_settled_too() {
    // Nobody listens there, so nothing but a purge, or the time of a message, settles anything.
    let sink = KafkaSink::start(
        SinkConfig::new(["127.0.0.1:1"]),
        SinkMetrics::default(),
        Arc::new(|_: Option<(&str, i32)>, _: Duration| false),
    )
    .expect("sink");
    let one = Batch { records: vec![SinkRecord { timestamp_ms: 1, ..Default::default() }], on_resolved: None };
    let (batch, outcomes) = sink.enqueue("late", one).ok().expect("taken");
    let instance = sink.shared.instance(0).expect("an instance");
    let topic = instance.meet("late").expect("a topic");
    instance.stop();
    // Later than it has been looked at what was outstanding.
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(batch.claim(0));
    sink.shared.handing_over();
    topic.produce(&batch, 0).expect("handed over");
    drop(topic);
    let outcomes = tokio::time::timeout(WITHIN / 2, outcomes).await.expect("a report").expect("outcomes");
    assert!(matches!(outcomes[..], [RecordOutcome::NotPersisted(_)]), "{outcomes:?}");
    assert_eq!(sink.shared.held_bytes(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_that_ends_answers_everybody_and_holds_nothing() {
    let (sink, topic) = sink_and_topic().await;
    let calls: Vec<Appended> = (0..50).map(|_| sink.submit(&topic, batch(), Instant::now() + WITHIN)).collect();
    let shared = Arc::clone(&sink.shared);
    drop(sink);
    let started = Instant::now();
    for outcomes in futures::future::join_all(calls).await {
        assert_eq!(outcomes.len(), 4);
    }
    assert!(started.elapsed() < WITHIN / 2, "nobody waits for the deadline: {:?}", started.elapsed());
    assert_eq!(shared.held_bytes(), 0);
}
