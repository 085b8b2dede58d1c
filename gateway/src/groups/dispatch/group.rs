//! One dispatched group: a task that owns all of its state.
//!
//! It takes the group in Kafka, reads its partitions, hands records out, commits what was acknowledged, and ends when the group is
//! not its own any more or nobody wants it. It waits for one thing at a time only in its loop; every call to Kafka is a future in
//! `work`, so a partition that hangs holds up nobody but itself. An idle group has no timers: it sleeps until somebody comes, the
//! next lease or backoff ends, or it has been idle for long enough.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt as _};
use tokio::sync::mpsc;
use tokio::sync::mpsc::OwnedPermit;
use tokio::time::Instant;

use sluice_types::TopicId;
use sluice_wire::{Error, GroupMember, MemberEvent, TopicPartition};

use crate::groups::dispatch::budget::Account;
use crate::groups::dispatch::command::{AttachmentId, Command};
use crate::groups::dispatch::committing::{Commits, Committed};
use crate::groups::dispatch::consumers::Consumers;
use crate::groups::dispatch::dead_lettering::{DeadLettering, LetterOutcome, RereadRecord};
use crate::groups::dispatch::losing::{LogBounds, Reading};
use crate::groups::dispatch::metrics::Figures;
use crate::groups::dispatch::opening::{Step, ToOpen};
use crate::groups::dispatch::part::{Part, PartKey};
use crate::groups::dispatch::prefetching::Outcome;
use crate::groups::dispatch::reading::Wanted;
use crate::groups::dispatch::resetting::{Planned, ResetCall};
use crate::groups::dispatch::settling::{Early, Pending};
use crate::groups::dispatch::shared::Shared;
use crate::groups::dispatch::taking::{Look, Target};
use crate::groups::model::{DispatchError, Owner, Owners as _, ResolvedGroup};
use crate::groups::window::Policy;
use crate::view::ResolvedTopic;
use crate::view::TenantEntry;

/// Commands and results taken in one go before the state is looked at.
const BURST: usize = 64;

/// Something under way.
pub(super) type Work = BoxFuture<'static, Done>;

/// What came of it.
pub(super) enum Done {
    Alone(Result<Look, Error>),
    Opening {
        epoch: i32,
        step: Step,
    },
    Checked {
        revoked: Vec<TopicPartition>,
        is_alone: bool,
    },
    Read {
        key: PartKey,
        term: u64,
        wanted: Wanted,
        outcome: Outcome,
    },
    Reread {
        key: PartKey,
        term: u64,
        wanted: Wanted,
        outcome: Outcome,
    },
    Bounds {
        key: PartKey,
        term: u64,
        reading: Reading,
        outcome: Result<LogBounds, Error>,
    },
    Committed(Committed),
    RereadRecord(Vec<RereadRecord>),
    LetterOutcome(Vec<LetterOutcome>),
    Place {
        id: AttachmentId,
        permit: Option<OwnedPermit<crate::groups::model::AttachEvent>>,
    },
    Planned(Planned),
    /// Nothing to do with it: it answered by itself.
    Over,
}

/// How far it is.
pub(super) enum Stage {
    /// None of its topics exists.
    NoTopics,
    /// Becoming the only member; then with what must be assigned.
    Joining { target: Option<Target> },
    /// It may deliver.
    Running,
}

/// Why it ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    /// Nobody wants it.
    Idle,
    /// Another gateway owns it, or took it.
    Moved,
    /// It was deleted.
    Gone,
    /// Its tenant is off.
    Suspended,
    /// To be begun anew.
    Again,
    /// Kafka does not take us for its member any more.
    Fenced,
    /// The membership cannot go on.
    Lost,
    /// The process ends.
    Stopped(Instant),
}

