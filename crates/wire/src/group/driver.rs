//! Keeps thousands of memberships alive: a few tasks, each with a heap of due times and its own connection per broker.
//!
//! A heartbeat under way is a future of its task, not a task. Failures are retried with a short, growing, uneven pause,
//! so that a broker's restart does not bring all members at the same moment.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt as _};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::coordinator::{LANES, lane_of, may_pass};
use super::member::{GroupMember, MemberEvent, MemberOptions, OnFenced, TopicPartition, View};
use super::state::{Answer, MemberState};
use crate::client::Client;
use crate::deadline::Deadline;
use crate::error::{Error, MembershipRefusal, Result};
use crate::types::TopicId;

/// Memberships of one [`Groups`].
const MEMBERS_MAX: usize = 50_000;
/// Events a member may leave lying.
const EVENTS_MAX: usize = 64;
const PAUSE_MIN: Duration = Duration::from_millis(20);
/// Short beside the shortest session (6 s): members must be back before it ends.
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// Memberships of groups, driven by a few tasks. Clones share them; the tasks end with the last handle and member.
#[derive(Clone)]
pub struct Groups {
    client: Client,
    shards: Arc<[mpsc::UnboundedSender<Command>]>,
    next_key: Arc<AtomicU64>,
    members: Arc<AtomicUsize>,
}

/// What handles ask of the driver. Unbounded queues are fine: a handle asks one thing at a time.
pub(super) enum Command {
    Join { key: u64, slot: Box<Slot> },
    Release { key: u64, partitions: Vec<TopicPartition> },
    Leave { key: u64, deadline: Deadline, reply: oneshot::Sender<Result<()>> },
    Forget { key: u64 },
}

/// One membership in its shard.
pub(super) struct Slot {
    state: MemberState,
    on_fenced: OnFenced,
    view: Arc<Mutex<View>>,
    events: mpsc::Sender<MemberEvent>,
    /// When the next heartbeat is due; older entries of the heap do not count.
    due: Instant,
    interval: Duration,
    failures: u32,
    /// A heartbeat or look-up is under way.
    busy: bool,
    leaving: Option<(Deadline, oneshot::Sender<Result<()>>)>,
    _counted: Counted,
}

struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Groups {
    /// Starts the tasks; needs a tokio runtime. No I/O until somebody joins.
    pub fn new(client: Client) -> Self {
        let shards = (0..LANES).map(|_| {
            let (commands, queue) = mpsc::unbounded_channel();
            tokio::spawn(Shard::new(client.clone()).run(queue));
            commands
        });
        Self { shards: shards.collect(), client, next_key: Arc::default(), members: Arc::default() }
    }

    /// Memberships now.
    pub fn len(&self) -> usize {
        self.members.load(Ordering::Relaxed)
    }

    /// True without memberships.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Begins to join a group for these topics; events tell how it goes. Unreachable brokers are tried until they
    /// answer. Over 50,000 memberships: [`Error::Busy`].
    pub fn join(&self, group: &str, topics: &[&str], options: MemberOptions) -> Result<GroupMember> {
        if group.is_empty() || topics.is_empty() {
            return Err(Error::InvalidRequest("a member needs a group and topics".to_owned()));
        }
        self.members.fetch_add(1, Ordering::Relaxed);
        let counted = Counted(Arc::clone(&self.members));
        if self.len() > MEMBERS_MAX {
            return Err(Error::Busy);
        }
        let (group, key): (Arc<str>, _) = (group.into(), self.next_key.fetch_add(1, Ordering::Relaxed));
        let member_id: Arc<str> = options.member_id.unwrap_or_else(|| uuid::Uuid::new_v4().to_string()).into();
        let topics = topics.iter().map(|topic| Arc::from(*topic)).collect();
        let (events, received) = mpsc::channel(EVENTS_MAX);
        let view = Arc::<Mutex<View>>::default();
        let slot = Box::new(Slot {
            state: MemberState::new(Arc::clone(&group), Arc::clone(&member_id), topics, options.rebalance_timeout),
            on_fenced: options.on_fenced,
            view: Arc::clone(&view),
            events,
            due: Instant::now(),
            interval: PAUSE_MAX,
            failures: 0,
            busy: false,
            leaving: None,
            _counted: counted,
        });
        let commands = self.shards[lane_of(&group) as usize].clone();
        commands
            .send(Command::Join { key, slot })
            .map_err(|_| Error::InvalidRequest("the runtime of these groups has ended".to_owned()))?;
        Ok(GroupMember { client: self.client.clone(), group, member_id, key, view, events: received, commands })
    }
}

/// What became of a piece of work.
enum Done {
    Beat { sent: Instant, outcome: Result<Answer> },
    Named(Result<Vec<(TopicId, Arc<str>)>>),
    Left,
}

