//! The peer: a bare librdkafka producer with the same promises (idempotent, acks=all) on the same broker.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};
use rdkafka::{ClientConfig, ClientContext};
use sluice_devstack::KafkaConnection;
use sluice_e2e::kafka_reader::client_config;

use super::usage::Process;
use super::{PARTITIONS, values};
use crate::measure::load::Throughput;

/// Sends `records` as fast as it can; batches are librdkafka's own.
pub(super) async fn throughput(kafka: &KafkaConnection, topic: &str, records: usize) -> Result<Throughput> {
    let producer: BaseProducer = config(kafka, "5")?.create()?;
    let topic = topic.to_owned();
    tokio::task::spawn_blocking(move || {
        let values = values();
        let own = Process::own();
        let (cpu, started) = (own.cpu_seconds()?, Instant::now());
        for i in 0..records {
            let mut record = BaseRecord::<(), [u8]>::to(&topic)
                .partition(i as i32 % PARTITIONS)
                .payload(&values[i % values.len()][..]);
            loop {
                match producer.send(record) {
                    Ok(()) => break,
                    Err((_, back)) => {
                        record = back;
                        producer.poll(Duration::from_millis(1));
                    }
                }
            }
            if i % 1_000 == 0 {
                producer.poll(Duration::ZERO);
            }
        }
        producer.flush(Duration::from_secs(60)).context("flush the bare producer")?;
        Ok(Throughput {
            records: records as u64,
            seconds: started.elapsed().as_secs_f64(),
            cpu_seconds: own.cpu_seconds()? - cpu,
        })
    })
    .await?
}

/// Nanoseconds of each single send, one after the other.
pub(super) async fn latency(kafka: &KafkaConnection, topic: &str, calls: usize) -> Result<Vec<u64>> {
    let (sender, receiver) = std::sync::mpsc::channel();
    let producer: ThreadedProducer<Reports> =
        config(kafka, "0")?.create_with_context(Reports { sender: parking_lot::Mutex::new(sender) })?;
    let topic = topic.to_owned();
    tokio::task::spawn_blocking(move || {
        let values = values();
        let mut took = Vec::with_capacity(calls);
        for i in 0..calls {
            let started = Instant::now();
            let record = BaseRecord::<(), [u8]>::to(&topic)
                .partition(i as i32 % PARTITIONS)
                .payload(&values[i % values.len()][..]);
            if let Err((error, _)) = producer.send(record) {
                bail!("send: {error}");
            }
            let delivered = receiver.recv_timeout(Duration::from_secs(10)).context("a delivery report")?;
            if !delivered {
                bail!("a record was not delivered");
            }
            took.push(started.elapsed().as_nanos() as u64);
        }
        Ok(took)
    })
    .await?
}

fn config(kafka: &KafkaConnection, linger_ms: &str) -> Result<ClientConfig> {
    let mut config = client_config(kafka)?;
    // The gateway's own settings, or the comparison would be of settings.
    config
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("linger.ms", linger_ms)
        .set("compression.type", "lz4");
    Ok(config)
}

struct Reports {
    sender: parking_lot::Mutex<std::sync::mpsc::Sender<bool>>,
}

impl ClientContext for Reports {}

impl ProducerContext for Reports {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        // The receiver is gone only when the run is over.
        let _ = self.sender.lock().send(result.is_ok());
    }
}
