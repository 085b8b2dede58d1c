//! What will happen in the world, each at its time.

use std::sync::Arc;

use sluice_proto::internal::control::v1::ControlRecord;
use sluice_wire::Error;

use crate::groups::dispatch::action::{Action, Done};
use crate::groups::dispatch::losing::Reading;
use crate::groups::dispatch::part::PartKey;
use crate::groups::dispatch::reading::{Read, Wanted};
use crate::groups::dispatch::sim::clients::Request;
use crate::groups::dispatch::taking::Target;

/// What a heartbeat brought.
pub(super) type Beaten = Result<(i32, Target), Error>;

/// A read that came.
pub(super) struct Came {
    pub(super) reading: Reading,
    pub(super) key: PartKey,
    pub(super) term: u64,
    pub(super) wanted: Wanted,
    pub(super) outcome: Result<Read, Error>,
}

/// Something that will happen.
pub(super) enum Happening {
    /// A group wanted to be woken.
    Wake {
        gateway: usize,
        life: u64,
        at: u64,
    },
    /// A call arrives at Kafka. Its answer may be lost.
    Call {
        gateway: usize,
        life: u64,
        action: Action,
        is_unheard: bool,
    },
    /// A read has waited long enough.
    ParkOver(u64),
    /// What came of a call arrives at its gateway.
    Back {
        gateway: usize,
        life: u64,
        done: Box<Done>,
    },
    Came {
        gateway: usize,
        life: u64,
        came: Box<Came>,
    },
    /// A heartbeat is due, arrives, is answered.
    Beat {
        gateway: usize,
        life: u64,
        number: u64,
    },
    BeatCall {
        gateway: usize,
        life: u64,
        id: Arc<str>,
        sent: BeatSent,
        is_unheard: bool,
    },
    BeatBack {
        gateway: usize,
        life: u64,
        sent_at: u64,
        beaten: Beaten,
    },
    /// A command arrives at a gateway.
    Command {
        gateway: usize,
        request: Box<Request>,
    },
    /// A gateway hears who owns the group.
    Owner {
        gateway: usize,
        owner: usize,
    },
    /// A gateway hears of a change.
    Published {
        gateway: usize,
        record: Box<ControlRecord>,
    },
    /// A client's turn, a producer's, a fault's.
    Turn(usize),
    Produce,
    Fault,
}

/// A heartbeat on its way.
pub(super) struct BeatSent {
    pub(super) at: u64,
    pub(super) epoch: Option<i32>,
    pub(super) topics: Vec<Arc<str>>,
    pub(super) held: Target,
}

impl Happening {
    /// The gateway that has to be awake for it.
    pub(super) fn gateway(&self) -> Option<usize> {
        match self {
            Self::Wake { gateway, .. }
            | Self::Back { gateway, .. }
            | Self::Came { gateway, .. }
            | Self::Beat { gateway, .. }
            | Self::BeatBack { gateway, .. }
            | Self::Command { gateway, .. }
            | Self::Owner { gateway, .. }
            | Self::Published { gateway, .. } => Some(*gateway),
            _ => None,
        }
    }
}
