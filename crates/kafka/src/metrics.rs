//! What a sink counts.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::outcome::RecordOutcome;

/// Figures of a sink; clones share them.
#[derive(Debug, Clone)]
pub struct SinkMetrics {
    held_bytes: Gauge,
    open: Gauge,
    rebuilds: Counter,
    persisted: Counter,
    not_persisted: Counter,
    possibly_persisted: Counter,
    batch_seconds: Histogram,
    records: Family<OutcomeLabel, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

impl Default for SinkMetrics {
    fn default() -> Self {
        let records: Family<OutcomeLabel, Counter> = Family::default();
        let of = |outcome| records.get_or_create_owned(&OutcomeLabel { outcome });
        Self {
            held_bytes: Gauge::default(),
            open: Gauge::default(),
            rebuilds: Counter::default(),
            persisted: of("persisted"),
            not_persisted: of("not_persisted"),
            possibly_persisted: of("possibly_persisted"),
            batch_seconds: Histogram::new([
                0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
            ]),
            records,
        }
    }
}

impl SinkMetrics {
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
