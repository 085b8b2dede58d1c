//! Handing records out: waiting pulls first, in order; attachments in turn; partitions in turn.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use sluice_edge::deadline::kept;
use sluice_proto::stream::v1::DeliveryState;

use crate::groups::dispatch::action::{Action, Moment};
use crate::groups::dispatch::cache::own;
use crate::groups::dispatch::command::{Caller, Reply};
use crate::groups::dispatch::consumers::{Holder, Outstanding, Waiting};
use crate::groups::dispatch::group::{Group, Stage};
use crate::groups::dispatch::part::Room;
use crate::groups::dispatch::stepping::too_many_consumers;
use crate::groups::model::{AttachEvent, Leased, TakeOptions, Taken};

/// Nothing is handed out if the group has not confirmed us for so long: below the shortest session, 6 s.
const CONFIRMED_WITHIN: Duration = Duration::from_secs(5);
/// Kept of a call's time for the way back.
const MARGIN: Duration = Duration::from_millis(50);
/// A pull that waits for nothing gets so long for a first look, or until the group was taken.
const FIRST_LOOK: Duration = Duration::from_secs(1);
const TAKING: Duration = Duration::from_secs(4);
/// States are told at most so often.
const TELL_EVERY: Duration = Duration::from_secs(1);
const FIGURES_EVERY: Duration = Duration::from_secs(1);

impl Group {
    pub(super) fn take(
        &mut self,
        caller: Caller,
        options: TakeOptions,
        deadline: Instant,
        reply: Reply<Taken>,
        now: Instant,
    ) {
        if self.consumers.is_full() {
            return drop(reply.send(Err(too_many_consumers())));
        }
        self.consumers.pulled(&caller, now);
        let in_time = deadline - kept(deadline.saturating_duration_since(now), MARGIN);
        let patience = if matches!(self.stage, Stage::Running) { FIRST_LOOK } else { TAKING };
        let until = (now + options.wait).min(in_time);
        let latest = until.max(now + patience).min(in_time);
        self.consumers.waiting.push_back(Waiting { caller, options, until, latest, reply });
    }

    /// Whether Kafka has taken us for a member lately, and since this process last stood still.
    pub(super) fn is_confirmed(&self) -> bool {
        let Moment { at: now, awake_since, .. } = self.moment;
        let confirmed = self.member().and_then(|member| member.confirmed_at);
        confirmed.is_some_and(|at| now.saturating_duration_since(at) < CONFIRMED_WITHIN && at >= awake_since)
    }

    /// Hands out what can be handed out; true if something was.
    pub(super) fn deliver(&mut self, now: Instant) -> bool {
        if !matches!(self.stage, Stage::Running) || !self.parts.iter().any(|part| part.hot) {
            return false;
        }
        if !self.consumers.want_records() {
            return false;
        }
        if !self.is_confirmed() {
            self.actions.push(Action::Beat);
            self.wake_at(now + Duration::from_millis(100));
            return false;
        }
        let now_ms = self.setting.clock.ms(now);
        let mut delivered = false;
        while let Some(waiting) = self.consumers.waiting.front() {
            if waiting.reply.is_closed() {
                self.consumers.waiting.pop_front();
                continue;
            }
            let options = waiting.options;
            let (records, _) = self.gather(options.records.max(1), options.bytes, Holder::Pull, now_ms);
            let Some(waiting) = self.consumers.waiting.pop_front_if(|_| !records.is_empty()) else { break };
            delivered = true;
            self.count(&records);
            let taken = Taken { records, state: DeliveryState::Flowing };
            if let Err(Ok(unheard)) = waiting.reply.send(Ok(taken)) {
                self.take_back(&unheard.records);
            }
        }
        while let Some(at) = self.consumers.next_hungry() {
            let attached = &self.consumers.attached[at];
            let most = usize::try_from(attached.credit_records).unwrap_or(usize::MAX).min(attached.batch_records);
            let (bytes, holder) = (attached.event_bytes(), attached.holder());
            let (records, bytes) = self.gather(most, bytes, holder, now_ms);
            if records.is_empty() {
                break;
            }
            delivered = true;
            self.count(&records);
            let attached = &mut self.consumers.attached[at];
            attached.spend(records.len() as u64, bytes);
            attached.send_records(records, now);
        }
        if delivered {
            self.touched = now;
            self.account.touch();
        }
        delivered
    }

    /// Leases a batch, beginning with the partition whose turn it is.
    fn gather(&mut self, records: usize, bytes: u64, holder: Holder, now_ms: i64) -> (Vec<Leased>, u64) {
        let mut room = Room { records, bytes, is_empty: true };
        let mut batch = Vec::new();
        let mut taken = 0;
        let count = self.parts.len();
        for step in 0..count {
            let part = &mut self.parts[(self.turn + step) % count];
            if part.hot {
                taken += part.lease(&mut room, holder, now_ms, &mut batch);
            }
            if room.records == 0 || (!room.is_empty && room.bytes == 0) {
                break;
            }
        }
        self.turn = self.turn.wrapping_add(1) % count.max(1);
        own(batch.iter_mut().map(|leased: &mut Leased| &mut leased.record));
        (batch, taken)
    }

