//! A batch on its way: a slot per record, one completion.
//!
//! A slot goes from `QUEUED` to `SENT` (handed to librdkafka) or straight to its outcome, and is decided exactly once, by
//! compare-and-swap: that is what makes a withdrawn record certain never to be sent, and a sent one never withdrawn. Whoever
//! decides the last slot completes the batch; that may be long after the caller went away.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicPtr, AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use rdkafka_sys::rd_kafka_resp_err_t as Code;
use tokio::sync::oneshot;

use crate::lane::Lane;
use crate::outcome::{Failure, RecordOutcome};
use crate::shared::Shared;

/// What is counted for a record besides its bytes.
const RECORD_OVERHEAD: u64 = 160;

/// A record to append.
#[derive(Debug, Clone, Default)]
pub struct SinkRecord {
    /// The partition, decided by the caller.
    pub partition: i32,
    /// The key; `None` is Kafka's null.
    pub key: Option<Bytes>,
    /// The value; `None` is Kafka's null.
    pub value: Option<Bytes>,
    /// Headers in order.
    pub headers: Vec<(Bytes, Option<Bytes>)>,
    /// Its time, ms since the epoch, at least 1 (librdkafka takes 0 for "now").
    pub timestamp_ms: i64,
}

impl SinkRecord {
    pub(crate) fn held_bytes(&self) -> u64 {
        let headers: usize = self.headers.iter().map(|(name, value)| name.len() + len(value)).sum();
        (len(&self.key) + len(&self.value) + headers) as u64 + RECORD_OVERHEAD
    }
}

fn len(bytes: &Option<Bytes>) -> usize {
    bytes.as_ref().map_or(0, Bytes::len)
}

/// Called once, when the last record of a batch is decided, with records and outcomes in order; on a producer's thread, so it
/// must be quick. It sees what came too late for the caller, too: what was answered `PossiblyPersisted` can be `Persisted` here.
pub type OnResolved = Box<dyn FnOnce(&[SinkRecord], &[RecordOutcome]) + Send>;

/// Records of one topic.
#[derive(Default)]
pub struct Batch {
    /// The records.
    pub records: Vec<SinkRecord>,
    /// See [`OnResolved`].
    pub on_resolved: Option<OnResolved>,
}

const QUEUED: u64 = 0;
const SENT: u64 = 1;
const PERSISTED: u64 = 2;
const NOT_PERSISTED: u64 = 3;
const POSSIBLY_PERSISTED: u64 = 4;

/// One record's state.
pub(crate) struct Slot {
    /// Set while librdkafka holds the record; see `native::Ticket`.
    pub(crate) owner: AtomicPtr<InFlight>,
    /// The state in the low byte, the failure's number above it.
    state: AtomicU64,
    offset: AtomicI64,
    timestamp_ms: AtomicI64,
}

impl Slot {
    fn new() -> Self {
        Self {
            owner: AtomicPtr::default(),
            state: AtomicU64::new(QUEUED),
            offset: AtomicI64::new(-1),
            timestamp_ms: AtomicI64::new(0),
        }
    }

    fn outcome(&self) -> Option<RecordOutcome> {
        let state = self.state.load(Ordering::Acquire);
        let failure = || decode_failure((state >> 8) as u32 as i32);
        match state & 0xff {
            PERSISTED => Some(RecordOutcome::Persisted {
                offset: Some(self.offset.load(Ordering::Relaxed)).filter(|offset| *offset >= 0),
                timestamp_ms: self.timestamp_ms.load(Ordering::Relaxed),
            }),
            NOT_PERSISTED => Some(RecordOutcome::NotPersisted(failure())),
            POSSIBLY_PERSISTED => Some(RecordOutcome::PossiblyPersisted(failure())),
            _ => None,
        }
    }
}

/// The records of a batch that go to one partition.
pub(crate) struct Group {
    pub(crate) lane: Arc<Lane>,
    /// Positions in the batch, ascending.
    pub(crate) records: Vec<u32>,
}

/// A submitted batch.
pub(crate) struct InFlight {
    pub(crate) records: Vec<SinkRecord>,
    pub(crate) slots: Box<[Slot]>,
    pub(crate) groups: Vec<Group>,
    /// Which group a record is in.
    pub(crate) group_of: Vec<u32>,
    shared: Arc<Shared>,
    undecided: AtomicUsize,
    withdrawn: AtomicBool,
    completion: Mutex<Option<Completion>>,
}

struct Completion {
    waiter: oneshot::Sender<Vec<RecordOutcome>>,
    on_resolved: Option<OnResolved>,
}

impl InFlight {
    pub(crate) fn new(
        shared: Arc<Shared>,
        batch: Batch,
        groups: Vec<Group>,
        group_of: Vec<u32>,
    ) -> (Arc<Self>, oneshot::Receiver<Vec<RecordOutcome>>) {
        let (waiter, outcomes) = oneshot::channel();
        let count = batch.records.len();
        let completion = Completion { waiter, on_resolved: batch.on_resolved };
        let this = Self {
            slots: (0..count).map(|_| Slot::new()).collect(),
            records: batch.records,
            groups,
            group_of,
            shared,
            undecided: AtomicUsize::new(count),
            withdrawn: AtomicBool::new(false),
            completion: Mutex::new(Some(completion)),
        };
        (Arc::new(this), outcomes)
    }

