//! Keeps thousands of memberships alive: one task with a heap of due times and its own connection per broker.
//!
//! A heartbeat under way is a future of this task, not a task.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt as _};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::coordinator::may_pass;
use super::member::{MemberEvent, OnFenced};
use super::memberships::Command;
use super::names::name_topics;
use super::slot::Slot;
use super::state::Answer;
use crate::client::Client;
use crate::deadline::Deadline;
use crate::error::{Error, Result};
use crate::types::KafkaTopicId;

/// Some of the memberships of a process.
pub(super) struct Shard {
    client: Client,
    slots: HashMap<u64, Slot>,
    due: BinaryHeap<Reverse<(Instant, u64)>>,
    work: FuturesUnordered<BoxFuture<'static, (u64, Done)>>,
}

/// What became of a piece of work.
enum Done {
    Beat { sent: Instant, outcome: Result<Answer> },
    Named(Result<Vec<(KafkaTopicId, Arc<str>)>>),
    Left,
}

impl Shard {
    pub(super) fn new(client: Client) -> Self {
        Self { client, slots: HashMap::new(), due: BinaryHeap::new(), work: FuturesUnordered::new() }
    }

    /// Ends when nobody can command it any more.
    pub(super) async fn run(mut self, mut commands: mpsc::UnboundedReceiver<Command>) {
        loop {
            let next = self.due.peek().map(|Reverse((at, _))| *at);
            tokio::select! {
                command = commands.recv() => match command {
                    Some(command) => self.obey(command),
                    None => return,
                },
                Some((key, done)) = self.work.next(), if !self.work.is_empty() => self.done(key, done),
                () = tokio::time::sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => self.beat_all_due(),
            }
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Join { key, slot } => {
                self.slots.insert(key, *slot);
                self.schedule(key, Duration::ZERO);
            }
            Command::Subscribe { key, topics } => {
                let Some(slot) = self.slots.get_mut(&key) else { return };
                slot.state.subscribe(topics);
                self.hurry(key);
            }
            Command::Release { key, partitions } => {
                let Some(slot) = self.slots.get_mut(&key) else { return };
                slot.state.release(&partitions);
                self.reconcile(key);
            }
            Command::Beat { key } => self.hurry(key),
            Command::Leave { key, deadline, reply } => {
                let Some(slot) = self.slots.get_mut(&key) else { return };
                slot.leaving = Some((deadline, reply));
                slot.show_gone();
                // A heartbeat under way might arrive after the leave and join again.
                if !slot.busy {
                    self.leave(key);
                }
            }
            Command::Forget { key } => {
                if self.slots.get(&key).is_some_and(|slot| slot.leaving.is_none()) {
                    self.slots.remove(&key);
                }
            }
        }
    }

    fn hurry(&mut self, key: u64) {
        let Some(slot) = self.slots.get_mut(&key) else { return };
        slot.hurry();
        if !slot.busy {
            self.schedule(key, Duration::ZERO);
        }
    }

    fn schedule(&mut self, key: u64, after: Duration) {
        let Some(slot) = self.slots.get_mut(&key) else { return };
        slot.due = Instant::now() + after;
        self.due.push(Reverse((slot.due, key)));
    }

    fn beat_all_due(&mut self) {
        let now = Instant::now();
        while let Some(&Reverse((at, key))) = self.due.peek()
            && at <= now
        {
            self.due.pop();
            let Some(slot) = self.slots.get_mut(&key) else { continue };
            if slot.due != at || slot.busy || slot.leaving.is_some() {
                continue;
            }
            slot.busy = true;
            let beat = slot.state.beat();
            let client = self.client.clone();
            self.work.push(Box::pin(async move {
                let deadline = Deadline::after(client.inner.config.request_timeout);
                let outcome = client.heartbeat(beat, deadline).await;
                (key, Done::Beat { sent: now, outcome })
            }));
        }
    }