    fn count(&self, records: &[Leased]) {
        let again = records.iter().filter(|leased| leased.key.attempt > 1).count();
        self.setting.metrics.deliveries.inc_by(records.len() as u64);
        self.setting.metrics.redeliveries.inc_by(again as u64);
    }

    /// What a stream has out, from whichever attachment.
    pub(super) fn outstanding(&self, stream: u64) -> Outstanding {
        let mut sum = Outstanding::default();
        if stream == 0 {
            return sum;
        }
        let all = self.parts.iter().flat_map(|part| part.out.values());
        for out in all.filter(|out| matches!(out.holder, Holder::Stream(name, _) if name == stream)) {
            sum.records += 1;
            sum.bytes += u64::from(out.bytes);
        }
        sum
    }

    fn take_back(&mut self, records: &[Leased]) {
        for leased in records {
            if let Some(part) = self.part((leased.key.topic, leased.key.partition), leased.key.term) {
                part.unlease(&leased.key);
            }
        }
    }

    /// Answers pulls whose time is over.
    pub(super) fn answer_waiting(&mut self, now: Instant) {
        if self.consumers.waiting.is_empty() {
            return;
        }
        let looking = self.is_looking();
        let mut state = None;
        let mut left = std::mem::take(&mut self.consumers.waiting);
        left.retain(|waiting| !waiting.reply.is_closed());
        while let Some(at) = left.iter().position(|waiting| now >= waiting.latest || (now >= waiting.until && !looking))
        {
            let Some(waiting) = left.remove(at) else { break };
            let state = *state.get_or_insert_with(|| self.state());
            // Who went away needs no answer.
            let _gone = waiting.reply.send(Ok(Taken { records: Vec::new(), state }));
        }
        let next = left.iter().map(|waiting| if now >= waiting.until { waiting.latest } else { waiting.until }).min();
        self.consumers.waiting = left;
        if let Some(next) = next {
            self.wake_at(next);
        }
    }

    /// Whether it is not known yet if there are records.
    fn is_looking(&self) -> bool {
        match self.stage {
            Stage::NoTopics => false,
            Stage::Joining { .. } => true,
            Stage::Running => {
                self.is_opening()
                    || self.parts.iter().any(|part| {
                        let waits = part.at_end && part.tailing;
                        part.trouble.is_none() && ((part.window.has_room() && !waits) || !part.wants.is_empty())
                    })
            }
        }
    }

    /// Attachments without a place for their next event wait for one.
    pub(super) fn await_places(&mut self) {
        for attached in &mut self.consumers.attached {
            if let Some(events) = attached.wait_for_place() {
                let id = attached.id;
                self.actions.push(Action::AwaitPlace { id, events });
            }
        }
    }

    /// Tells attachments why records flow or do not, when that changed.
    pub(super) fn tell_states(&mut self, now: Instant, delivered: bool) {
        if self.consumers.attached.is_empty() {
            return;
        }
        let state = if delivered { DeliveryState::Flowing } else { self.state() };
        let mut due = None::<Instant>;
        for attached in &mut self.consumers.attached {
            let state = match state {
                DeliveryState::Flowing if !attached.has_credit() => DeliveryState::NoCredit,
                state => state,
            };
            match attached.told {
                Some((told, _)) if told == state => continue,
                Some((_, at)) if now < at + TELL_EVERY => {
                    due = Some(due.map_or(at + TELL_EVERY, |due| due.min(at + TELL_EVERY)));
                    continue;
                }
                _ => {}
            }
            if attached.has_place() && attached.send(AttachEvent::State(state)) {
                attached.told = Some((state, now));
            }
        }
        if let Some(due) = due {
            self.wake_at(due);
        }
        self.await_places();
    }

    /// For the process's metrics, now and then.
    pub(super) fn publish_figures(&mut self, now: Instant) {
        if now < self.figures_after {
            return;
        }
        self.figures_after = now + FIGURES_EVERY;
        let (mut lag, mut fill) = (0, 0);
        for part in &self.parts {
            let figures = part.window.figures();
            lag += part.lag();
            fill = fill.max(figures.window_offsets * 1_000 / sluice_types::limits::WINDOW_OFFSETS_MAX);
        }
        // What is not known now stays as it was last known.
        let partitions: i32 = self.topics.values().map(|topic| topic.partitions).sum();
        let is_known = self.parts.len() >= partitions as usize && self.parts.iter().all(|part| part.end >= 0);
        if is_known {
            self.figures.lag.store(lag, Ordering::Relaxed);
        }
        self.figures.fill.store(fill, Ordering::Relaxed);
    }
}
