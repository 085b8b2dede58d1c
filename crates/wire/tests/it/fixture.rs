//! The broker under test, and small helpers.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use sluice_devstack::{ADMIN, Stack, shared};
use sluice_wire::{Client, FetchRequest, Isolation, KafkaTopicId, NewTopic, OutRecord};

pub(crate) const TIMEOUT: Duration = Duration::from_secs(20);

/// A client of the shared broker: SCRAM over TLS, as the super user.
pub(crate) async fn client() -> Client {
    shared().await.unwrap().kafka().unwrap().client(ADMIN).unwrap()
}

/// A stack of its own, for tests that do harm to it.
pub(crate) async fn own_kafka(brokers: u32) -> Stack {
    Stack::builder().without_postgres().brokers(brokers).build().await.unwrap()
}

pub(crate) fn unique(name: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{name}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Makes a topic and waits until its partitions have leaders.
pub(crate) async fn make_topic(client: &Client, name: &str, partitions: i32, configs: &[(&str, &str)]) -> KafkaTopicId {
    make_replicated(client, name, partitions, 1, configs).await
}

pub(crate) async fn make_replicated(
    client: &Client,
    name: &str,
    partitions: i32,
    replication: i16,
    configs: &[(&str, &str)],
) -> KafkaTopicId {
    let configs: BTreeMap<_, _> = configs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    let topic = NewTopic { name: name.to_owned(), partitions, replication, configs };
    let created = client.create_topic(&topic, TIMEOUT).await.unwrap();
    eventually(
        || async { client.metadata(&[name], TIMEOUT).await.unwrap().topics.remove(0) },
        |topic| topic.topic_id == created.topic_id && topic.partitions.values().all(|part| part.leader.is_some()),
    )
    .await;
    created.topic_id
}

/// A record of now: an old one would fall to the topic's retention.
pub(crate) fn record(key: &str, value: &str) -> OutRecord {
    OutRecord {
        key: Some(Bytes::copy_from_slice(key.as_bytes())),
        value: Some(Bytes::copy_from_slice(value.as_bytes())),
        headers: vec![(Bytes::from_static(b"h"), Some(Bytes::from_static(b"1"))), (Bytes::from_static(b"h"), None)],
        timestamp_ms: now_ms(),
    }
}

pub(crate) fn now_ms() -> i64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis() as i64
}

pub(crate) fn read(topic: &str, offset: i64) -> FetchRequest {
    FetchRequest {
        topic: topic.to_owned(),
        topic_id: None,
        partition: 0,
        offset,
        last_epoch: None,
        max_bytes: 1024 * 1024,
        min_bytes: 1,
        max_wait: Duration::from_millis(500),
        isolation: Isolation::ReadCommitted,
    }
}

/// Repeats a question until its answer satisfies: what the controller wrote reaches brokers a moment later.
pub(crate) async fn eventually<T: std::fmt::Debug, F: Future<Output = T>>(
    mut ask: impl FnMut() -> F,
    satisfied: impl Fn(&T) -> bool,
) -> T {
    let started = Instant::now();
    loop {
        let answer = ask().await;
        if satisfied(&answer) {
            return answer;
        }
        assert!(started.elapsed() < TIMEOUT, "still {answer:?}");
    }
}
