//! One dispatched group, as a machine: an event and the moment it comes at go in, actions come out.
//!
//! It takes the group in Kafka, reads its partitions, hands records out, commits what was acknowledged, and ends when the group is
//! not its own any more or nobody wants it. All of its state is here, and it does no I/O: what it wants done is a list of actions,
//! and what came of each comes back as an event, so a partition that hangs holds up nobody but itself. An idle group asks for no
//! timers: it rests until somebody comes, the next lease or backoff ends, or it has been idle for long enough.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use sluice_types::{ClusterUid, TopicId};

use crate::groups::dispatch::action::{Action, Membership, Moment};
use crate::groups::dispatch::budget::Account;
use crate::groups::dispatch::committing::Commits;
use crate::groups::dispatch::consumers::Consumers;
use crate::groups::dispatch::dead_lettering::DeadLettering;
use crate::groups::dispatch::finishing::Finishing;
use crate::groups::dispatch::metrics::Figures;
use crate::groups::dispatch::opening::{Terms, ToOpen};
use crate::groups::dispatch::part::{Part, PartKey};
use crate::groups::dispatch::resetting::ResetCall;
use crate::groups::dispatch::settling::{Early, Pending};
use crate::groups::dispatch::shared::Setting;
use crate::groups::dispatch::taking::Target;
use crate::groups::model::ResolvedGroup;
use crate::groups::window::Policy;
use crate::view::ResolvedTopic;
use crate::view::TenantEntry;

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
    pub(super) setting: Arc<Setting>,
    /// The moment of the event that is dealt with.
    pub(super) moment: Moment,
    /// What is to be done, in this order; for the driver to take.
    pub(super) actions: Vec<Action>,
    pub(super) terms: Terms,
    /// The cluster that it lives on.
    pub(super) home: ClusterUid,
    pub(super) config: Arc<ResolvedGroup>,
    pub(super) tenant: Arc<TenantEntry>,
    pub(super) name: Arc<str>,
    pub(super) uid: Arc<str>,
    pub(super) policy: Policy,
    pub(super) stage: Stage,
    /// It has asked to be a member.
    pub(super) has_joined: bool,
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
    /// The end is being made.
    pub(super) finishing: Option<Finishing>,
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
    /// A group on the first cluster, of which nothing is known yet. `seed` is by chance: what is derived of it must come to nobody else.
    pub(super) fn new(
        setting: Arc<Setting>,
        account: Account,
        config: Arc<ResolvedGroup>,
        tenant: Arc<TenantEntry>,
        seed: u64,
        moment: Moment,
    ) -> Self {
        let now = moment.at;
        Self {
            home: ClusterUid::FIRST,
            name: config.physical.as_str().into(),
            uid: config.group_uid.to_string().into(),
            policy: policy_of(&config),
            moment,
            actions: Vec::new(),
            terms: Terms::new(seed),
            stage: Stage::NoTopics,
            has_joined: false,
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
            account,
            consumers: Consumers::default(),
            commits: Commits::new(now),
            pending: VecDeque::new(),
            early: Vec::new(),
            beat_after: None,
            dead_lettering: DeadLettering::default(),
            resets: Vec::new(),
            trouble: None,
            stale_since: None,
            ending: None,
            finishing: None,
            last_use: now,
            touched: now,
            began_ms: setting.clock.ms(now),
            figures: setting.metrics.group(),
            figures_after: now,
            wake: None,
            setting,
            config,
            tenant,
        }
    }

    /// Asks to be woken then.
    pub(super) fn wake_at(&mut self, at: Instant) {
        self.wake = Some(self.wake.map_or(at, |known| known.min(at)));
    }

    /// Ends; the first reason stands.
    pub(super) fn end(&mut self, end: End) {
        self.ending.get_or_insert(end);
    }

    /// What Kafka says of our membership, if we have one.
    pub(super) fn member(&self) -> Option<&Membership> {
        self.moment.member.as_ref()
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

    pub(super) fn end_leases(&mut self, now: Instant) {
        let now_ms = self.setting.clock.ms(now);
        let mut next = None::<i64>;
        for part in &mut self.parts {
            for out in part.tick(now_ms) {
                self.setting.metrics.expiries.inc();
                self.consumers.came_back(out.holder, out.bytes);
            }
            next = [next, part.window.wake_at()].into_iter().flatten().min();
        }
        if let Some(at_ms) = next {
            // Not for every millisecond of its own.
            let at = self.setting.clock.at(at_ms).max(now + Duration::from_millis(5));
            self.wake_at(at);
        }
    }

    /// Gives memory back that is not used, and ends a group that nobody uses.
    pub(super) fn release_unused(&mut self, now: Instant) {
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
        } else if now >= self.last_use + self.setting.timing.idle {
            self.end(End::Idle);
        } else {
            self.wake_at(self.last_use + self.setting.timing.idle);
        }
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
