//! What sinks count, by the cluster that they append to.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::outcome::RecordOutcome;

/// Figures of the sinks of a process; clones share them. Their label is the cluster's uid: there are a few.
#[derive(Debug, Clone)]
pub struct SinkFigures {
    held_bytes: Family<ClusterLabel, Gauge>,
    open: Family<ClusterLabel, Gauge>,
    rebuilds: Family<ClusterLabel, Counter>,
    batch_seconds: Family<ClusterLabel, Histogram, fn() -> Histogram>,
    records: Family<OutcomeLabel, Counter>,
}

/// Figures of one sink; clones share them.
#[derive(Debug, Clone)]
pub struct SinkMetrics {
    held_bytes: Gauge,
    open: Gauge,
    rebuilds: Counter,
    persisted: Counter,
    not_persisted: Counter,
    possibly_persisted: Counter,
    batch_seconds: Histogram,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ClusterLabel {
    cluster: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    cluster: String,
    outcome: &'static str,
}

fn batch_seconds() -> Histogram {
    Histogram::new([0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0])
}

impl Default for SinkFigures {
    fn default() -> Self {
        Self {
            held_bytes: Family::default(),
            open: Family::default(),
            rebuilds: Family::default(),
            batch_seconds: Family::new_with_constructor(batch_seconds),
            records: Family::default(),
        }
    }
}

impl SinkFigures {
    /// Registers them.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("held_bytes", "Bytes of records not yet decided", self.held_bytes.clone());
        registry.register("open", "1 while brokers answer and records are handed over", self.open.clone());
        registry.register(
            "rebuilds",
            "Producers replaced: failed for good, or without progress although the cluster serves",
            self.rebuilds.clone(),
        );
        registry.register("records", "Records decided", self.records.clone());
        registry.register("batch_seconds", "From submission to the answer", self.batch_seconds.clone());
    }

    /// Those of one cluster's sink.
    pub fn of(&self, cluster: impl ToString) -> SinkMetrics {
        let cluster = cluster.to_string();
        let label = ClusterLabel { cluster: cluster.clone() };
        let records = |outcome| self.records.get_or_create_owned(&OutcomeLabel { cluster: cluster.clone(), outcome });
        SinkMetrics {
            held_bytes: self.held_bytes.get_or_create_owned(&label),
            open: self.open.get_or_create_owned(&label),
            rebuilds: self.rebuilds.get_or_create_owned(&label),
            persisted: records("persisted"),
            not_persisted: records("not_persisted"),
            possibly_persisted: records("possibly_persisted"),
            batch_seconds: self.batch_seconds.get_or_create_owned(&label),
        }
    }
}

impl Default for SinkMetrics {
    /// Figures that nobody sees.
    fn default() -> Self {
        SinkFigures::default().of("")
    }
}

impl SinkMetrics {
    pub(crate) fn decided(&self, outcome: RecordOutcome) {
        match outcome {
            RecordOutcome::Persisted { .. } => self.persisted.inc(),
            RecordOutcome::NotPersisted(_) => self.not_persisted.inc(),
            RecordOutcome::PossiblyPersisted(_) => self.possibly_persisted.inc(),
        };
    }

    pub(crate) fn held(&self, bytes: u64) {
        self.held_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    pub(crate) fn set_open(&self, open: bool) {
        self.open.set(i64::from(open));
    }

    pub(crate) fn rebuilt(&self) {
        self.rebuilds.inc();
    }

    pub(crate) fn answered(&self, seconds: f64) {
        self.batch_seconds.observe(seconds);
    }
}
