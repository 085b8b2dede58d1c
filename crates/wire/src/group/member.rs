//! Handle to one membership of a group, and what happens to it.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::committed::{CommitOffset, CommittedOffset, Committer, PartitionResults};
use super::memberships::Command;
use crate::client::Client;
use crate::deadline::Deadline;
use crate::error::{Error, KafkaError, MembershipRefusal, Result, code};
use crate::types::KafkaTopicId;

/// How long a commit waits for a new epoch that the group gave and we have not heard of.
const EPOCH_WAIT: Duration = Duration::from_secs(2);
const EPOCH_PAUSE: Duration = Duration::from_millis(20);

/// A partition of an assignment.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicPartition {
    /// Physical topic name.
    pub topic: Arc<str>,
    /// Kafka's id of it.
    pub topic_id: KafkaTopicId,
    /// Partition number.
    pub partition: i32,
}

/// What happened to a member, in order.
#[derive(Debug, Clone)]
pub enum MemberEvent {
    /// These partitions were added and may be used. The first one after joining may be empty.
    Assigned(Vec<TopicPartition>),
    /// Stop using these, commit, then [`GroupMember::release`] them within the rebalance timeout.
    Revoked(Vec<TopicPartition>),
    /// The group does not take us for a member in our epoch any more: all partitions are gone at once, commits are
    /// refused. The member joins again by itself, or has ended, as [`MemberOptions::on_fenced`] says.
    Fenced {
        /// What was owned until now.
        partitions: Vec<TopicPartition>,
        /// What the group said.
        error: Error,
    },
    /// The membership ended for a reason that trying again would not mend (or nobody took its events:
    /// [`Error::Busy`]). The last event; partitions are gone.
    Lost {
        /// Why.
        error: Error,
    },
}

/// What a fenced member does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnFenced {
    /// Joins again as a new member of the same id.
    #[default]
    Rejoin,
    /// Ends: for those who must not fight with whoever made them leave.
    End,
}

/// How to be a member.
#[derive(Debug, Clone)]
pub struct MemberOptions {
    /// Id, unique in the group; `None` makes a random UUID.
    pub member_id: Option<String>,
    /// How long the group waits for revoked partitions before it fences the member.
    pub rebalance_timeout: Duration,
    /// What to do when fenced.
    pub on_fenced: OnFenced,
}

impl Default for MemberOptions {
    /// A random id, 30 s to release, rejoin when fenced.
    fn default() -> Self {
        Self { member_id: None, rebalance_timeout: Duration::from_secs(30), on_fenced: OnFenced::default() }
    }
}

/// What the driver lets the handle see.
#[derive(Default)]
pub(super) struct View {
    pub(super) epoch: Option<i32>,
    pub(super) confirmed: Option<Instant>,
    pub(super) failing: bool,
    pub(super) assignment: Vec<TopicPartition>,
}

/// A membership, kept alive by [`crate::Groups`]. Dropping it without [`GroupMember::leave`] is what a crash looks
/// like: heartbeats stop, and the group notices after its session timeout.
pub struct GroupMember {
    pub(super) client: Client,
    pub(super) group: Arc<str>,
    pub(super) member_id: Arc<str>,
    pub(super) key: u64,
    pub(super) view: Arc<Mutex<View>>,
    pub(super) events: mpsc::Receiver<MemberEvent>,
    pub(super) commands: mpsc::UnboundedSender<Command>,
}

impl GroupMember {
    /// The group's id.
    pub fn group(&self) -> &str {
        &self.group
    }

    /// This member's id.
    pub fn member_id(&self) -> &str {
        &self.member_id
    }

    /// The epoch commits carry; `None` until joined, and after being fenced.
    pub fn epoch(&self) -> Option<i32> {
        self.view.lock().epoch
    }

    /// How long ago the last heartbeat was sent that the group has confirmed. Once it exceeds the session timeout,
    /// others may have the partitions.
    pub fn since_confirmed(&self) -> Option<Duration> {
        self.view.lock().confirmed.map(|at| at.elapsed())
    }

    /// Whether the last heartbeat failed.
    pub fn is_failing(&self) -> bool {
        self.view.lock().failing
    }

