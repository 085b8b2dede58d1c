//! One membership in its shard: what it is, what its handle sees and hears, and when its next heartbeat is due.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::member::{MemberEvent, OnFenced, View};
use super::memberships::Counted;
use super::state::{Answer, MemberState};
use crate::deadline::Deadline;
use crate::error::Result;

/// Events a member may leave lying.
const EVENTS_MAX: usize = 64;
const PAUSE_MIN: Duration = Duration::from_millis(20);
/// Short beside the shortest session (6 s): members must be back before it ends.
const PAUSE_MAX: Duration = Duration::from_millis(500);
/// Heartbeats in quick succession while a change of the assignment is to be expected: a coordinator may make it aside,
/// and then says it only with the heartbeat after the one that gave the reason.
const BRISK_BEATS: u32 = 6;
const BRISK_PAUSE: Duration = Duration::from_millis(20);

/// One membership.
pub(super) struct Slot {
    pub(super) state: MemberState,
    pub(super) on_fenced: OnFenced,
    /// A heartbeat or look-up is under way.
    pub(super) busy: bool,
    /// When the next heartbeat is due; the heap's other entries for this membership do not count.
    pub(super) due: Instant,
    pub(super) leaving: Option<(Deadline, oneshot::Sender<Result<()>>)>,
    view: Arc<Mutex<View>>,
    events: mpsc::Sender<MemberEvent>,
    interval: Duration,
    failures: u32,
    /// Heartbeats left that do not wait for the interval.
    brisk: u32,
    /// A heartbeat was asked for while another one was under way.
    asked: bool,
    _counted: Counted,
}

impl Slot {
    /// A membership with the handle's side of it.
    pub(super) fn new(
        state: MemberState,
        on_fenced: OnFenced,
        counted: Counted,
    ) -> (Self, Arc<Mutex<View>>, mpsc::Receiver<MemberEvent>) {
        // One place more is for the last event.
        let (events, received) = mpsc::channel(EVENTS_MAX + 1);
        let view = Arc::<Mutex<View>>::default();
        let slot = Self {
            state,
            on_fenced,
            busy: false,
            due: Instant::now(),
            leaving: None,
            view: Arc::clone(&view),
            events,
            interval: PAUSE_MAX,
            failures: 0,
            brisk: BRISK_BEATS,
            asked: false,
            _counted: counted,
        };
        (slot, view, received)
    }

    /// Lets the handle see the state.
    pub(super) fn show(&self) {
        let mut view = self.view.lock();
        view.epoch = self.state.epoch();
        view.assignment = self.state.usable();
    }

    pub(super) fn show_gone(&self) {
        let mut view = self.view.lock();
        view.epoch = None;
        view.assignment.clear();
    }

    /// False if nobody takes the events.
    pub(super) fn tell(&self, event: MemberEvent) -> bool {
        self.events.capacity() > 1 && self.events.try_send(event).is_ok()
    }

    /// The last event; there is always a place for it.
    pub(super) fn tell_last(&self, event: MemberEvent) {
        let _handle_is_gone = self.events.try_send(event);
    }

    pub(super) fn is_heard(&self) -> bool {
        !self.events.is_closed()
    }

    /// The next heartbeats shall not wait for the interval.
    pub(super) fn hurry(&mut self) {
        self.brisk = BRISK_BEATS;
        self.asked = self.busy;
    }

    /// Takes the answer to a heartbeat; gives the pause before the next.
    pub(super) fn confirmed(&mut self, sent: Instant, answer: Answer) -> Duration {
        self.failures = 0;
        self.interval = answer.interval;
        let mut view = self.view.lock();
        (view.confirmed, view.failing) = (Some(sent), false);
        drop(view);
        if answer.assignment.is_some() && !self.asked {
            self.brisk = 0;
        }
        self.state.answered(answer.epoch, answer.assignment);
        if self.brisk == 0 {
            return self.interval.saturating_sub(sent.elapsed());
        }
        let pause = BRISK_PAUSE * 2_u32.pow(BRISK_BEATS - self.brisk);
        self.brisk -= 1;
        pause.min(self.interval)
    }

    /// The pause after one more failure. Uneven between members, by a number that has nothing to do with the order of
    /// joining, so that a broker's restart does not bring them all at the same moment.
    pub(super) fn failed(&mut self, key: u64) -> Duration {
        self.failures = self.failures.saturating_add(1);
        self.view.lock().failing = true;
        let pause = (PAUSE_MIN * 2_u32.pow(self.failures.min(6))).min(PAUSE_MAX);
        let uneven = (key.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u32;
        pause / 2 + pause * uneven / 512
    }

    pub(super) fn interval(&self) -> Duration {
        self.interval
    }

    /// True if a heartbeat shall be sent now: the group must hear of a change, or one was asked for or fell due while
    /// something else was under way.
    pub(super) fn owes_beat(&mut self) -> bool {
        let asked = std::mem::take(&mut self.asked);
        asked || self.state.owes_report() || self.due <= Instant::now()
    }
}
