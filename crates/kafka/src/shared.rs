//! What all parts of a sink share: its producers, its lanes, whether brokers answer, what is held.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};

use crate::config::SinkConfig;
use crate::control::Job;
use crate::instance::Instance;
use crate::lane::Lane;
use crate::metrics::SinkMetrics;

/// The state of a sink.
pub(crate) struct Shared {
    pub(crate) config: SinkConfig,
    pub(crate) metrics: SinkMetrics,
    epoch: Instant,
    instances: RwLock<Vec<Arc<Instance>>>,
    /// Lanes by topic, then by partition; made when first used, dropped with the topic.
    lanes: RwLock<HashMap<Arc<str>, Vec<Arc<Lane>>>>,
    /// Lanes with records that wait; the control thread looks after them.
    waiting: Mutex<Vec<Arc<Lane>>>,
    /// Brokers answer: records may be handed over.
    open: AtomicBool,
    /// All brokers went down: look now.
    pub(crate) suspect: AtomicBool,
    pub(crate) closing: AtomicBool,
    /// See `watch`.
    useless: AtomicBool,
    /// Records handed over and not reported.
    outstanding: AtomicU64,
    progress_ms: AtomicU64,
    held: AtomicU64,
    control: SyncSender<Job>,
}

impl Shared {
    pub(crate) fn new(config: SinkConfig, metrics: SinkMetrics, control: SyncSender<Job>) -> Self {
        Self {
            config,
            metrics,
            epoch: Instant::now(),
            instances: RwLock::default(),
            lanes: RwLock::default(),
            waiting: Mutex::default(),
            open: AtomicBool::new(false),
            suspect: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            useless: AtomicBool::new(false),
            outstanding: AtomicU64::new(0),
            progress_ms: AtomicU64::new(0),
            held: AtomicU64::new(0),
            control,
        }
    }

