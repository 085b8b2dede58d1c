//! Figures of the groups dispatched by this process; of tenants only where one loses records, so that somebody can be told.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;

use sluice_runtime::Metrics;
use sluice_types::TenantUid;

/// Tenants that losses are told of by name.
const TENANTS_MAX: usize = 1_000;
/// From a millisecond to ten seconds: what a commit can take.
const SECONDS: [f64; 12] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0, 10.0];

/// See the module.
#[derive(Clone)]
pub(super) struct DispatchMetrics {
    pub(super) deliveries: Counter,
    pub(super) redeliveries: Counter,
    pub(super) acks: Counter,
    pub(super) nacks: Counter,
    pub(super) releases: Counter,
    pub(super) expiries: Counter,
    pub(super) handed_back: Counter,
    pub(super) dead_letters: Counter,
    pub(super) dead_letter_failures: Counter,
    pub(super) stale_settles: Counter,
    pub(super) takeovers: Counter,
    pub(super) evictions: Counter,
    pub(super) fenced: Counter,
    skipped: Family<Vec<(&'static str, String)>, Counter>,
    tenants: Arc<Mutex<BTreeSet<TenantUid>>>,
    pub(super) dead_letter_circles: Counter,
    pub(super) commits_failed: Counter,
    pub(super) commit_seconds: Histogram,
    groups: Arc<Mutex<Vec<Weak<Figures>>>>,
}

/// How one group stands, as of a moment ago.
#[derive(Debug)]
pub(super) struct Figures {
    /// Records behind the end, as last known; below 0: never yet.
    pub(super) lag: AtomicI64,
    /// The fullest window, in thousandths.
    pub(super) fill: AtomicI64,
}

impl Figures {
    /// Records behind the end, as last known.
    pub(super) fn lag(&self) -> Option<i64> {
        Some(self.lag.load(Ordering::Relaxed)).filter(|lag| *lag >= 0)
    }
}

impl DispatchMetrics {
    pub(super) fn register(metrics: &Metrics) -> Self {
        metrics.register("groups", |registry| {
            let mut counter = |name: &str, help: &str| {
                let counter = Counter::default();
                registry.register(name, help, counter.clone());
                counter
            };
            let own = Self {
                deliveries: counter("deliveries", "Records delivered to consumers, redeliveries too"),
                redeliveries: counter("redeliveries", "Records delivered again"),
                acks: counter("acks", "Acknowledgements of records that were out"),
                nacks: counter("nacks", "Refusals of records that were out"),
                releases: counter("releases", "Records that their clients gave back unprocessed"),
                expiries: counter("expiries", "Leases that ended without an answer"),
                handed_back: counter(
                    "handed_back",
                    "Records that did not reach their client and count as not delivered",
                ),
                dead_letters: counter("dead_letters", "Records put into dead-letter topics"),
                dead_letter_failures: counter("dead_letter_failures", "Dead letters that could not be stored yet"),
                stale_settles: counter("stale_settles", "Settlements of leases that were over"),
                takeovers: counter("takeovers", "Groups taken"),
                evictions: counter("evictions", "Members made to leave when a group was taken"),
                fenced: counter("fenced", "Groups lost to another member"),
                skipped: Family::default(),
                tenants: Arc::default(),
                dead_letter_circles: counter(
                    "dead_letter_circles",
                    "Records that groups gave up without a further letter, because they put their letters into each other's topics",
                ),
                commits_failed: counter("commits_failed", "Commits that failed and are tried again"),
                commit_seconds: Histogram::new(SECONDS),
                groups: Arc::default(),
            };
            registry.register(
                "skipped_offsets",
                "Offsets that retention took before they were done, by tenant",
                own.skipped.clone(),
            );
            registry.register("commit_seconds", "Time of a commit", own.commit_seconds.clone());
            registry.register_collector(Box::new(Groups(Arc::clone(&own.groups))));
            own
        })
    }

    /// Offsets of a tenant were lost. Tenants beyond the first thousand are counted together.
    pub(super) fn skipped(&self, tenant: TenantUid, offsets: u64) {
        if offsets == 0 {
            return;
        }
        let mut tenants = self.tenants.lock();
        let known = tenants.contains(&tenant) || (tenants.len() < TENANTS_MAX && tenants.insert(tenant));
        let label = if known { tenant.to_string() } else { "other".to_owned() };
        self.skipped.get_or_create(&vec![("tenant", label)]).inc_by(offsets);
    }

    /// The figures of a group that is dispatched from now on, until they are dropped.
    pub(super) fn group(&self) -> Arc<Figures> {
        let figures = Arc::new(Figures { lag: AtomicI64::new(-1), fill: AtomicI64::new(0) });
        let mut groups = self.groups.lock();
        // Amortized: the list is swept when it would grow.
        if groups.len() == groups.capacity() {
            groups.retain(|group| group.strong_count() > 0);
        }
        groups.push(Arc::downgrade(&figures));
        figures
    }
}

/// Sums up when asked for.
#[derive(Debug)]
struct Groups(Arc<Mutex<Vec<Weak<Figures>>>>);

impl Collector for Groups {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let (mut count, mut lag, mut unknown, mut fill) = (0_i64, 0_i64, 0_i64, 0_i64);
        for figures in self.0.lock().iter().filter_map(Weak::upgrade) {
            count += 1;
            match figures.lag() {
                Some(of_group) => lag = lag.saturating_add(of_group),
                None => unknown += 1,
            }
            fill = fill.max(figures.fill.load(Ordering::Relaxed));
        }
        let mut gauge = |name, help, value: i64| -> Result<(), std::fmt::Error> {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)
        };
        gauge("dispatched", "Groups dispatched here", count)?;
        gauge("lag", "Records behind the end, as last known, over all groups dispatched here", lag)?;
        gauge("lag_unknown", "Groups dispatched here whose lag is not known yet, and not in the sum", unknown)?;
        gauge("window_fill_permille", "The fullest window", fill)
    }
}
