//! Brokers that die, freeze, and hand leadership over.

use std::time::{Duration, Instant};

use sluice_devstack::ADMIN;
use sluice_wire::{FetchRequest, LogTail, OffsetAt, Reader, TailOptions, TailState, decode};

use crate::fixture::{TIMEOUT, eventually, make_replicated, make_topic, own_kafka, read, record};

#[tokio::test]
async fn readers_go_on_after_the_broker_was_killed_and_started_again() {
    let stack = own_kafka(1).await;
    let kafka = stack.kafka().unwrap();
    let client = kafka.connection().client(ADMIN).unwrap();
    make_topic(&client, "log", 1, &[]).await;
    client.produce_batch("log", 0, &[record("a", "1")], TIMEOUT).await.unwrap();
    let mut tail = LogTail::new(client.clone(), "log", 0, OffsetAt::Earliest, TailOptions::default());
    assert_eq!(tail.next(TIMEOUT).await.unwrap().position, 1);
    let reader = Reader::new(client.clone());
    let waiting = tokio::spawn({
        let request = FetchRequest { max_wait: Duration::from_secs(120), ..read("log", 1) };
        async move { reader.fetch(request, 0, Duration::from_secs(120)).await }
    });

    kafka.kill9(1).await.unwrap();
    let unavailable = async {
        loop {
            if let TailState::Unavailable { .. } = tail.next(Duration::from_millis(50)).await.unwrap().state {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(5), unavailable).await.expect("the tail says that it cannot read");

    kafka.start_broker(1).await.unwrap();
    let serves = Instant::now();
    client.produce_batch("log", 0, &[record("b", "2")], TIMEOUT).await.unwrap();
    let batch = tail.next(TIMEOUT).await.unwrap();
    assert_eq!((batch.records.len(), batch.position), (1, 2));
    let fetched = waiting.await.unwrap().unwrap();
    assert_eq!(decode(&fetched.batches, 1, &[]).unwrap().next_offset, 2);
    assert!(serves.elapsed() < Duration::from_secs(5), "{:?}", serves.elapsed());
    stack.stop().await;
}

#[tokio::test]
async fn a_frozen_broker_fails_requests_in_time_and_is_used_again_afterwards() {
    let stack = own_kafka(1).await;
    let kafka = stack.kafka().unwrap();
    let mut config = kafka.connection().client_config(ADMIN).unwrap();
    config.request_timeout = Duration::from_secs(1);
    let client = sluice_wire::Client::new(config).unwrap();
    make_topic(&client, "log", 1, &[]).await;
    kafka.pause(1).await.unwrap();
    let started = Instant::now();
    let failed = client.metadata(&["log"], Duration::from_secs(2)).await.unwrap_err();
    assert!(failed.is_retriable(), "{failed:?}");
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
    kafka.resume(1).unwrap();
    eventually(
        || async { client.produce_batch("log", 0, &[record("a", "1")], Duration::from_secs(2)).await.map(drop) },
        Result::is_ok,
    )
    .await
    .unwrap();
    stack.stop().await;
}

#[tokio::test]
async fn readers_follow_the_leader_to_another_broker() {
    let stack = own_kafka(3).await;
    let kafka = stack.kafka().unwrap();
    let client = kafka.connection().client(ADMIN).unwrap();
    make_replicated(&client, "log", 1, 3, &[("min.insync.replicas", "1")]).await;
    let topic = eventually(
        || async { client.metadata(&["log"], TIMEOUT).await.unwrap().topics.remove(0) },
        |topic| topic.partitions[&0].isr.len() == 3,
    )
    .await;
    client.produce_batch("log", 0, &[record("a", "1")], TIMEOUT).await.unwrap();
    let mut tail = LogTail::new(client.clone(), "log", 0, OffsetAt::Earliest, TailOptions::default());
    assert_eq!(tail.next(TIMEOUT).await.unwrap().position, 1);
    let reader = Reader::new(client.clone());
    let waiting = tokio::spawn({
        let request = FetchRequest { max_wait: Duration::from_secs(120), ..read("log", 1) };
        async move { reader.fetch(request, 0, Duration::from_secs(120)).await }
    });

    let records = [record("b", "2")];
    let leader = topic.partitions[&0].leader.unwrap();
    kafka.kill9(leader as u32).await.unwrap();
    let produced =
        eventually(|| client.produce_batch("log", 0, &records, Duration::from_secs(5)), Result::is_ok).await.unwrap();
    let elected = Instant::now();
    let batch = tail.next(TIMEOUT).await.unwrap();
    assert!(batch.position > produced.base_offset, "{batch:?}");
    let fetched = waiting.await.unwrap().unwrap();
    assert!(decode(&fetched.batches, 1, &[]).unwrap().next_offset >= 2);
    assert!(elected.elapsed() < Duration::from_secs(5), "{:?}", elected.elapsed());
    stack.stop().await;
}
