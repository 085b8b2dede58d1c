//! Figures of the door. Labels come from small, fixed sets.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use sluice_proto::stream::v1::SettleOutcome;

use crate::groups::model::LeaseKey;

/// Labels of what was settled.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct OutcomeLabels {
    outcome: &'static str,
}

/// Labels of a stream's end.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct EndLabels {
    code: &'static str,
}

/// Figures of the door.
#[derive(Debug, Clone, Default)]
pub struct DoorMetrics {
    /// Streams open now.
    pub streams: Gauge,
    /// Streams that had to find another dispatcher.
    pub reattached: Counter,
    records: Counter,
    redelivered: Counter,
    settled: Family<OutcomeLabels, Counter>,
    ended: Family<EndLabels, Counter>,
}

impl DoorMetrics {
    /// Makes them known to a registry.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register("streams", "Streams of consumers that are open", metrics.streams.clone());
        registry.register("streams_reattached", "Times a stream found another dispatcher", metrics.reattached.clone());
        registry.register("streams_ended", "Streams that ended, by code", metrics.ended.clone());
        registry.register("delivered_records", "Records handed to consumers", metrics.records.clone());
        registry.register("redelivered_records", "Of these not for the first time", metrics.redelivered.clone());
        registry.register("settled", "Ids that consumers settled, by outcome", metrics.settled.clone());
        metrics
    }

    pub(super) fn delivered<'a>(&self, leases: impl ExactSizeIterator<Item = &'a LeaseKey>) {
        self.records.inc_by(leases.len() as u64);
        let again = leases.filter(|lease| lease.attempt > 1).count();
        if again > 0 {
            self.redelivered.inc_by(again as u64);
        }
    }

    pub(super) fn settled(&self, outcomes: impl Iterator<Item = SettleOutcome>) {
        let mut counts = [0_u64; 4];
        for outcome in outcomes {
            counts[match outcome {
                SettleOutcome::Ok => 0,
                SettleOutcome::StaleLease => 1,
                SettleOutcome::Invalid => 2,
                SettleOutcome::Unavailable | SettleOutcome::Unspecified => 3,
            }] += 1;
        }
        for (outcome, count) in ["OK", "STALE_LEASE", "INVALID", "UNAVAILABLE"].into_iter().zip(counts) {
            if count > 0 {
                self.settled.get_or_create(&OutcomeLabels { outcome }).inc_by(count);
            }
        }
    }

    pub(super) fn ended(&self, code: &'static str) {
        self.ended.get_or_create(&EndLabels { code }).inc();
    }
}
