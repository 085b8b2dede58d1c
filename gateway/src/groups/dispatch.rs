//! The dispatcher of this process: groups that this gateway owns, each dispatched by a task of its own while somebody wants it.
//!
//! A group is begun on the first call for it, if this gateway is its owner, and ends by itself: 30 s after its last client and lease,
//! when another gateway owns it, when it or its tenant is gone, or when Kafka takes us for its member no more. Promises: an
//! acknowledgement is answered OK only after the commit that holds it succeeded; nothing is delivered unless Kafka has lately confirmed
//! that we are the group's only member; every queue, cache and list is bounded.

mod action;
mod attachment;
mod budget;
mod cache;
mod command;
mod committing;
mod consumers;
mod dead_lettering;
mod delivering;
mod driver;
mod epochs;
mod explaining;
mod finishing;
mod group;
mod inspecting;
mod joining;
mod losing;
mod metrics;
mod opening;
mod part;
mod performing;
mod positions;
mod prefetching;
mod pulse;
mod reading;
mod refreshing;
mod resetting;
mod resting;
mod settling;
mod shared;
#[cfg(test)]
mod sim;
mod status;
mod stepping;
mod taking;
#[cfg(test)]
mod testing;
mod unheard;

use std::hash::RandomState;
use std::sync::Arc;
use std::time::Instant as StdInstant;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use futures::future::BoxFuture;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::Instant;

use sluice_proto::stream::v1::{DeliveryState, ResetOffsetsRequest, ResetOffsetsResponse, SettleOutcome};
use sluice_runtime::{Metrics, TaskSet};
use sluice_types::error::Error;
use sluice_types::{GroupUid, Reason};

use self::budget::Budget;
use self::command::{Caller, Command};
use self::driver::Driver;
use self::group::End;
use self::metrics::DispatchMetrics;
use self::pulse::Pulse;
use self::shared::{Clock, Io, Setting, Shared};
use crate::clusters::Clusters;
use crate::groups::home;
use crate::groups::model::{
    ATTACH_COMMANDS, ATTACH_EVENTS, AttachOptions, Attachment, Dispatch, DispatchError, GroupCall, Inspected, LeaseKey,
    Owner, Owners as _, ResolvedGroup, Settle, TakeOptions, Taken,
};
use crate::groups::owner::MemberOwners;
use crate::metering::Meter;
use crate::view::{TenantEntry, View};

pub use self::shared::Timing;

/// Calls that wait for a group's task.
const INBOX: usize = 256;

/// What the dispatcher is built from.
pub struct DispatchParts {
    /// This gateway.
    pub gateway_id: Arc<str>,
    /// This start of it.
    pub boot_id: Arc<str>,
    /// Where topics lie, and groups live.
    pub clusters: Clusters,
    /// Where dead letters are counted.
    pub meter: Meter,
    /// Groups and topics.
    pub view: Arc<View>,
    /// Who owns what.
    pub owners: Arc<MemberOwners>,
    /// Where the figures go.
    pub metrics: Metrics,
    /// Its tasks.
    pub tasks: TaskSet,
}

/// See the module.
pub struct Dispatchers {
    shared: Arc<Shared>,
    registry: Arc<Registry>,
}

#[derive(Default)]
struct Registry {
    slots: DashMap<GroupUid, Slot>,
    /// Something was taken out.
    ended: Notify,
}

/// A group that is dispatched, or must not be at the moment.
enum Slot {
    Running(mpsc::Sender<Command>),
    Cooling(Instant),
}

impl Registry {
    /// The task of a group that runs.
    fn inbox(&self, group: GroupUid) -> Option<mpsc::Sender<Command>> {
        match &*self.slots.get(&group)? {
            Slot::Running(inbox) => Some(inbox.clone()),
            Slot::Cooling(_) => None,
        }
    }

    /// A pause is over: what nobody asks for again needs no entry.
    fn cooled(&self, group: GroupUid, until: Instant) {
        self.slots.remove_if(&group, |_, slot| matches!(slot, Slot::Cooling(at) if *at == until));
    }
}

impl Dispatchers {
    /// Ready to take groups.
    pub fn start(parts: DispatchParts) -> Arc<Self> {
        Self::start_with(parts, Timing::default())
    }

