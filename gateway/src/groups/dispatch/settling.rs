//! Acknowledgements, refusals, extensions. An acknowledgement is answered when the commit that holds it succeeded; a refusal or an
//! extension once Kafka has lately confirmed that the group is ours.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use sluice_edge::deadline::kept;
use sluice_proto::stream::v1::{ResetOffsetsResponse, SettleOutcome};
use sluice_types::Reason;
use sluice_types::error::Error;

use crate::groups::dispatch::action::Action;
use crate::groups::dispatch::command::Reply;
use crate::groups::dispatch::group::{Group, Stage};
use crate::groups::dispatch::part::{Part, PartKey};
use crate::groups::model::{DispatchError, LeaseKey, Settle};
use crate::groups::window::{Acked, Refused};

/// Settlements that wait for commits.
const PENDING_MAX: usize = 4_096;
/// Between two looks for a confirmation.
const CONFIRMED_PAUSE: Duration = Duration::from_millis(20);
/// Between two heartbeats that are asked for.
const BEAT_PAUSE: Duration = Duration::from_millis(200);
/// Kept of a call's time for the way back.
const MARGIN: Duration = Duration::from_millis(50);

/// What waits for commits.
pub(super) struct Pending {
    /// Partition, term, and the change that must be committed.
    needs: Vec<(PartKey, u64, u64)>,
    until: Instant,
    answer: Answer,
}

/// A settlement that cannot be answered yet: its partitions are not open, and what Kafka holds will tell whether it is done already;
/// or Kafka has not lately said that the group is ours.
pub(super) struct Early {
    pub(super) settle: Settle,
    pub(super) leases: Vec<LeaseKey>,
    pub(super) deadline: Instant,
    pub(super) reply: Reply<Vec<SettleOutcome>>,
}

enum Answer {
    Settled { leases: Vec<LeaseKey>, outcomes: Vec<SettleOutcome>, reply: Reply<Vec<SettleOutcome>> },
    Reset { response: ResetOffsetsResponse, reply: Reply<ResetOffsetsResponse> },
}

/// What becomes of all that waits, at the end.
#[derive(Debug, Clone, Copy)]
pub(super) enum Verdict {
    /// Kafka refused us.
    Stale,
    /// It could not be stored.
    Unavailable,
}

impl Group {
    /// Settles, once it is known what the leases are.
    pub(super) fn settle_or_keep(&mut self, early: Early, now: Instant) {
        let Early { settle, leases, deadline, reply } = early;
        let must_wait = match settle {
            Settle::Acknowledge => {
                let opening = self.still_opening(&leases);
                let waiting = opening.iter().filter(|opening| **opening).count();
                if waiting > 0 && waiting < leases.len() {
                    return self.acknowledge_apart(leases, &opening, deadline, reply, now);
                }
                waiting > 0
            }
            // Without effect beyond this process until they are committed; but who was replaced must not say OK. The next
            // heartbeat tells.
            Settle::Refuse { .. } | Settle::Release { .. } | Settle::Extend { .. } => self.is_unconfirmed(now),
            Settle::Restart | Settle::HandBack => false,
        };
        if !must_wait {
            return self.settle(settle, leases, deadline, reply, now);
        }
        if self.early.len() >= PENDING_MAX {
            return drop(reply.send(Ok(vec![SettleOutcome::Unavailable; leases.len()])));
        }
        self.early.push(Early { settle, leases, deadline, reply });
    }

    /// Whether Kafka has to say first that we are its member still. Asks it to.
    fn is_unconfirmed(&mut self, now: Instant) -> bool {
        let is_unconfirmed = matches!(self.stage, Stage::Running) && !self.is_confirmed();
        if is_unconfirmed && self.member().is_some() {
            if self.beat_after.is_none_or(|after| after <= now) {
                self.actions.push(Action::Beat);
                self.beat_after = Some(now + BEAT_PAUSE);
            }
            self.wake_at(now + CONFIRMED_PAUSE);
        }
        is_unconfirmed
    }

