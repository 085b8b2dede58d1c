//! A gateway of the simulation: the real machine of the group, and what a process has around it.

use std::sync::Arc;

use futures::future::BoxFuture;
use tokio::sync::mpsc;

use crate::groups::dispatch::action::{Membership, Moment};
use crate::groups::dispatch::budget::{Account, Budget};
use crate::groups::dispatch::command::AttachmentId;
use crate::groups::dispatch::group::Group;
use crate::groups::dispatch::sim::clients::{Ask, Clock};
use crate::groups::dispatch::taking::Target;
use crate::groups::model::AttachEvent;
use crate::view::View;

/// A stop below this is not noticed by the process.
const STILL_MS: u64 = 1_500;

/// A membership as the client sees it.
pub(super) struct SimMember {
    pub(super) id: Arc<str>,
    pub(super) topics: Vec<Arc<str>>,
    pub(super) epoch: Option<i32>,
    pub(super) confirmed_at: Option<u64>,
    pub(super) is_failing: bool,
    pub(super) assigned: Target,
    pub(super) revoking: Target,
    /// The one planned heartbeat that counts.
    pub(super) beat: u64,
    pub(super) is_ended: bool,
}

/// A group that is dispatched.
pub(super) struct Running {
    pub(super) life: u64,
    pub(super) group: Group,
    pub(super) account: Account,
    pub(super) member: Option<SimMember>,
    pub(super) asks: Vec<Ask>,
    pub(super) places: Vec<(AttachmentId, mpsc::Sender<AttachEvent>)>,
    pub(super) twos: Vec<BoxFuture<'static, ()>>,
    pub(super) wake: Option<u64>,
}

pub(super) struct Gateway {
    pub(super) view: Arc<View>,
    pub(super) budget: Budget,
    pub(super) running: Option<Running>,
    /// Who it believes owns the group.
    pub(super) believes: usize,
    /// It stands still until then.
    pub(super) frozen_until: u64,
    pub(super) awake_since: u64,
    /// Nothing passes between it and Kafka until then.
    pub(super) cut_until: u64,
    /// It is not there until then.
    pub(super) down_until: u64,
    pub(super) cooling_until: u64,
}

impl Gateway {
    pub(super) fn new(view: Arc<View>, bytes: usize) -> Self {
        Self {
            view,
            budget: Budget::new(bytes),
            running: None,
            believes: 0,
            frozen_until: 0,
            awake_since: 0,
            cut_until: 0,
            down_until: 0,
            cooling_until: 0,
        }
    }

    pub(super) fn freeze(&mut self, now: u64, until: u64) {
        if now >= self.frozen_until {
            self.frozen_until = until;
            if until > now + STILL_MS {
                self.awake_since = until;
            }
        }
    }

    pub(super) fn moment(&self, clock: &Clock) -> Moment {
        let at = |ms: u64| clock.base + std::time::Duration::from_millis(ms);
        let member = self.running.as_ref().and_then(|running| running.member.as_ref()).map(|member| Membership {
            id: Arc::clone(&member.id),
            epoch: member.epoch,
            confirmed_at: member.confirmed_at.map(at),
            is_failing: member.is_failing,
        });
        Moment { at: at(clock.now), awake_since: at(self.awake_since), member }
    }

    /// The group's task of this life, if it runs still.
    pub(super) fn of_life(&mut self, life: u64) -> Option<&mut Running> {
        self.running.as_mut().filter(|running| running.life == life)
    }
}
