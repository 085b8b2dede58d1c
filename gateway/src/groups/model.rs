//! What the door and the dispatcher tell one another.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use tokio::sync::mpsc;

use sluice_proto::stream::v1::{DeliveryState, GroupStatus, ResetOffsetsRequest, ResetOffsetsResponse, SettleOutcome};
use sluice_types::error::Error;
use sluice_types::physical::PhysicalGroup;
use sluice_types::{GroupId, GroupUid, NamespaceId, NamespaceUid, TenantUid, TopicId, TopicUid};
use sluice_wire::Record;

/// A tenant's group that is in service, as the control plane published it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedGroup {
    /// Its id in Kafka.
    pub physical: PhysicalGroup,
    /// The tenant.
    pub tenant_uid: TenantUid,
    /// The namespace.
    pub namespace_uid: NamespaceUid,
    /// The namespace's id.
    pub namespace_id: NamespaceId,
    /// This life of the group.
    pub group_uid: GroupUid,
    /// Its id.
    pub id: GroupId,
    /// The tenants' name: `namespaces/{namespace}/groups/{group}`.
    pub name: String,
    /// Its topics; each may be absent at the moment.
    pub topics: Vec<TopicId>,
    /// Where partitions without a position begin.
    pub start: Start,
    /// Whether records of a key wait for one another.
    pub key_ordered: bool,
    /// How long a lease lasts.
    pub ack_deadline: Duration,
    /// Deliveries before a record is dead; `None`: no end.
    pub max_attempts: Option<u32>,
    /// Wait before the second delivery; doubled for each further one.
    pub minimum_backoff: Duration,
    /// The longest wait.
    pub maximum_backoff: Duration,
    /// Where dead records go.
    pub dead_letter_topic: Option<TopicId>,
    /// When it was made, ms since the epoch.
    pub create_time_ms: i64,
}

/// Where partitions without a position begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// At the first record.
    Earliest,
    /// Behind the last one.
    Latest,
    /// At the first record at or after this time, ms since the epoch.
    Time(i64),
}

/// Who asks for a group, and until when.
#[derive(Debug, Clone)]
pub struct GroupCall {
    /// The group.
    pub group: Arc<ResolvedGroup>,
    /// The service account of the consumer.
    pub account: Arc<str>,
    /// The gateway the consumer is connected to.
    pub door: Arc<str>,
    /// The dispatcher answers by then.
    pub deadline: Instant,
}

/// Names one lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LeaseKey {
    /// The topic.
    pub topic: TopicUid,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
    /// Made anew each time a dispatcher takes the partition.
    pub term: u64,
    /// Which delivery, from 1.
    pub attempt: u32,
}

/// A record on its way to a consumer.
#[derive(Debug, Clone)]
pub struct Leased {
    /// What settles it.
    pub key: LeaseKey,
    /// When the lease ends, ms since the epoch.
    pub lease_end_ms: i64,
    /// The record, with our own headers too.
    pub record: Record,
}

/// What a call to take records wishes.
#[derive(Debug, Clone, Copy)]
pub struct TakeOptions {
    /// At most this many, at least 1.
    pub records: usize,
    /// At most this many logical bytes; the first record comes whatever its size.
    pub bytes: u64,
    /// How long to wait for the first.
    pub wait: Duration,
}

/// What a take gave.
#[derive(Debug)]
pub struct Taken {
    /// The records.
    pub records: Vec<Leased>,
    /// If there are none: why.
    pub state: DeliveryState,
}

/// What to do with leases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settle {
    /// Done.
    Acknowledge,
    /// Again after `delay`, or after the group's backoff.
    Refuse {
        /// Instead of the backoff.
        delay: Option<Duration>,
        /// Why, for the dead letter.
        reason: Arc<str>,
    },
    /// Given back by a client that did not work on it: no attempt is counted, up to a limit.
    Release {
        /// How long to wait before the next delivery; absent: not at all.
        delay: Option<Duration>,
    },
    /// The lease ends so long from now, or the group's ack deadline from now.
    Extend {
        /// Instead of the ack deadline.
        time: Option<Duration>,
    },
    /// Of the door: the client's transport has taken the record only now, or not yet, so its lease runs from now.
    Restart,
    /// Of the door: the record has not left; its lease is taken back, and no attempt is counted.
    HandBack,
}

