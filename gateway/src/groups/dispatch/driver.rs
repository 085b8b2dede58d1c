//! The task of a dispatched group: brings it events and moments, and does its actions.
//!
//! Nothing is decided here. Every call to Kafka is a future in `work`, and the loop waits for one thing at a time only.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt as _};
use tokio::sync::mpsc;
use tokio::time::Instant;

use sluice_types::Uid;
use sluice_wire::{GroupMember, MemberEvent, MemberOptions, OnFenced};

use crate::groups::dispatch::action::{Action, Done, Event, Membership, Moment};
use crate::groups::dispatch::budget::Account;
use crate::groups::dispatch::command::Command;
use crate::groups::dispatch::group::{End, Group};
use crate::groups::dispatch::performing::perform;
use crate::groups::dispatch::shared::{Io, Shared};
use crate::groups::model::{Owner, Owners as _, ResolvedGroup};
use crate::view::TenantEntry;

/// Events of one kind that are taken in one go before the group goes on.
const BURST: usize = 64;
const LEAVE: Duration = Duration::from_secs(1);

/// Something under way.
type Work = BoxFuture<'static, Done>;

/// See the module.
pub(super) struct Driver {
    io: Arc<Io>,
    group: Group,
    account: Account,
    inbox: mpsc::Receiver<Command>,
    member: Option<Member>,
    work: FuturesUnordered<Work>,
}

struct Member {
    id: Arc<str>,
    of: GroupMember,
}

impl Driver {
    pub(super) fn new(
        io: Arc<Io>,
        config: Arc<ResolvedGroup>,
        tenant: Arc<TenantEntry>,
        inbox: mpsc::Receiver<Command>,
    ) -> Self {
        let account = io.shared.budget.open(config.tenant_uid);
        let moment = moment(&io.shared, None);
        let (setting, seed) = (Arc::clone(&io.shared.setting), Uid::random().as_u64());
        let mut group = Group::new(setting, account.clone(), config, tenant, seed, moment);
        group.home = io.handles.cluster;
        Self { io, group, account, inbox, member: None, work: FuturesUnordered::new() }
    }

    /// Dispatches until the end; everything is answered and the group is left when this returns.
    pub(super) async fn run(mut self) -> End {
        let mut owners = self.io.shared.owners.changes();
        let mut tenant = self.group.tenant.changes();
        let mut stop = self.io.shared.stop.subscribe();
        let account = self.account.clone();
        self.step(Event::Begin);
        // What changed before it was listened to is told by nobody.
        let stops_at = *stop.borrow_and_update();
        let missed = stops_at.map_or_else(|| self.owner_changed(), Event::Stop);
        if !matches!(missed, Event::Tick) {
            self.step(missed);
        }
        loop {
            if let Some(end) = self.act().await {
                return end;
            }
            let (now, wake, is_ending) = (Instant::now(), self.group.wake.take(), self.group.is_ending());
            let event = tokio::select! {
                command = self.inbox.recv(), if !is_ending => command.map_or(Event::Unwanted, Event::Command),
                Some(done) = self.work.next(), if !self.work.is_empty() => Event::Done(done),
                event = next_event(&mut self.member), if !is_ending => Event::Member(event),
                Ok(()) = owners.changed(), if !is_ending => self.owner_changed(),
                Ok(()) = tenant.changed(), if !is_ending => Event::Changed,
                Ok(()) = stop.changed(), if !is_ending => stop.borrow_and_update().map_or(Event::Tick, Event::Stop),
                () = account.woken(), if !is_ending => Event::Tick,
                () = tokio::time::sleep_until(wake.unwrap_or(now)), if wake.is_some() => Event::Tick,
            };
            match event {
                Event::Command(command) => self.obey_all(command),
                Event::Done(done) => self.take_all(done),
                event => self.step(event),
            }
        }
    }

    fn owner_changed(&self) -> Event {
        match self.io.shared.owners.owner(self.group.config.group_uid) {
            Owner::Here => Event::Tick,
            Owner::There(_) | Owner::Nobody => Event::Moved,
        }
    }

    fn step(&mut self, event: Event) {
        let moment = moment(&self.io.shared, self.member.as_ref());
        self.group.step(event, moment);
    }

