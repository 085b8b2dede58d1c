//! Who wants records: pulls that wait, and attachments with credit, served in turn.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use tokio::sync::mpsc::{self, OwnedPermit, error::TrySendError};
use tokio::time::Instant;

use sluice_proto::stream::v1::DeliveryState;
use sluice_types::limits::GROUP_CONSUMERS_MAX;

use crate::groups::dispatch::command::{AttachmentId, Caller, Reply};
use crate::groups::model::{AttachEvent, AttachOptions, Leased, TakeOptions, Taken};

/// What is left of a credit never exceeds these.
const CREDIT_RECORDS_MAX: u64 = 10_000;
const CREDIT_BYTES_MAX: i64 = 64 << 20;
/// Who pulled before that is forgotten, when there are too many.
const RECENT_KEPT: Duration = Duration::from_secs(60);
/// Bytes of one event, save its first record.
pub(super) const EVENT_BYTES_MAX: u64 = 1 << 20;

/// Who holds a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holder {
    Pull,
    /// The stream of this name, by one of its attachments.
    Stream(u64, AttachmentId),
}

/// What a stream has out.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Outstanding {
    pub(super) records: u64,
    pub(super) bytes: u64,
}

/// A pull that waits.
pub(super) struct Waiting {
    pub(super) caller: Caller,
    pub(super) options: TakeOptions,
    /// Answered then, with or without records, unless a first look is still under way.
    pub(super) until: Instant,
    /// Answered then in any case.
    pub(super) latest: Instant,
    pub(super) reply: Reply<Taken>,
}

/// A stream of records.
pub(super) struct Attached {
    pub(super) id: AttachmentId,
    pub(super) caller: Caller,
    pub(super) since: Instant,
    stream: u64,
    pub(super) credit_records: u64,
    pub(super) credit_bytes: i64,
    pub(super) batch_records: usize,
    pub(super) returns_credit: bool,
    pub(super) outstanding: i64,
    /// Bytes of the next event, at most; absent: the door takes none now. Always there if it does not pace itself.
    room: Option<u64>,
    paced: bool,
    /// The state it was told, and when.
    pub(super) told: Option<(DeliveryState, Instant)>,
    events: mpsc::Sender<AttachEvent>,
    /// The place of its next event; absent while the door does not take those of before.
    permit: Option<OwnedPermit<AttachEvent>>,
    /// Somebody waits for the place.
    awaited: bool,
}

/// Those who pulled lately: a pull that comes again and again is a consumer, too.
#[derive(Debug, Clone, Copy)]
pub(super) struct Recent {
    pub(super) since: Instant,
    pub(super) last: Instant,
}

/// See the module.
#[derive(Default)]
pub(super) struct Consumers {
    pub(super) waiting: VecDeque<Waiting>,
    pub(super) attached: Vec<Attached>,
    pub(super) recent: HashMap<Caller, Recent>,
    /// The attachment of each stream.
    streams: HashMap<u64, AttachmentId>,
    turn: usize,
    next_id: u64,
}

impl Attached {
    /// Whether an event may go to it now.
    pub(super) fn has_place(&self) -> bool {
        self.permit.is_some() && !self.events.is_closed()
    }

    pub(super) fn has_credit(&self) -> bool {
        self.credit_records > 0 && self.credit_bytes > 0
    }

    pub(super) fn is_hungry(&self) -> bool {
        self.has_credit() && self.has_place() && self.room.is_some()
    }

    pub(super) fn holder(&self) -> Holder {
        Holder::Stream(self.stream, self.id)
    }

    /// Bytes that its next event may have, save the first record.
    pub(super) fn event_bytes(&self) -> u64 {
        let credit = u64::try_from(self.credit_bytes).unwrap_or(0);
        credit.min(self.room.unwrap_or(0)).min(EVENT_BYTES_MAX)
    }

    /// Sends records within its place, which must be there. They tell by themselves that records flow.
    pub(super) fn send_records(&mut self, records: Vec<Leased>, now: Instant) {
        if self.send(AttachEvent::Records(records)) {
            let at = self.told.map_or(now, |(_, at)| at);
            self.told = Some((DeliveryState::Flowing, at));
        }
    }

    /// Sends within its place, which must be there; false if it was not.
    pub(super) fn send(&mut self, event: AttachEvent) -> bool {
        let Some(permit) = self.permit.take() else { return false };
        let sender = permit.send(event);
        self.seek(sender);
        true
    }