/// How a stream of records begins.
#[derive(Debug, Clone, Copy)]
pub struct AttachOptions {
    /// Records it may get at first.
    pub credit_records: u64,
    /// Bytes it may get at first.
    pub credit_bytes: u64,
    /// At most this many records in one event.
    pub batch_records: usize,
    /// Credit comes back when a record of this stream is settled or its lease ends.
    pub returns_credit: bool,
    /// Names the stream, whatever dispatcher it is attached to: what it still has out where it was attached before counts.
    pub stream: u64,
    /// Records come one event at a time, each when [`AttachCommand::Room`] has said that there is room for it.
    pub paced: bool,
}

/// What the door says on an attachment.
#[derive(Debug)]
pub enum AttachCommand {
    /// More credit.
    Credit {
        /// Records.
        records: u64,
        /// Bytes.
        bytes: u64,
    },
    /// The client's transport takes one event, and the tenant's limits allow it.
    Room {
        /// Of so many bytes, save its first record.
        bytes: u64,
    },
    /// Settles leases; answered by [`AttachEvent::Settled`].
    Settle {
        /// Comes back.
        sequence: i64,
        /// What to do.
        settle: Settle,
        /// With which.
        leases: Vec<LeaseKey>,
    },
}

/// What the dispatcher says on an attachment.
#[derive(Debug)]
pub enum AttachEvent {
    /// Records, within the credit.
    Records(Vec<Leased>),
    /// The answer to a settlement, one outcome per lease.
    Settled {
        /// Of the request.
        sequence: i64,
        /// One per lease.
        outcomes: Vec<SettleOutcome>,
    },
    /// Why records flow or do not, when it changed.
    State(DeliveryState),
}

/// A stream of records at the dispatcher. Dropping it detaches: its leases stay until they are settled or end. The channels
/// are small: a door that does not take events stops only itself, because no record is leased before its event fits.
#[derive(Debug)]
pub struct Attachment {
    /// To the dispatcher.
    pub commands: mpsc::Sender<AttachCommand>,
    /// From it; ends when the group is not dispatched there any more: attach again at the owner.
    pub events: mpsc::Receiver<AttachEvent>,
}

/// How long to wait for what a dispatcher sends on an attachment that was ended.
const LEFT_WITHIN: Duration = Duration::from_secs(1);

/// The leases of records that nobody takes any more from an attachment whose commands were dropped. The dispatcher keeps a place for
/// its next event, so it may send one after the channel was found empty: this waits until it has let go.
pub(crate) async fn left_in(mut events: mpsc::Receiver<AttachEvent>) -> Vec<LeaseKey> {
    let mut leases = Vec::new();
    let until = tokio::time::Instant::now() + LEFT_WITHIN;
    loop {
        match tokio::time::timeout_at(until, events.recv()).await {
            Ok(Some(AttachEvent::Records(records))) => leases.extend(records.iter().map(|leased| leased.key)),
            Ok(Some(AttachEvent::Settled { .. } | AttachEvent::State(_))) => {}
            Ok(None) => return leases,
            Err(_) => {
                tracing::debug!("records that are still sent to an ended stream come again when their leases end");
                return leases;
            }
        }
    }
}

/// Events of an attachment that wait to be taken.
pub const ATTACH_EVENTS: usize = 4;
/// Commands of an attachment that wait to be taken.
pub const ATTACH_COMMANDS: usize = 64;

/// How a group fares.
#[derive(Debug)]
pub struct Inspected {
    /// Whether it is dispatched by who answered; if not, the status was read from Kafka alone.
    pub dispatching: bool,
    /// The status.
    pub status: GroupStatus,
}

