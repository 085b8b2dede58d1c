//! Acknowledging, refusing, extending: a result per id, in the order of the request.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use sluice_proto::google::rpc;
use sluice_proto::stream::v1::{SettleOutcome, SettleResult};
use sluice_types::error::Error;
use sluice_types::limits::{ACK_DEADLINE_MS, BACKOFF_MS_MAX};
use sluice_types::{ErrorKind, GroupUid, Reason};

use crate::access::DataCall;
use crate::data::{answer_by, failure};
use crate::groups::ack_id::AckIds;
use crate::groups::door::dispatching::{DispatchRequest, NoAnswer, dispatcher_ends};
use crate::groups::door::stream_access::CONSUME;
use crate::groups::door::{Shared, fields};
use crate::groups::model::{LeaseKey, Settle};

/// Least milliseconds of an extension.
const EXTEND_MS_MIN: i64 = 1_000;

/// What a settling message asks for; its fields are good.
pub(super) fn refuse(delay: Option<sluice_proto::wkt::Duration>, reason: &str, release: bool) -> Result<Settle, Error> {
    fields::reason(reason)?;
    let delay = fields::time("delay", delay, 0..=BACKOFF_MS_MAX)?;
    match (release, reason.is_empty()) {
        (true, true) => Ok(Settle::Release { delay }),
        (true, false) => {
            Err(Error::invalid("reason", "has no meaning beside `release`, which is no failure; leave it out"))
        }
        (false, _) => Ok(Settle::Refuse { delay, reason: reason.into() }),
    }
}

/// See [`refuse`].
pub(super) fn extend(time: Option<sluice_proto::wkt::Duration>) -> Result<Settle, Error> {
    Ok(Settle::Extend { time: fields::time("ackDeadline", time, EXTEND_MS_MIN..=*ACK_DEADLINE_MS.end())? })
}

/// Ids of a request, read: each lease once, and where its outcome goes.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) leases: Vec<LeaseKey>,
    /// For each id the place of its lease; `None`: not an ack id of this group.
    places: Vec<Option<usize>>,
}

impl Read {
    pub(super) fn of(ack_ids: &AckIds, group: GroupUid, ids: &[String]) -> Self {
        let mut known: HashMap<LeaseKey, usize> = HashMap::with_capacity(ids.len());
        let mut leases = Vec::with_capacity(ids.len());
        let place = |id: &String| {
            let lease = ack_ids.read(group, id)?;
            Some(*known.entry(lease).or_insert_with(|| {
                leases.push(lease);
                leases.len() - 1
            }))
        };
        let places = ids.iter().map(place).collect();
        Self { leases, places }
    }

    /// A result per id from the outcomes of the leases; without an outcome it is not known.
    pub(super) fn results(&self, outcomes: &[SettleOutcome], unknown: Unknown) -> Vec<SettleResult> {
        let mut errors: [Option<rpc::Status>; 3] = Default::default();
        let mut result = |place: &Option<usize>| {
            let outcome = match place {
                None => SettleOutcome::Invalid,
                Some(place) => match outcomes.get(*place) {
                    Some(SettleOutcome::Unspecified) | None => SettleOutcome::Unavailable,
                    Some(outcome) => *outcome,
                },
            };
            let at = match outcome {
                SettleOutcome::Ok | SettleOutcome::Unspecified => None,
                SettleOutcome::StaleLease => Some(0),
                SettleOutcome::Invalid => Some(1),
                SettleOutcome::Unavailable => Some(2),
            };
            let error = at.map(|at: usize| {
                errors[at].get_or_insert_with(|| failure::to_status(&error_of(outcome, unknown))).clone()
            });
            SettleResult { outcome: outcome.into(), error }
        };
        self.places.iter().map(&mut result).collect()
    }

    /// How many ids.
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }
}

/// Why nothing is known of a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unknown {
    /// The group is moving, or the cluster does not answer.
    Moving,
    /// The caller's own time was over.
    Late,
}

fn error_of(outcome: SettleOutcome, unknown: Unknown) -> Error {
    match outcome {
        SettleOutcome::Unspecified | SettleOutcome::Unavailable if unknown == Unknown::Late => Error::new(
            ErrorKind::DeadlineExceeded,
            Reason::DeadlineExceeded,
            "the call's time was over before it was stored; give the call more time, or try again; the record may come again",
        ),
        SettleOutcome::Invalid => Error::new(
            ErrorKind::InvalidArgument,
            Reason::AckIdInvalid,
            "not an ack id of this group; send it as it was delivered",
        ),
        SettleOutcome::StaleLease => Error::new(
            ErrorKind::FailedPrecondition,
            Reason::StaleLease,
            "the lease is over, or the group has moved; the record comes again under another id",
        ),
        _ => Error::unavailable(
            Reason::GroupMoving,
            "it could not be stored in time; try again; the record may come again",
        ),
    }
}

