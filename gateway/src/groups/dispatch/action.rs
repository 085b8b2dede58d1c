//! What goes into a group and what comes out of it: events with the moment they come at, and actions, all plain data.
//!
//! A group does no I/O, has no clock and no source of chance. Whoever drives it does its actions, in their order, and tells what
//! came of them as a [`Done`]. The senders in some actions are handles for answers; nothing waits on them inside the group.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::{self, OwnedPermit};
use tokio::time::Instant;

use sluice_wire::{Error, MemberEvent, TopicPartition};

use crate::groups::dispatch::command::{AttachmentId, Command};
use crate::groups::dispatch::committing::{Commit, Committed};
use crate::groups::dispatch::dead_lettering::{DeadRecord, LetterOutcome, Letters, RereadRecord};
use crate::groups::dispatch::group::End;
use crate::groups::dispatch::inspecting::Inspection;
use crate::groups::dispatch::losing::{LogBounds, Reading};
use crate::groups::dispatch::opening::Step;
use crate::groups::dispatch::part::PartKey;
use crate::groups::dispatch::positions::{Closed, Member};
use crate::groups::dispatch::prefetching::Outcome;
use crate::groups::dispatch::reading::{Place, Wanted};
use crate::groups::dispatch::resetting::{Move, Planned, ResetCall};
use crate::groups::dispatch::settling::InTwo;
use crate::groups::dispatch::taking::Look;
use crate::groups::model::{AttachEvent, Start};

/// Something happens.
pub(super) enum Event {
    /// The group begins.
    Begin,
    /// Somebody asks for something.
    Command(Command),
    /// An action is over.
    Done(Done),
    /// The membership says something; `None`: it has ended.
    Member(Option<MemberEvent>),
    /// Another gateway owns the group now.
    Moved,
    /// The tenant's resources changed.
    Changed,
    /// Nobody can ask for anything any more.
    Unwanted,
    /// The process ends; by then the group is to be handed over.
    Stop(Instant),
    /// Time passed, or there is room for bytes that were lacking.
    Tick,
}

/// When something happens, and what is known then.
#[derive(Debug, Clone)]
pub(super) struct Moment {
    pub(super) at: Instant,
    /// Since when the process has run without standing still.
    pub(super) awake_since: Instant,
    /// How Kafka has taken us lately, once we asked to be its member.
    pub(super) member: Option<Membership>,
}

/// What Kafka says of our membership.
#[derive(Debug, Clone)]
pub(super) struct Membership {
    pub(super) id: Arc<str>,
    /// `None` until joined, and after being fenced.
    pub(super) epoch: Option<i32>,
    /// When the last heartbeat was sent that was confirmed.
    pub(super) confirmed_at: Option<Instant>,
    /// The last heartbeat failed.
    pub(super) is_failing: bool,
}

/// What a group wants to be done.
pub(super) enum Action {
    /// Become a member of it, with these topics; the end if that cannot be asked for.
    Join { topics: Vec<Arc<str>> },
    /// Be a member with these topics instead.
    Subscribe { topics: Vec<Arc<str>> },
    /// Give revoked partitions back.
    Release(Vec<TopicPartition>),
    /// Send a heartbeat now.
    Beat,
    /// After a pause, look whether anybody else is a member; [`Done::Alone`].
    LookForOthers { after: Duration, since: Instant },
    /// Look once whether anybody else is a member; [`Done::Checked`].
    CheckOthers { revoked: Vec<TopicPartition> },
    /// Look what is committed; [`Done::Opening`].
    LookPositions { member: Member, closed: Vec<Closed> },
    /// Find where partitions begin, and commit that; [`Done::Opening`].
    BeginPositions { member: Member, fresh: Vec<(Closed, Start)> },
    /// Read; [`Done::Read`] or [`Done::Reread`].
    Read { reading: Reading, key: PartKey, term: u64, place: Place, wanted: Wanted },
    /// Find where the log begins and ends; [`Done::Bounds`].
    FindBounds { key: PartKey, term: u64, reading: Reading, place: Place },
    /// Commit; [`Done::Committed`].
    Commit(Commit),
    /// Read dead records again; [`Done::RereadRecord`].
    RereadDead(Vec<DeadRecord>),
    /// Write letters; [`Done::LetterOutcome`].
    WriteLetters(Letters),
    /// Wait for a place for an attachment's next event; [`Done::Place`].
    AwaitPlace { id: AttachmentId, events: mpsc::Sender<AttachEvent> },
    /// Put two answers together, whatever becomes of the group.
    AnswerInTwo(InTwo),
    /// Find where a reset goes to; [`Done::Planned`].
    FindTargets { call: ResetCall, moves: Vec<Move> },
    /// Complete a status, and answer with it.
    Inspect(Box<Inspection>),
    /// Leave: what is under way is given up.
    Leave,
}

/// What came of an action.
pub(super) enum Done {
    /// The membership cannot be had as it was wanted.
    NotJoined(End),
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
        permit: Option<OwnedPermit<AttachEvent>>,
    },
    Planned(Planned),
    /// Nothing to do with it: it answered by itself.
    Over,
}