    /// Which of these are of partitions that are about to be opened.
    fn still_opening(&self, leases: &[LeaseKey]) -> Vec<bool> {
        let is_opening = |lease: &LeaseKey| match self.stage {
            Stage::NoTopics => false,
            Stage::Joining { .. } => true,
            Stage::Running => self.to_open.iter().any(|one| {
                let topic = self.topics.get(&one.assigned.topic);
                one.assigned.partition == lease.partition && topic.is_some_and(|topic| topic.topic_uid == lease.topic)
            }),
        };
        let key = |lease: &LeaseKey| (lease.topic, lease.partition);
        leases.iter().map(|lease| !self.index.contains_key(&key(lease)) && is_opening(lease)).collect()
    }

    /// Acknowledges at once what can be, so that a partition that is away takes no other's records with it; both answers go out
    /// as one.
    fn acknowledge_apart(
        &mut self,
        leases: Vec<LeaseKey>,
        opening: &[bool],
        deadline: Instant,
        reply: Reply<Vec<SettleOutcome>>,
        now: Instant,
    ) {
        let (mut late, mut open) = (Vec::new(), Vec::new());
        for (lease, opening) in leases.into_iter().zip(opening) {
            if *opening { late.push(lease) } else { open.push(lease) }
        }
        let ((now_reply, at_once), (late_reply, later)) = (oneshot::channel(), oneshot::channel());
        // On its own: it outlives the group, which answers all that waits when it ends.
        self.actions.push(Action::AnswerInTwo(InTwo { is_late: opening.to_vec(), at_once, later, reply }));
        self.settle_or_keep(Early { settle: Settle::Acknowledge, leases: open, deadline, reply: now_reply }, now);
        self.settle_or_keep(Early { settle: Settle::Acknowledge, leases: late, deadline, reply: late_reply }, now);
    }

    /// Settles what waited for partitions to open.
    pub(super) fn settle_early(&mut self, now: Instant) {
        for early in std::mem::take(&mut self.early) {
            let until = early.deadline.checked_sub(MARGIN).unwrap_or(early.deadline);
            if until <= now {
                let _gone = early.reply.send(Ok(vec![SettleOutcome::Unavailable; early.leases.len()]));
                continue;
            }
            self.settle_or_keep(early, now);
            self.wake_at(until);
        }
    }

    pub(super) fn settle(
        &mut self,
        settle: Settle,
        leases: Vec<LeaseKey>,
        deadline: Instant,
        reply: Reply<Vec<SettleOutcome>>,
        now: Instant,
    ) {
        match settle {
            Settle::Acknowledge => self.acknowledge(leases, deadline, reply, now),
            Settle::Refuse { delay, reason } => {
                let (now_ms, delay) = (self.setting.clock.ms(now), delay.map(millis));
                let outcomes = self.refuse(&leases, |part, lease| {
                    part.window.refuse(lease.offset, lease.attempt, delay, reason.clone(), now_ms)
                });
                self.setting.metrics.nacks.inc_by(count_ok(&outcomes));
                self.commits.soon(now);
                let _gone = reply.send(Ok(outcomes));
            }
            Settle::Release { delay } => {
                let (now_ms, delay) = (self.setting.clock.ms(now), delay.map(millis));
                let outcomes =
                    self.refuse(&leases, |part, lease| part.window.release(lease.offset, lease.attempt, delay, now_ms));
                self.setting.metrics.releases.inc_by(count_ok(&outcomes));
                self.commits.soon(now);
                let _gone = reply.send(Ok(outcomes));
            }
            Settle::Extend { time } => {
                let time = time.unwrap_or(self.config.ack_deadline);
                let end_ms = self.setting.clock.ms(now + time);
                let outcomes = self.each(&leases, |part, lease| {
                    if part.term != lease.term {
                        return (false, false);
                    }
                    let extended = part.window.extend(lease.offset, lease.attempt, end_ms);
                    if let (true, Some(out)) = (extended, part.out.get_mut(&lease.offset)) {
                        out.end_ms = end_ms;
                    }
                    (extended, false)
                });
                let _gone = reply.send(Ok(outcomes));
            }
            Settle::Restart => {
                let end_ms = self.setting.clock.ms(now + self.config.ack_deadline);
                let outcomes = leases.iter().map(|lease| self.restart_lease(lease, end_ms)).collect();
                let _gone = reply.send(Ok(outcomes));
            }
            Settle::HandBack => {
                let outcomes = leases.iter().map(|lease| self.hand_back(lease)).collect();
                let _gone = reply.send(Ok(outcomes));
            }
        }
    }