    /// What may be used now: assigned, and not revoked.
    pub fn assignment(&self) -> Vec<TopicPartition> {
        self.view.lock().assignment.clone()
    }

    /// Waits for what happens next; `None` when the membership has ended. May be given up at any time. Who leaves 64
    /// events lying loses the membership.
    pub async fn next(&mut self) -> Option<MemberEvent> {
        self.events.recv().await
    }

    /// Gives revoked partitions back, so that others get them. Those that were not revoked stay.
    pub fn release(&self, partitions: &[TopicPartition]) {
        let _ended = self.commands.send(Command::Release { key: self.key, partitions: partitions.to_vec() });
    }

    /// Wants these topics from now on, instead of those before, without leaving. `Assigned` follows for partitions of
    /// topics that were added, `Revoked` for those of topics that were left out (release them as always), and nothing
    /// if no partition changes. Topics that do not exist count for nothing until they are made. The group's epoch
    /// grows, so a commit at that moment may be sent twice (see [`GroupMember::commit`]).
    pub fn subscribe(&self, topics: &[&str]) -> Result<()> {
        if topics.is_empty() {
            return Err(Error::InvalidRequest("a member needs topics".to_owned()));
        }
        let topics = topics.iter().map(|topic| Arc::from(*topic)).collect();
        let _ended = self.commands.send(Command::Subscribe { key: self.key, topics });
        Ok(())
    }

    /// Sends the next heartbeat now, and a few more within the next second until an assignment comes: after
    /// [`Client::leave_group_for`] the partitions arrive at once instead of when the interval is over. Joining and
    /// [`GroupMember::subscribe`] do so by themselves.
    pub fn beat_now(&self) {
        let _ended = self.commands.send(Command::Beat { key: self.key });
    }

    /// Commits as this member. Refused (see [`Error::membership`]) once the group does not take us for one. A commit
    /// that meets a new epoch is sent again with it. Await one commit of a partition before the next.
    pub async fn commit(&self, offsets: &[CommitOffset], timeout: Duration) -> Result<PartitionResults<()>> {
        let deadline = Deadline::after(timeout);
        self.with_epoch(deadline, async |committer| {
            self.client.commit_offsets(&self.group, committer, offsets, deadline.remaining()).await
        })
        .await
    }

    /// Reads committed offsets as this member, leaving none out that is being committed in a transaction.
    pub async fn committed(
        &self,
        topics: &[(&str, &[i32])],
        timeout: Duration,
    ) -> Result<PartitionResults<Option<CommittedOffset>>> {
        let deadline = Deadline::after(timeout);
        self.with_epoch(deadline, async |committer| {
            self.client.committed_offsets(&self.group, committer, Some(topics), deadline.remaining()).await
        })
        .await
    }

    /// Leaves: the group gives the partitions to others at once. Stop using them first. On failure the group notices
    /// after the session timeout.
    pub async fn leave(self, timeout: Duration) -> Result<()> {
        let (reply, left) = oneshot::channel();
        let deadline = Deadline::after(timeout);
        let _ended = self.commands.send(Command::Leave { key: self.key, deadline, reply });
        deadline.bound(async { left.await.unwrap_or(Ok(())) }).await
    }

    /// Runs a call with the current epoch, again if the epoch changed on its way.
    async fn with_epoch<T>(&self, deadline: Deadline, call: impl AsyncFn(Committer<'_>) -> Result<T>) -> Result<T> {
        let patience = deadline.at_most(EPOCH_WAIT);
        loop {
            let no_member = || KafkaError::new(code::UNKNOWN_MEMBER_ID, Some("not joined now".to_owned()));
            let epoch = self.epoch().ok_or_else(no_member)?;
            let outcome = call(Committer::Member { id: &self.member_id, epoch }).await;
            let is_stale = matches!(&outcome, Err(error) if error.membership() == Some(MembershipRefusal::StaleEpoch));
            if !is_stale {
                return outcome;
            }
            while self.epoch() == Some(epoch) {
                if patience.pause(EPOCH_PAUSE).await.is_err() {
                    return outcome;
                }
            }
        }
    }
}

impl Drop for GroupMember {
    fn drop(&mut self) {
        let _ended = self.commands.send(Command::Forget { key: self.key });
    }
}
