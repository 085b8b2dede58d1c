//! Actions of a group that take their time: each is a call to Kafka, and what comes of it.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use sluice_wire::OffsetAt;

use crate::groups::dispatch::action::{Action, Done};
use crate::groups::dispatch::budget::Account;
use crate::groups::dispatch::losing::{LogBounds, Reading};
use crate::groups::dispatch::opening::Step;
use crate::groups::dispatch::reading::{Place, read_within};
use crate::groups::dispatch::resetting::{Planned, targets};
use crate::groups::dispatch::shared::Io;
use crate::groups::dispatch::{dead_lettering, positions, taking};

const COMMIT: Duration = Duration::from_secs(5);

/// Begins an action, for the group of this name and its member; nothing if it needs a member and there is none.
pub(super) fn perform(
    action: Action,
    io: Arc<Io>,
    account: &Account,
    group: &Arc<str>,
    member: Option<Arc<str>>,
) -> Option<BoxFuture<'static, Done>> {
    let work = match action {
        Action::LookForOthers { after, since } => {
            let (group, member) = (Arc::clone(group), member?);
            async move {
                tokio::time::sleep(after).await;
                Done::Alone(taking::alone(io, group, member, since).await)
            }
            .boxed()
        }
        Action::CheckOthers { revoked } => {
            let (group, member) = (Arc::clone(group), member?);
            async move { Done::Checked { revoked, is_alone: taking::is_alone(&io, &group, &member).await } }.boxed()
        }
        Action::LookPositions { member, closed } => async move {
            let step = match positions::look(&io.handles.wire, &member, closed.clone()).await {
                Ok(looked) => Step::Looked(looked),
                Err(error) => Step::Failed(closed, error),
            };
            Done::Opening { epoch: member.epoch, step }
        }
        .boxed(),
        Action::BeginPositions { member, fresh } => async move {
            let closed = fresh.iter().map(|(closed, _)| closed.clone()).collect();
            let step = match positions::begin(&io.handles.wire, &member, fresh).await {
                Ok(begun) => Step::Begun(begun),
                Err(error) => Step::Failed(closed, error),
            };
            Done::Opening { epoch: member.epoch, step }
        }
        .boxed(),
        Action::Read { reading, key, term, place, wanted } => {
            let account = account.clone();
            async move {
                let outcome = read_within(&io, place, account, wanted).await;
                match reading {
                    Reading::On => Done::Read { key, term, wanted, outcome },
                    Reading::Again => Done::Reread { key, term, wanted, outcome },
                }
            }
            .boxed()
        }
        Action::FindBounds { key, term, reading, place } => {
            async move { Done::Bounds { key, term, reading, outcome: find_bounds(&io, place).await } }.boxed()
        }
        Action::Commit(commit) => async move {
            let member = &commit.member;
            let wire = &io.handles.wire;
            let outcome = wire.commit_offsets(&member.group, member.committer(), &commit.offsets, COMMIT).await;
            Done::Committed(commit.over(outcome))
        }
        .boxed(),
        Action::RereadDead(dead) => {
            async move { Done::RereadRecord(dead_lettering::reread_all(io, dead).await) }.boxed()
        }
        Action::WriteLetters(letters) => {
            async move { Done::LetterOutcome(dead_lettering::write(io, letters).await) }.boxed()
        }
        Action::AwaitPlace { id, events } => {
            async move { Done::Place { id, permit: events.reserve_owned().await.ok() } }.boxed()
        }
        Action::FindTargets { call, moves } => async move {
            let outcome = targets(&io.handles.wire, &call.request, moves).await;
            Done::Planned(Planned { call, outcome })
        }
        .boxed(),
        Action::Inspect(inspection) => async move {
            inspection.run(&io).await;
            Done::Over
        }
        .boxed(),
        // Done by the driver itself: they end at once.
        Action::Join { .. }
        | Action::Subscribe { .. }
        | Action::Release(_)
        | Action::Beat
        | Action::AnswerInTwo(_)
        | Action::Leave => return None,
    };
    Some(work)
}

async fn find_bounds(io: &Io, place: Place) -> Result<LogBounds, sluice_wire::Error> {
    let partitions = [place.partition];
    let find = |at| positions::find_at(&io.handles.wire, &place.topic, &partitions, at);
    let (start, end) = tokio::try_join!(find(OffsetAt::Earliest), find(OffsetAt::Latest))?;
    let of = |found| positions::one(found, place.partition);
    Ok(LogBounds { start: of(&start)?, end: of(&end)? })
}
