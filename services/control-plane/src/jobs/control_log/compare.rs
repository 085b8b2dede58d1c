//! One comparison of the outbox with what the log holds, and what follows from it.
//!
//! It is done twice: what differs at first may only have been under way. The rows that differed are looked at again against
//! a log that was read up to a later moment; what differs still, differs. Each change checks again that nothing came
//! between, so comparing in two processes at a time is harmless.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use prost::Message as _;
use sluice_db::{Database, DbError};
use sluice_proto::internal::control::v1::ControlRecord;
use sluice_types::{TenantUid, Uid};

use super::log_state::{LogState, Verdict};
use super::with_tx;
use crate::domain::record::{ended, with_version};
use crate::plane::{Plane, SharedPlane};
use crate::store::comparison::{
    NewestRow, newest_of, newest_page, newest_state, outbox_ids_above, resource_raise, row_raise, rows_publish_again,
};
use crate::store::outbox::outbox_insert;
use crate::store::tenant::tenant_lock;

/// Rows of one transaction.
const PAGE_ROWS: i64 = 2_000;
/// A resource is not mended again for so long: if the first mends did not help, no haste will.
pub(super) const MEND_AGAIN: Duration = Duration::from_secs(300);
/// Mends of one resource in that time. One that is raised may meet another relay's record, and be raised above that.
const PUBLISH_MAX: u8 = 1;
const RAISE_MAX: u8 = 3;
/// Resources without a row that are looked at in one comparison.
const UNKNOWN_MAX: usize = 10_000;

/// What a first look found.
#[derive(Debug, Default)]
pub(super) struct Found {
    differing: Vec<NewestRow>,
    /// Rows on their way to a log that knows nothing of them yet, with their versions.
    waiting: Vec<(Uid, i64)>,
    /// In the log's state, and in none of the rows.
    unknown: Vec<Uid>,
}

/// What became of it.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Outcome {
    /// Resources whose state is on its way into the log.
    pub(super) mended: usize,
    /// Those of them that were published before: the log lost them.
    pub(super) lost: usize,
    /// Resources that were mended lately and still differ.
    pub(super) stuck: usize,
    /// Resources that were changed meanwhile, or whose tenant is busy: to be looked at again soon.
    pub(super) again: usize,
    /// Resources whose newest state the relay has not published yet.
    pub(super) waiting: usize,
    /// Resources in service in the log that the database does not know.
    pub(super) unknown: Vec<Uid>,
}

/// Mends done lately.
#[derive(Debug, Default)]
pub(super) struct Mends(HashMap<Uid, Mended>);

#[derive(Debug, Clone, Copy)]
struct Mended {
    published: u8,
    raised: u8,
    since: Instant,
}

impl Mends {
    /// Forgets those that may be done again.
    fn age(&mut self, now: Instant) {
        self.0.retain(|_, mended| now.duration_since(mended.since) < MEND_AGAIN);
    }

    /// Whether this one may be done.
    fn may(&self, resource: Uid, verdict: Verdict) -> bool {
        let Some(mended) = self.0.get(&resource) else { return true };
        match verdict {
            Verdict::Agree => true,
            Verdict::Publish => mended.published < PUBLISH_MAX,
            Verdict::Raise(_) => mended.raised < RAISE_MAX,
        }
    }

    /// It was done. What failed is not told here, so it is tried again at once.
    fn done(&mut self, resource: Uid, verdict: Verdict, now: Instant) {
        let mended = self.0.entry(resource).or_insert(Mended { published: 0, raised: 0, since: now });
        match verdict {
            Verdict::Agree => {}
            Verdict::Publish => mended.published += 1,
            Verdict::Raise(_) => mended.raised += 1,
        }
    }
}

/// Compares all rows, page by page; `position` is up to where `log` was read before.
pub(super) async fn look(plane: &SharedPlane, log: &LogState, position: i64) -> Result<Found, DbError> {
    let mut found = Found::default();
    let mut known = HashSet::new();
    let mut from = Some(i64::MIN);
    while let Some(first) = from {
        let rows = with_tx(plane, move |tx| Box::pin(newest_page(tx, first, PAGE_ROWS))).await?;
        known.extend(rows.iter().map(|row| row.aggregate().as_u64()));
        from = rows.last().filter(|_| rows.len() as i64 == PAGE_ROWS).and_then(|row| row.aggregate_uid.checked_add(1));
        found.sort(log, rows);
    }
    let mut unknown = log.live_without(&known, position);
    unknown.truncate(UNKNOWN_MAX);
    // Their rows may have been made and published while the pages were read.
    for part in unknown.chunks(PAGE_ROWS as usize) {
        let rows = rows_of(plane, part).await?;
        let there: HashSet<Uid> = rows.iter().map(NewestRow::aggregate).collect();
        found.unknown.extend(part.iter().copied().filter(|uid| !there.contains(uid)));
        found.sort(log, rows);
    }
    raise_ids(plane, log.outbox_id()).await?;
    Ok(found)
}

/// Compares these alone.
pub(super) async fn look_at(plane: &SharedPlane, log: &LogState, resources: &[Uid]) -> Result<Found, DbError> {
    let mut found = Found::default();
    for part in resources.chunks(PAGE_ROWS as usize) {
        found.sort(log, rows_of(plane, part).await?);
    }
    Ok(found)
}