    pub(crate) fn now_ms(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    pub(crate) fn stall_ms(&self) -> u64 {
        u64::try_from(self.config.stall_after.as_millis()).unwrap_or(u64::MAX)
    }

    pub(crate) fn partition_bytes_max(&self) -> u64 {
        self.config.limits.partition_bytes_max
    }

    // Producers.

    pub(crate) fn producer_of(&self, topic: &str, partition: i32) -> usize {
        let first = crc32fast::hash(topic.as_bytes()).wrapping_add(partition.unsigned_abs());
        first as usize % self.config.producers.max(1)
    }

    /// `None` when the sink has ended.
    pub(crate) fn instance(&self, producer: usize) -> Option<Arc<Instance>> {
        self.instances.read().get(producer).cloned()
    }

    pub(crate) fn instances(&self) -> Vec<Arc<Instance>> {
        self.instances.read().clone()
    }

    pub(crate) fn set_instances(&self, instances: Vec<Arc<Instance>>) {
        *self.instances.write() = instances;
    }

    pub(crate) fn replace_instance(&self, producer: usize, instance: Arc<Instance>) {
        self.instances.write()[producer] = instance;
        self.metrics.rebuilt();
    }

    // Lanes.

    pub(crate) fn lane(self: &Arc<Self>, topic: &str, partition: i32) -> Arc<Lane> {
        let at = usize::try_from(partition).unwrap_or(0);
        if let Some(lane) = self.lanes.read().get(topic).and_then(|lanes| lanes.get(at)) {
            return Arc::clone(lane);
        }
        let mut all = self.lanes.write();
        let name: Arc<str> = all.get_key_value(topic).map_or_else(|| topic.into(), |(name, _)| Arc::clone(name));
        let lanes = all.entry(Arc::clone(&name)).or_default();
        for next in lanes.len()..=at {
            lanes.push(Arc::new(Lane::new(Arc::clone(self), Arc::clone(&name), next as i32)));
        }
        Arc::clone(&lanes[at])
    }

    pub(crate) fn lanes_of(&self, topic: &str) -> Vec<Arc<Lane>> {
        self.lanes.read().get(topic).cloned().unwrap_or_default()
    }

    pub(crate) fn drop_lanes(&self, topic: &str) -> Vec<Arc<Lane>> {
        self.lanes.write().remove(topic).unwrap_or_default()
    }

    pub(crate) fn drop_all_lanes(&self) -> Vec<Arc<Lane>> {
        self.waiting.lock().clear();
        self.lanes.write().drain().flat_map(|(_, lanes)| lanes).collect()
    }

    /// The control thread shall look after this lane.
    pub(crate) fn list(&self, lane: &Arc<Lane>) {
        self.waiting.lock().push(Arc::clone(lane));
    }

    pub(crate) fn take_waiting(&self) -> Vec<Arc<Lane>> {
        std::mem::take(&mut *self.waiting.lock())
    }

    /// What producers know of this topic may be wrong: look again before the next record.
    pub(crate) fn distrust(&self, topic: &str) {
        for instance in self.instances.read().iter() {
            if let Some(topic) = instance.topic(topic) {
                topic.distrust();
            }
        }
    }

    // Whether brokers answer.

    pub(crate) fn is_open(&self) -> bool {
        self.open.load(Ordering::SeqCst)
    }

    /// True: it changed.
    pub(crate) fn set_open(&self, open: bool) -> bool {
        self.metrics.set_open(open);
        self.open.swap(open, Ordering::SeqCst) != open
    }

    pub(crate) fn handing_over(&self) {
        if self.outstanding.fetch_add(1, Ordering::Relaxed) == 0 {
            self.alive();
        }
    }

    /// A record was written; when.
    pub(crate) fn progressed(&self) -> u64 {
        self.outstanding.fetch_sub(1, Ordering::Relaxed);
        self.alive()
    }

    /// A failure is no sign of a living broker.
    pub(crate) fn reported_failure(&self) {
        self.outstanding.fetch_sub(1, Ordering::Relaxed);
    }

    /// A broker answered something else.
    pub(crate) fn alive(&self) -> u64 {
        let now_ms = self.now_ms();
        self.progress_ms.store(now_ms, Ordering::Relaxed);
        now_ms
    }

    /// A lane of this producer on which something has been on its way for so long without one success.
    pub(crate) fn stuck_lane(&self, producer: usize, after: Duration) -> Option<Arc<Lane>> {
        if self.outstanding.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let after_ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
        let lanes = self.lanes.read();
        lanes.values().flatten().find(|lane| lane.is_stuck(producer, after_ms)).cloned()
    }

    /// A producer is of no use although the cluster serves.
    pub(crate) fn is_useless(&self) -> bool {
        self.useless.load(Ordering::SeqCst)
    }

    pub(crate) fn set_useless(&self, useless: bool) {
        self.useless.store(useless, Ordering::SeqCst);
    }

    /// Something has been outstanding for too long without any report.
    pub(crate) fn is_stalled(&self) -> bool {
        let idle = self.now_ms().saturating_sub(self.progress_ms.load(Ordering::Relaxed));
        self.outstanding.load(Ordering::Relaxed) > 0 && idle >= self.stall_ms()
    }

    // What is held.

    /// False: it would be more than the sink may hold.
    pub(crate) fn acquire_bytes(&self, bytes: u64) -> bool {
        let fits = |held: u64| Some(held + bytes).filter(|held| *held <= self.config.limits.bytes_max);
        let before = self.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits);
        if let Ok(before) = before {
            self.metrics.held(before + bytes);
        }
        before.is_ok()
    }

    pub(crate) fn release_bytes(&self, bytes: u64) {
        let before = self.held.fetch_sub(bytes, Ordering::Relaxed);
        self.metrics.held(before.saturating_sub(bytes));
    }

    pub(crate) fn held_bytes(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    // Control.

    /// Wakes the control thread; when its queue is full it is awake anyway.
    pub(crate) fn nudge(&self) {
        let _ = self.control.try_send(Job::Look);
    }

    /// False: the control thread has more to do than it takes.
    pub(crate) fn send(&self, job: Job) -> bool {
        self.control.try_send(job).is_ok()
    }
}
