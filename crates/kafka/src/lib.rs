//! Appending tenants' records to Kafka: whole batches in, one completion out, a definite outcome per record.
//!
//! [`ProduceSink`] is the boundary; [`KafkaSink`] is today's engine, a few shared idempotent `acks=all` librdkafka producers.
//! What it promises:
//! - no future, lock or allocation per record on our side; values are not copied (they are held until the report);
//! - `NotPersisted` is final: such a record never reaches the log, also not later. `PossiblyPersisted` is said only of a
//!   record that was handed to librdkafka and not reported in time, or that librdkafka itself cannot tell;
//! - records wait in *our* queue, not in librdkafka's, while their partition makes no progress or no broker answers, so that
//!   they can be withdrawn when their caller's deadline comes (see `lane`);
//! - per partition, records enter the log in the order of submission (those that enter at all);
//! - a producer that failed, or makes no progress although the cluster serves, is replaced (see `watch`);
//! - everything held is bounded in bytes, by cluster and by partition.

mod batch;
mod config;
mod control;
mod instance;
mod lane;
mod metrics;
mod native;
mod outcome;
mod shared;
mod sink;
mod watch;

pub use batch::{Batch, OnResolved, SinkRecord};
pub use config::{Compression, Sasl, SinkConfig, SinkLimits};
pub use metrics::{SinkFigures, SinkMetrics};
pub use outcome::{Failure, RecordOutcome};
pub use sink::{Appended, KafkaSink, ProduceSink, SinkError};
pub use watch::SecondPath;
