//! The sink against a real Kafka: what comes back is what went in, and every outcome is true. Faults are in `faults.rs`.

#[path = "support/cluster.rs"]
mod cluster;

use std::time::{Duration, Instant};

use anyhow::Result;
use bytes::Bytes;
use sluice_kafka::{Batch, Failure, KafkaSink, ProduceSink, RecordOutcome, SinkConfig, SinkMetrics, SinkRecord};

use cluster::{Cluster, in_secs, keyed};

async fn shared() -> Result<(Cluster, KafkaSink)> {
    let cluster = Cluster::of(sluice_devstack::shared().await?.kafka()?)?;
    let sink = KafkaSink::start(cluster.sink_config(), SinkMetrics::default(), cluster.second_path())?;
    Ok((cluster, sink))
}

fn offsets(outcomes: &[RecordOutcome]) -> Vec<i64> {
    outcomes
        .iter()
        .map(|outcome| match outcome {
            RecordOutcome::Persisted { offset: Some(offset), .. } => *offset,
            other => panic!("not persisted: {other:?}"),
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn records_come_back_as_they_went_in_and_in_order() -> Result<()> {
    let (cluster, sink) = shared().await?;
    let topic = cluster.create_topic(2).await?;
    assert!(sink.ensure_topic(&topic, 2, in_secs(10)).await);
    let odd = SinkRecord {
        partition: 1,
        key: Some(Bytes::new()),
        value: None,
        headers: vec![
            (Bytes::from_static(b"a"), Some(Bytes::from_static(b"\0\xff"))),
            (Bytes::from_static(b"a"), None),
            (Bytes::from_static("ü".as_bytes()), Some(Bytes::new())),
        ],
        timestamp_ms: sluice_devstack::now_ms() - 1_234,
    };
    let mut records: Vec<SinkRecord> = (0..500).map(|i| keyed(i % 2, &format!("k{i}"), &format!("v{i}"))).collect();
    records.push(odd.clone());
    let outcomes = sink.submit(&topic, Batch { records, on_resolved: None }, in_secs(10)).await;
    assert_eq!(outcomes.len(), 501);
    for (outcome, wanted) in outcomes.iter().zip((0..500).map(|i| i / 2).chain([250])) {
        // A retry that found the records already there does not hear where; that happens on a busy machine.
        let is_true = |offset: &Option<i64>| offset.is_none_or(|offset| offset == wanted);
        assert!(matches!(outcome, RecordOutcome::Persisted { offset, .. } if is_true(offset)), "{wanted}: {outcome:?}");
    }
    for partition in 0..2 {
        let read = cluster.read(&topic, partition).await?;
        let sent: Vec<String> = (0..500).filter(|i| i % 2 == partition).map(|i| format!("v{i}")).collect();
        let values: Vec<String> = read
            .iter()
            .filter_map(|record| record.value.as_ref())
            .map(|value| String::from_utf8_lossy(value).into_owned())
            .collect();
        assert_eq!(values, sent);
        if partition == 1 {
            let last = read.last().expect("records");
            assert_eq!((last.key.as_deref(), last.value.as_deref()), (Some(&b""[..]), None));
            assert_eq!(last.timestamp_ms, odd.timestamp_ms);
            let headers: Vec<(Bytes, Option<Bytes>)> = last.headers.clone();
            assert_eq!(headers, odd.headers);
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_batches_keep_their_order_and_get_distinct_offsets() -> Result<()> {
    let (cluster, sink) = shared().await?;
    let topic = cluster.create_topic(1).await?;
    assert!(sink.ensure_topic(&topic, 1, in_secs(10)).await);
    let calls: Vec<_> = (0..200)
        .map(|call| {
            let records = (0..50).map(|i| keyed(0, "k", &format!("{call}/{i}"))).collect();
            sink.submit(&topic, Batch { records, on_resolved: None }, in_secs(20))
        })
        .collect();
    let outcomes: Vec<i64> = futures::future::join_all(calls).await.iter().flat_map(|call| offsets(call)).collect();
    assert_eq!(outcomes, (0..10_000).collect::<Vec<i64>>());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_kafka_does_not_know_is_refused_for_certain() -> Result<()> {
    let (cluster, sink) = shared().await?;
    let topic = cluster.fresh_name();
    assert!(!sink.ensure_topic(&topic, 1, Instant::now() + Duration::from_millis(300)).await);
    let batch = Batch { records: vec![keyed(0, "k", "v")], on_resolved: None };
    let outcomes = sink.submit(&topic, batch, in_secs(10)).await;
    assert_eq!(outcomes, vec![RecordOutcome::NotPersisted(Failure::UnknownTopic)]);
    // The look-ups above must not stand in the way of the topic's birth.
    cluster.create_named(&topic, 1).await?;
    assert!(sink.ensure_topic(&topic, 1, in_secs(2)).await);
    let batch = Batch { records: vec![keyed(0, "k", "v")], on_resolved: None };
    assert_eq!(offsets(&sink.submit(&topic, batch, in_secs(2)).await), vec![0]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_added_partition_can_be_used_at_once() -> Result<()> {
    let (cluster, sink) = shared().await?;
    let topic = cluster.create_topic(1).await?;
    assert!(sink.ensure_topic(&topic, 1, in_secs(10)).await);
    cluster.add_partitions(&topic, 3).await?;
    assert!(sink.ensure_topic(&topic, 3, in_secs(2)).await);
    let batch = Batch { records: vec![keyed(2, "k", "v")], on_resolved: None };
    assert_eq!(offsets(&sink.submit(&topic, batch, in_secs(2)).await), vec![0]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_topic_is_refused_and_never_written() -> Result<()> {
    let (cluster, sink) = shared().await?;
    let topic = cluster.create_topic(1).await?;
    assert!(sink.ensure_topic(&topic, 1, in_secs(10)).await);
    let one = || Batch { records: vec![keyed(0, "k", "v")], on_resolved: None };
    offsets(&sink.submit(&topic, one(), in_secs(5)).await);
    cluster.delete_topic(&topic).await?;
    let until = in_secs(20);
    loop {
        match sink.submit(&topic, one(), in_secs(10)).await.as_slice() {
            [RecordOutcome::NotPersisted(Failure::UnknownTopic)] => break,
            // Kafka answers a deletion before its broker acts on it: until then the broker still stores what comes, or
            // calls the topic unavailable.
            [RecordOutcome::Persisted { .. } | RecordOutcome::NotPersisted(Failure::Unavailable)] => {
                assert!(Instant::now() < until, "still there");
            }
            other => panic!("{other:?}"),
        }
    }
    sink.forget(&topic);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_the_sink_may_hold_is_refused_at_once() -> Result<()> {
    let cluster = Cluster::of(sluice_devstack::shared().await?.kafka()?)?;
    let mut config = cluster.sink_config();
    config.limits.bytes_max = 100_000;
    let sink = KafkaSink::start(config, SinkMetrics::default(), cluster.second_path())?;
    let topic = cluster.create_topic(1).await?;
    let batch = Batch { records: vec![keyed(0, "k", &"x".repeat(200_000))], on_resolved: None };
    let outcomes = sink.submit(&topic, batch, in_secs(5)).await;
    assert_eq!(outcomes, vec![RecordOutcome::NotPersisted(Failure::Overloaded)]);
    let batch = Batch { records: vec![keyed(0, "k", "small")], on_resolved: None };
    offsets(&sink.submit(&topic, batch, in_secs(5)).await);
    Ok(())
}

/// OpenSSL's exit handler would free what librdkafka's threads use while they connect.
#[test]
fn a_process_may_end_at_any_moment() -> Result<()> {
    for round in 0..40 {
        let status = std::process::Command::new(std::env::current_exe()?)
            .args(["--exact", "connects_and_ends", "--ignored"])
            .env("SLUICE_TEST_END_AFTER_MS", (round * 5).to_string())
            .stdout(std::process::Stdio::null())
            .status()?;
        anyhow::ensure!(status.success(), "{status} in round {round}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "started by a_process_may_end_at_any_moment"]
#[allow(clippy::disallowed_methods, reason = "this is the main of a process, and the environment its arguments")]
async fn connects_and_ends() -> Result<()> {
    let after = std::env::var("SLUICE_TEST_END_AFTER_MS")?.parse()?;
    let cluster = Cluster::of(sluice_devstack::shared().await?.kafka()?)?;
    // Many, so that some are in the middle of something.
    let config = SinkConfig { producers: 16, ..cluster.sink_config() };
    let _sink = KafkaSink::start(config, SinkMetrics::default(), cluster.second_path())?;
    tokio::time::sleep(Duration::from_millis(after)).await;
    Ok(())
}
