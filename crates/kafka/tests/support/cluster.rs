//! A real Kafka as the tests need it: topics with fresh names, and an independent reader.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use sluice_devstack::KafkaConnection;
use sluice_kafka::{Sasl, SecondPath, SinkConfig, SinkRecord};
use sluice_wire::{Client, FetchRequest, Isolation, NewTopic, OffsetAt, Record, decode};

const WITHIN: Duration = Duration::from_secs(10);
const USER: &str = sluice_devstack::ADMIN;

pub(crate) struct Cluster {
    connection: KafkaConnection,
    client: Client,
}

pub(crate) fn in_secs(secs: u64) -> Instant {
    Instant::now() + Duration::from_secs(secs)
}

pub(crate) fn keyed(partition: i32, key: &str, value: &str) -> SinkRecord {
    SinkRecord {
        partition,
        key: Some(Bytes::copy_from_slice(key.as_bytes())),
        value: Some(Bytes::copy_from_slice(value.as_bytes())),
        headers: Vec::new(),
        timestamp_ms: sluice_devstack::now_ms(),
    }
}

impl Cluster {
    pub(crate) fn of(connection: &KafkaConnection) -> Result<Self> {
        Ok(Self { client: connection.client(USER)?, connection: connection.clone() })
    }

    pub(crate) fn sink_config(&self) -> SinkConfig {
        let mut config = SinkConfig::new(&self.connection.bootstrap);
        config.sasl = Some(Sasl {
            ca_pem: std::fs::read_to_string(&self.connection.ca_file).expect("the CA is readable"),
            username: USER.to_owned(),
            password: self.connection.password(USER).expect("the user exists").to_owned().into(),
        });
        config
    }

    /// The client of these tests as the second path.
    pub(crate) fn second_path(&self) -> Arc<dyn SecondPath> {
        let (client, runtime) = (self.client.clone(), tokio::runtime::Handle::current());
        Arc::new(move |partition: Option<(&str, i32)>, within: Duration| {
            runtime.block_on(async {
                let (at, isolation) = (OffsetAt::Latest, Isolation::ReadUncommitted);
                match partition {
                    Some((topic, partition)) => {
                        client.list_offset(topic, partition, at, isolation, within).await.is_ok()
                    }
                    None => client.metadata(&[], within).await.is_ok_and(|cluster| !cluster.brokers.is_empty()),
                }
            })
        })
    }

    pub(crate) fn fresh_name(&self) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        format!("sink-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
    }

    pub(crate) async fn create_topic(&self, partitions: i32) -> Result<String> {
        let name = self.fresh_name();
        self.create_named(&name, partitions).await?;
        Ok(name)
    }

    pub(crate) async fn create_named(&self, name: &str, partitions: i32) -> Result<()> {
        let topic =
            NewTopic { name: name.to_owned(), partitions, replication: -1, configs: std::collections::BTreeMap::new() };
        self.client.create_topic(&topic, WITHIN).await?;
        Ok(())
    }

    pub(crate) async fn add_partitions(&self, name: &str, total: i32) -> Result<()> {
        self.client.create_partitions(name, total, false, WITHIN).await?;
        Ok(())
    }

    pub(crate) async fn delete_topic(&self, name: &str) -> Result<()> {
        self.client.delete_topic(name, WITHIN).await?;
        Ok(())
    }

    /// All records of a partition.
    pub(crate) async fn read(&self, topic: &str, partition: i32) -> Result<Vec<Record>> {
        let mut records: Vec<Record> = Vec::new();
        loop {
            let offset = records.last().map_or(0, |record| record.offset + 1);
            let request = FetchRequest {
                topic: topic.to_owned(),
                topic_id: None,
                partition,
                offset,
                last_epoch: None,
                max_bytes: 8 << 20,
                min_bytes: 1,
                max_wait: Duration::ZERO,
                isolation: Isolation::ReadCommitted,
            };
            let fetched = self.client.fetch(request, WITHIN).await.context("fetch")?;
            let decoded = decode(&fetched.batches, offset, &fetched.aborted)?;
            if decoded.records.is_empty() {
                return Ok(records);
            }
            records.extend(decoded.records);
        }
    }
}