/// Looks again at what was found, by a log read on since, and mends it.
pub(super) async fn mend(
    plane: &SharedPlane,
    log: &LogState,
    found: Found,
    mends: &mut Mends,
) -> Result<Outcome, DbError> {
    let now = Instant::now();
    mends.age(now);
    let mut outcome = Outcome::default();
    let mut publish = Vec::new();
    for row in found.differing {
        let verdict = log.judge(&row);
        match verdict {
            Verdict::Agree => {}
            _ if !mends.may(row.aggregate(), verdict) => outcome.stuck += 1,
            Verdict::Publish => publish.push(row),
            Verdict::Raise(version) => match raise(&plane.db, row, version).await {
                Ok(true) => {
                    mends.done(row.aggregate(), verdict, now);
                    outcome.mended += 1;
                }
                Ok(false) => outcome.again += 1,
                // The tenant is busy: it must not hold up all others.
                Err(DbError::Conflict(_)) => outcome.again += 1,
                Err(error) => return Err(error),
            },
        }
    }
    for part in publish.chunks(PAGE_ROWS as usize) {
        let rows = part.to_vec();
        let done = with_tx(plane, move |tx| Box::pin(async move { rows_publish_again(tx, &rows).await })).await?;
        outcome.mended += done.len();
        outcome.lost += done.len();
        outcome.again += part.len() - done.len();
        done.into_iter().for_each(|resource| mends.done(resource, Verdict::Publish, now));
    }
    outcome.waiting = found.waiting.iter().filter(|(uid, version)| !log.holds(*uid, *version)).count();
    outcome.unknown = found.unknown.into_iter().filter(|uid| log.live_version(*uid).is_some()).collect();
    Ok(outcome)
}

/// Ends resources of which the database knows nothing, with their last records as the log has them.
pub(super) async fn end(plane: &SharedPlane, log: &LogState, last: Vec<ControlRecord>) -> Result<usize, DbError> {
    let mut ended_count = 0;
    for record in last {
        let tenant = record.tenant_uid.parse::<TenantUid>();
        let Some(entry) = ended(record, 0, 0) else { continue };
        let (Ok(tenant), Some(version)) = (tenant, log.live_version(entry.aggregate)) else { continue };
        let payload = with_version(&entry.payload, version + 1);
        let system = plane.db.system().clone();
        let work = async move {
            let mut tx = system.tenant(tenant).await?;
            tenant_lock(&mut tx).await?;
            if newest_state(&mut tx, entry.aggregate).await?.is_some() {
                tx.rollback().await?;
                return Ok::<_, DbError>(0);
            }
            outbox_insert(&mut tx, entry.aggregate, version + 1, &payload, true).await?;
            tx.commit().await?;
            Ok(1)
        };
        ended_count += plane.db.run(work).await?;
    }
    Ok(ended_count)
}

impl Found {
    /// Whether all agrees.
    pub(super) fn is_empty(&self) -> bool {
        self.differing.is_empty() && self.waiting.is_empty() && self.unknown.is_empty()
    }

    fn sort(&mut self, log: &LogState, rows: Vec<NewestRow>) {
        for row in rows {
            if log.judge(&row) != Verdict::Agree {
                self.differing.push(row);
            } else if row.published_offset.is_none() && row.digest.is_some() && !log.holds(row.aggregate(), row.version)
            {
                self.waiting.push((row.aggregate(), row.version));
            }
        }
    }
}

/// Publishes the newest state of a resource under a version above the one that readers hold. False if it was changed since
/// it was compared, or has such a version by now.
async fn raise(db: &Database, row: NewestRow, version: i64) -> Result<bool, DbError> {
    let system = db.system().clone();
    let (tenant, aggregate) = (row.tenant(), row.aggregate());
    let work = async move {
        let mut tx = system.tenant(tenant).await?;
        tenant_lock(&mut tx).await?;
        let newest = newest_state(&mut tx, aggregate).await?;
        let Some(newest) = newest.filter(|newest| newest.id == row.id && newest.version < version) else {
            tx.rollback().await?;
            return Ok::<_, DbError>(false);
        };
        let Some(state) = &newest.payload else {
            tx.rollback().await?;
            return Ok(false);
        };
        let payload = with_version(state, version);
        // A change that waits for its publication keeps its row: its caller waits for that one.
        if newest.published_offset.is_some() || !row_raise(&mut tx, newest.id, version, &payload).await? {
            outbox_insert(&mut tx, aggregate, version, &payload, newest.gone).await?;
        }
        if let Some(resource) = ControlRecord::decode(payload.as_slice()).ok().and_then(|record| record.resource) {
            resource_raise(&mut tx, aggregate, &resource, version).await?;
        }
        tx.commit().await?;
        Ok(true)
    };
    db.run(work).await
}

async fn raise_ids(plane: &Plane, id: i64) -> Result<(), DbError> {
    if id < 1 {
        return Ok(());
    }
    with_tx(plane, move |tx| Box::pin(outbox_ids_above(tx, id))).await
}

async fn rows_of(plane: &Plane, resources: &[Uid]) -> Result<Vec<NewestRow>, DbError> {
    let uids: Vec<i64> = resources.iter().map(|uid| uid.as_u64() as i64).collect();
    with_tx(plane, move |tx| Box::pin(async move { newest_of(tx, &uids).await })).await
}

#[cfg(test)]
mod tests;