    /// Ends deliveries that brought nothing, for another.
    fn refuse(
        &mut self,
        leases: &[LeaseKey],
        mut act: impl FnMut(&mut Part, &LeaseKey) -> Refused,
    ) -> Vec<SettleOutcome> {
        self.each(leases, |part, lease| {
            if part.term != lease.term {
                return (false, false);
            }
            let refused = act(part, lease);
            part.changed |= refused != Refused::Stale;
            // Without a delay it is ready at once.
            part.hot |= matches!(refused, Refused::Retry { .. });
            (refused != Refused::Stale, refused != Refused::Stale)
        })
    }

    /// Lets a lease run until then, unless its client has extended it beyond that.
    fn restart_lease(&mut self, lease: &LeaseKey, end_ms: i64) -> SettleOutcome {
        let restarted = self.part((lease.topic, lease.partition), lease.term).is_some_and(|part| {
            let out = part.out.get_mut(&lease.offset).filter(|out| out.end_ms < end_ms);
            out.is_some_and(|out| {
                let restarted = part.window.extend(lease.offset, lease.attempt, end_ms);
                out.end_ms = if restarted { end_ms } else { out.end_ms };
                restarted
            })
        });
        if restarted { SettleOutcome::Ok } else { SettleOutcome::StaleLease }
    }

    /// Takes a lease back whose record never left; whoever comes next gets it.
    fn hand_back(&mut self, lease: &LeaseKey) -> SettleOutcome {
        let back = self.part((lease.topic, lease.partition), lease.term).and_then(|part| part.unlease(lease));
        match back {
            Some(out) => {
                self.consumers.handed_back(out.holder, out.bytes);
                self.setting.metrics.handed_back.inc();
                SettleOutcome::Ok
            }
            None => SettleOutcome::StaleLease,
        }
    }

    fn acknowledge(
        &mut self,
        leases: Vec<LeaseKey>,
        deadline: Instant,
        reply: Reply<Vec<SettleOutcome>>,
        now: Instant,
    ) {
        let mut done = 0;
        let mut needs: Vec<(PartKey, u64, u64)> = Vec::new();
        let outcomes = self.each(&leases, |part, lease| {
            let acked = match part.term == lease.term {
                true => part.window.ack(lease.offset, lease.attempt),
                // It was stored by the dispatcher before, who could not say so any more.
                false if part.is_restored && part.window.is_done(lease.offset) => Acked::AlreadyDone,
                false => Acked::Stale,
            };
            if acked == Acked::Stale {
                return (false, false);
            }
            let (key, sequence) = (part.key(), part.window.sequence());
            if acked == Acked::Done {
                done += 1;
                part.changed = true;
                part.hot = true;
            }
            if sequence > part.committed_sequence {
                match needs.iter_mut().rev().find(|(of, ..)| *of == key) {
                    Some((_, _, needed)) => *needed = sequence,
                    None => needs.push((key, part.term, sequence)),
                }
            }
            (true, acked == Acked::Done)
        });
        self.setting.metrics.acks.inc_by(done);
        for &(key, ..) in &needs {
            if let Some(&at) = self.index.get(&key) {
                let part = &mut self.parts[at];
                part.cache.drop_below(part.window.base());
            }
        }
        if needs.is_empty() {
            return drop(reply.send(Ok(outcomes)));
        }
        if self.pending.len() >= PENDING_MAX {
            // They are done here, and will be committed; only nobody waits to hear it.
            let outcomes = outcomes.into_iter().map(|outcome| unless_ok(outcome, SettleOutcome::Unavailable)).collect();
            return drop(reply.send(Ok(outcomes)));
        }
        let until = deadline - kept(deadline.saturating_duration_since(now), MARGIN);
        self.pending.push_back(Pending { needs, until, answer: Answer::Settled { leases, outcomes, reply } });
        self.commits.soon(now);
    }

