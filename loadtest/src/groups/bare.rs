//! The peer: a bare librdkafka consumer on the same broker.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};
use sluice_devstack::KafkaConnection;
use sluice_e2e::kafka_reader::client_config;

use super::{PARTITIONS, Run};
use crate::measure::usage::Process;

/// Reads a topic from its beginning, as fast as it can.
pub(super) async fn throughput(kafka: &KafkaConnection, topic: &str, records: usize, bytes: u64) -> Result<Run> {
    let consumer = consumer(kafka, topic, PARTITIONS, Offset::Beginning)?;
    tokio::task::spawn_blocking(move || {
        let own = Process::own();
        let (cpu, started) = (own.cpu_seconds()?, Instant::now());
        let mut read = 0;
        while read < records {
            let message = consumer.poll(Duration::from_secs(30)).context("no record for 30 s")??;
            ensure!(message.payload().is_some(), "a record without a value");
            read += 1;
        }
        let cpu_seconds = own.cpu_seconds()? - cpu;
        Ok(Run { records: read as u64, bytes, seconds: started.elapsed().as_secs_f64(), cpu_seconds })
    })
    .await?
}

/// Nanoseconds from each send to its arrival, one after the other.
pub(super) async fn latency(kafka: &KafkaConnection, topic: &str, calls: usize) -> Result<Vec<u64>> {
    let consumer = consumer(kafka, topic, 1, Offset::End)?;
    let mut config = client_config(kafka)?;
    config.set("enable.idempotence", "true").set("linger.ms", "0");
    let producer: BaseProducer = config.create()?;
    let topic = topic.to_owned();
    tokio::task::spawn_blocking(move || {
        // The consumer looks for the end when it first polls; a first record tells that it stands there.
        let mut took = Vec::with_capacity(calls);
        let mut warm = false;
        while took.len() < calls {
            let started = Instant::now();
            let record = BaseRecord::<(), str>::to(&topic).partition(0).payload("a record of a latency run");
            producer.send(record).map_err(|(error, _)| error)?;
            producer.poll(Duration::ZERO);
            let wait = if warm { Duration::from_secs(10) } else { Duration::from_millis(500) };
            match consumer.poll(wait) {
                Some(message) => {
                    message?;
                    if warm {
                        took.push(started.elapsed().as_nanos() as u64);
                    }
                    warm = true;
                    // Of the warming up there may be more.
                    while !took.is_empty() && took.len() == 1 && consumer.poll(Duration::from_millis(50)).is_some() {}
                }
                None => ensure!(!warm, "a record did not arrive"),
            }
        }
        producer.flush(Duration::from_secs(10))?;
        Ok(took)
    })
    .await?
}

fn consumer(kafka: &KafkaConnection, topic: &str, partitions: i32, from: Offset) -> Result<BaseConsumer> {
    let consumer: BaseConsumer = client_config(kafka)?
        .set("group.id", format!("bare-{topic}"))
        .set("enable.auto.commit", "false")
        .set("check.crcs", "true")
        .set("fetch.wait.max.ms", "500")
        .create()?;
    let mut places = TopicPartitionList::new();
    for partition in 0..partitions {
        places.add_partition_offset(topic, partition, from)?;
    }
    consumer.assign(&places)?;
    Ok(consumer)
}
