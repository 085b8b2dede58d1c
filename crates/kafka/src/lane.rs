//! One partition's way into Kafka: our queue before librdkafka's.
//!
//! librdkafka cannot withdraw a single record, so a record handed to it is out of our hands for `message.timeout.ms`. Hence a
//! lane hands over only what is likely to be answered soon: not while no broker answers, not before the partition's leader is
//! known, not while something else is on its way to the partition, and never more than fills a batch. Everything else waits
//! here, in order, where its caller can withdraw it. What is outstanding is the probe: its report starts the lane again.
//!
//! So a record that comes alone goes at once, and the more comes the larger batches get. librdkafka's own ways to fill batches
//! are not used because they poll instead of sleeping: its broker thread does so through the last millisecond of `linger.ms`,
//! and, when idempotent, for as long as records wait for a partition that has five of them in flight. That was four fifths of
//! the CPU time of a loaded gateway.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;
use rdkafka_sys::rd_kafka_resp_err_t as Code;

use crate::batch::InFlight;
use crate::native::NativeTopic;
use crate::outcome::{Failure, RecordOutcome};
use crate::shared::Shared;

/// A partition of a topic.
pub(crate) struct Lane {
    shared: Arc<Shared>,
    pub(crate) topic: Arc<str>,
    pub(crate) partition: i32,
    /// Which producer it uses, always.
    producer: usize,
    /// Bytes handed over and not reported.
    handed_bytes: AtomicU64,
    /// When the last of them was written, or when they were handed over if none was; in the sink's milliseconds.
    progress_ms: AtomicU64,
    waiting: AtomicUsize,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    chunks: VecDeque<Chunk>,
    /// Withdrawn batches that may still be in `chunks`.
    withdrawn: usize,
    /// The control thread knows that this lane waits.
    listed: bool,
}

/// The rest of a batch's records for this partition.
struct Chunk {
    batch: Arc<InFlight>,
    group: usize,
    /// Next position in the group.
    next: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Handed {
    All,
    /// As much is on its way as may be; reports go on.
    Full,
    /// It cannot be sent now; the control thread must look.
    Refused,
}

impl Lane {
    pub(crate) fn new(shared: Arc<Shared>, topic: Arc<str>, partition: i32) -> Self {
        let producer = shared.producer_of(&topic, partition);
        Self {
            shared,
            topic,
            partition,
            producer,
            handed_bytes: AtomicU64::new(0),
            progress_ms: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
            queue: Mutex::default(),
        }
    }

    /// Takes a batch's records for this partition.
    pub(crate) fn submit(self: &Arc<Self>, batch: &Arc<InFlight>, group: usize) {
        let mut queue = self.queue.lock();
        queue.chunks.push_back(Chunk { batch: Arc::clone(batch), group, next: 0 });
        self.pump(&mut queue, false);
    }

    /// Hands over what may be handed over. Called when something changed.
    pub(crate) fn wake(self: &Arc<Self>) {
        self.pump(&mut self.queue.lock(), false);
    }

    /// Like [`Lane::wake`], by the control thread, which forgets the lane with this; it is listed again if it has to wait.
    pub(crate) fn wake_listed(self: &Arc<Self>) {
        let mut queue = self.queue.lock();
        queue.listed = false;
        self.pump(&mut queue, true);
    }

    /// A report came for a record of so many bytes.
    pub(crate) fn reported(self: &Arc<Self>, bytes: u64, outcome: RecordOutcome) {
        let before = self.handed_bytes.fetch_sub(bytes, Ordering::SeqCst);
        match outcome {
            RecordOutcome::Persisted { .. } => self.progress_ms.store(self.shared.progressed(), Ordering::Relaxed),
            RecordOutcome::NotPersisted(failure) | RecordOutcome::PossiblyPersisted(failure) => {
                self.shared.reported_failure();
                if failure == Failure::UnknownTopic {
                    self.shared.distrust(&self.topic);
                }
            }
        }
        // The last one of a batch: the next may go.
        if before == bytes && self.waiting.load(Ordering::SeqCst) > 0 {
            self.wake();
        }
    }

