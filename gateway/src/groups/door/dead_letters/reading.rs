//! Reads the letters of a group, partition after partition, a bounded amount at a time. A partition that cannot be read is passed, and
//! told of.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use sluice_log::LogicalOffset;
use sluice_types::Reason;
use sluice_types::error::Error;
use sluice_types::physical::PhysicalGroup;
use sluice_wire::{DecodeLimits, Isolation, OffsetAt, Record};

use crate::clusters::{Log, ReadRequest};
use crate::data::{failure, time_left};
use crate::groups::model::ResolvedGroup;

use super::failing::Failing;
use super::letter::Letter;
use super::page::Place;
use super::redriven::Redriven;

/// Bytes of one read.
const READ_BYTES: u32 = 1 << 20;
/// Reads of one page.
const READS_MAX: usize = 64;
/// A page is answered after this long, whatever it holds.
const PATIENCE: Duration = Duration::from_secs(5);
/// A partition whose leader does not answer costs its call so much, or half of the time that is left, if that is less.
const PARTITION_PATIENCE: Duration = Duration::from_secs(5);

/// The letters from a place on that were not redriven.
pub(super) struct Letters {
    log: Log,
    /// The group's uid, as text.
    group: String,
    redriven: BTreeMap<i32, Redriven>,
    /// Where each partition ends, at the moment of the look, as far as it can be read.
    ends: BTreeMap<i32, i64>,
    /// Partitions that could not be looked at, until they are passed.
    closed: BTreeMap<i32, Error>,
    /// Partitions that were passed and could not be read, or not to their end.
    failing: Failing,
    place: Place,
    /// Read and not looked at, last first.
    read: Vec<Record>,
    /// Where the next read begins.
    read_on: i64,
    reads_left: usize,
    pause_at: Instant,
    until: Instant,
}

/// What comes next.
pub(super) enum Ready {
    Letter(Box<Letter>),
    /// Enough for one call.
    Pause,
    /// There are no more.
    End,
}

impl Letters {
    pub(super) async fn open(log: &Log, group: &ResolvedGroup, from: Place, until: Instant) -> Result<Self, Error> {
        let all: Vec<i32> = (0..log.topic().partitions).collect();
        let (redriven, ends) = tokio::try_join!(committed(log, group, &all, until), ends(log, &all, until))?;
        let (ends, closed) = apart(ends);
        Ok(Self {
            log: log.clone(),
            group: group.group_uid.to_string(),
            redriven,
            ends,
            closed,
            failing: Failing::default(),
            place: from,
            read: Vec::new(),
            read_on: from.offset,
            reads_left: READS_MAX,
            pause_at: until.min(Instant::now() + PATIENCE),
            until,
        })
    }

    /// Where to go on after what was given.
    pub(super) fn place(&self) -> Place {
        self.place
    }

    /// Partitions that were passed without being read, or not to their end, since this was asked last.
    pub(super) fn take_failing(&mut self) -> Failing {
        std::mem::take(&mut self.failing)
    }

    /// What lies between an earlier place and this one: partition, from, to (exclusive).
    pub(super) fn looked_at(&self, from: Place) -> Vec<(i32, i64, i64)> {
        let range = |partition| {
            let begin = if partition == from.partition { from.offset } else { 0 };
            let whole = self.ends.get(&partition).copied().unwrap_or(0);
            (partition, begin, if partition == self.place.partition { self.place.offset } else { whole })
        };
        (from.partition..=self.place.partition.min(self.log.topic().partitions - 1))
            .map(range)
            .filter(|(_, begin, end)| begin < end)
            .collect()
    }

    pub(super) async fn next(&mut self) -> Result<Ready, Error> {
        loop {
            while let Some(record) = self.read.pop() {
                let (partition, offset) = (self.place.partition, record.offset);
                self.place.offset = offset + 1;
                if self.redriven.get(&partition).is_some_and(|done| done.contains(offset)) {
                    continue;
                }
                if let Some(letter) = Letter::read(record, partition, &self.group) {
                    return Ok(Ready::Letter(Box::new(letter)));
                }
            }
            // All that was read was looked at.
            self.place.offset = self.place.offset.max(self.read_on);
            let partition = self.place.partition;
            if partition >= self.log.topic().partitions {
                return Ok(Ready::End);
            }
            if let Some(error) = self.closed.remove(&partition) {
                self.pass(partition, error);
                continue;
            }
            let from = self.place.offset.max(self.redriven.get(&partition).map_or(0, Redriven::base));
            if from >= self.ends.get(&partition).copied().unwrap_or(0) {
                self.go_to(partition + 1);
                continue;
            }
            if self.reads_left == 0 || Instant::now() >= self.pause_at {
                return Ok(Ready::Pause);
            }
            self.reads_left -= 1;
            let until = part_of(self.until);
            match read(&self.log, partition, from, until).await {
                Ok((records, read_on)) => {
                    (self.read, self.read_on) = (records, read_on);
                    self.read.reverse();
                }
                // With the call's own time, nothing is said of the partition.
                Err(error) if Instant::now() >= self.until => return Err(error),
                Err(error) => self.pass(partition, error),
            }
        }
    }

