//! Records for a client that asks, with a long poll that never fails because the group moved.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use sluice_proto::stream::v1::{DeliveryState, PayloadEncoding, PullRequest, PullResponse};
use sluice_types::OpContext;
use sluice_types::error::Error;
use sluice_types::limits::{
    FETCH_BYTES_DEFAULT, FETCH_BYTES_MAX, FETCH_WAIT_MS_MAX, PULL_RECORDS_DEFAULT, PULL_RECORDS_MAX,
};

use crate::access::DataCall;
use crate::data::encode::{IntoJson, answer_json};
use crate::data::{answer_by, time_left};
use crate::groups::door::delivery::{Delivered, Received, held_bytes, messages};
use crate::groups::door::dispatching::{DispatchRequest, NoAnswer};
use crate::groups::door::session::{GIVE_UP_MIN, PROMPT};
use crate::groups::door::stream_access::CONSUME;
use crate::groups::door::{Shared, fields};
use crate::groups::model::{AttachEvent, GroupCall, LeaseKey, ResolvedGroup, Settle, TakeOptions, Taken, left_in};
use crate::transport::TrackedAnswer;

/// One question to a dispatcher waits so long; between two of them a drain and the tenant's limits are looked at.
const ROUND: Duration = Duration::from_secs(3);
/// How long to look for the dispatcher beyond the client's wait.
const SEARCH: Duration = Duration::from_secs(2);
/// How long to tell a dispatcher that records have not left.
const HAND_BACK_WITHIN: Duration = Duration::from_secs(5);
/// Held of the tenant's bytes in flight by a call that waits: little, so that thousands may; records are bounded where they are
/// read.
const WAITING_BYTES: u64 = 4 << 10;
/// Bytes of records in one answer, so that it fits into what gRPC clients take unless they are told to take more, 4 MiB.
pub(super) const ANSWER_BYTES_MAX: u64 = 3 << 20;
/// Records of a topic that is not known here go back after this: they would come again at once.
pub(super) const STRAY_PAUSE: Duration = Duration::from_millis(500);
/// As many bytes are held for the tenant as may be: look again after this.
const MEMORY_PAUSE: Duration = Duration::from_millis(100);
/// Before asking again a dispatcher that did not wait.
const PAUSE: Duration = Duration::from_millis(50);

/// A request whose fields are good.
#[derive(Debug)]
struct CheckedPull {
    records: usize,
    bytes: u64,
    wait: Duration,
    encoding: PayloadEncoding,
}

/// What a pull brought, in no protocol's form yet.
pub(super) struct Pulled {
    records: Vec<Received>,
    state: DeliveryState,
    /// Counts the delivery, or hands it back.
    pub(super) parcel: Option<TrackedAnswer>,
}

/// Records that nobody has made an answer of yet: handed back when this is dropped, unless it was cleared. So is what came for a
/// caller who may not have it any more.
struct Unsent {
    door: Arc<Shared>,
    call: Arc<DataCall>,
    group: Arc<ResolvedGroup>,
    leases: Vec<LeaseKey>,
}

impl Drop for Unsent {
    fn drop(&mut self) {
        self.door.hand_back(&self.call, &self.group, std::mem::take(&mut self.leases));
    }
}

/// The form in which an answer goes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Json,
    /// In protobuf, which clients take up to a size only.
    Message,
}

impl Pulled {
    pub(super) fn into_message(self) -> PullResponse {
        PullResponse { records: messages(self.records), state: self.state.into() }
    }
}

impl IntoJson for Pulled {
    fn into_json(self) -> serde_json::Result<Vec<u8>> {
        answer_json(self.records, &PullResponse { records: Vec::new(), state: self.state.into() })
    }
}

impl Shared {
    pub(super) async fn pull(
        self: &Arc<Self>,
        call: &Arc<DataCall>,
        request: PullRequest,
        form: Form,
    ) -> Result<Pulled, Error> {
        let until = answer_by(call);
        let group = self.group(call, &request.group, &request.topics, until).await?;
        let checked = check(&request)?;
        let waits = (!checked.wait.is_zero()).then(|| call.waits()).transpose()?;
        let wait_until = until.min(Instant::now() + checked.wait);
        let still = |call: &DataCall| match call.group("group", &group.name, CONSUME)?.group_uid == group.group_uid {
            true => Ok(()),
            // Deleted and made again: another group.
            false => Err(Error::not_found(&group.name)),
        };
        loop {
            // A question that is given up is one that the dispatcher has not answered: it takes nothing out.
            let round = self.round(call, &group, &checked, wait_until, until);
            let (taken, held, mut unsent) = call.while_holds(still, round).await?;
            if taken.records.is_empty() && Instant::now() < wait_until && !self.closing.is_cancelled() {
                continue;
            }
            if taken.records.is_empty() {
                return Ok(Pulled { records: Vec::new(), state: taken.state, parcel: None });
            }
            let mut delivered = self.encode(call, &group, checked.encoding, taken.records);
            unsent.leases.clear();
            self.hand_back_after(STRAY_PAUSE, call, &group, std::mem::take(&mut delivered.strays));
            if form == Form::Message {
                self.hand_back(call, &group, delivered.fit_in_message());
            }
            let Delivered { records, tally, .. } = delivered;
            if records.is_empty() {
                // All of them were strays.
                if Instant::now() < wait_until && !self.closing.is_cancelled() {
                    continue;
                }
                return Ok(Pulled { records, state: taken.state, parcel: None });
            }
            call.limiter.charge_egress(tally.bytes());
            let left = self.restart_in_transit(call, &group, tally.leases());
            let (door, call) = (Arc::clone(self), Arc::clone(call));
            let parcel = TrackedAnswer::new(move |taken| {
                let _gone = left.send(taken);
                drop(waits);
                match taken {
                    true => {
                        door.delivered(&tally);
                        drop(held);
                    }
                    false => {
                        call.limiter.refund_egress(tally.bytes());
                        door.hand_back(&call, &group, tally.leases());
                    }
                }
            });
            return Ok(Pulled { records, state: DeliveryState::Flowing, parcel: Some(parcel) });
        }
    }