struct Shard {
    client: Client,
    slots: HashMap<u64, Slot>,
    due: BinaryHeap<Reverse<(Instant, u64)>>,
    work: FuturesUnordered<BoxFuture<'static, (u64, Done)>>,
}

impl Shard {
    fn new(client: Client) -> Self {
        Self { client, slots: HashMap::new(), due: BinaryHeap::new(), work: FuturesUnordered::new() }
    }

    async fn run(mut self, mut commands: mpsc::UnboundedReceiver<Command>) {
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
            Command::Release { key, partitions } => {
                let Some(slot) = self.slots.get_mut(&key) else { return };
                slot.state.release(&partitions);
                self.reconcile(key);
            }
            Command::Leave { key, deadline, reply } => {
                let Some(slot) = self.slots.get_mut(&key) else { return };
                slot.leaving = Some((deadline, reply));
                slot.set_gone();
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
                slot.failures = 0;
                slot.interval = answer.interval;
                slot.view.lock().confirmed = Some(sent);
                slot.state.answered(answer.epoch, answer.assignment);
                self.schedule(key, answer.interval.saturating_sub(sent.elapsed()));
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
                let interval = slot.interval;
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
            let missing =
                |names: &[(TopicId, Arc<str>)]| nameless.iter().any(|id| names.iter().all(|(had, _)| had != id));
            let mut names = name_topics(&client, &topics, false, deadline).await;
            if names.as_ref().is_ok_and(|names| missing(names)) {
                names = name_topics(&client, &topics, true, deadline).await;
            }
            (key, Done::Named(names))
        }));
    }

    /// Tells the member what changed, and the group soon what it owns.
    fn settle(&mut self, key: u64) {
        let Some(slot) = self.slots.get_mut(&key) else { return };
        let events = slot.state.reconcile();
        slot.show();
        let heard = events.into_iter().all(|event| slot.events.try_send(event).is_ok());
        let now_or_later = match (slot.state.owes_report(), slot.busy) {
            (_, true) => None,
            (true, false) => Some(Duration::ZERO),
            // It fell due while something else was under way.
            (false, false) if slot.due <= Instant::now() => Some(Duration::ZERO),
            (false, false) => None,
        };
        if !heard {
            self.lose(key, Error::Busy);
        } else if let Some(after) = now_or_later {
            self.schedule(key, after);
        }
    }

    fn failed(&mut self, key: u64, error: Error) {
        let Some(slot) = self.slots.get_mut(&key) else { return };
        slot.failures = slot.failures.saturating_add(1);
        match error.membership() {
            Some(MembershipRefusal::UnknownMember | MembershipRefusal::Fenced | MembershipRefusal::StaleEpoch) => {
                tracing::debug!(group = %slot.state.group, member = %slot.state.member_id, %error, "fenced");
                let event = slot.state.fenced(error);
                slot.show();
                let heard = slot.events.try_send(event).is_ok();
                if slot.on_fenced == OnFenced::End {
                    self.slots.remove(&key);
                    return;
                }
                if !heard {
                    return self.lose(key, Error::Busy);
                }
            }
            None if error.is_retriable() || error.kafka_code().is_some_and(may_pass) => slot.state.failed(),
            None => return self.lose(key, error),
        }
        let pause = (PAUSE_MIN * 2_u32.pow(slot.failures.min(6))).min(PAUSE_MAX);
        // Uneven, by a number that has nothing to do with the order of joining.
        let uneven = (key.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u32;
        self.schedule(key, pause / 2 + pause * uneven / 512);
    }

    fn lose(&mut self, key: u64, error: Error) {
        let Some(slot) = self.slots.remove(&key) else { return };
        tracing::warn!(group = %slot.state.group, member = %slot.state.member_id, %error, "membership lost");
        slot.set_gone();
        let _full = slot.events.try_send(MemberEvent::Lost { error });
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

impl Slot {
    /// Lets the handle see the state.
    fn show(&self) {
        let mut view = self.view.lock();
        view.epoch = self.state.epoch();
        view.assignment = self.state.usable();
    }

    fn set_gone(&self) {
        let mut view = self.view.lock();
        view.epoch = None;
        view.assignment.clear();
    }
}

/// Ids and names of the topics that exist.
async fn name_topics(
    client: &Client,
    topics: &[Arc<str>],
    refresh: bool,
    deadline: Deadline,
) -> Result<Vec<(TopicId, Arc<str>)>> {
    let mut names = Vec::with_capacity(topics.len());
    for name in topics {
        let topic = match refresh {
            true => client.refresh_topic(name, deadline).await,
            false => client.cached_topic(name, deadline).await,
        };
        match topic {
            Ok(topic) => names.push((topic.topic_id, Arc::clone(name))),
            Err(Error::UnknownTopic { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(names)
}
