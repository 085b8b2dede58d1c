//! From the group's definition to open partitions, and what changes of either do.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use tokio::time::Instant;

use sluice_types::{TopicId, Uid};
use sluice_wire::{Error, MemberEvent, MemberOptions, MembershipRefusal, OnFenced, TopicPartition};

use crate::groups::dispatch::group::{Done, End, Group, Stage, policy_of};
use crate::groups::dispatch::part::Part;
use crate::groups::dispatch::positions::{self, Closed, Member, Opened};
use crate::groups::dispatch::reading::Place;
use crate::groups::dispatch::taking::{self, Look};
use crate::groups::window::{Bounds, Window};
use crate::ports::ResolvedTopic;

/// Between tries of what failed.
const RETRY: Duration = Duration::from_millis(200);
/// For a heartbeat to be answered, before the next look; doubled a few times.
const BEAT_PAUSE: Duration = Duration::from_millis(10);
/// How long an epoch may be unknown to us that the group has given.
const STALE_MAX: Duration = Duration::from_secs(2);
const STALE_PAUSE: Duration = Duration::from_millis(20);
const CHECK: Duration = Duration::from_secs(2);

impl Group {
    /// Looks at the group's definition and its topics anew.
    pub(super) fn review(&mut self) {
        if self.tenant.state().is_some_and(|state| !state.active || state.suspended) {
            return self.end(End::Suspended);
        }
        let resolved = {
            let names = self.tenant.names();
            names.group_of(self.config.group_uid).map(|config| {
                let topics: Vec<_> =
                    config.topics.iter().map(|id| (id.clone(), names.topic_in(config.namespace_uid, id))).collect();
                (config, topics)
            })
        };
        let Some((config, topics)) = resolved else { return self.end(End::Gone) };
        if config != self.config {
            self.policy = policy_of(&config);
            for part in &mut self.parts {
                part.window.set_policy(self.policy);
                part.hot = true;
            }
            self.burial.retry_at_once();
            self.config = config;
        }
        self.follow(topics);
    }

    fn follow(&mut self, found: Vec<(TopicId, Option<Arc<ResolvedTopic>>)>) {
        self.missing.clear();
        let mut topics = BTreeMap::new();
        for (id, topic) in found {
            match topic {
                Some(topic) => drop(topics.insert(Arc::from(topic.physical.as_str()), topic)),
                None => self.missing.push(id),
            }
        }
        let same = self.topics.keys().eq(topics.keys());
        self.topics = topics;
        for part in &mut self.parts {
            if let Some(topic) = self.topics.get(&part.place.topic) {
                part.topic = Arc::clone(topic);
            }
        }
        match (&self.member, self.topics.is_empty()) {
            (None, true) => {}
            (None, false) => self.join(),
            // Its consumers come again and wait for topics.
            (Some(_), true) => self.end(End::Again),
            (Some(_), false) if same => {}
            (Some(member), false) => {
                let names: Vec<&str> = self.topics.keys().map(|name| &**name).collect();
                if let Err(error) = member.subscribe(&names) {
                    tracing::error!(group = %self.name, %error, "cannot change topics");
                    self.end(End::Again);
                }
            }
        }
    }

    fn join(&mut self) {
        let shared = &self.shared;
        let member_id = format!("{}/{}/{}", shared.gateway_id, shared.boot_id, Uid::random());
        let options =
            MemberOptions { member_id: Some(member_id), on_fenced: OnFenced::End, ..MemberOptions::default() };
        let names: Vec<&str> = self.topics.keys().map(|name| &**name).collect();
        match shared.groups.join(&self.name, &names, options) {
            Ok(member) => {
                self.joined = Instant::now();
                self.looks = 0;
                self.member = Some(member);
                self.stage = Stage::Joining { target: None };
                self.look_for_others(Duration::ZERO);
            }
            Err(error) => {
                tracing::error!(group = %self.name, %error, "cannot join");
                self.end(End::Lost);
            }
        }
    }

    fn look_soon(&mut self) {
        let after = BEAT_PAUSE * 2_u32.pow(self.looks.min(4));
        self.looks += 1;
        self.look_for_others(after);
    }

