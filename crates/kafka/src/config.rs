//! Settings of a sink and what they mean to librdkafka. Every property that matters is set here, on purpose: its defaults
//! are idempotence off, a 1 GiB queue, five minutes of message timeout, 30 s for a connection.

use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

/// How long librdkafka keeps trying to deliver what was handed to it. A caller that waits less gets `PossiblyPersisted`;
/// the record may still come within this time.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(20);
/// Largest request; above the largest record (1 MiB) with its headers, below the brokers' limit.
const REQUEST_BYTES_MAX: usize = 4 << 20;
const BATCH_BYTES_MAX: usize = 1_000_000;

/// What a sink needs to know.
#[derive(Debug, Clone)]
pub struct SinkConfig {
    /// `host:port` of brokers to start from.
    pub bootstrap: Vec<String>,
    /// TLS and credentials; plain text without.
    pub sasl: Option<Sasl>,
    /// Shows up in the brokers' logs and quotas.
    pub client_id: String,
    /// Producers (connections per broker); a partition always uses the same one.
    pub producers: usize,
    /// Of batches on their way and in the log.
    pub compression: Compression,
    /// What may be held.
    pub limits: SinkLimits,
    /// A cluster that had something outstanding for so long without one report counts as stalled.
    pub stall_after: Duration,
}

/// SASL_SSL with SCRAM-SHA-512.
#[derive(Debug, Clone)]
pub struct Sasl {
    /// The CA's certificates, PEM.
    pub ca_pem: String,
    /// Kafka user.
    pub username: String,
    /// Its password.
    pub password: SecretString,
}

/// Codec of record batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// None.
    None,
    /// LZ4.
    Lz4,
    /// Zstandard.
    Zstd,
}

/// Bounds of what a sink holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SinkLimits {
    /// Bytes of records not yet resolved, queued or handed over.
    pub bytes_max: u64,
    /// Bytes of one partition handed to librdkafka at a time; the next go when all of them are reported. Less than one of its
    /// batches takes, or the rest would wait there.
    pub partition_bytes_max: u64,
}

impl Default for SinkLimits {
    /// 128 MiB in all, 768 KiB a partition.
    fn default() -> Self {
        Self { bytes_max: 128 << 20, partition_bytes_max: 768 << 10 }
    }
}

impl SinkConfig {
    /// Defaults: a producer for every four cores, at most four; LZ4; default limits; stalled after 500 ms.
    ///
    /// What led to them is in `loadtest/results/README.md`: one producer less is a broker thread less to wake and to switch
    /// to, and without compression a record took half as much CPU again, although LZ4 hardly shrank it.
    pub fn new(bootstrap: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            bootstrap: bootstrap.into_iter().map(Into::into).collect(),
            sasl: None,
            client_id: "sluice".to_owned(),
            producers: (std::thread::available_parallelism().map_or(1, usize::from) / 4).clamp(1, 4),
            compression: Compression::Lz4,
            limits: SinkLimits::default(),
            stall_after: Duration::from_millis(500),
        }
    }

    /// librdkafka's properties.
    pub(crate) fn properties(&self) -> Vec<(&'static str, String)> {
        let queue_kbytes = (self.limits.bytes_max / 1024 * 4).clamp(1 << 16, (1 << 31) - 1);
        let mut properties = vec![
            ("bootstrap.servers", self.bootstrap.join(",")),
            ("client.id", self.client_id.clone()),
            ("enable.idempotence", "true".into()),
            ("acks", "all".into()),
            ("max.in.flight.requests.per.connection", "5".into()),
            ("message.timeout.ms", MESSAGE_TIMEOUT.as_millis().to_string()),
            // Lanes collect; see there.
            ("linger.ms", "0".into()),
            ("compression.codec", self.compression.as_str().into()),
            ("message.max.bytes", REQUEST_BYTES_MAX.to_string()),
            ("batch.size", BATCH_BYTES_MAX.to_string()),
            ("batch.num.messages", "10000".into()),
            // Our own admission bounds both far below; these must never be what refuses a record.
            ("queue.buffering.max.messages", "0".into()),
            ("queue.buffering.max.kbytes", queue_kbytes.to_string()),
            // A broker that left a request unanswered for so long is disconnected; idempotence makes the retry safe.
            ("request.timeout.ms", "4000".into()),
            ("socket.timeout.ms", "6000".into()),
            ("socket.connection.setup.timeout.ms", "2000".into()),
            ("socket.nagle.disable", "true".into()),
            ("socket.keepalive.enable", "true".into()),
            ("reconnect.backoff.ms", "50".into()),
            ("reconnect.backoff.max.ms", "500".into()),
            ("retry.backoff.ms", "50".into()),
            ("retry.backoff.max.ms", "500".into()),
            ("topic.metadata.refresh.interval.ms", "60000".into()),
            ("topic.metadata.refresh.fast.interval.ms", "50".into()),
            // A topic is used only after it was seen; so a topic that is gone should fail soon.
            ("topic.metadata.propagation.max.ms", "2000".into()),
            ("allow.auto.create.topics", "false".into()),
            ("statistics.interval.ms", "0".into()),
            ("enable.metrics.push", "false".into()),
            ("log.connection.close", "false".into()),
        ];
        if let Some(sasl) = &self.sasl {
            properties.extend([
                ("security.protocol", "SASL_SSL".into()),
                ("sasl.mechanism", "SCRAM-SHA-512".into()),
                ("sasl.username", sasl.username.clone()),
                ("sasl.password", sasl.password.expose_secret().to_owned()),
                ("ssl.ca.pem", sasl.ca_pem.clone()),
                ("ssl.endpoint.identification.algorithm", "https".into()),
            ]);
        }
        properties
    }
}

impl Compression {
    fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }
}