    /// Claims a record for sending. False: it was withdrawn or decided.
    pub(crate) fn claim(&self, index: usize) -> bool {
        if self.withdrawn.load(Ordering::SeqCst) {
            return false;
        }
        self.slots[index].state.compare_exchange(QUEUED, SENT, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    /// Gives a claimed record back that librdkafka did not take. False: its batch was withdrawn meanwhile, and the record was
    /// decided now.
    pub(crate) fn unclaim(&self, index: usize) -> bool {
        self.slots[index].state.store(QUEUED, Ordering::SeqCst);
        if self.withdrawn.load(Ordering::SeqCst) {
            self.refuse(index, Failure::Deadline);
            return false;
        }
        true
    }

    /// Decides a record that was never handed over, unless it is decided or handed over already.
    pub(crate) fn refuse(&self, index: usize, failure: Failure) {
        let decided = NOT_PERSISTED | encode_failure(failure);
        let slot = &self.slots[index];
        if slot.state.compare_exchange(QUEUED, decided, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
            self.settle(index, RecordOutcome::NotPersisted(failure));
        }
    }

    /// Decides a claimed record.
    pub(crate) fn decide(&self, index: usize, outcome: RecordOutcome) {
        let slot = &self.slots[index];
        let state = match outcome {
            RecordOutcome::Persisted { offset, timestamp_ms } => {
                slot.offset.store(offset.unwrap_or(-1), Ordering::Relaxed);
                slot.timestamp_ms.store(timestamp_ms, Ordering::Relaxed);
                PERSISTED
            }
            RecordOutcome::NotPersisted(failure) => NOT_PERSISTED | encode_failure(failure),
            RecordOutcome::PossiblyPersisted(failure) => POSSIBLY_PERSISTED | encode_failure(failure),
        };
        slot.state.store(state, Ordering::Release);
        self.settle(index, outcome);
    }

    /// A delivery report came.
    pub(crate) fn reported(&self, index: usize, report: &Report) {
        let outcome = report.outcome();
        self.decide(index, outcome);
        let lane = &self.groups[self.group_of[index] as usize].lane;
        lane.reported(self.records[index].held_bytes(), outcome);
    }

    fn settle(&self, index: usize, outcome: RecordOutcome) {
        self.shared.metrics.decided(outcome);
        self.shared.release_bytes(self.records[index].held_bytes());
        if self.undecided.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.complete();
        }
    }

    /// Withdraws all that was not handed over yet, for good.
    pub(crate) fn withdraw(&self, failure: Failure) {
        self.withdrawn.store(true, Ordering::SeqCst);
        for index in 0..self.slots.len() {
            self.refuse(index, failure);
        }
        for group in &self.groups {
            group.lane.note_withdrawn();
        }
    }

    /// The outcomes as of now; what is outstanding is possibly persisted.
    pub(crate) fn snapshot(&self) -> Vec<RecordOutcome> {
        let unknown = RecordOutcome::PossiblyPersisted(Failure::Deadline);
        self.slots.iter().map(|slot| slot.outcome().unwrap_or(unknown)).collect()
    }

    pub(crate) fn is_decided(&self) -> bool {
        self.undecided.load(Ordering::Acquire) == 0
    }

    pub(crate) fn is_withdrawn(&self) -> bool {
        self.withdrawn.load(Ordering::SeqCst)
    }

    fn complete(&self) {
        let Some(completion) = self.completion.lock().take() else { return };
        let outcomes = self.snapshot();
        if let Some(on_resolved) = completion.on_resolved {
            on_resolved(&self.records, &outcomes);
        }
        // Nobody waits any more if the deadline came first.
        let _ = completion.waiter.send(outcomes);
    }
}

/// Our own reasons get numbers outside of librdkafka's range.
const OWN: i32 = 1_000_000;

fn encode_failure(failure: Failure) -> u64 {
    let number = match failure {
        Failure::Deadline => OWN,
        Failure::Overloaded => OWN + 1,
        Failure::UnknownTopic => OWN + 2,
        Failure::UnknownPartition => OWN + 3,
        Failure::TooLarge => OWN + 4,
        Failure::Unavailable => OWN + 5,
        Failure::Closing => OWN + 6,
        Failure::Refused(code) => code,
    };
    u64::from(number as u32) << 8
}

fn decode_failure(code: i32) -> Failure {
    match code - OWN {
        0 => Failure::Deadline,
        1 => Failure::Overloaded,
        2 => Failure::UnknownTopic,
        3 => Failure::UnknownPartition,
        4 => Failure::TooLarge,
        5 => Failure::Unavailable,
        6 => Failure::Closing,
        _ => Failure::Refused(code),
    }
}

/// What a delivery report says.
pub(crate) struct Report {
    pub(crate) code: Code,
    pub(crate) status: rdkafka_sys::rd_kafka_msg_status_t,
    pub(crate) offset: i64,
    pub(crate) timestamp_ms: i64,
}

impl Report {
    pub(crate) fn outcome(&self) -> RecordOutcome {
        use rdkafka_sys::rd_kafka_msg_status_t::{RD_KAFKA_MSG_STATUS_NOT_PERSISTED, RD_KAFKA_MSG_STATUS_PERSISTED};
        if self.code == Code::RD_KAFKA_RESP_ERR_NO_ERROR || self.status == RD_KAFKA_MSG_STATUS_PERSISTED {
            let offset = Some(self.offset).filter(|offset| *offset >= 0);
            return RecordOutcome::Persisted { offset, timestamp_ms: self.timestamp_ms };
        }
        let failure = Failure::from_code(self.code);
        if self.status == RD_KAFKA_MSG_STATUS_NOT_PERSISTED {
            RecordOutcome::NotPersisted(failure)
        } else {
            RecordOutcome::PossiblyPersisted(failure)
        }
    }
}
