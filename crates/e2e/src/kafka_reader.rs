//! The independent reader: librdkafka as Kafka's super user, straight from the brokers.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers, Message};
use rdkafka::{Offset, TopicPartitionList};
use sluice_devstack::{ADMIN, KafkaConnection};
use sluice_types::record;

use crate::digest::Digest;

const CALL: Duration = Duration::from_secs(10);

/// One record as Kafka has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawRecord {
    pub partition: i32,
    pub offset: i64,
    pub timestamp_ms: Option<i64>,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    /// All headers, ours too.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

impl RawRecord {
    /// The client's headers.
    pub fn client_headers(&self) -> Vec<(String, Option<Vec<u8>>)> {
        record::client_headers(self.headers.clone())
    }

    /// Logical bytes, counted here from the parts.
    pub fn logical_bytes(&self) -> u64 {
        self.key.as_ref().map_or(0, Vec::len) as u64
            + self.value.as_ref().map_or(0, Vec::len) as u64
            + self.header_bytes()
    }

    /// Bytes of the client's headers.
    pub fn header_bytes(&self) -> u64 {
        let bytes: usize =
            self.client_headers().iter().map(|(name, value)| name.len() + value.as_ref().map_or(0, Vec::len)).sum();
        bytes as u64
    }
}

/// Settings of a bare librdkafka client with the super user's rights.
pub fn client_config(kafka: &KafkaConnection) -> Result<ClientConfig> {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", kafka.bootstrap_servers())
        .set("security.protocol", "SASL_SSL")
        .set("sasl.mechanisms", "SCRAM-SHA-512")
        .set("sasl.username", ADMIN)
        .set("sasl.password", kafka.password(ADMIN)?)
        .set("ssl.ca.location", kafka.ca_file.to_string_lossy())
        .set("log_level", "2");
    Ok(config)
}

/// Reads a whole topic, every partition from the first to the last offset there is now. Blocking.
///
/// # Errors
/// If Kafka cannot be reached or the topic is not there.
pub fn read_topic(kafka: &KafkaConnection, topic: &str, mut each: impl FnMut(RawRecord)) -> Result<BTreeMap<i32, i64>> {
    let consumer: BaseConsumer = client_config(kafka)?
        .set("group.id", "independent-reader")
        .set("enable.auto.commit", "false")
        .set("check.crcs", "true")
        .set("enable.partition.eof", "false")
        .set("isolation.level", "read_committed")
        .create()
        .context("make the independent reader")?;
    let metadata = consumer.fetch_metadata(Some(topic), CALL).context("ask for metadata")?;
    let partitions: Vec<i32> =
        metadata.topics().first().context("no such topic")?.partitions().iter().map(|p| p.id()).collect();
    if partitions.is_empty() {
        bail!("{topic}: Kafka knows no partition of it");
    }
    let mut ends = BTreeMap::new();
    let mut left = BTreeMap::new();
    let mut assignment = TopicPartitionList::new();
    for partition in partitions {
        let (low, high) = consumer.fetch_watermarks(topic, partition, CALL).context("ask for watermarks")?;
        ends.insert(partition, high);
        if high > low {
            assignment.add_partition_offset(topic, partition, Offset::Offset(low))?;
            left.insert(partition, high);
        }
    }
    consumer.assign(&assignment)?;
    let mut last_progress = Instant::now();
    while !left.is_empty() {
        let Some(message) = consumer.poll(Duration::from_millis(200)) else {
            if last_progress.elapsed() > Duration::from_secs(30) {
                bail!("{topic}: no progress for 30 s; left: {left:?}");
            }
            // Control records at the end are not delivered; the position tells that they were passed.
            let position = consumer.position()?;
            left.retain(|partition, end| {
                let at = position.find_partition(topic, *partition).map(|entry| entry.offset());
                !matches!(at, Some(Offset::Offset(at)) if at >= *end)
            });
            continue;
        };
        let message = message.context("read")?;
        last_progress = Instant::now();
        let partition = message.partition();
        let end = ends[&partition];
        if message.offset() >= end {
            left.remove(&partition);
            continue;
        }
        let headers = message.headers().map_or_else(Vec::new, |headers| {
            headers.iter().map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec))).collect()
        });
        each(RawRecord {
            partition,
            offset: message.offset(),
            timestamp_ms: message.timestamp().to_millis(),
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().map(<[u8]>::to_vec),
            headers,
        });
        if message.offset() + 1 >= end {
            left.remove(&partition);
        }
    }
    Ok(ends)
}

/// Counts a whole topic.
///
/// # Errors
/// As [`read_topic`].
pub fn digest_topic(kafka: &KafkaConnection, topic: &str) -> Result<Digest> {
    let mut digest = Digest::default();
    read_topic(kafka, topic, |record| {
        digest.add(record.key.as_deref(), record.value.as_deref(), record.header_bytes());
    })?;
    Ok(digest)
}

/// Names of all topics.
///
/// # Errors
/// If Kafka cannot be reached.
pub fn topics(kafka: &KafkaConnection) -> Result<Vec<String>> {
    Ok(partitions(kafka)?.into_iter().map(|(name, _)| name).collect())
}

/// Names of all topics, and how many partitions each has.
///
/// # Errors
/// If Kafka cannot be reached.
pub fn partitions(kafka: &KafkaConnection) -> Result<Vec<(String, i32)>> {
    let consumer: BaseConsumer = client_config(kafka)?.create()?;
    let metadata = consumer.fetch_metadata(None, CALL)?;
    let count = |partitions: usize| i32::try_from(partitions).context("a number of partitions");
    metadata.topics().iter().map(|topic| Ok((topic.name().to_owned(), count(topic.partitions().len())?))).collect()
}

/// How many partitions of all topics lack a replica in sync. Blocking.
///
/// # Errors
/// If Kafka cannot be reached.
pub fn partitions_behind(kafka: &KafkaConnection) -> Result<usize> {
    let consumer: BaseConsumer = client_config(kafka)?.create()?;
    let metadata = consumer.fetch_metadata(None, CALL)?;
    let partitions = metadata.topics().iter().flat_map(|topic| topic.partitions());
    Ok(partitions.filter(|partition| partition.isr().len() < partition.replicas().len()).count())
}

/// Deletes the records of a partition below an offset, as retention does.
///
/// # Errors
/// If Kafka does not.
pub async fn delete_before(kafka: &KafkaConnection, topic: &str, partition: i32, offset: i64) -> Result<()> {
    let admin: AdminClient<DefaultClientContext> = client_config(kafka)?.create()?;
    let mut places = TopicPartitionList::new();
    places.add_partition_offset(topic, partition, Offset::Offset(offset))?;
    admin.delete_records(&places, &AdminOptions::new().operation_timeout(Some(CALL))).await?;
    Ok(())
}