impl Shared {
    pub(super) async fn settle(
        &self,
        call: &Arc<DataCall>,
        group: &str,
        ids: &[String],
        settle: impl FnOnce() -> Result<Settle, Error>,
    ) -> Result<Vec<SettleResult>, Error> {
        let group = call.group("group", group, CONSUME)?;
        fields::ack_ids(ids)?;
        let settle = settle()?;
        let mut read = Read::of(&self.ack_ids, group.group_uid, ids);
        let leases = std::mem::take(&mut read.leases);
        let mut unknown = Unknown::Moving;
        let outcomes = if leases.is_empty() {
            Vec::new()
        } else {
            let call_of = self.group_call(call, Arc::clone(&group));
            let until = answer_by(call);
            let over = dispatcher_ends(until);
            let asking = DispatchRequest { caller: &call.context, call: call_of, until };
            let outcomes = match self.dispatching.settle(&asking, settle, leases).await {
                Ok(outcomes) => outcomes,
                // Nothing is known of any: each id says so.
                Err(NoAnswer::Moving) => Vec::new(),
                Err(NoAnswer::Late) => {
                    unknown = Unknown::Late;
                    Vec::new()
                }
                Err(NoAnswer::Refused(error)) => match error.kind {
                    ErrorKind::Unavailable | ErrorKind::DeadlineExceeded => {
                        failure::log(&error);
                        Vec::new()
                    }
                    _ => return Err(error),
                },
            };
            let is_left_out = outcomes.contains(&SettleOutcome::Unavailable);
            if is_left_out && Instant::now() >= over && self.answers(call, &group) {
                unknown = Unknown::Late;
            }
            outcomes
        };
        let results = read.results(&outcomes, unknown);
        self.metrics.settled(results.iter().map(SettleResult::outcome));
        Ok(results)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use sluice_types::TopicUid;

    use crate::groups::keyring::{KeyRing, Keys};

    use super::*;

    #[test]
    fn each_id_gets_its_own_result_and_a_lease_is_settled_once() {
        let ring = KeyRing::parse(&format!("1 {}", "a".repeat(64))).expect("a key");
        let (ids, group) = (AckIds::new(Keys::fixed(ring)), GroupUid::random());
        let lease = |offset| LeaseKey { topic: TopicUid::random(), partition: 0, offset, term: 1, attempt: 1 };
        let (first, second) = (ids.make(group, lease(1)), ids.make(group, lease(2)));
        let foreign = ids.make(GroupUid::random(), lease(1));
        let sent = [first.clone(), foreign, second, first, "nonsense".into()];
        let read = Read::of(&ids, group, &sent);
        assert_eq!(read.leases.iter().map(|lease| lease.offset).collect::<Vec<_>>(), [1, 2]);
        let results = read.results(&[SettleOutcome::Ok, SettleOutcome::StaleLease], Unknown::Moving);
        let outcomes: Vec<_> = results.iter().map(SettleResult::outcome).collect();
        use SettleOutcome::{Invalid, Ok, StaleLease, Unavailable};
        assert_eq!(outcomes, [Ok, Invalid, StaleLease, Ok, Invalid]);
        assert_eq!(results[1].error, results[4].error, "another group's id is told as a malformed one");
        assert!(results.iter().all(|result| result.error.is_none() == (result.outcome() == Ok)));
        let unknown: Vec<_> = read.results(&[], Unknown::Moving).iter().map(SettleResult::outcome).collect();
        assert_eq!(unknown, [Unavailable, Invalid, Unavailable, Unavailable, Invalid]);
        let code = |unknown| read.results(&[], unknown)[0].error.as_ref().map(|error| error.code);
        assert_eq!(
            (code(Unknown::Moving), code(Unknown::Late)),
            (Some(14), Some(4)),
            "a short deadline is told as that"
        );
    }

    #[test]
    fn delays_and_deadlines_have_their_bounds() {
        let seconds = |seconds| Some(sluice_proto::wkt::Duration { seconds, nanos: 0 });
        assert!(refuse(seconds(60), "", false).is_ok() && extend(seconds(600)).is_ok() && extend(None).is_ok());
        assert_eq!(refuse(seconds(61), "", false).expect_err("long").field.as_deref(), Some("delay"));
        assert_eq!(extend(seconds(0)).expect_err("short").field.as_deref(), Some("ackDeadline"));
        assert_eq!(extend(seconds(601)).expect_err("long").field.as_deref(), Some("ackDeadline"));
    }

    #[test]
    fn a_release_is_no_refusal_and_has_no_reason() {
        let delay = Some(Duration::from_secs(1));
        let second = Some(sluice_proto::wkt::Duration { seconds: 1, nanos: 0 });
        assert_eq!(refuse(second, "", true).expect("good"), Settle::Release { delay });
        assert_eq!(refuse(second, "no", false).expect("good"), Settle::Refuse { delay, reason: "no".into() });
        assert_eq!(refuse(second, "no", true).expect_err("both").field.as_deref(), Some("reason"));
    }
}
