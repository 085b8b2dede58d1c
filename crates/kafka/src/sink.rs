//! The boundary: [`ProduceSink`], and [`KafkaSink`], which keeps it.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::sync::oneshot;

use crate::batch::{Batch, Group, InFlight};
use crate::config::SinkConfig;
use crate::control::{Control, Ensure, Job};
use crate::instance::Instance;
use crate::metrics::SinkMetrics;
use crate::outcome::{Failure, RecordOutcome};
use crate::shared::Shared;
use crate::watch::{SecondPath, watch};

/// Jobs that may wait for the control thread.
const JOBS_MAX: usize = 16_384;
/// Partition numbers above are refused unseen.
const PARTITIONS_MAX: i32 = 100_000;
const FLUSH_LOOK: Duration = Duration::from_millis(5);

/// Outcomes of a batch, in order of its records.
pub type Appended = BoxFuture<'static, Vec<RecordOutcome>>;

/// Appends batches. Nothing here blocks.
pub trait ProduceSink: Send + Sync + 'static {
    /// Appends the records to a topic. The batch is taken when this returns, so calls in order append in order; the future
    /// resolves by `deadline` whatever happens. Dropping it withdraws what was not handed over yet.
    fn submit(&self, topic: &str, batch: Batch, deadline: Instant) -> Appended;

    /// Waits until leaders of the topic's first `partitions` partitions are known, so that the next [`submit`] does not wait for
    /// that. False: not so by `deadline`.
    ///
    /// [`submit`]: ProduceSink::submit
    fn ensure_topic(&self, topic: &str, partitions: i32, deadline: Instant) -> BoxFuture<'static, bool>;

    /// The topic is gone: drops what is known of it and refuses what waits for it.
    fn forget(&self, topic: &str);

    /// Whether brokers answer.
    fn is_available(&self) -> bool;

    /// Whether a producer is of no use although the cluster serves, and will be replaced, or just was.
    fn is_useless(&self) -> bool;

    /// Waits until everything submitted is decided. False: not so by `deadline`.
    fn flush(&self, deadline: Instant) -> BoxFuture<'static, bool>;
}

/// Why a sink does not start.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// librdkafka refused the settings.
    #[error("configure the producer: {0}")]
    Configuration(String),
    /// No thread.
    #[error("start a thread")]
    Thread(#[source] std::io::Error),
}

/// A sink on shared librdkafka producers. Dropping it gives up what is outstanding; call [`ProduceSink::flush`] before.
pub struct KafkaSink {
    shared: Arc<Shared>,
    /// Its end is the watch thread's.
    _watched: mpsc::Sender<Infallible>,
}

impl KafkaSink {
    /// Starts producers and threads; does not wait for a broker. The second path tells whether a producer without progress is
    /// to blame.
    pub fn start(config: SinkConfig, metrics: SinkMetrics, second: Arc<dyn SecondPath>) -> Result<Self, SinkError> {
        let (jobs, queue) = mpsc::sync_channel(JOBS_MAX);
        let producers = config.producers.max(1);
        let shared = Arc::new(Shared::new(config, metrics, jobs));
        let instances = (0..producers).map(|_| Instance::start(&shared)).collect::<Result<Vec<_>, _>>()?;
        shared.set_instances(instances);
        let control = Control::new(Arc::clone(&shared), queue);
        std::thread::Builder::new()
            .name("kafka-control".into())
            .spawn(move || control.run())
            .map_err(SinkError::Thread)?;
        let ((watched, ended), watched_shared) = (mpsc::channel(), Arc::clone(&shared));
        std::thread::Builder::new()
            .name("kafka-watch".into())
            .spawn(move || watch(&watched_shared, &*second, &ended))
            .map_err(|error| {
                // Or the other thread would keep the producers for ever.
                shared.closing.store(true, Ordering::SeqCst);
                shared.send(Job::Stop);
                SinkError::Thread(error)
            })?;
        Ok(Self { shared, _watched: watched })
    }

    fn enqueue(
        &self,
        topic: &str,
        batch: Batch,
    ) -> Result<(Arc<InFlight>, oneshot::Receiver<Vec<RecordOutcome>>), Refused> {
        let bytes = batch.records.iter().map(|record| record.held_bytes()).sum();
        if self.shared.closing.load(Ordering::SeqCst) {
            return Err(Refused(batch, Failure::Closing));
        }
        if batch.records.iter().any(|record| !(0..PARTITIONS_MAX).contains(&record.partition)) {
            return Err(Refused(batch, Failure::UnknownPartition));
        }
        if !self.shared.acquire_bytes(bytes) {
            return Err(Refused(batch, Failure::Overloaded));
        }
        let (groups, group_of) = self.group(topic, &batch);
        let (batch, outcomes) = InFlight::new(Arc::clone(&self.shared), batch, groups, group_of);
        for (at, group) in batch.groups.iter().enumerate() {
            group.lane.submit(&batch, at);
        }
        Ok((batch, outcomes))
    }

