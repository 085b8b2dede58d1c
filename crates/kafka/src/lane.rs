//! One partition's way into Kafka: our queue before librdkafka's.
//!
//! librdkafka cannot withdraw a single record, so a record handed to it is out of our hands for `message.timeout.ms`. Hence a
//! lane hands over only what is likely to be answered soon: not while no broker answers, not before the partition's leader is
//! known, not while the partition has had something outstanding for `stall_after` without a report, and never more than a
//! bound of bytes. Everything else waits here, in order, where its caller can withdraw it. What is outstanding is the probe:
//! its report starts the lane again.

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
    /// When the last report came, or the first of what is outstanding was handed over; `Shared::now_ms`.
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

enum Handed {
    All,
    /// No more at the moment.
    Wait,
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
        let now = self.shared.now_ms();
        self.progress_ms.store(now, Ordering::Relaxed);
        self.handed_bytes.fetch_sub(bytes, Ordering::SeqCst);
        match outcome {
            RecordOutcome::Persisted { .. } => self.shared.progressed(now),
            RecordOutcome::NotPersisted(failure) | RecordOutcome::PossiblyPersisted(failure) => {
                self.shared.reported_failure();
                if failure == Failure::UnknownTopic {
                    self.shared.distrust(&self.topic);
                }
            }
        }
        if self.waiting.load(Ordering::SeqCst) > 0 {
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
        if !queue.chunks.is_empty() {
            if let Some(topic) = self.usable() {
                while let Some(chunk) = queue.chunks.front_mut() {
                    match self.hand_over(chunk, &topic) {
                        Handed::All => drop(queue.chunks.pop_front()),
                        Handed::Wait => break,
                    }
                }
            }
            self.waiting.store(queue.chunks.len(), Ordering::SeqCst);
        }
        // Chunks behind a full lane are woken by reports; the control thread looks after the rest, and after missed ones.
        if !queue.chunks.is_empty() && !queue.listed {
            queue.listed = true;
            self.shared.list(self);
            if !by_control {
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
        (topic.partitions.load(Ordering::Acquire) > self.partition).then_some(topic)
    }

    fn has_room(&self) -> bool {
        let handed = self.handed_bytes.load(Ordering::SeqCst);
        if handed == 0 {
            return true;
        }
        let idle = self.shared.now_ms().saturating_sub(self.progress_ms.load(Ordering::Relaxed));
        idle < self.shared.stall_ms() && handed < self.shared.partition_bytes_max()
    }

    fn hand_over(&self, chunk: &mut Chunk, topic: &NativeTopic) -> Handed {
        let group = &chunk.batch.groups[chunk.group];
        while let Some(index) = group.records.get(chunk.next) {
            if !self.has_room() {
                return Handed::Wait;
            }
            let index = *index as usize;
            if chunk.batch.claim(index) && !self.produce(chunk, index, topic) {
                return Handed::Wait;
            }
            chunk.next += 1;
        }
        Handed::All
    }

    /// False: not now; the record is queued again.
    fn produce(&self, chunk: &Chunk, index: usize, topic: &NativeTopic) -> bool {
        let bytes = chunk.batch.records[index].held_bytes();
        let now = self.shared.now_ms();
        // Before the record goes: its report may come at once.
        if self.handed_bytes.fetch_add(bytes, Ordering::SeqCst) == 0 {
            self.progress_ms.store(now, Ordering::Relaxed);
        }
        self.shared.handing_over(now);
        let Err(code) = topic.produce(&chunk.batch, index) else { return true };
        self.handed_bytes.fetch_sub(bytes, Ordering::SeqCst);
        self.shared.reported_failure();
        match code {
            Code::RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION
            | Code::RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC
            | Code::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART => {
                topic.partitions.store(-1, Ordering::Release);
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