    fn seek(&mut self, sender: mpsc::Sender<AttachEvent>) {
        match sender.try_reserve_owned() {
            Ok(permit) => self.permit = Some(permit),
            Err(TrySendError::Full(_) | TrySendError::Closed(_)) => self.permit = None,
        }
    }

    /// Somebody has to wait for a place; gives the sender to wait with.
    pub(super) fn wait_for_place(&mut self) -> Option<mpsc::Sender<AttachEvent>> {
        let needed = self.permit.is_none() && !self.awaited && !self.events.is_closed();
        self.awaited |= needed;
        needed.then(|| self.events.clone())
    }

    pub(super) fn place_came(&mut self, permit: Option<OwnedPermit<AttachEvent>>) {
        self.awaited = false;
        if self.permit.is_none() {
            self.permit = permit;
        }
    }
}

impl Consumers {
    /// Pulls that wait and attachments.
    pub(super) fn len(&self) -> usize {
        self.waiting.len() + self.attached.len()
    }

    pub(super) fn is_full(&self) -> bool {
        self.len() >= GROUP_CONSUMERS_MAX
    }

    pub(super) fn attach(
        &mut self,
        caller: Caller,
        options: AttachOptions,
        out: Outstanding,
        events: mpsc::Sender<AttachEvent>,
        now: Instant,
    ) -> AttachmentId {
        self.next_id += 1;
        let id = AttachmentId(self.next_id);
        // Who does not tell has nothing out from before.
        let stream = if options.stream == 0 { u64::MAX - self.next_id } else { options.stream };
        // An attachment before it is over, whether or not its end has come here: it may not be charged for more.
        self.retain(|attached| attached.stream != stream);
        self.streams.insert(stream, id);
        let mut attached = Attached {
            id,
            caller,
            since: now,
            stream,
            credit_records: 0,
            credit_bytes: 0,
            batch_records: options.batch_records.max(1),
            returns_credit: options.returns_credit,
            outstanding: i64::try_from(out.records).unwrap_or(i64::MAX),
            room: (!options.paced).then_some(u64::MAX),
            paced: options.paced,
            told: None,
            events: events.clone(),
            permit: None,
            awaited: false,
        };
        attached.add_credit(options.credit_records, options.credit_bytes);
        if options.returns_credit {
            // All that may be out at a time, less what is: it comes back.
            attached.credit_records = attached.credit_records.saturating_sub(out.records);
            attached.credit_bytes -= i64::try_from(out.bytes).unwrap_or(i64::MAX);
        }
        attached.seek(events);
        self.attached.push(attached);
        id
    }

    pub(super) fn detach(&mut self, id: AttachmentId) {
        self.retain(|attached| attached.id != id);
    }

    /// Drops attachments whose doors are gone.
    pub(super) fn drop_gone(&mut self) {
        self.retain(|attached| !attached.events.is_closed());
    }

    fn retain(&mut self, stays: impl Fn(&Attached) -> bool) {
        let streams = &mut self.streams;
        self.attached.retain(|attached| {
            let stays = stays(attached);
            if !stays && streams.get(&attached.stream) == Some(&attached.id) {
                streams.remove(&attached.stream);
            }
            stays
        });
    }

    pub(super) fn get(&mut self, id: AttachmentId) -> Option<&mut Attached> {
        // Ids grow, and so does the list.
        let at = self.attached.binary_search_by_key(&id.0, |attached| attached.id.0).ok()?;
        self.attached.get_mut(at)
    }

    pub(super) fn add_credit(&mut self, id: AttachmentId, records: u64, bytes: u64) {
        if let Some(attached) = self.get(id) {
            attached.add_credit(records, bytes);
        }
    }

    pub(super) fn add_room(&mut self, id: AttachmentId, bytes: u64) {
        if let Some(attached) = self.get(id).filter(|attached| attached.paced) {
            attached.room = Some(bytes);
        }
    }

    /// A lease is over.
    pub(super) fn came_back(&mut self, holder: Holder, bytes: u32) {
        if let Some(attached) = self.of(holder) {
            attached.outstanding -= 1;
            if attached.returns_credit {
                attached.add_credit(1, bytes.into());
            }
        }
    }

    /// A record did not leave: whatever was taken for it comes back. Who attached later was told to begin with what the client had
    /// left, in which this record does not count.
    pub(super) fn handed_back(&mut self, holder: Holder, bytes: u32) {
        let Holder::Stream(_, attachment) = holder else { return };
        if let Some(attached) = self.of(holder) {
            attached.outstanding -= 1;
            if attached.returns_credit || attached.id == attachment {
                attached.add_credit(1, bytes.into());
            }
        }
    }