    fn done(&mut self, key: u64, done: Done) {
        let Some(slot) = self.slots.get_mut(&key) else { return };
        slot.busy = false;
        if matches!(done, Done::Left) {
            self.slots.remove(&key);
            return;
        }
        if slot.leaving.is_some() {
            return self.leave(key);
        }
        match done {
            Done::Beat { sent, outcome: Ok(answer) } => {
                let pause = slot.confirmed(sent, answer);
                self.schedule(key, pause);
                self.reconcile(key);
            }
            Done::Beat { outcome: Err(error), .. } => self.failed(key, error),
            Done::Named(Ok(names)) => {
                slot.state.learn(names);
                // Names that are still missing are asked for again with the next heartbeat.
                self.settle(key);
            }
            Done::Named(Err(error)) => {
                tracing::debug!(group = %slot.state.group, %error, "names of assigned topics");
                let interval = slot.interval();
                self.schedule(key, interval);
            }
            Done::Left => {}
        }
    }

    /// Acts on an assignment, once its topics' names are known.
    fn reconcile(&mut self, key: u64) {
        let Some(slot) = self.slots.get_mut(&key) else { return };
        let nameless = slot.state.nameless();
        if nameless.is_empty() || slot.busy {
            return self.settle(key);
        }
        slot.busy = true;
        let (client, topics) = (self.client.clone(), Arc::clone(&slot.state.topics));
        self.work.push(Box::pin(async move {
            let deadline = Deadline::after(client.inner.config.request_timeout);
            (key, Done::Named(name_topics(&client, &topics, nameless, deadline).await))
        }));
    }

    /// Tells the member what changed, and the group soon what it owns.
    fn settle(&mut self, key: u64) {
        let Some(slot) = self.slots.get_mut(&key) else { return };
        let events = slot.state.reconcile();
        slot.show();
        let heard = events.into_iter().all(|event| slot.tell(event));
        if !heard {
            self.lose(key, Error::Busy);
        } else if !slot.busy && slot.owes_beat() {
            self.schedule(key, Duration::ZERO);
        }
    }

    fn failed(&mut self, key: u64, error: Error) {
        let Some(slot) = self.slots.get_mut(&key) else { return };
        let pause = slot.failed(key);
        if error.membership().is_some() {
            tracing::debug!(group = %slot.state.group, member = %slot.state.member_id, %error, "fenced");
            let event = slot.state.fenced(error);
            slot.show();
            slot.hurry();
            match (slot.tell(event), slot.on_fenced) {
                (false, _) => return self.lose(key, Error::Busy),
                (true, OnFenced::End) => return drop(self.slots.remove(&key)),
                (true, OnFenced::Rejoin) => {}
            }
        } else if error.is_retriable() || error.kafka_code().is_some_and(may_pass) {
            slot.state.failed();
        } else {
            return self.lose(key, error);
        }
        self.schedule(key, pause);
    }

    fn lose(&mut self, key: u64, error: Error) {
        let Some(slot) = self.slots.remove(&key) else { return };
        if slot.is_heard() {
            tracing::warn!(group = %slot.state.group, member = %slot.state.member_id, %error, "membership lost");
        }
        slot.show_gone();
        slot.tell_last(MemberEvent::Lost { error });
    }

    fn leave(&mut self, key: u64) {
        let Some(slot) = self.slots.get_mut(&key) else { return };
        let Some((deadline, reply)) = slot.leaving.take() else { return };
        // Keeps the slot from being used while the leave is under way.
        slot.busy = true;
        slot.due = Instant::now() + Duration::from_secs(3600);
        let (client, group) = (self.client.clone(), Arc::clone(&slot.state.group));
        let member_id = Arc::clone(&slot.state.member_id);
        self.work.push(Box::pin(async move {
            let outcome = client.leave_group_for(&group, &member_id, deadline.remaining()).await;
            let _gone = reply.send(outcome.map(drop));
            (key, Done::Left)
        }));
    }
}