    /// Tells the dispatcher that records have not left, in the background. If nobody hears it, their leases end by themselves.
    pub(super) fn hand_back(self: &Arc<Self>, call: &Arc<DataCall>, group: &Arc<ResolvedGroup>, leases: Vec<LeaseKey>) {
        self.hand_back_after(Duration::ZERO, call, group, leases);
    }

    /// The same with what comes on an attachment that was ended.
    pub(super) fn hand_back_rest(
        self: &Arc<Self>,
        call: &Arc<DataCall>,
        group: &Arc<ResolvedGroup>,
        events: mpsc::Receiver<AttachEvent>,
    ) {
        let (door, caller) = (Arc::clone(self), Arc::clone(&call.context));
        let call = self.group_call(call, Arc::clone(group));
        self.tasks.spawn("hand back", async move {
            let leases = left_in(events).await;
            if !leases.is_empty() {
                door.settle_own(&caller, call, Settle::HandBack, leases).await;
            }
        });
    }

    /// The same a while later, or when this gateway drains: for records that would come back at once.
    pub(super) fn hand_back_after(
        self: &Arc<Self>,
        pause: Duration,
        call: &Arc<DataCall>,
        group: &Arc<ResolvedGroup>,
        leases: Vec<LeaseKey>,
    ) {
        if leases.is_empty() {
            return;
        }
        let (door, caller) = (Arc::clone(self), Arc::clone(&call.context));
        let call = self.group_call(call, Arc::clone(group));
        self.tasks.spawn("hand back", async move {
            door.sleep_until(Instant::now() + pause).await;
            door.settle_own(&caller, call, Settle::HandBack, leases).await;
        });
    }

    /// Lets leases run from now for as long as an answer with their records is on its way to the client, and once more when it has
    /// left; the sender tells that, and whether it was taken. Who takes nothing for longer than a stream's client may is left alone.
    fn restart_in_transit(
        self: &Arc<Self>,
        call: &Arc<DataCall>,
        group: &Arc<ResolvedGroup>,
        leases: Vec<LeaseKey>,
    ) -> oneshot::Sender<bool> {
        let (left, mut is_taken) = oneshot::channel();
        let (door, caller) = (Arc::clone(self), Arc::clone(&call.context));
        let (every, give_up_after) = (group.ack_deadline / 3, group.ack_deadline.max(GIVE_UP_MIN));
        let call = self.group_call(call, Arc::clone(group));
        let began = Instant::now();
        self.tasks.spawn("pull in transit", async move {
            loop {
                let taken = tokio::time::timeout(every, &mut is_taken).await;
                let goes_on = match taken {
                    Ok(Ok(true)) if began.elapsed() > PROMPT => false,
                    Ok(_) => return,
                    Err(_) if began.elapsed() >= give_up_after => return,
                    Err(_) => true,
                };
                door.settle_own(&caller, call.clone(), Settle::Restart, leases.clone()).await;
                if !goes_on {
                    return;
                }
            }
        });
        left
    }

    /// Settles leases for ourselves; nobody waits for the answer.
    async fn settle_own(&self, caller: &Arc<OpContext>, call: GroupCall, settle: Settle, leases: Vec<LeaseKey>) {
        let until = Instant::now() + HAND_BACK_WITHIN;
        let asking = DispatchRequest { caller, call: GroupCall { deadline: until, ..call }, until };
        if let Err(error) = self.dispatching.settle(&asking, settle, leases).await {
            tracing::debug!(?error, "records that did not leave come again when their leases end");
        }
    }