    fn of(&mut self, holder: Holder) -> Option<&mut Attached> {
        match holder {
            Holder::Pull => None,
            Holder::Stream(stream, _) => self.get(*self.streams.get(&stream)?),
        }
    }

    /// Somebody would take records now.
    pub(super) fn want_records(&self) -> bool {
        !self.waiting.is_empty() || self.attached.iter().any(Attached::is_hungry)
    }

    /// The attachment whose turn it is, among those that are hungry.
    pub(super) fn next_hungry(&mut self) -> Option<usize> {
        let count = self.attached.len();
        let found = (0..count).map(|step| (self.turn + step) % count).find(|&at| self.attached[at].is_hungry());
        if let Some(at) = found {
            self.turn = at + 1;
        }
        found
    }

    /// Notes a pull, within bounds.
    pub(super) fn pulled(&mut self, caller: &Caller, now: Instant) {
        if let Some(recent) = self.recent.get_mut(caller) {
            recent.last = now;
            return;
        }
        if self.recent.len() >= GROUP_CONSUMERS_MAX {
            self.recent.retain(|_, recent| now < recent.last + RECENT_KEPT);
        }
        if self.recent.len() < GROUP_CONSUMERS_MAX {
            self.recent.insert(caller.clone(), Recent { since: now, last: now });
        }
    }
}

impl Attached {
    fn add_credit(&mut self, records: u64, bytes: u64) {
        self.credit_records = self.credit_records.saturating_add(records).min(CREDIT_RECORDS_MAX);
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.credit_bytes = self.credit_bytes.saturating_add(bytes).min(CREDIT_BYTES_MAX);
    }

