//! Kafka stopped, killed, restarted, or not there at the start: every call is answered in time, no answer is a lie, and the
//! same sink goes on within five seconds.

#[path = "support/cluster.rs"]
mod cluster;

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::Result;
use sluice_devstack::Stack;
use sluice_kafka::{Batch, KafkaSink, OnResolved, ProduceSink, RecordOutcome, SinkMetrics, SinkRecord};

use cluster::{Cluster, in_secs, keyed};

const RECOVERY: Duration = Duration::from_secs(5);

/// Counts answers by outcome, and what was resolved in the end.
#[derive(Default)]
struct Ledger {
    next: u32,
    persisted: HashSet<String>,
    not_persisted: HashSet<String>,
    unknown: HashSet<String>,
    resolved: Arc<Mutex<HashSet<String>>>,
}

impl Ledger {
    /// One call with two records; asserts that it is answered in time.
    async fn call(&mut self, sink: &KafkaSink, topic: &str, wait: Duration) -> bool {
        let values: Vec<String> = (0..2).map(|i| format!("{}", self.next + i)).collect();
        self.next += 2;
        let records = values.iter().map(|value| keyed(0, "k", value)).collect();
        let resolved = Arc::clone(&self.resolved);
        let on_resolved: OnResolved = Box::new(move |records: &[SinkRecord], outcomes: &[RecordOutcome]| {
            let mut resolved = resolved.lock().expect("no panic");
            for (record, outcome) in records.iter().zip(outcomes) {
                if matches!(outcome, RecordOutcome::Persisted { .. }) {
                    resolved.insert(String::from_utf8_lossy(record.value.as_ref().expect("value")).into_owned());
                }
            }
        });
        let started = Instant::now();
        let outcomes = sink.submit(topic, Batch { records, on_resolved: Some(on_resolved) }, started + wait).await;
        assert!(started.elapsed() < wait + Duration::from_millis(80), "answered after {:?}", started.elapsed());
        assert_eq!(outcomes.len(), 2);
        for (value, outcome) in values.into_iter().zip(&outcomes) {
            match outcome {
                RecordOutcome::Persisted { .. } => self.persisted.insert(value),
                RecordOutcome::NotPersisted(_) => self.not_persisted.insert(value),
                RecordOutcome::PossiblyPersisted(_) => self.unknown.insert(value),
            };
        }
        outcomes.iter().all(|outcome| matches!(outcome, RecordOutcome::Persisted { .. }))
    }

    async fn recovers(&mut self, sink: &KafkaSink, topic: &str) -> Duration {
        let since = Instant::now();
        while !self.call(sink, topic, Duration::from_millis(500)).await {
            assert!(since.elapsed() < RECOVERY, "no success after {:?}", since.elapsed());
        }
        since.elapsed()
    }

    /// Compares with the log, once everything is decided: what was not known when it was answered is known now.
    async fn settle(&self, sink: &KafkaSink, cluster: &Cluster, topic: &str) -> Result<()> {
        let log = self.holds(sink, cluster, topic).await?;
        let resolved = self.resolved.lock().expect("no panic");
        assert_eq!(*resolved, log, "late reports tell what became of the unknown ones");
        Ok(())
    }

    /// Compares with the log, once everything is decided: every answer was true. A producer that lost its broker never learns
    /// what became of what was on its way.
    async fn holds(&self, sink: &KafkaSink, cluster: &Cluster, topic: &str) -> Result<HashSet<String>> {
        assert!(sink.flush(in_secs(30)).await);
        let read = cluster.read(topic, 0).await?;
        let values: Vec<String> = read
            .iter()
            .map(|record| String::from_utf8_lossy(record.value.as_ref().expect("value")).into_owned())
            .collect();
        let log: HashSet<String> = values.iter().cloned().collect();
        assert_eq!(log.len(), values.len(), "a record is there twice");
        assert!(self.persisted.is_subset(&log), "lost: {:?}", self.persisted.difference(&log));
        assert!(self.not_persisted.is_disjoint(&log), "denied, but there");
        let resolved = self.resolved.lock().expect("no panic");
        assert!(resolved.is_subset(&log), "lost: {:?}", resolved.difference(&log));
        assert!(log.difference(&resolved).all(|value| self.unknown.contains(value)), "known, and not reported");
        Ok(log)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_is_true_through_stop_kill_and_restart() -> Result<()> {
    let stack = Stack::builder().without_postgres().build().await?;
    let kafka = stack.kafka()?;
    let cluster = Cluster::of(kafka.connection())?;
    let topic = cluster.create_topic(1).await?;
    let sink = KafkaSink::start(cluster.sink_config(), SinkMetrics::default(), cluster.second_path())?;
    let mut ledger = Ledger::default();
    assert!(sink.ensure_topic(&topic, 1, in_secs(10)).await);
    for _ in 0..20 {
        assert!(ledger.call(&sink, &topic, Duration::from_secs(5)).await);
    }

    // Stopped: connections stay open and nobody answers.
    kafka.pause(1).await?;
    let stopped = Instant::now();
    while stopped.elapsed() < Duration::from_secs(12) {
        assert!(!ledger.call(&sink, &topic, Duration::from_millis(700)).await);
    }
    assert!(!sink.is_available());
    assert!(ledger.unknown.len() <= 4, "unknown: {}", ledger.unknown.len());
    assert!(ledger.not_persisted.len() >= 20);
    // A patient caller gets its record through.
    let patient = vec![keyed(0, "k", "patient")];
    let patient = sink.submit(&topic, Batch { records: patient, on_resolved: None }, in_secs(15));
    kafka.resume(1)?;
    let after_stop = ledger.recovers(&sink, &topic).await;
    assert!(matches!(patient.await[0], RecordOutcome::Persisted { .. }));
    ledger.resolved.lock().expect("no panic").insert("patient".to_owned());
    ledger.persisted.insert("patient".to_owned());

    // Killed: connections break and nobody listens.
    let unknown = ledger.unknown.len();
    kafka.kill9(1).await?;
    for _ in 0..8 {
        assert!(!ledger.call(&sink, &topic, Duration::from_millis(500)).await);
    }
    assert!(ledger.unknown.len() <= unknown + 4, "unknown: {}", ledger.unknown.len() - unknown);
    kafka.start_broker(1).await?;
    let after_kill = ledger.recovers(&sink, &topic).await;
    ledger.settle(&sink, &cluster, &topic).await?;
    eprintln!(
        "recovered {after_stop:?} after SIGCONT, {after_kill:?} after a restart, {} unknown",
        ledger.unknown.len()
    );

    // Not there at the start.
    kafka.kill9(1).await?;
    let late = KafkaSink::start(cluster.sink_config(), SinkMetrics::default(), cluster.second_path())?;
    for _ in 0..3 {
        assert!(!ledger.call(&late, &topic, Duration::from_millis(300)).await);
    }
    kafka.start_broker(1).await?;
    ledger.recovers(&late, &topic).await;
    ledger.settle(&late, &cluster, &topic).await?;

    // Stopped twice, and longer than Kafka waits for a broker: it comes back fenced, and names topics and no broker.
    for stopped in [Duration::from_secs(7), Duration::from_secs(12)] {
        kafka.pause(1).await?;
        let since = Instant::now();
        while since.elapsed() < stopped {
            ledger.call(&late, &topic, Duration::from_millis(700)).await;
        }
        kafka.resume(1)?;
    }
    let after_two_stops = ledger.recovers(&late, &topic).await;
    eprintln!("recovered {after_two_stops:?} after two stops");
    ledger.holds(&late, &cluster, &topic).await?;
    stack.stop().await;
    Ok(())
}
