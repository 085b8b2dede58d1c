//! The barrier: what makes the return of a mutation mean that it holds on every gateway.
//!
//! A change is committed before anything here begins, so whatever happens here the answer is a success; what is not known
//! to hold everywhere is told in a condition.

use std::time::{Duration, Instant};

use sluice_db::DbError;
use sluice_proto::admin::v1::Condition;
use sluice_proto::admin::v1::condition::Status;
use sluice_proto::wkt::Timestamp;
use sluice_types::Revision;

use crate::jobs::members::Confirmed;
use crate::plane::Plane;
use crate::store::outbox::outbox_offset;

const POLL: Duration = Duration::from_millis(100);

/// How far a change has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Propagation {
    /// Every registered gateway has applied it. `None`: published so long ago that its offset is forgotten.
    Everywhere(Option<Revision>),
    /// Published, and these many registered gateways have not confirmed it. 0: it is not known which gateways there are.
    Pending(Option<Revision>, usize),
    /// Committed, but not yet published.
    NotPublished,
}

impl Propagation {
    /// Of a change that was published.
    pub(crate) fn published(revision: Option<Revision>, confirmed: Confirmed) -> Self {
        match confirmed {
            Confirmed::ByAll => Self::Everywhere(revision),
            Confirmed::NotBy(count) => Self::Pending(revision, count),
            Confirmed::Unknown => Self::Pending(revision, 0),
        }
    }

    /// The revision, once there is one.
    pub(crate) fn revision(&self) -> Option<Revision> {
        match self {
            Self::Everywhere(revision) | Self::Pending(revision, _) => *revision,
            Self::NotPublished => None,
        }
    }

    /// What to tell, unless it holds everywhere.
    pub(crate) fn condition(&self) -> Option<Condition> {
        let (reason, message) = match self {
            Self::Everywhere(_) => return None,
            Self::Pending(_, 0) => ("GatewaysUnknown", "The gateways cannot be asked at the moment.".to_owned()),
            Self::Pending(_, 1) => ("GatewaysBehind", "1 gateway has not confirmed the change yet.".to_owned()),
            Self::Pending(_, count) => {
                ("GatewaysBehind", format!("{count} gateways have not confirmed the change yet."))
            }
            Self::NotPublished => (
                "NotPublished",
                "The change is stored and will reach the gateways when the control log can be written.".into(),
            ),
        };
        Some(Condition {
            r#type: "PropagationPending".into(),
            status: Status::True as i32,
            reason: reason.into(),
            message,
            observed_generation: 0,
            last_transition_time: Some(Timestamp::from(std::time::SystemTime::now())),
        })
    }

    /// How many gateways have not confirmed, where that is known.
    pub(crate) fn pending(&self) -> Option<usize> {
        match self {
            Self::Pending(_, count) => Some(*count),
            Self::Everywhere(_) | Self::NotPublished => None,
        }
    }
}

impl Plane {
    /// Waits until the change holds on every live gateway, at most until `until`.
    pub(crate) async fn propagate(&self, outbox_id: i64, until: Instant) -> Propagation {
        let begun = Instant::now();
        let propagation = self.propagate_until(outbox_id, until).await;
        self.metrics.barrier_seconds.observe(begun.elapsed().as_secs_f64());
        self.metrics.barrier_pending.inc_by(propagation.pending().unwrap_or(0) as u64);
        propagation
    }

    /// Whether every registered gateway has applied what was published at an offset. Until that is known it has not.
    pub(crate) fn is_everywhere(&self, offset: i64) -> bool {
        let progress = self.revisions.log_id().and_then(|log| self.members.progress(log, offset));
        Confirmed::of(progress) == Confirmed::ByAll
    }

    async fn propagate_until(&self, outbox_id: i64, until: Instant) -> Propagation {
        let offset = match self.published(outbox_id, until).await {
            Published::At(offset) => offset,
            Published::LongAgo => return Propagation::Everywhere(None),
            Published::NotYet => return Propagation::NotPublished,
        };
        let Some(log) = self.revisions.log_id() else { return Propagation::Pending(None, 0) };
        let revision = self.revisions.revision(offset);
        Propagation::published(revision, self.members.applied(log, offset, until).await)
    }

    async fn published(&self, outbox_id: i64, until: Instant) -> Published {
        let mut published = self.wakes.published.subscribe();
        loop {
            if let Some(offset) = self.revisions.offset(outbox_id) {
                return Published::At(offset);
            }
            // Another process may be the one that relays.
            match self.published_elsewhere(outbox_id).await {
                Ok(Some(found)) => return found,
                Ok(None) => {}
                Err(error) => tracing::debug!(%error, "look at the outbox"),
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Published::NotYet;
            }
            published.sleep(left.min(POLL)).await;
        }
    }

    async fn published_elsewhere(&self, outbox_id: i64) -> Result<Option<Published>, DbError> {
        let system = self.scopes.barrier.clone();
        let work = async move {
            let mut tx = system.begin().await?;
            let offset = outbox_offset(&mut tx, outbox_id).await?;
            tx.rollback().await?;
            Ok::<_, DbError>(offset)
        };
        Ok(match self.db.run(work).await? {
            None => Some(Published::LongAgo),
            Some(Some(offset)) => Some(Published::At(offset)),
            Some(None) => None,
        })
    }
}

enum Published {
    At(i64),
    /// The row is gone: a later change of the same resource was published more than an hour ago.
    LongAgo,
    NotYet,
}