/// See the module.
pub(super) struct Group {
    pub(super) shared: Arc<Shared>,
    pub(super) config: Arc<ResolvedGroup>,
    pub(super) tenant: Arc<TenantEntry>,
    pub(super) name: Arc<str>,
    pub(super) uid: Arc<str>,
    pub(super) policy: Policy,
    pub(super) inbox: mpsc::Receiver<Command>,
    pub(super) stage: Stage,
    pub(super) member: Option<GroupMember>,
    pub(super) joined: Instant,
    /// Looks at the group since then.
    pub(super) looks: u32,
    /// Those that exist, by their names in Kafka.
    pub(super) topics: BTreeMap<Arc<str>, Arc<ResolvedTopic>>,
    pub(super) missing: Vec<TopicId>,
    pub(super) assigned: Target,
    pub(super) to_open: Vec<ToOpen>,
    /// Partitions of topics that were new to the group when they were taken.
    pub(super) beginning: Target,
    pub(super) open_after: Option<Instant>,
    pub(super) parts: Vec<Part>,
    pub(super) index: HashMap<PartKey, usize>,
    /// The partition that the next batch begins with.
    pub(super) turn: usize,
    /// The partition that the next reads begin with.
    pub(super) read_turn: usize,
    /// What its caches hold.
    pub(super) account: Account,
    pub(super) consumers: Consumers,
    pub(super) work: FuturesUnordered<Work>,
    pub(super) commits: Commits,
    pub(super) pending: VecDeque<Pending>,
    /// Settlements that cannot be answered yet.
    pub(super) early: Vec<Early>,
    /// No heartbeat is asked for before.
    pub(super) beat_after: Option<Instant>,
    pub(super) dead_lettering: DeadLettering,
    pub(super) resets: Vec<ResetCall>,
    /// Why the coordinator could not be asked.
    pub(super) trouble: Option<String>,
    /// Since when the group has known an epoch that we have not heard of.
    pub(super) stale_since: Option<Instant>,
    pub(super) ending: Option<End>,
    pub(super) last_use: Instant,
    /// When the caches last changed.
    pub(super) touched: Instant,
    pub(super) began_ms: i64,
    pub(super) figures: Arc<Figures>,
    pub(super) figures_after: Instant,
    /// When something is due that is found on the way.
    pub(super) wake: Option<Instant>,
}

impl Group {
    pub(super) fn new(
        shared: Arc<Shared>,
        config: Arc<ResolvedGroup>,
        tenant: Arc<TenantEntry>,
        inbox: mpsc::Receiver<Command>,
    ) -> Self {
        let now = Instant::now();
        Self {
            name: config.physical.as_str().into(),
            uid: config.group_uid.to_string().into(),
            policy: policy_of(&config),
            inbox,
            stage: Stage::NoTopics,
            member: None,
            joined: now,
            looks: 0,
            topics: BTreeMap::new(),
            missing: Vec::new(),
            assigned: Target::new(),
            to_open: Vec::new(),
            beginning: Target::new(),
            open_after: None,
            parts: Vec::new(),
            index: HashMap::new(),
            turn: 0,
            read_turn: 0,
            account: shared.budget.open(config.tenant_uid),
            consumers: Consumers::default(),
            work: FuturesUnordered::new(),
            commits: Commits::new(now),
            pending: VecDeque::new(),
            early: Vec::new(),
            beat_after: None,
            dead_lettering: DeadLettering::default(),
            resets: Vec::new(),
            trouble: None,
            stale_since: None,
            ending: None,
            last_use: now,
            touched: now,
            began_ms: shared.clock.ms(now),
            figures: shared.metrics.group(),
            figures_after: now,
            wake: None,
            shared,
            config,
            tenant,
        }
    }

    /// Dispatches until the end; everything is answered and the group is left when this returns.
    pub(super) async fn run(mut self) -> End {
        let end = self.serve().await;
        tracing::debug!(group = %self.name, ?end, "stops dispatching");
        self.finish(end.clone()).await;
        end
    }

    async fn serve(&mut self) -> End {
        let mut owners = self.shared.owners.changes();
        let mut tenant = self.tenant.changes();
        let mut stop = self.shared.stop.subscribe();
        let account = self.account.clone();
        self.review();
        loop {
            let now = Instant::now();
            self.advance(now);
            if let Some(end) = self.ending.take() {
                return end;
            }
            let wake = self.wake.take();
            tokio::select! {
                command = self.inbox.recv() => match command {
                    Some(command) => self.obey_all(command),
                    None => return End::Idle,
                },
                Some(done) = self.work.next(), if !self.work.is_empty() => self.take_all(done),
                event = next_event(&mut self.member) => self.member_event(event),
                Ok(()) = owners.changed() => self.look_at_owner(),
                Ok(()) = tenant.changed() => self.review(),
                Ok(()) = stop.changed() => {
                    if let Some(deadline) = *stop.borrow_and_update() {
                        return End::Stopped(deadline);
                    }
                }
                () = account.woken() => {}
                () = tokio::time::sleep_until(wake.unwrap_or(now)), if wake.is_some() => {}
            }
        }
    }

    fn look_at_owner(&mut self) {
        if self.shared.owners.owner(self.config.group_uid) != Owner::Here {
            self.end(End::Moved);
        }
    }

