//! All memberships of a process: who wants to be a member comes here.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::sync::{mpsc, oneshot};

use super::coordinator::{LANES, lane_of};
use super::member::{GroupMember, MemberOptions, TopicPartition};
use super::shard::Shard;
use super::slot::Slot;
use super::state::MemberState;
use crate::client::Client;
use crate::deadline::Deadline;
use crate::error::{Error, Result};

/// Memberships of one [`Groups`].
const MEMBERS_MAX: usize = 50_000;

/// Memberships of groups, driven by a few tasks. Clones share them; the tasks end with the last handle and member.
#[derive(Clone)]
pub struct Groups {
    client: Client,
    shards: Arc<[mpsc::UnboundedSender<Command>]>,
    next_key: Arc<AtomicU64>,
    members: Arc<AtomicUsize>,
}

/// What handles ask of a shard. Unbounded queues are fine: a handle asks one thing at a time.
pub(super) enum Command {
    Join { key: u64, slot: Box<Slot> },
    Subscribe { key: u64, topics: Arc<[Arc<str>]> },
    Release { key: u64, partitions: Vec<TopicPartition> },
    Beat { key: u64 },
    Leave { key: u64, deadline: Deadline, reply: oneshot::Sender<Result<()>> },
    Forget { key: u64 },
}

/// One of the memberships, as long as it lives.
pub(super) struct Counted(Arc<AtomicUsize>);

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
        let state = MemberState::new(Arc::clone(&group), Arc::clone(&member_id), topics, options.rebalance_timeout);
        let (slot, view, events) = Slot::new(state, options.on_fenced, counted);
        let commands = self.shards[lane_of(&group) as usize].clone();
        commands
            .send(Command::Join { key, slot: Box::new(slot) })
            .map_err(|_| Error::InvalidRequest("the runtime of these groups has ended".to_owned()))?;
        Ok(GroupMember { client: self.client.clone(), group, member_id, key, view, events, commands })
    }
}