    /// Does something to each lease of a partition that is here. The closure tells whether the lease was good, and whether it is
    /// over.
    fn each(
        &mut self,
        leases: &[LeaseKey],
        mut act: impl FnMut(&mut Part, &LeaseKey) -> (bool, bool),
    ) -> Vec<SettleOutcome> {
        let mut stale = 0;
        let mut last: Option<(PartKey, usize)> = None;
        let mut outcomes = Vec::with_capacity(leases.len());
        for lease in leases {
            let key = (lease.topic, lease.partition);
            let at = match last {
                Some((of, at)) if of == key => Some(at),
                _ => self.index.get(&key).copied(),
            };
            last = at.map(|at| (key, at));
            let part = at.map(|at| &mut self.parts[at]);
            let outcome = part.is_some_and(|part| {
                let (current, over) = act(part, lease);
                if over && let Some(out) = part.out.remove(&lease.offset) {
                    self.consumers.came_back(out.holder, out.bytes);
                }
                current
            });
            stale += u64::from(!outcome);
            outcomes.push(if outcome { SettleOutcome::Ok } else { SettleOutcome::StaleLease });
        }
        self.setting.metrics.stale_settles.inc_by(stale);
        outcomes
    }

    /// A reset waits until its partitions are committed.
    pub(super) fn await_reset(
        &mut self,
        needs: Vec<(PartKey, u64, u64)>,
        until: Instant,
        response: ResetOffsetsResponse,
        reply: Reply<ResetOffsetsResponse>,
    ) {
        self.pending.push_back(Pending { needs, until, answer: Answer::Reset { response, reply } });
    }

    /// Answers what is committed now.
    pub(super) fn settle_pending(&mut self) {
        let mut pending = std::mem::take(&mut self.pending);
        pending.retain_mut(|waiting| {
            let mut needs = std::mem::take(&mut waiting.needs);
            needs.retain(|&(key, term, sequence)| {
                match self.index.get(&key).map(|&at| &self.parts[at]).filter(|part| part.term == term) {
                    Some(part) => part.committed_sequence < sequence,
                    None => {
                        waiting.lose(key);
                        false
                    }
                }
            });
            waiting.needs = needs;
            !waiting.needs.is_empty() || !waiting.answer_now()
        });
        self.pending = pending;
    }

    /// Answers those whose time is over: the acknowledgement may still be stored.
    pub(super) fn end_pending(&mut self, now: Instant) {
        let Some(next) = self.pending.iter().map(|waiting| waiting.until).min() else { return };
        if now < next {
            return self.wake_at(next);
        }
        self.pending.retain_mut(|waiting| now < waiting.until || !waiting.give_up(Verdict::Unavailable));
    }

    /// Answers all that waits.
    pub(super) fn give_up_pending(&mut self, verdict: Verdict) {
        for mut waiting in self.pending.drain(..) {
            waiting.give_up(verdict);
        }
    }
}

/// One settlement that is answered in two parts.
pub(super) struct InTwo {
    /// Which of its leases are in the later part.
    pub(super) is_late: Vec<bool>,
    pub(super) at_once: oneshot::Receiver<Answered>,
    pub(super) later: oneshot::Receiver<Answered>,
    pub(super) reply: Reply<Vec<SettleOutcome>>,
}

impl InTwo {
    /// Answers when both parts are there.
    pub(super) async fn run(self) {
        let (at_once, later) = tokio::join!(self.at_once, self.later);
        let gone = |_| Err(DispatchError::Moving("the group has gone from here".to_owned()));
        let joined = join(&self.is_late, at_once.unwrap_or_else(gone), later.unwrap_or_else(gone));
        let _gone = self.reply.send(joined);
    }
}