    fn obey_all(&mut self, first: Command) {
        let now = Instant::now();
        self.obey(first, now);
        for _ in 1..BURST {
            let Ok(command) = self.inbox.try_recv() else { return };
            self.obey(command, now);
        }
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

    fn take_all(&mut self, first: Done) {
        let now = Instant::now();
        self.done(first, now);
        for _ in 1..BURST {
            let Some(Some(done)) = futures::FutureExt::now_or_never(self.work.next()) else { return };
            self.done(done, now);
        }
    }

    fn done(&mut self, done: Done, now: Instant) {
        match done {
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

    /// Does all that can be done now.
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
        self.plan_burial(now);
        self.plan_commit(now);
        self.plan_resets(now);
        self.end_pending(now);
        self.await_places();
        self.tell_states(now, delivered);
        self.release_unused(now);
        self.publish_figures(now);
    }

    /// Asks to be woken then.
    pub(super) fn wake_at(&mut self, at: Instant) {
        self.wake = Some(self.wake.map_or(at, |known| known.min(at)));
    }

    /// Ends; the first reason stands.
    pub(super) fn end(&mut self, end: End) {
        self.ending.get_or_insert(end);
    }

    pub(super) fn part(&mut self, key: PartKey, term: u64) -> Option<&mut Part> {
        let at = *self.index.get(&key)?;
        self.parts.get_mut(at).filter(|part| part.term == term)
    }

    pub(super) fn add_part(&mut self, part: Part) {
        self.index.insert(part.key(), self.parts.len());
        self.parts.push(part);
    }

    pub(super) fn remove_part(&mut self, key: PartKey) -> Option<Part> {
        let at = self.index.remove(&key)?;
        let part = self.parts.swap_remove(at);
        if let Some(moved) = self.parts.get(at) {
            self.index.insert(moved.key(), at);
        }
        Some(part)
    }

    fn end_leases(&mut self, now: Instant) {
        let now_ms = self.shared.clock.ms(now);
        let mut next = None::<i64>;
        for part in &mut self.parts {
            for out in part.tick(now_ms) {
                self.shared.metrics.expiries.inc();
                self.consumers.came_back(out.holder, out.bytes);
            }
            next = [next, part.window.wake_at()].into_iter().flatten().min();
        }
        if let Some(at_ms) = next {
            // Not for every millisecond of its own.
            let at = self.shared.clock.at(at_ms).max(now + Duration::from_millis(5));
            self.wake_at(at);
        }
    }

    /// Gives memory back that is not used, and ends a group that nobody uses.
    fn release_unused(&mut self, now: Instant) {
        const UNUSED: Duration = Duration::from_secs(1);
        if self.parts.iter().any(|part| !part.cache.is_empty()) {
            if now >= self.touched + UNUSED {
                self.parts.iter_mut().for_each(|part| part.cache.clear());
            } else {
                self.wake_at(self.touched + UNUSED);
            }
        }
        let busy = self.consumers.len() > 0
            || !self.pending.is_empty()
            || !self.resets.is_empty()
            || self.commits.in_flight
            || self.dead_lettering.is_busy()
            || self
                .parts
                .iter()
                .any(|part| part.changed || !part.out.is_empty() || part.window.dead().next().is_some());
        if busy {
            self.last_use = now;
        } else if now >= self.last_use + self.shared.timing.idle {
            self.end(End::Idle);
        } else {
            self.wake_at(self.last_use + self.shared.timing.idle);
        }
    }
}

async fn next_event(member: &mut Option<GroupMember>) -> Option<MemberEvent> {
    match member {
        Some(member) => member.next().await,
        None => std::future::pending().await,
    }
}

pub(super) fn policy_of(config: &ResolvedGroup) -> Policy {
    let millis = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
    Policy {
        key_ordered: config.key_ordered,
        ack_deadline_ms: millis(config.ack_deadline),
        max_attempts: config.max_attempts.filter(|_| config.dead_letter_topic.is_some()),
        backoff_min_ms: millis(config.minimum_backoff),
        backoff_max_ms: millis(config.maximum_backoff),
    }
}

pub(super) fn too_many_consumers() -> DispatchError {
    use sluice_types::limits::GROUP_CONSUMERS_MAX;
    use sluice_types::{ErrorKind, Reason};
    let what = format!("the group has {GROUP_CONSUMERS_MAX} consumers already; close some, or use another group");
    sluice_types::Error::new(ErrorKind::ResourceExhausted, Reason::QuotaExceeded, what).into()
}
