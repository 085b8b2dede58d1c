//! What a stream's client was told of why records flow or do not: each change once, at most one a second.

use std::time::{Duration, Instant};

use sluice_proto::stream::v1::DeliveryState;

/// Between two notices.
const PAUSE: Duration = Duration::from_secs(1);

/// What is so and what was told.
#[derive(Debug)]
pub(super) struct DeliveryNotices {
    attached: bool,
    throttled: bool,
    dispatcher: DeliveryState,
    told: DeliveryState,
    quiet_until: Instant,
}

impl DeliveryNotices {
    /// A client takes it that records flow, and that a stream takes a moment to begin.
    pub(super) fn new(now: Instant) -> Self {
        let state = DeliveryState::Flowing;
        Self { attached: false, throttled: false, dispatcher: state, told: state, quiet_until: now + PAUSE }
    }

    pub(super) fn attached(&mut self, attached: bool) {
        self.attached = attached;
        if attached {
            self.dispatcher = DeliveryState::Flowing;
        }
    }

    pub(super) fn throttled(&mut self, throttled: bool) {
        self.throttled = throttled;
    }

    pub(super) fn dispatcher(&mut self, state: DeliveryState) {
        self.dispatcher = state;
    }

    /// Records go to the client: whatever the dispatcher said before them is over.
    pub(super) fn records(&mut self) {
        self.dispatcher = DeliveryState::Flowing;
    }

    /// What is so now.
    pub(super) fn state(&self) -> DeliveryState {
        match (self.attached, self.throttled) {
            (false, _) => DeliveryState::Assigning,
            (true, true) => DeliveryState::Throttled,
            (true, false) => self.dispatcher,
        }
    }

    /// When there is something to tell.
    pub(super) fn due_at(&self) -> Option<Instant> {
        (self.state() != self.told).then_some(self.quiet_until)
    }

    /// What to tell now.
    pub(super) fn due(&mut self, now: Instant) -> Option<DeliveryState> {
        self.due_at().filter(|at| *at <= now)?;
        self.told = self.state();
        self.quiet_until = now + PAUSE;
        Some(self.told)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_told_that_records_have_disproved() {
        let start = Instant::now();
        let mut told = DeliveryNotices::new(start);
        told.attached(true);
        told.dispatcher(DeliveryState::Assigning);
        told.records();
        assert_eq!(told.due_at(), None, "the group was taken within the first second");
        told.dispatcher(DeliveryState::WaitingForAcks);
        assert_eq!(told.due(start + PAUSE), Some(DeliveryState::WaitingForAcks), "said after the records");
        told.records();
        assert_eq!(told.due(start + 2 * PAUSE), Some(DeliveryState::Flowing));
    }

    #[test]
    fn changes_are_told_once_and_at_most_once_a_second() {
        let start = Instant::now();
        let after = |millis| start + Duration::from_millis(millis);
        let mut told = DeliveryNotices::new(start);
        told.attached(true);
        assert_eq!(told.due_at(), None, "a stream that begins quickly says nothing");
        told.dispatcher(DeliveryState::NoRecords);
        assert_eq!(told.due(after(10)), None);
        assert_eq!(told.due(after(1_000)), Some(DeliveryState::NoRecords));
        assert_eq!(told.due(after(5_000)), None);
        told.attached(false);
        told.attached(true);
        told.dispatcher(DeliveryState::NoRecords);
        assert_eq!(told.due(after(9_000)), None, "what came back to what it was is no change");
        told.throttled(true);
        assert_eq!(told.due(after(9_000)), Some(DeliveryState::Throttled));
    }
}