    /// The same with other times, for tests.
    pub fn start_with(parts: DispatchParts, timing: Timing) -> Arc<Self> {
        let shared = Shared {
            boot_id: parts.boot_id,
            setting: Arc::new(Setting {
                gateway_id: parts.gateway_id,
                clock: Clock::start(),
                metrics: DispatchMetrics::register(&parts.metrics),
                timing,
            }),
            clusters: parts.clusters,
            meter: parts.meter,
            view: parts.view,
            owners: parts.owners,
            budget: Budget::new(timing.cached_bytes),
            pulse: Arc::new(Pulse::new(Instant::now())),
            key_hasher: RandomState::new(),
            tasks: parts.tasks,
            stop: watch::Sender::new(None),
        };
        let (shared, registry) = (Arc::new(shared), Arc::<Registry>::default());
        let (stop, pulse) = (shared.tasks.shutdown(), Pulse::run(Arc::clone(&shared.pulse)));
        shared.tasks.spawn("pulse", async move {
            stop.run_until_cancelled(pulse).await;
        });
        let (stop, running) = (shared.tasks.shutdown(), Arc::clone(&registry));
        let refresh = refreshing::run(Arc::clone(&shared), move |group| running.inbox(group));
        shared.tasks.spawn("positions of groups", async move {
            stop.run_until_cancelled(refresh).await;
        });
        Arc::new(Self { shared, registry })
    }

    /// Groups dispatched now.
    pub fn len(&self) -> usize {
        self.registry.slots.iter().filter(|slot| matches!(**slot, Slot::Running(_))).count()
    }

    /// Whether no group is dispatched.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes no more work, answers calls that wait with [`DispatchError::Moving`], ends attachments, commits, and leaves every
    /// group. Returns by `deadline`.
    pub async fn shutdown(&self, deadline: StdInstant) {
        let deadline = Instant::from_std(deadline);
        self.shared.stop.send_replace(Some(deadline));
        let all_ended = async {
            loop {
                let ended = self.registry.ended.notified();
                if self.is_empty() {
                    return;
                }
                ended.await;
            }
        };
        if tokio::time::timeout_at(deadline, all_ended).await.is_err() {
            tracing::warn!(
                groups = self.len(),
                "groups were not handed over in time; their next dispatchers take them"
            );
        }
    }

    /// Commits positions again, those of idle groups and those of dispatched ones; tells how many groups that was. It happens by
    /// itself, a few times a day.
    pub async fn refresh_positions(&self) -> u64 {
        refreshing::sweep(&self.shared, &|group| self.registry.inbox(group)).await
    }

    /// The group's task, if it runs.
    fn running(&self, group: GroupUid) -> Option<mpsc::Sender<Command>> {
        self.registry.inbox(group)
    }

    /// The group's task, begun if this gateway owns the group.
    fn inbox(&self, call: &GroupCall) -> Result<mpsc::Sender<Command>, DispatchError> {
        let uid = call.group.group_uid;
        if self.shared.owners.owner(uid) != Owner::Here || self.shared.stop.borrow().is_some() {
            return Err(DispatchError::NotDispatcher);
        }
        if let Some(inbox) = self.running(uid) {
            return if inbox.is_closed() { Err(moving()) } else { Ok(inbox) };
        }
        let (config, tenant) = self.resolve(call)?;
        let io = self.at_home(&config, &tenant)?;
        match self.registry.slots.entry(uid) {
            Entry::Occupied(mut slot) => match slot.get() {
                Slot::Running(inbox) if inbox.is_closed() => Err(moving()),
                Slot::Running(inbox) => Ok(inbox.clone()),
                Slot::Cooling(until) if Instant::now() < *until => Err(moving()),
                Slot::Cooling(_) => {
                    let inbox = self.begin(io, config, tenant);
                    slot.insert(Slot::Running(inbox.clone()));
                    Ok(inbox)
                }
            },
            Entry::Vacant(slot) => {
                let inbox = self.begin(io, config, tenant);
                slot.insert(Slot::Running(inbox.clone()));
                Ok(inbox)
            }
        }
    }