/// Why a dispatcher did not do it.
#[derive(Debug, thiserror::Error)]
pub enum DispatchError {
    /// It does not own the group: look again who does.
    #[error("not the dispatcher of the group")]
    NotDispatcher,
    /// It stops dispatching the group, or could not be reached: look again who does, then try again.
    #[error("the group is moving: {0}")]
    Moving(String),
    /// For the caller.
    #[error(transparent)]
    Refused(#[from] Error),
}

/// One gateway's dispatcher: of this process, or of another. All calls are answered by [`GroupCall::deadline`].
pub trait Dispatch: Send + Sync + 'static {
    /// Takes records that are ready, waiting for the first.
    fn take<'a>(&'a self, call: &'a GroupCall, options: TakeOptions) -> BoxFuture<'a, Result<Taken, DispatchError>>;

    /// Settles leases: one outcome per lease, in order. OK means stored.
    fn settle<'a>(
        &'a self,
        call: &'a GroupCall,
        settle: Settle,
        leases: Vec<LeaseKey>,
    ) -> BoxFuture<'a, Result<Vec<SettleOutcome>, DispatchError>>;

    /// Begins a stream of records. [`GroupCall::deadline`] bounds the beginning only.
    fn attach<'a>(
        &'a self,
        call: &'a GroupCall,
        options: AttachOptions,
    ) -> BoxFuture<'a, Result<Attachment, DispatchError>>;

    /// Tells how the group fares.
    fn inspect<'a>(&'a self, call: &'a GroupCall) -> BoxFuture<'a, Result<Inspected, DispatchError>>;

    /// Moves positions. The fields of the request were checked by the door.
    fn reset<'a>(
        &'a self,
        call: &'a GroupCall,
        request: ResetOffsetsRequest,
    ) -> BoxFuture<'a, Result<ResetOffsetsResponse, DispatchError>>;
}

/// Who dispatches a group now, as far as this gateway knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// This gateway.
    Here,
    /// Another one.
    There(Peer),
    /// Nobody serves.
    Nobody,
}

/// Another gateway.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Peer {
    /// Its id.
    pub gateway_id: Arc<str>,
    /// Its start.
    pub boot_id: Arc<str>,
    /// `host:port` of its internal listener.
    pub address: Arc<str>,
}

/// Tells the owner of a group.
pub trait Owners: Send + Sync + 'static {
    /// The owner now.
    fn owner(&self, group: GroupUid) -> Owner;

    /// A call to this gateway failed: finds out whether it still listens. One whose port refuses connections is dead, and owns
    /// nothing from now on; one that is merely silent is left to the members' log.
    fn doubt<'a>(&'a self, peer: &'a Peer) -> BoxFuture<'a, ()>;

    /// Changes whenever an answer of [`Owners::owner`] may have changed.
    fn changes(&self) -> tokio::sync::watch::Receiver<u64>;
}

#[cfg(test)]
mod tests {
    use sluice_wire::TimestampType;

    use super::*;

    fn leased(offset: i64) -> Leased {
        let key = LeaseKey { topic: TopicUid::random(), partition: 0, offset, term: 1, attempt: 1 };
        let timestamp_type = TimestampType::CreateTime;
        let record = Record { offset, timestamp_ms: 0, timestamp_type, key: None, value: None, headers: Vec::new() };
        Leased { key, lease_end_ms: 0, record }
    }

    #[tokio::test]
    async fn an_event_for_which_the_dispatcher_has_a_place_is_not_lost_when_a_stream_ends() {
        let (sender, events) = mpsc::channel(ATTACH_EVENTS);
        let (first, late) = (leased(1), leased(2));
        let keys = vec![first.key, late.key];
        sender.send(AttachEvent::Records(vec![first])).await.expect("room");
        let place = sender.clone().reserve_owned().await.expect("room");
        drop(sender);
        let left = tokio::spawn(left_in(events));
        tokio::task::yield_now().await;
        assert!(!left.is_finished(), "the dispatcher may send one more");
        drop(place.send(AttachEvent::Records(vec![late])));
        assert_eq!(left.await.expect("no panic"), keys);
    }

    #[tokio::test(start_paused = true)]
    async fn a_dispatcher_that_does_not_let_go_keeps_nobody_waiting() {
        let (sender, events) = mpsc::channel(ATTACH_EVENTS);
        sender.send(AttachEvent::State(DeliveryState::Flowing)).await.expect("room");
        assert_eq!(left_in(events).await, []);
        assert!(sender.is_closed());
    }
}
