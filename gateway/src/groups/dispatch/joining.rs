//! From the group's definition to assigned partitions, and what changes of either do.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use tokio::time::Instant;

use sluice_types::{TopicId, Uid};
use sluice_wire::{Error, MemberEvent, MemberOptions, MembershipRefusal, OnFenced, TopicPartition};

use crate::groups::dispatch::group::{Done, End, Group, Stage, policy_of};
use crate::groups::dispatch::opening::ToOpen;
use crate::groups::dispatch::part::Part;
use crate::groups::dispatch::taking::{self, Look};
use crate::groups::home;
use crate::view::ResolvedTopic;

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
            self.dead_lettering.retry_at_once();
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
        // Topics came that lie elsewhere: it is begun anew where they are, or refused if they lie on several clusters.
        if !topics.is_empty() && home::of_topics(topics.values().cloned()) != Ok(self.shared.cluster) {
            return self.end(End::Again);
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
                self.to_open.extend(partitions.into_iter().map(ToOpen::new));
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

    pub(super) fn give_back(&mut self, partitions: &[TopicPartition]) {
        for one in partitions {
            self.assigned.remove(&(Arc::clone(&one.topic), one.partition));
            self.to_open.retain(|open| open.assigned != *one);
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