    /// What our own view says of the group.
    fn resolve(&self, call: &GroupCall) -> Result<(Arc<ResolvedGroup>, Arc<TenantEntry>), DispatchError> {
        let tenant = self.shared.view.tenant(call.group.tenant_uid);
        let found = tenant.and_then(|tenant| {
            let config = tenant.names().group_of(call.group.group_uid)?;
            Some((config, tenant))
        });
        found.ok_or_else(|| Error::not_found(&call.group.name).into())
    }

    /// With what calls are made for a group: what all share, and its cluster's clients.
    fn at_home(&self, config: &ResolvedGroup, tenant: &TenantEntry) -> Result<Arc<Io>, Error> {
        let cluster = self.shared.clusters.get(home::of_group(config, tenant)?)?;
        Ok(Arc::new(Io::at(&self.shared, &cluster)))
    }

    fn begin(&self, io: Arc<Io>, config: Arc<ResolvedGroup>, tenant: Arc<TenantEntry>) -> mpsc::Sender<Command> {
        let (inbox, commands) = mpsc::channel(INBOX);
        let uid = config.group_uid;
        let group = Driver::new(io, config, tenant, commands);
        let (shared, registry) = (Arc::clone(&self.shared), Arc::clone(&self.registry));
        self.shared.tasks.spawn("group", async move {
            let guard = Ended { registry: Arc::clone(&registry), uid, until: None };
            let end = group.run().await;
            let until =
                matches!(end, End::Fenced | End::Lost).then(|| Instant::now() + shared.setting.timing.cool_down);
            guard.with(until);
            if let Some(until) = until {
                shared.setting.metrics.fenced.inc();
                shared.tasks.shutdown().run_until_cancelled(tokio::time::sleep_until(until)).await;
                registry.cooled(uid, until);
            }
        });
        inbox
    }

    /// Asks a group's task and waits for its answer until the call's deadline.
    async fn ask<T>(
        &self,
        inbox: &mpsc::Sender<Command>,
        deadline: Instant,
        command: impl FnOnce(oneshot::Sender<Result<T, DispatchError>>) -> Command,
    ) -> Result<T, DispatchError> {
        let (reply, answer) = oneshot::channel();
        let answer = async { answer.await.unwrap_or_else(|_| Err(moving())) };
        self.told(inbox, deadline, command(reply), answer).await
    }

    async fn told<T>(
        &self,
        inbox: &mpsc::Sender<Command>,
        deadline: Instant,
        command: Command,
        answer: impl Future<Output = Result<T, DispatchError>>,
    ) -> Result<T, DispatchError> {
        let asked = async {
            if inbox.send(command).await.is_err() {
                return Err(moving());
            }
            answer.await
        };
        tokio::time::timeout_at(deadline, asked).await.unwrap_or_else(|_| Err(too_slow()))
    }
}

/// Takes a group out of the registry, however its task ended.
struct Ended {
    registry: Arc<Registry>,
    uid: GroupUid,
    until: Option<Instant>,
}

impl Ended {
    fn with(mut self, until: Option<Instant>) {
        self.until = until;
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        match self.until {
            Some(until) => drop(self.registry.slots.insert(self.uid, Slot::Cooling(until))),
            None => drop(self.registry.slots.remove(&self.uid)),
        }
        self.registry.ended.notify_waiters();
    }
}

fn moving() -> DispatchError {
    DispatchError::Moving("it is being handed over".to_owned())
}

fn too_slow() -> DispatchError {
    DispatchError::Refused(Error::unavailable(
        Reason::Overloaded,
        "the group's dispatcher did not answer in time; try again",
    ))
}

impl Dispatch for Dispatchers {
    fn take<'a>(&'a self, call: &'a GroupCall, options: TakeOptions) -> BoxFuture<'a, Result<Taken, DispatchError>> {
        Box::pin(async move {
            let inbox = self.inbox(call)?;
            let (caller, deadline) = (Caller::of(call), Instant::from_std(call.deadline));
            let (reply, answer) = oneshot::channel();
            let answer = unheard::Answer::new(answer, inbox.clone());
            let command = Command::Take { caller, options, deadline, reply };
            let taken = self.told(&inbox, deadline, command, answer.heard()).await;
            match taken {
                Err(DispatchError::Refused(error)) if error.reason == Reason::Overloaded => {
                    tracing::debug!(group = %call.group.name, %error, "a pull was not answered in time");
                    Ok(Taken { records: Vec::new(), state: DeliveryState::Assigning })
                }
                other => other,
            }
        })
    }