    /// Splits a batch by partition, keeping order.
    fn group(&self, topic: &str, batch: &Batch) -> (Vec<Group>, Vec<u32>) {
        let mut groups: Vec<Group> = Vec::new();
        let mut partitions: Vec<i32> = Vec::new();
        let mut group_of = Vec::with_capacity(batch.records.len());
        let mut by_partition = std::collections::HashMap::new();
        for (index, record) in (0u32..).zip(&batch.records) {
            // Runs of one partition need no look-up.
            let at = match partitions.last() {
                Some(last) if *last == record.partition => partitions.len() - 1,
                _ => *by_partition.entry(record.partition).or_insert_with(|| {
                    partitions.push(record.partition);
                    groups.push(Group { lane: self.shared.lane(topic, record.partition), records: Vec::new() });
                    groups.len() - 1
                }),
            };
            groups[at].records.push(index);
            group_of.push(at as u32);
        }
        (groups, group_of)
    }
}

struct Refused(Batch, Failure);

impl ProduceSink for KafkaSink {
    fn submit(&self, topic: &str, batch: Batch, deadline: Instant) -> Appended {
        let started = Instant::now();
        let metrics = self.shared.metrics.clone();
        if batch.records.is_empty() {
            return futures::future::ready(Vec::new()).boxed();
        }
        match self.enqueue(topic, batch) {
            Ok((batch, outcomes)) => {
                let guard = Withdraw(batch);
                async move {
                    let outcomes = guard.wait(outcomes, deadline).await;
                    metrics.answered(started.elapsed().as_secs_f64());
                    outcomes
                }
                .boxed()
            }
            Err(Refused(batch, failure)) => {
                let outcomes = vec![RecordOutcome::NotPersisted(failure); batch.records.len()];
                outcomes.iter().for_each(|outcome| metrics.decided(*outcome));
                if let Some(on_resolved) = batch.on_resolved {
                    on_resolved(&batch.records, &outcomes);
                }
                futures::future::ready(outcomes).boxed()
            }
        }
    }

    fn ensure_topic(&self, topic: &str, partitions: i32, deadline: Instant) -> BoxFuture<'static, bool> {
        let (done, answer) = oneshot::channel();
        let ensure = Ensure { topic: topic.into(), partitions, until: deadline, done };
        let sent = self.shared.send(Job::Ensure(ensure));
        async move { sent && matches!(tokio::time::timeout_at(deadline.into(), answer).await, Ok(Ok(true))) }.boxed()
    }

    fn forget(&self, topic: &str) {
        if !self.shared.send(Job::Forget(topic.into())) {
            tracing::warn!("too much work for the producer's control thread; a deleted topic stays known");
        }
    }

    fn is_available(&self) -> bool {
        self.shared.is_open()
    }

    fn is_useless(&self) -> bool {
        self.shared.is_useless()
    }

    fn flush(&self, deadline: Instant) -> BoxFuture<'static, bool> {
        let shared = Arc::clone(&self.shared);
        async move {
            while shared.held_bytes() > 0 {
                if Instant::now() >= deadline {
                    return false;
                }
                tokio::time::sleep(FLUSH_LOOK).await;
            }
            true
        }
        .boxed()
    }
}

impl Drop for KafkaSink {
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::SeqCst);
        if !self.shared.send(Job::Stop) {
            tracing::warn!("the producer's control thread is busy and was not told to stop");
        }
    }
}

/// A batch that somebody waits for.
struct Withdraw(Arc<InFlight>);

impl Withdraw {
    async fn wait(self, outcomes: oneshot::Receiver<Vec<RecordOutcome>>, deadline: Instant) -> Vec<RecordOutcome> {
        match tokio::time::timeout_at(deadline.into(), outcomes).await {
            Ok(Ok(outcomes)) => outcomes,
            Ok(Err(_)) | Err(_) => {
                self.0.withdraw(Failure::Deadline);
                self.0.snapshot()
            }
        }
    }
}

impl Drop for Withdraw {
    fn drop(&mut self) {
        if !self.0.is_decided() && !self.0.is_withdrawn() {
            self.0.withdraw(Failure::Deadline);
        }
    }
}

#[cfg(test)]
mod tests;