    /// Leaves a partition that cannot be read on. What lies behind the place was not looked at.
    fn pass(&mut self, partition: i32, error: Error) {
        self.failing.add(partition, error);
        self.ends.insert(partition, self.place.offset);
        self.go_to(partition + 1);
    }

    fn go_to(&mut self, partition: i32) {
        self.place = Place { partition, offset: 0 };
        self.read_on = 0;
    }
}

/// When to give one partition up.
pub(super) fn part_of(until: Instant) -> Instant {
    Instant::now() + (time_left(until) / 2).min(PARTITION_PATIENCE)
}

/// What is known, and what failed.
pub(super) fn apart(results: BTreeMap<i32, Result<i64, Error>>) -> (BTreeMap<i32, i64>, BTreeMap<i32, Error>) {
    let (mut known, mut failed) = (BTreeMap::new(), BTreeMap::new());
    for (partition, result) in results {
        match result {
            Ok(offset) => drop(known.insert(partition, offset)),
            Err(error) => drop(failed.insert(partition, error)),
        }
    }
    (known, failed)
}

/// Records at or after an offset, and where to read on: behind all that was looked at. An answer that does not get further than the
/// offset proves nothing, and is an error: whoever asks knows that the log goes on.
pub(super) async fn read(log: &Log, partition: i32, offset: i64, until: Instant) -> Result<(Vec<Record>, i64), Error> {
    let name = &log.topic().name;
    let isolation = Isolation::ReadCommitted;
    let request = ReadRequest {
        partition,
        offset: LogicalOffset::new(offset).map_err(Error::internal)?,
        max_bytes: READ_BYTES,
        max_wait: Duration::ZERO,
        isolation,
        limits: DecodeLimits::default(),
    };
    match log.read(request, time_left(until)).await {
        Ok(found) => got_further(found.records, found.next_offset.get(), offset, name),
        // Retention was there first.
        Err(sluice_wire::Error::OffsetOutOfRange { .. }) => {
            let start = log.offset(partition, OffsetAt::Earliest, isolation, time_left(until)).await;
            let start = start.map_err(|error| failure::reading(error, name))?;
            got_further(Vec::new(), start.map_or(offset, LogicalOffset::get), offset, name)
        }
        Err(error) => Err(failure::reading(error, name)),
    }
}

fn got_further(records: Vec<Record>, next: i64, offset: i64, topic: &str) -> Result<(Vec<Record>, i64), Error> {
    if next > offset {
        return Ok((records, next));
    }
    let what = format!("{topic} cannot be read to its end at the moment; try again");
    Err(Error::unavailable(Reason::ClusterUnavailable, what))
}

/// Where each partition ends now. An error is of all partitions.
pub(super) async fn ends(
    log: &Log,
    partitions: &[i32],
    until: Instant,
) -> Result<BTreeMap<i32, Result<i64, Error>>, Error> {
    let name = &log.topic().name;
    let (at, isolation) = (OffsetAt::Latest, Isolation::ReadCommitted);
    let listed = log.offsets(partitions, at, isolation, time_left(part_of(until))).await;
    let mut listed = listed.map_err(|error| failure::reading(error, name))?;
    let end = |&partition: &i32| {
        let listed = listed.remove(&partition).unwrap_or(Err(sluice_wire::Error::DeadlineExceeded));
        let end = listed.map(|end| end.map_or(0, LogicalOffset::get));
        (partition, end.map_err(|error| failure::reading(error, name)))
    };
    Ok(partitions.iter().map(end).collect())
}

/// What was redriven, as committed.
pub(super) async fn committed(
    log: &Log,
    group: &ResolvedGroup,
    partitions: &[i32],
    until: Instant,
) -> Result<BTreeMap<i32, Redriven>, Error> {
    let kept_under = PhysicalGroup::redrive(group.namespace_uid, group.group_uid);
    let found = log.committed(&kept_under, partitions, time_left(until)).await?;
    let redriven = |(partition, (offset, metadata)): (i32, (LogicalOffset, String))| {
        (partition, Redriven::read(offset.get(), &metadata))
    };
    Ok(found.into_iter().map(redriven).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_answer_is_no_end_of_the_letters() {
        let error =
            got_further(Vec::new(), 5, 5, "namespaces/a/topics/dead").expect_err("as after a change of the leader");
        assert_eq!(error.reason, Reason::ClusterUnavailable);
        assert_eq!(got_further(Vec::new(), 9, 5, "t").expect("markers alone").1, 9);
    }
}