    /// Takes what was sent off its credit.
    pub(super) fn spend(&mut self, records: u64, bytes: u64) {
        self.credit_records = self.credit_records.saturating_sub(records);
        self.credit_bytes = self.credit_bytes.saturating_sub(i64::try_from(bytes).unwrap_or(i64::MAX));
        self.outstanding += i64::try_from(records).unwrap_or(i64::MAX);
        self.room = self.room.filter(|_| !self.paced);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(records: u64, bytes: u64) -> AttachOptions {
        AttachOptions {
            credit_records: records,
            credit_bytes: bytes,
            batch_records: 10,
            returns_credit: true,
            stream: 7,
            paced: false,
        }
    }

    const NONE: Outstanding = Outstanding { records: 0, bytes: 0 };

    fn caller() -> Caller {
        Caller { account: "a".into(), door: "d".into() }
    }

    #[test]
    fn attachments_take_turns_and_those_without_credit_or_place_are_passed_over() {
        let mut consumers = Consumers::default();
        let now = Instant::now();
        let channels: Vec<_> = (0..3).map(|_| mpsc::channel(1)).collect();
        for (at, (events, _)) in channels.iter().enumerate() {
            let options = AttachOptions { stream: at as u64 + 1, ..options(if at == 1 { 0 } else { 5 }, 100) };
            consumers.attach(caller(), options, NONE, events.clone(), now);
        }
        let turns: Vec<_> = (0..4).map(|_| consumers.next_hungry()).collect();
        assert_eq!(turns, [Some(0), Some(2), Some(0), Some(2)]);
        assert!(consumers.attached[0].send(AttachEvent::State(DeliveryState::Flowing)));
        assert_eq!(consumers.next_hungry(), Some(2), "the first has no place for an event");
        assert!(consumers.attached[0].wait_for_place().is_some());
        assert!(consumers.attached[0].wait_for_place().is_none(), "once");
    }

    #[test]
    fn a_stream_that_comes_again_is_sent_nothing_on_its_attachment_before() {
        let mut consumers = Consumers::default();
        let (events, _received) = mpsc::channel(4);
        consumers.attach(caller(), options(1, 100), NONE, events.clone(), Instant::now());
        let before = consumers.attached[0].holder();
        consumers.attached[0].spend(1, 10);
        // Its end has not come here yet.
        let out = Outstanding { records: 1, bytes: 10 };
        consumers.attach(caller(), options(1, 100), out, events, Instant::now());
        assert_eq!((consumers.attached.len(), consumers.next_hungry()), (1, None), "one record may be out, and is");
        consumers.handed_back(before, 10);
        assert_eq!((consumers.attached[0].credit_records, consumers.attached[0].outstanding), (1, 0));
    }

    #[test]
    fn credit_is_spent_comes_back_and_is_capped() {
        let mut consumers = Consumers::default();
        let (events, _received) = mpsc::channel(1);
        let id = consumers.attach(caller(), options(2, 10), NONE, events, Instant::now());
        let holder = consumers.attached[0].holder();
        consumers.attached[0].spend(2, 30);
        assert!(!consumers.attached[0].has_credit());
        consumers.came_back(holder, 15);
        assert!(!consumers.attached[0].has_credit(), "a record larger than the credit leaves a debt");
        consumers.came_back(holder, 15);
        assert!(consumers.attached[0].has_credit());
        consumers.add_credit(id, u64::MAX, u64::MAX);
        assert_eq!(consumers.attached[0].credit_records, CREDIT_RECORDS_MAX);
        assert_eq!(consumers.attached[0].credit_bytes, CREDIT_BYTES_MAX);
        consumers.detach(id);
        assert!(!consumers.want_records());
    }

    #[test]
    fn a_stream_that_comes_again_has_its_whole_credit_less_what_is_out() {
        let mut consumers = Consumers::default();
        let (events, _received) = mpsc::channel(1);
        let first = consumers.attach(caller(), options(10, 1_000), NONE, events.clone(), Instant::now());
        consumers.attached[0].spend(3, 300);
        let again = consumers.attach(
            caller(),
            options(10, 1_000),
            Outstanding { records: 3, bytes: 300 },
            events,
            Instant::now(),
        );
        consumers.detach(first);
        let credit = |consumers: &Consumers| (consumers.attached[0].credit_records, consumers.attached[0].credit_bytes);
        assert_eq!((credit(&consumers), consumers.attached[0].outstanding), ((7, 700), 3));
        for _ in 0..3 {
            consumers.came_back(Holder::Stream(7, first), 100);
        }
        assert_eq!((credit(&consumers), consumers.attached[0].outstanding), ((10, 1_000), 0));
        consumers.detach(again);
        consumers.came_back(Holder::Stream(7, first), 100);
    }

    #[test]
    fn records_tell_that_they_flow_so_any_other_state_is_told_anew() {
        let mut consumers = Consumers::default();
        let (events, _received) = mpsc::channel(4);
        let begun = Instant::now();
        consumers.attach(caller(), options(10, 1_000), NONE, events, begun);
        let attached = &mut consumers.attached[0];
        attached.told = Some((DeliveryState::Assigning, begun));
        attached.send_records(Vec::new(), begun + Duration::from_millis(200));
        assert_eq!(attached.told, Some((DeliveryState::Flowing, begun)), "and it waits no longer for that");
    }

    #[test]
    fn a_paced_stream_gets_one_event_for_each_time_it_has_room() {
        let mut consumers = Consumers::default();
        let (events, _received) = mpsc::channel(4);
        let paced = AttachOptions { paced: true, ..options(10, 1_000) };
        let id = consumers.attach(caller(), paced, NONE, events, Instant::now());
        assert!(!consumers.want_records(), "its client may not be reading");
        consumers.add_room(id, 500);
        assert_eq!((consumers.next_hungry(), consumers.attached[0].event_bytes()), (Some(0), 500));
        consumers.attached[0].spend(1, 10);
        assert!(!consumers.want_records());
        consumers.handed_back(Holder::Stream(7, id), 10);
        assert_eq!((consumers.attached[0].credit_records, consumers.attached[0].outstanding), (10, 0));
    }

    #[test]
    fn a_record_that_did_not_arrive_gives_credit_only_to_the_attachment_that_it_was_charged_to() {
        let mut consumers = Consumers::default();
        let (events, _received) = mpsc::channel(4);
        let named = AttachOptions { returns_credit: false, ..options(10, 1_000) };
        let first = consumers.attach(caller(), named, NONE, events.clone(), Instant::now());
        consumers.attached[0].spend(2, 20);
        consumers.handed_back(Holder::Stream(7, first), 10);
        assert_eq!(consumers.attached[0].credit_records, 9);
        // The connection broke: the client has not got the other one, and its stream comes again with all it has left.
        consumers.detach(first);
        let out = Outstanding { records: 1, bytes: 10 };
        consumers.attach(caller(), named, out, events, Instant::now());
        consumers.handed_back(Holder::Stream(7, first), 10);
        assert_eq!((consumers.attached[0].credit_records, consumers.attached[0].outstanding), (10, 0));
    }
}
