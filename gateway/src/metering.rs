//! What tenants used, as windows on `sluice.usage`.
//!
//! For produce a window carries exactly the offsets that Kafka acknowledged, with their logical bytes, also of records whose
//! callers were told "possibly" because the acknowledgement came late. What was acknowledged without an offset, or what died
//! with this process, is left uncovered: billing finds it in the log. For reading there is no such second source, so at most
//! the windows that were not published yet are lost with the process.
//!
//! Windows of a source (`{gateway id}/{boot id}`) are numbered without gaps and published in order, one at a time, the same
//! bytes until they are acknowledged; billing drops repeats by number. While Kafka is away usage keeps folding into the next
//! window, which is numbered only when its turn comes: memory grows with partitions, not with time.

pub mod fold;
mod publish;
pub mod window;

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use sluice_runtime::{Metrics, TaskSet};

use crate::view::ResolvedTopic;

use self::fold::{Fold, Interval, PartitionKey};
use self::publish::Publisher;
use self::window::Windows;

/// How long a window stays open.
const WINDOW: Duration = Duration::from_secs(1);

/// Where usage is counted; cheap, called for every batch and every answer.
#[derive(Clone)]
pub struct Meter(Arc<Inner>);

struct Inner {
    fold: Mutex<Fold>,
    close: mpsc::Sender<Close>,
    uncovered: Counter,
    published: Counter,
}

struct Close {
    deadline: Instant,
    done: oneshot::Sender<()>,
}

impl Meter {
    /// Starts publishing.
    pub fn start(source: String, wire: sluice_wire::Client, tasks: &TaskSet, metrics: &Metrics) -> Self {
        let (close, closing) = mpsc::channel(1);
        let (uncovered, published) = metrics.register("usage", |registry| {
            let (uncovered, published) = (Counter::default(), Counter::default());
            registry.register("uncovered_records", "Acknowledged records left for billing to find", uncovered.clone());
            registry.register("windows", "Windows published", published.clone());
            (uncovered, published)
        });
        let meter = Self(Arc::new(Inner { fold: Mutex::default(), close, uncovered, published }));
        let publisher = Publisher::new(wire);
        let run = run(meter.clone(), Windows::new(source), publisher, closing, tasks.shutdown());
        tasks.spawn_critical("usage", run);
        meter
    }

    /// Counts acknowledged records of one call: partition, offset (if known), logical bytes, in order.
    pub fn produced(&self, topic: &ResolvedTopic, records: impl Iterator<Item = (i32, Option<i64>, u64)>) {
        let mut uncovered = 0;
        let mut fold = self.0.fold.lock();
        let mut add = |partition, run: Interval| {
            if !fold.add(key(topic, partition), run) {
                uncovered += run.end.abs_diff(run.start);
            }
        };
        let mut open: Option<(i32, Interval)> = None;
        let mut unknown = 0;
        for (partition, offset, bytes) in records {
            let Some(offset) = offset else {
                unknown += 1;
                continue;
            };
            match &mut open {
                Some((of, run)) if *of == partition && run.end == offset => {
                    run.end += 1;
                    run.bytes += bytes;
                }
                _ => {
                    let next = Interval { start: offset, end: offset.saturating_add(1), bytes };
                    if let Some((of, run)) = open.replace((partition, next)) {
                        add(of, run);
                    }
                }
            }
        }
        if let Some((of, run)) = open {
            add(of, run);
        }
        drop(fold);
        self.0.uncovered.inc_by(uncovered + unknown);
    }

    /// Counts records handed to a reader.
    pub fn delivered(&self, topic: &ResolvedTopic, partition: i32, records: u64, bytes: u64) {
        if records > 0 {
            self.0.fold.lock().delivered(key(topic, partition), records, bytes);
        }
    }

    /// Publishes what is left, and the end of the source. Nothing may be counted after this. Returns by `deadline`.
    pub async fn close(&self, deadline: Instant) {
        let (done, closed) = oneshot::channel();
        let sent = self.0.close.try_send(Close { deadline, done }).is_ok();
        if !sent || !matches!(tokio::time::timeout_at(deadline.into(), closed).await, Ok(Ok(()))) {
            tracing::warn!("the last usage window was not published; billing will wait for it and read the log");
        }
    }

    fn take(&self) -> Fold {
        std::mem::take(&mut *self.0.fold.lock())
    }
}

fn key(topic: &ResolvedTopic, partition: i32) -> PartitionKey {
    PartitionKey { tenant: topic.tenant_uid, namespace: topic.namespace_uid, topic: topic.topic_uid, partition }
}

/// One window after the other, until the end.
async fn run(
    meter: Meter,
    mut windows: Windows,
    publisher: Publisher,
    mut closing: mpsc::Receiver<Close>,
    shutdown: CancellationToken,
) {
    let mut ticks = tokio::time::interval(WINDOW);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let close = loop {
        tokio::select! {
            close = closing.recv() => break close,
            () = shutdown.cancelled() => return,
            _ = ticks.tick() => {}
        }
        windows.fill(meter.take());
        // Ends early when the process closes; what is open is finished below.
        tokio::select! {
            biased;
            close = closing.recv() => break close,
            () = publish_all(&meter, &mut windows, &publisher) => {}
        }
    };
    let Some(Close { deadline, done }) = close else { return };
    windows.fill(meter.take());
    windows.end();
    if tokio::time::timeout_at(deadline.into(), publish_all(&meter, &mut windows, &publisher)).await.is_ok() {
        let _ = done.send(());
    }
    // A task that must not end waits for the others' end.
    shutdown.cancelled().await;
}

/// Cut off anywhere, it goes on with the same window.
async fn publish_all(meter: &Meter, windows: &mut Windows, publisher: &Publisher) {
    while let Some(bytes) = windows.open() {
        publisher.publish(windows.source(), bytes).await;
        windows.published();
        meter.0.published.inc();
    }
}