type Answered = Result<Vec<SettleOutcome>, DispatchError>;

/// The outcomes of what was settled apart, in their order. Of a part that has no answer nobody knows: the rest stands.
fn join(is_late: &[bool], at_once: Answered, later: Answered) -> Answered {
    let (at_once, later) = match (at_once, later) {
        // Nothing was settled here: another dispatcher may be asked for all of it.
        (Err(error), Err(_)) => return Err(error),
        (at_once, later) => (at_once.unwrap_or_default(), later.unwrap_or_default()),
    };
    let (mut at_once, mut later) = (at_once.into_iter(), later.into_iter());
    let outcomes = is_late.iter().map(|is_late| if *is_late { later.next() } else { at_once.next() });
    Ok(outcomes.map(|outcome| outcome.unwrap_or(SettleOutcome::Unavailable)).collect())
}

impl Pending {
    /// The partition is gone, or began anew: its leases are stale.
    fn lose(&mut self, key: PartKey) {
        if let Answer::Settled { leases, outcomes, .. } = &mut self.answer {
            let lost = leases.iter().zip(outcomes).filter(|(lease, _)| (lease.topic, lease.partition) == key);
            lost.for_each(|(_, outcome)| *outcome = SettleOutcome::StaleLease);
        }
    }

    fn answer_now(&mut self) -> bool {
        match &mut self.answer {
            Answer::Settled { outcomes, reply, .. } => {
                let _gone = take_reply(reply).send(Ok(std::mem::take(outcomes)));
            }
            Answer::Reset { response, reply } => {
                let _gone = take_reply(reply).send(Ok(std::mem::take(response)));
            }
        }
        true
    }

    fn give_up(&mut self, verdict: Verdict) -> bool {
        let outcome = match verdict {
            Verdict::Stale => SettleOutcome::StaleLease,
            Verdict::Unavailable => SettleOutcome::Unavailable,
        };
        match &mut self.answer {
            Answer::Settled { outcomes, .. } => {
                outcomes.iter_mut().for_each(|old| *old = unless_ok(*old, outcome));
                self.answer_now()
            }
            Answer::Reset { reply, .. } => {
                let error = match verdict {
                    Verdict::Stale => DispatchError::Moving("another gateway has taken the group".to_owned()),
                    Verdict::Unavailable => DispatchError::Refused(Error::unavailable(
                        Reason::ClusterUnavailable,
                        "the new positions could not be stored in time; they may still be; look before you try again",
                    )),
                };
                let _gone = take_reply(reply).send(Err(error));
                true
            }
        }
    }
}

/// The sender goes with the answer; what is left in its place goes nowhere.
fn take_reply<T>(reply: &mut Reply<T>) -> Reply<T> {
    std::mem::replace(reply, tokio::sync::oneshot::channel().0)
}

fn unless_ok(outcome: SettleOutcome, instead: SettleOutcome) -> SettleOutcome {
    if outcome == SettleOutcome::Ok { instead } else { outcome }
}

fn millis(delay: Duration) -> i64 {
    i64::try_from(delay.as_millis()).unwrap_or(i64::MAX)
}

fn count_ok(outcomes: &[SettleOutcome]) -> u64 {
    outcomes.iter().filter(|outcome| **outcome == SettleOutcome::Ok).count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_settled_apart_is_answered_in_its_order() {
        use SettleOutcome::{Ok as Good, StaleLease, Unavailable};
        let gone = || Err(DispatchError::Moving("gone".to_owned()));
        let places = [false, true, false, true];
        let joined = join(&places, Ok(vec![Good, StaleLease]), Ok(vec![StaleLease, Good])).expect("outcomes");
        assert_eq!(joined, [Good, StaleLease, StaleLease, Good]);
        let joined = join(&places, Ok(vec![Good, StaleLease]), gone()).expect("what is known stands");
        assert_eq!(joined, [Good, Unavailable, StaleLease, Unavailable]);
        assert!(matches!(join(&places, gone(), gone()), Err(DispatchError::Moving(_))), "another one is asked");
    }
}