    fn look_for_others(&mut self, after: Duration) {
        let Some(member) = &self.member else { return };
        let (shared, name, since) = (Arc::clone(&self.shared), Arc::clone(&self.name), self.joined);
        let member_id: Arc<str> = member.member_id().into();
        self.work.push(
            async move {
                tokio::time::sleep(after).await;
                Done::Alone(taking::alone(shared, name, member_id, since).await)
            }
            .boxed(),
        );
    }

    pub(super) fn alone(&mut self, outcome: Result<Look, Error>) {
        match outcome {
            Ok(Look::NotYet) => self.look_soon(),
            Ok(Look::Beat) => {
                if let Some(member) = &self.member {
                    member.beat_now();
                }
                self.look_soon();
            }
            Ok(Look::Alone(target)) => {
                self.trouble = None;
                if let (Some(member), false) = (&self.member, self.assigned.is_superset(&target)) {
                    member.beat_now();
                }
                if let Stage::Joining { target: wanted } = &mut self.stage {
                    *wanted = Some(target);
                }
                self.enter();
            }
            Err(error) => {
                self.trouble = Some(error.to_string());
                self.look_for_others(RETRY);
            }
        }
    }

    /// Runs, once we are the only member and have everything.
    fn enter(&mut self) {
        if let Stage::Joining { target: Some(target) } = &self.stage
            && self.assigned.is_superset(target)
        {
            self.stage = Stage::Running;
            self.shared.metrics.takeovers.inc();
            let took_ms = u64::try_from(self.joined.elapsed().as_millis()).unwrap_or(u64::MAX);
            tracing::debug!(group = %self.name, partitions = self.assigned.len(), took_ms, "dispatches");
        }
    }

    pub(super) fn member_event(&mut self, event: Option<MemberEvent>) {
        match event {
            Some(MemberEvent::Assigned(partitions)) => {
                self.assigned.extend(partitions.iter().map(|one| (Arc::clone(&one.topic), one.partition)));
                self.to_open.extend(partitions);
                self.enter();
            }
            Some(MemberEvent::Revoked(partitions)) => {
                let (wanted, unwanted): (Vec<_>, Vec<_>) =
                    partitions.into_iter().partition(|one| self.topics.contains_key(&one.topic));
                self.give_back(&unwanted);
                if !wanted.is_empty() {
                    self.check(wanted);
                }
            }
            Some(MemberEvent::Fenced { error, .. }) => {
                tracing::info!(group = %self.name, %error, "another member has the group");
                self.end(End::Fenced);
            }
            Some(MemberEvent::Lost { error }) => {
                tracing::warn!(group = %self.name, %error, "membership lost");
                self.end(End::Lost);
            }
            None => self.end(End::Fenced),
        }
    }

    /// What we want was revoked: either its topic is gone in Kafka before we heard of it, or somebody else joined.
    fn check(&mut self, revoked: Vec<TopicPartition>) {
        let Some(member) = &self.member else { return };
        let (wire, name, own) = (self.shared.wire.clone(), Arc::clone(&self.name), member.member_id().to_owned());
        self.work.push(
            async move {
                let described = wire.describe_group(&name, CHECK).await;
                let is_alone = described.is_ok_and(|group| group.members.iter().all(|other| other.member_id == own));
                Done::Checked { revoked, is_alone }
            }
            .boxed(),
        );
    }

    pub(super) fn checked(&mut self, revoked: &[TopicPartition], is_alone: bool) {
        if is_alone {
            self.give_back(revoked);
        } else {
            tracing::info!(group = %self.name, "another member joined");
            self.end(End::Moved);
        }
    }

    fn give_back(&mut self, partitions: &[TopicPartition]) {
        for one in partitions {
            self.assigned.remove(&(Arc::clone(&one.topic), one.partition));
            self.to_open.retain(|open| open != one);
            let key = self.parts.iter().find(|part| part.assigned == *one).map(Part::key);
            if let Some(part) = key.and_then(|key| self.remove_part(key)) {
                part.out.values().for_each(|out| self.consumers.came_back(out.holder, out.bytes));
            }
        }
        if let (Some(member), false) = (&self.member, partitions.is_empty()) {
            member.release(partitions);
        }
        self.settle_pending();
    }

