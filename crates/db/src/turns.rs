//! Turns: how many connections the calls of one tenant hold at a time.
//!
//! Changes of a tenant run one after another: they hold one lock in the database. One that waits for that lock there keeps a
//! connection, and sixteen of one tenant would keep them all. So each waits here, without a connection, for its tenant's
//! turn: one change, one report of provisioning and a few reads at a time in one process. Other tenants do not notice, and
//! neither does the operator, who takes no turns: a suspension must not stand behind what it is to stop.
//!
//! Who waits too long is told so, and so is who would be one too many to wait.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sluice_types::{Error, ErrorKind, Reason, TenantUid};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Reads of a tenant at a time.
const READS: usize = 4;
/// Calls of a tenant and kind that wait; one more is refused.
const WAITING_MAX: usize = 64;
/// A caller's longest wait. It leaves most of a call's time for the call.
const CALL_WAIT: Duration = Duration::from_secs(5);
/// A report's longest wait: provisioning has other topics to go on with.
const REPORT_WAIT: Duration = Duration::from_secs(1);
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What a turn is for; each kind has its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A change by the tenant.
    Change,
    /// A read by the tenant.
    Read,
    /// A report of provisioning about the tenant's topics.
    Report,
}

/// The turns of all tenants. Holds an entry only for those that have one or wait for one. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Turns(Arc<Mutex<HashMap<(TenantUid, Kind), Lane>>>);

#[derive(Debug)]
struct Lane {
    places: Arc<Semaphore>,
    /// Those that hold a place or wait for one.
    present: usize,
}

/// A turn; it ends when dropped.
#[derive(Debug)]
pub struct Turn {
    _place: OwnedSemaphorePermit,
    _presence: Presence,
}

/// Counted in its lane until dropped, also while it waits.
#[derive(Debug)]
struct Presence {
    turns: Turns,
    lane: (TenantUid, Kind),
}

impl Kind {
    fn places(self) -> usize {
        match self {
            Self::Change | Self::Report => 1,
            Self::Read => READS,
        }
    }

    fn wait(self) -> Duration {
        match self {
            Self::Change | Self::Read => CALL_WAIT,
            Self::Report => REPORT_WAIT,
        }
    }
}

impl Turns {
    /// Waits for a turn of the tenant, at most until `deadline`.
    pub async fn take(&self, tenant: TenantUid, kind: Kind, deadline: Instant) -> Result<Turn, Error> {
        let (places, presence) = self.enter(tenant, kind)?;
        let until = deadline.min(Instant::now() + kind.wait());
        match tokio::time::timeout_at(until.into(), places.acquire_owned()).await {
            Ok(Ok(place)) => Ok(Turn { _place: place, _presence: presence }),
            Ok(Err(closed)) => Err(Error::internal(closed)),
            Err(_) => Err(Error::unavailable(
                Reason::Contended,
                "other calls of the tenant take long; try again, with fewer at the same time",
            )
            .with_retry_after(RETRY_AFTER)),
        }
    }

    fn enter(&self, tenant: TenantUid, kind: Kind) -> Result<(Arc<Semaphore>, Presence), Error> {
        let key = (tenant, kind);
        let mut lanes = self.0.lock();
        let lane =
            lanes.entry(key).or_insert_with(|| Lane { places: Arc::new(Semaphore::new(kind.places())), present: 0 });
        if lane.present >= kind.places() + WAITING_MAX {
            return Err(Error::new(
                ErrorKind::ResourceExhausted,
                Reason::RateLimited,
                format!("the tenant has {WAITING_MAX} calls waiting for their turn, the limit (admin_calls_waiting); make fewer at the same time"),
            )
            .with_metadata("limit", "admin_calls_waiting")
            .with_retry_after(RETRY_AFTER));
        }
        lane.present += 1;
        Ok((Arc::clone(&lane.places), Presence { turns: self.clone(), lane: key }))
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        let mut lanes = self.turns.0.lock();
        if let Some(lane) = lanes.get_mut(&self.lane) {
            lane.present -= 1;
            if lane.present == 0 {
                lanes.remove(&self.lane);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(50)
    }

    #[tokio::test]
    async fn a_tenant_waits_for_itself_only_and_leaves_nothing_behind() {
        let turns = Turns::default();
        let (acme, globex) = (TenantUid::random(), TenantUid::random());
        let held = turns.take(acme, Kind::Change, soon()).await.expect("free");
        assert_eq!(turns.take(acme, Kind::Change, soon()).await.expect_err("taken").reason, Reason::Contended);
        let others = [
            turns.take(acme, Kind::Read, soon()).await.expect("a read"),
            turns.take(acme, Kind::Report, soon()).await.expect("a report"),
            turns.take(globex, Kind::Change, soon()).await.expect("another tenant"),
        ];
        drop(held);
        drop(turns.take(acme, Kind::Change, soon()).await.expect("free again"));
        drop(others);
        assert!(turns.0.lock().is_empty());
    }

    #[tokio::test]
    async fn one_too_many_is_refused_at_once_and_told_when_to_come_back() {
        let turns = Turns::default();
        let acme = TenantUid::random();
        let _held = turns.take(acme, Kind::Change, soon()).await.expect("free");
        let waiting: Vec<_> =
            (0..WAITING_MAX).map(|_| turns.enter(acme, Kind::Change).expect("room to wait")).collect();
        let error = turns.take(acme, Kind::Change, soon()).await.expect_err("full");
        assert_eq!((error.kind, error.retry_after), (ErrorKind::ResourceExhausted, Some(RETRY_AFTER)));
        drop(waiting);
        assert_eq!(turns.take(acme, Kind::Change, soon()).await.expect_err("taken").reason, Reason::Contended);
    }
}