    fn settle<'a>(
        &'a self,
        call: &'a GroupCall,
        settle: Settle,
        leases: Vec<LeaseKey>,
    ) -> BoxFuture<'a, Result<Vec<SettleOutcome>, DispatchError>> {
        Box::pin(async move {
            // Who held the leases may still commit, whoever owns the group: Kafka decides.
            let inbox = match self.running(call.group.group_uid) {
                Some(inbox) => inbox,
                // It may be done already: what Kafka holds tells.
                None if settle == Settle::Acknowledge => self.inbox(call)?,
                None => {
                    return match self.shared.owners.owner(call.group.group_uid) {
                        // Nothing that is leased now was leased by anybody who is still there.
                        Owner::Here => Ok(vec![SettleOutcome::StaleLease; leases.len()]),
                        Owner::There(_) | Owner::Nobody => Err(DispatchError::NotDispatcher),
                    };
                }
            };
            let deadline = Instant::from_std(call.deadline);
            self.ask(&inbox, deadline, |reply| Command::Settle { settle, leases, deadline, reply }).await
        })
    }

    fn attach<'a>(
        &'a self,
        call: &'a GroupCall,
        options: AttachOptions,
    ) -> BoxFuture<'a, Result<Attachment, DispatchError>> {
        Box::pin(async move {
            let inbox = self.inbox(call)?;
            let (commands, received) = mpsc::channel(ATTACH_COMMANDS);
            let (sender, events) = mpsc::channel(ATTACH_EVENTS);
            let (caller, deadline) = (Caller::of(call), Instant::from_std(call.deadline));
            let for_group = sender.clone();
            let attach = |reply| Command::Attach { caller, options, events: for_group, reply };
            let id = self.ask(&inbox, deadline, attach).await?;
            self.shared.tasks.spawn("group stream", attachment::run(id, received, sender, inbox));
            Ok(Attachment { commands, events })
        })
    }

    fn inspect<'a>(&'a self, call: &'a GroupCall) -> BoxFuture<'a, Result<Inspected, DispatchError>> {
        Box::pin(async move {
            let deadline = Instant::from_std(call.deadline);
            if let Some(inbox) = self.running(call.group.group_uid)
                && !inbox.is_closed()
            {
                return self.ask(&inbox, deadline, |reply| Command::Inspect { deadline, reply }).await;
            }
            let (config, tenant) = self.resolve(call)?;
            let io = self.at_home(&config, &tenant)?;
            Ok(resting::inspect(&io, &config, &tenant, deadline).await?)
        })
    }

    fn reset<'a>(
        &'a self,
        call: &'a GroupCall,
        request: ResetOffsetsRequest,
    ) -> BoxFuture<'a, Result<ResetOffsetsResponse, DispatchError>> {
        Box::pin(async move {
            let deadline = Instant::from_std(call.deadline);
            if request.dry_run && self.running(call.group.group_uid).is_none() {
                let (config, tenant) = self.resolve(call)?;
                let io = self.at_home(&config, &tenant)?;
                return Ok(resting::try_reset(&io, &config, &tenant, &request, deadline).await?);
            }
            // A group that nobody dispatches is taken for it: as its member we cannot collide with another dispatcher.
            let inbox = self.inbox(call)?;
            self.ask(&inbox, deadline, |reply| Command::Reset { request, deadline, reply }).await
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_that_was_fenced_leaves_no_entry_and_never_counts_as_dispatched() {
        let registry = Registry::default();
        let (uid, until) = (GroupUid::random(), Instant::now());
        registry.slots.insert(uid, Slot::Cooling(until));
        assert!(registry.inbox(uid).is_none(), "its positions are refreshed as those of any idle group");
        registry.cooled(uid, until + std::time::Duration::from_secs(1));
        assert_eq!(registry.slots.len(), 1, "of another end");
        registry.cooled(uid, until);
        assert!(registry.slots.is_empty());
    }
}