    fn obey_all(&mut self, first: Command) {
        self.group.observe(moment(&self.io.shared, self.member.as_ref()));
        self.group.take_event(Event::Command(first));
        for _ in 1..BURST {
            let Ok(command) = self.inbox.try_recv() else { break };
            self.group.take_event(Event::Command(command));
        }
        self.go_on();
    }

    fn take_all(&mut self, first: Done) {
        self.group.observe(moment(&self.io.shared, self.member.as_ref()));
        self.group.take_event(Event::Done(first));
        for _ in 1..BURST {
            let Some(Some(done)) = self.work.next().now_or_never() else { break };
            self.group.take_event(Event::Done(done));
        }
        self.go_on();
    }

    /// After a burst, which takes its time: what was true before it may not be any more, least of all if the process stood still.
    fn go_on(&mut self) {
        self.group.observe(moment(&self.io.shared, self.member.as_ref()));
        self.group.go_on();
    }

    /// Does what the group wants done; tells if it is over.
    async fn act(&mut self) -> Option<End> {
        if self.group.is_ending() && !self.inbox.is_closed() {
            self.inbox.close();
            while let Ok(command) = self.inbox.try_recv() {
                command.refuse(|| self.group.refusal());
            }
        }
        let mut actions = std::mem::take(&mut self.group.actions);
        for action in actions.drain(..) {
            match action {
                Action::Join { topics } => self.join(&topics),
                Action::Subscribe { topics } => self.subscribe(&topics),
                Action::Release(partitions) => {
                    if let Some(member) = &self.member {
                        member.of.release(&partitions);
                    }
                }
                Action::Beat => {
                    if let Some(member) = &self.member {
                        member.of.beat_now();
                    }
                }
                Action::AnswerInTwo(two) => self.io.shared.tasks.spawn("settlement in two", two.run()),
                Action::Leave => self.leave().await,
                action => {
                    let member = self.member.as_ref().map(|member| Arc::clone(&member.id));
                    let (io, account, name) = (Arc::clone(&self.io), &self.account, &self.group.name);
                    self.work.extend(perform(action, io, account, name, member));
                }
            }
        }
        // Its memory serves again.
        self.group.actions = actions;
        self.group.is_over().cloned()
    }

    fn join(&mut self, topics: &[Arc<str>]) {
        let shared = &self.io.shared;
        let id: Arc<str> = format!("{}/{}/{}", shared.setting.gateway_id, shared.boot_id, Uid::random()).into();
        let options =
            MemberOptions { member_id: Some(id.to_string()), on_fenced: OnFenced::End, ..MemberOptions::default() };
        let names: Vec<&str> = topics.iter().map(|name| &**name).collect();
        match self.io.handles.groups.join(&self.group.name, &names, options) {
            Ok(of) => self.member = Some(Member { id, of }),
            Err(error) => {
                tracing::error!(group = %self.group.name, %error, "cannot join");
                self.work.push(std::future::ready(Done::NotJoined(End::Lost)).boxed());
            }
        }
    }

    fn subscribe(&mut self, topics: &[Arc<str>]) {
        let names: Vec<&str> = topics.iter().map(|name| &**name).collect();
        let Some(Err(error)) = self.member.as_ref().map(|member| member.of.subscribe(&names)) else { return };
        tracing::error!(group = %self.group.name, %error, "cannot change topics");
        self.work.push(std::future::ready(Done::NotJoined(End::Again)).boxed());
    }

    async fn leave(&mut self) {
        self.work.clear();
        if let Some(member) = self.member.take()
            && let Err(error) = member.of.leave(LEAVE).await
        {
            tracing::debug!(group = %self.group.name, %error, "could not leave; the next dispatcher makes us leave");
        }
    }
}

/// Now, and how Kafka takes us.
fn moment(shared: &Shared, member: Option<&Member>) -> Moment {
    let at = Instant::now();
    let member = member.map(|Member { id, of }| Membership {
        id: Arc::clone(id),
        epoch: of.epoch(),
        confirmed_at: of.since_confirmed().and_then(|since| at.checked_sub(since)),
        is_failing: of.is_failing(),
    });
    Moment { at, awake_since: shared.pulse.awake_since(at), member }
}

async fn next_event(member: &mut Option<Member>) -> Option<MemberEvent> {
    match member {
        Some(member) => member.of.next().await,
        None => std::future::pending().await,
    }
}