    /// Begins to open what was assigned.
    pub(super) fn open_parts(&mut self, now: Instant) {
        if !matches!(self.stage, Stage::Running) || self.opening || self.to_open.is_empty() {
            return;
        }
        if let Some(after) = self.open_after.filter(|after| now < *after) {
            return self.wake_at(after);
        }
        let Some((member, epoch)) = self.member.as_ref().and_then(|member| Some((member, member.epoch()?))) else {
            return self.wake_at(now + STALE_PAUSE);
        };
        let member = Member { group: Arc::clone(&self.name), id: member.member_id().into(), epoch };
        let closed: Vec<Closed> = std::mem::take(&mut self.to_open)
            .into_iter()
            .filter_map(|assigned| {
                let topic = Arc::clone(self.topics.get(&assigned.topic)?);
                Some(Closed { assigned, topic })
            })
            .collect();
        if closed.is_empty() {
            return;
        }
        self.opening = true;
        let (shared, start) = (Arc::clone(&self.shared), self.config.start);
        self.work.push(
            async move {
                let outcome = positions::open(shared, member, start, closed.clone()).await;
                Done::Opened { epoch, closed, outcome }
            }
            .boxed(),
        );
    }

    pub(super) fn opened(
        &mut self,
        epoch: i32,
        closed: Vec<Closed>,
        outcome: Result<Vec<Opened>, Error>,
        now: Instant,
    ) {
        self.opening = false;
        self.open_after = None;
        match outcome {
            Ok(opened) => {
                self.trouble = None;
                self.stale_since = None;
                opened.into_iter().for_each(|opened| self.add_opened(epoch, opened));
            }
            Err(error) => {
                self.to_open.extend(closed.into_iter().map(|closed| closed.assigned));
                self.open_after = Some(match self.refused(epoch, &error, now) {
                    Some(after) => after,
                    None => {
                        tracing::debug!(group = %self.name, %error, "cannot read positions");
                        self.trouble = Some(error.to_string());
                        now + RETRY
                    }
                });
            }
        }
    }

    fn add_opened(&mut self, epoch: i32, opened: Opened) {
        let Opened { closed: Closed { assigned, topic }, offset, metadata } = opened;
        // It may have been taken back meanwhile.
        if !self.assigned.contains(&(Arc::clone(&assigned.topic), assigned.partition)) {
            return;
        }
        let (window, restored) = Window::restore(offset, &metadata, self.policy, Bounds::default());
        tracing::debug!(group = %self.name, topic = %assigned.topic, partition = assigned.partition, offset, ?restored, "reads on");
        let place = Place {
            topic: Arc::clone(&assigned.topic),
            topic_id: assigned.topic_id,
            partition: assigned.partition,
            share: self.config.tenant_uid.uid().as_u64(),
            group: Arc::clone(&self.uid),
        };
        let part = Part::new(topic, place, assigned, term(epoch), window);
        self.remove_part(part.key());
        self.add_part(part);
    }

    /// What a refusal by the group means: when to try again, or the end. `None`: it was no such refusal.
    pub(super) fn refused(&mut self, epoch: i32, error: &Error, now: Instant) -> Option<Instant> {
        match error.membership()? {
            MembershipRefusal::UnknownMember | MembershipRefusal::Fenced => {
                tracing::info!(group = %self.name, %error, "the group does not take us for its member");
                self.end(End::Fenced);
            }
            MembershipRefusal::StaleEpoch => {
                if self.member.as_ref().and_then(sluice_wire::GroupMember::epoch).is_some_and(|known| known != epoch) {
                    return Some(now);
                }
                let since = *self.stale_since.get_or_insert(now);
                if now >= since + STALE_MAX {
                    self.end(End::Fenced);
                }
            }
        }
        Some(now + STALE_PAUSE)
    }
}

/// A number that no other time in which anybody had the partition shares.
pub(super) fn term(epoch: i32) -> u64 {
    let random = Uid::random().as_u64() & u64::from(u32::MAX);
    u64::from(epoch.unsigned_abs()) << 32 | random
}