    /// A batch with records here was withdrawn.
    pub(crate) fn note_withdrawn(&self) {
        let mut queue = self.queue.lock();
        queue.withdrawn += 1;
        // Amortized: sweep when at least half may be dead.
        if queue.withdrawn * 2 >= queue.chunks.len() {
            queue.chunks.retain(|chunk| !chunk.batch.is_withdrawn());
            queue.withdrawn = 0;
            self.waiting.store(queue.chunks.len(), Ordering::SeqCst);
        }
    }

    /// Whether something has been on its way by this producer for so long without one success.
    pub(crate) fn is_stuck(&self, producer: usize, after_ms: u64) -> bool {
        let idle = || self.shared.now_ms().saturating_sub(self.progress_ms.load(Ordering::Relaxed));
        self.producer == producer && self.handed_bytes.load(Ordering::SeqCst) > 0 && idle() >= after_ms
    }

    /// Refuses everything that waits here.
    pub(crate) fn refuse_all(&self, failure: Failure) {
        let chunks = {
            let mut queue = self.queue.lock();
            self.waiting.store(0, Ordering::SeqCst);
            std::mem::take(&mut queue.chunks)
        };
        for chunk in chunks {
            for index in &chunk.batch.groups[chunk.group].records[chunk.next..] {
                chunk.batch.refuse(*index as usize, failure);
            }
        }
    }

    fn pump(self: &Arc<Self>, queue: &mut Queue, by_control: bool) {
        // Before looking at what is outstanding: a report either sees this, or has already made room.
        self.waiting.store(queue.chunks.len(), Ordering::SeqCst);
        let mut handed = Handed::Refused;
        if !queue.chunks.is_empty()
            && let Some(topic) = self.usable()
        {
            handed = if self.handed_bytes.load(Ordering::SeqCst) == 0 { Handed::All } else { Handed::Full };
            while handed == Handed::All
                && let Some(chunk) = queue.chunks.front_mut()
            {
                handed = self.hand_over(chunk, &topic);
                if handed == Handed::All {
                    queue.chunks.pop_front();
                }
            }
            self.waiting.store(queue.chunks.len(), Ordering::SeqCst);
        }
        // Chunks behind what is on its way are woken by its reports; the control thread looks after the rest, and after
        // missed ones.
        if !queue.chunks.is_empty() && !queue.listed {
            queue.listed = true;
            self.shared.list(self);
            if !by_control && handed == Handed::Refused {
                self.shared.nudge();
            }
        }
    }

    /// The topic, if this partition may be used now.
    fn usable(&self) -> Option<Arc<NativeTopic>> {
        if !self.shared.is_open() {
            return None;
        }
        let topic = self.shared.instance(self.producer)?.topic(&self.topic)?;
        topic.is_led(self.partition).then_some(topic)
    }

    fn hand_over(&self, chunk: &mut Chunk, topic: &NativeTopic) -> Handed {
        let group = &chunk.batch.groups[chunk.group];
        while let Some(index) = group.records.get(chunk.next) {
            if self.handed_bytes.load(Ordering::SeqCst) >= self.shared.partition_bytes_max() {
                return Handed::Full;
            }
            let index = *index as usize;
            if chunk.batch.claim(index) && !self.produce(chunk, index, topic) {
                return Handed::Refused;
            }
            chunk.next += 1;
        }
        Handed::All
    }

    /// False: not now; the record is queued again.
    fn produce(&self, chunk: &Chunk, index: usize, topic: &NativeTopic) -> bool {
        let bytes = chunk.batch.records[index].held_bytes();
        // Before the record goes: its report may come at once.
        if self.handed_bytes.fetch_add(bytes, Ordering::SeqCst) == 0 {
            self.progress_ms.store(self.shared.now_ms(), Ordering::Relaxed);
        }
        self.shared.handing_over();
        let Err(code) = topic.produce(&chunk.batch, index) else { return true };
        self.handed_bytes.fetch_sub(bytes, Ordering::SeqCst);
        self.shared.reported_failure();
        match code {
            Code::RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION
            | Code::RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC
            | Code::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART => {
                topic.distrust();
                !chunk.batch.unclaim(index)
            }
            Code::RD_KAFKA_RESP_ERR__QUEUE_FULL | Code::RD_KAFKA_RESP_ERR__FATAL => !chunk.batch.unclaim(index),
            other => {
                chunk.batch.decide(index, RecordOutcome::NotPersisted(Failure::from_code(other)));
                true
            }
        }
    }
}