    async fn round(
        self: &Arc<Self>,
        call: &Arc<DataCall>,
        group: &Arc<ResolvedGroup>,
        checked: &CheckedPull,
        wait_until: Instant,
        until: Instant,
    ) -> Result<(Taken, Option<crate::quota::InFlightGuard>, Unsent), Error> {
        let unsent =
            |leases| Unsent { door: Arc::clone(self), call: Arc::clone(call), group: Arc::clone(group), leases };
        let nothing = |state| Ok((Taken { records: Vec::new(), state }, None, unsent(Vec::new())));
        if let Err(error) = call.limiter.check_egress() {
            let pause = error.retry_after.unwrap_or(PAUSE);
            self.sleep_until(wait_until.min(Instant::now() + pause)).await;
            return nothing(DeliveryState::Throttled);
        }
        let mut held = call.limiter.in_flight(checked.bytes.min(WAITING_BYTES))?;
        let began = Instant::now();
        let round_until = wait_until.min(began + ROUND);
        let asking = DispatchRequest {
            caller: &call.context,
            call: self.group_call(call, Arc::clone(group)),
            until: until.min(round_until + SEARCH),
        };
        let take = TakeOptions { records: checked.records, bytes: checked.bytes, wait: time_left(round_until) };
        match self.dispatching.take(&asking, take).await {
            Ok(taken) => {
                let unsent = unsent(taken.records.iter().map(|leased| leased.key).collect());
                if taken.records.is_empty() {
                    self.sleep_until(round_until.min(Instant::now() + PAUSE)).await;
                } else if held.grow(held_bytes(&taken.records)).is_err() {
                    drop(unsent);
                    self.sleep_until(wait_until.min(Instant::now() + MEMORY_PAUSE)).await;
                    return nothing(DeliveryState::Throttled);
                }
                Ok((taken, Some(held), unsent))
            }
            Err(NoAnswer::Moving | NoAnswer::Late) => nothing(DeliveryState::Assigning),
            Err(NoAnswer::Refused(error)) => Err(error),
        }
    }

    /// Until then, or until this gateway drains.
    async fn sleep_until(&self, until: Instant) {
        let sleep = tokio::time::sleep_until(until.into());
        self.closing.run_until_cancelled(sleep).await;
    }
}

fn check(request: &PullRequest) -> Result<CheckedPull, Error> {
    let wait_max = i64::try_from(FETCH_WAIT_MS_MAX).unwrap_or(i64::MAX);
    Ok(CheckedPull {
        records: fields::bounded("maxRecords", request.max_records, PULL_RECORDS_DEFAULT, PULL_RECORDS_MAX)?,
        bytes: ANSWER_BYTES_MAX.min(fields::bounded(
            "maxBytes",
            request.max_bytes,
            FETCH_BYTES_DEFAULT,
            FETCH_BYTES_MAX,
        )? as u64),
        wait: fields::time("wait", request.wait, 0..=wait_max)?.unwrap_or_default(),
        encoding: fields::encoding(request.encoding)?,
    })
}

#[cfg(test)]
pub(super) mod tests {
    use sluice_proto::wkt;

    use crate::groups::door::delivery::tests::received;

    use super::*;

    pub(in crate::groups::door) fn flowing(records: Vec<Received>) -> Pulled {
        Pulled { records, state: DeliveryState::Flowing, parcel: None }
    }

    #[test]
    fn an_answer_in_json_is_the_message_with_every_digit() {
        let value = "[0.1000,12345678901234567890]";
        let pulled =
            |value| Pulled { records: vec![received("a", value)], state: DeliveryState::Flowing, parcel: None };
        let json = pulled(value).into_json().expect("JSON");
        let text = std::str::from_utf8(&json).expect("text");
        assert!(text.contains(&format!("\"valueJson\":{value}")), "{text}");
        let read: PullResponse =
            serde_json::from_slice(&pulled("[1.50]").into_json().expect("JSON")).expect("a message");
        assert_eq!(read, pulled("[1.5]").into_message());
        let nothing = Pulled { records: Vec::new(), state: DeliveryState::NoRecords, parcel: None };
        let read: PullResponse = serde_json::from_slice(&nothing.into_json().expect("JSON")).expect("a message");
        assert_eq!((read.records.len(), read.state()), (0, DeliveryState::NoRecords));
    }

    #[test]
    fn what_is_not_said_has_the_documented_defaults() {
        let checked = check(&PullRequest::default()).expect("good");
        assert_eq!((checked.records, checked.bytes, checked.wait), (100, 1 << 20, Duration::ZERO));
        let most = check(&PullRequest { max_bytes: 8 << 20, ..PullRequest::default() }).expect("good");
        assert_eq!(most.bytes, ANSWER_BYTES_MAX);
    }

    #[test]
    fn each_field_out_of_bounds_is_named() {
        let base = PullRequest::default;
        for (request, field) in [
            (PullRequest { max_records: 1_001, ..base() }, "maxRecords"),
            (PullRequest { max_bytes: -1, ..base() }, "maxBytes"),
            (PullRequest { wait: Some(wkt::Duration::from_millis(30_001)), ..base() }, "wait"),
            (PullRequest { encoding: 77, ..base() }, "encoding"),
        ] {
            assert_eq!(check(&request).expect_err(field).field.as_deref(), Some(field));
        }
    }
}
