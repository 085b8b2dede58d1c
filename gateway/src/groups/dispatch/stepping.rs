//! One step of a group: an event is taken, then everything is done that can be done at that moment.

use tokio::time::Instant;

use crate::groups::dispatch::action::{Done, Event, Moment};
use crate::groups::dispatch::command::Command;
use crate::groups::dispatch::group::{End, Group};
use crate::groups::dispatch::part::Part;
use crate::groups::dispatch::resetting::ResetCall;
use crate::groups::dispatch::settling::Early;
use crate::groups::model::DispatchError;

impl Group {
    /// Takes an event, and does all that can be done then.
    pub(super) fn step(&mut self, event: Event, moment: Moment) {
        self.observe(moment);
        self.take_event(event);
        self.go_on();
    }

    /// What happens from now on happens at this moment.
    pub(super) fn observe(&mut self, moment: Moment) {
        self.moment = moment;
    }

    /// Takes one of several events of a moment; [`Group::go_on`] follows.
    pub(super) fn take_event(&mut self, event: Event) {
        let now = self.moment.at;
        if self.finishing.is_some() {
            return self.take_last(event);
        }
        match event {
            Event::Begin | Event::Changed => self.review(),
            Event::Command(command) => self.obey(command, now),
            Event::Done(done) => self.done(done, now),
            Event::Member(event) => self.member_event(event),
            Event::Moved => self.end(End::Moved),
            Event::Unwanted => self.end(End::Idle),
            Event::Stop(deadline) => self.ending = Some(End::Stopped(deadline)),
            Event::Tick => {}
        }
    }

    /// Does all that can be done at this moment.
    pub(super) fn go_on(&mut self) {
        let now = self.moment.at;
        if self.finishing.is_none() {
            if !matches!(self.ending, Some(End::Stopped(_))) {
                self.advance(now);
            }
            let Some(end) = self.ending.take() else { return };
            self.begin_end(end);
        }
        self.end_on();
    }

    fn obey(&mut self, command: Command, now: Instant) {
        if !matches!(command, Command::Refresh) {
            self.last_use = now;
        }
        match command {
            Command::Take { caller, options, deadline, reply } => self.take(caller, options, deadline, reply, now),
            Command::Settle { settle, leases, deadline, reply } => {
                self.settle_or_keep(Early { settle, leases, deadline, reply }, now);
            }
            Command::Attach { caller, options, events, reply } => {
                let answer = match self.consumers.is_full() {
                    true => Err(too_many_consumers()),
                    false => {
                        let out = self.outstanding(options.stream);
                        Ok(self.consumers.attach(caller, options, out, events, now))
                    }
                };
                if let Err(Ok(id)) = reply.send(answer) {
                    self.consumers.detach(id);
                }
            }
            Command::Credit { id, records, bytes } => self.consumers.add_credit(id, records, bytes),
            Command::Room { id, bytes } => self.consumers.add_room(id, bytes),
            Command::Detach { id } => self.consumers.detach(id),
            Command::Refresh => self.parts.iter_mut().for_each(Part::refresh),
            Command::Inspect { deadline, reply } => self.inspect(deadline, reply, now),
            Command::Reset { request, deadline, reply } => self.resets.push(ResetCall { request, deadline, reply }),
        }
    }

    fn done(&mut self, done: Done, now: Instant) {
        match done {
            Done::NotJoined(end) => self.end(end),
            Done::Alone(outcome) => self.alone(outcome),
            Done::Opening { epoch, step } => self.opening(epoch, step, now),
            Done::Checked { revoked, is_alone } => self.checked(&revoked, is_alone),
            Done::Read { key, term, wanted, outcome } => self.have_read(key, term, wanted, outcome, now),
            Done::Reread { key, term, wanted, outcome } => self.have_reread(key, term, wanted, outcome, now),
            Done::Bounds { key, term, reading, outcome } => self.bounds(key, term, reading, outcome, now),
            Done::Committed(committed) => self.committed(committed, now),
            Done::RereadRecord(reread) => self.reread(reread, now),
            Done::LetterOutcome(outcomes) => self.dead_lettered(outcomes, now),
            Done::Place { id, permit } => {
                if let Some(attached) = self.consumers.get(id) {
                    attached.place_came(permit);
                }
            }
            Done::Planned(planned) => self.reset_planned(planned, now),
            Done::Over => {}
        }
    }

    fn advance(&mut self, now: Instant) {
        self.wake = None;
        self.consumers.drop_gone();
        self.open_parts(now);
        self.settle_early(now);
        self.end_leases(now);
        let delivered = self.deliver(now);
        self.answer_waiting(now);
        // After the delivery, so that every read brings something before it is given up.
        self.pay_back();
        self.plan_reads(now);
        self.plan_letters(now);
        self.plan_commit(now);
        self.plan_resets(now);
        self.end_pending(now);
        self.await_places();
        self.tell_states(now, delivered);
        self.release_unused(now);
        self.publish_figures(now);
    }
}

pub(super) fn too_many_consumers() -> DispatchError {
    use sluice_types::limits::GROUP_CONSUMERS_MAX;
    use sluice_types::{ErrorKind, Reason};
    let what = format!("the group has {GROUP_CONSUMERS_MAX} consumers already; close some, or use another group");
    sluice_types::Error::new(ErrorKind::ResourceExhausted, Reason::QuotaExceeded, what).into()
}
