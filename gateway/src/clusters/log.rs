//! The log of one topic: append, read, look for offsets, in logical offsets.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sluice_kafka::{Appended, Batch};
use sluice_log::{ClusterLog, LogicalOffset, PhysicalOffset};
use sluice_types::error::Error;
use sluice_types::physical::PhysicalGroup;
use sluice_wire::{CommitOffset, Committer, DecodeLimits, Isolation, OffsetAt, Record};

use crate::clusters::{Cluster, unavailable};
use crate::view::ResolvedTopic;

/// A topic's log. Its topic never moved (see [`crate::view`]), so each partition is one span on one cluster.
#[derive(Clone)]
pub struct Log {
    cluster: Arc<Cluster>,
    topic: Arc<ResolvedTopic>,
}

/// What to read.
#[derive(Debug, Clone, Copy)]
pub struct ReadRequest {
    /// Of which partition.
    pub partition: i32,
    /// From where.
    pub offset: LogicalOffset,
    /// Bytes of the answer, except for a first batch that is larger alone.
    pub max_bytes: u32,
    /// How long to wait for the first record.
    pub max_wait: Duration,
    /// Which records it may see.
    pub isolation: Isolation,
    /// What the records may hold in memory.
    pub limits: DecodeLimits,
}

/// What was read.
#[derive(Debug)]
pub struct Read {
    /// Visible records in order, with logical offsets; none if none came within the wait, or if all were hidden.
    pub records: Vec<Record>,
    /// Where to read on.
    pub next_offset: LogicalOffset,
    /// The first offset that can still be read.
    pub log_start: LogicalOffset,
    /// Where the next record goes.
    pub end: LogicalOffset,
    /// Memory that the records hold.
    pub held_bytes: usize,
}

/// By partition: an offset, or none if there is no record so late.
pub type Offsets = BTreeMap<i32, sluice_wire::Result<Option<LogicalOffset>>>;

impl Log {
    pub(super) fn new(cluster: Arc<Cluster>, topic: Arc<ResolvedTopic>) -> Self {
        Self { cluster, topic }
    }

    /// The topic.
    pub fn topic(&self) -> &Arc<ResolvedTopic> {
        &self.topic
    }

    /// Whether the brokers of its cluster answer.
    pub fn answers(&self) -> bool {
        self.cluster.answers()
    }

    /// Appends records; see [`sluice_kafka::ProduceSink::submit`]. The offsets in the outcomes are logical ones.
    pub fn append(&self, batch: Batch, deadline: Instant) -> Appended {
        self.cluster.sink().submit(self.topic.physical.as_str(), batch, deadline)
    }

    /// Reads records at an offset, and waits for the first one if there is none. An empty answer after that is no error. Busy
    /// connections are shared fairly between tenants. Returns by `timeout` after now.
    pub async fn read(&self, request: ReadRequest, timeout: Duration) -> sluice_wire::Result<Read> {
        let log = self.span(request.partition);
        let offset = log.physical(request.offset).unwrap_or(PhysicalOffset::ZERO).get();
        let fetch = sluice_wire::FetchRequest {
            topic: self.topic.physical.as_str().to_owned(),
            // The name holds the topic's uid and is never given again, so it is as good as Kafka's id.
            topic_id: None,
            partition: request.partition,
            offset,
            last_epoch: None,
            max_bytes: request.max_bytes,
            min_bytes: 1,
            max_wait: request.max_wait,
            isolation: request.isolation,
        };
        let share = self.topic.tenant_uid.uid().as_u64();
        let read = self.cluster.reader().read(fetch, request.limits, share, timeout).await;
        let mut read = read.map_err(|error| in_logical(error, log))?;
        if log.delta != 0 {
            read.records.iter_mut().for_each(|record| record.offset += log.delta);
        }
        Ok(Read {
            records: read.records,
            next_offset: logical(log, read.next_offset),
            log_start: logical(log, read.log_start_offset),
            end: logical(log, read.high_watermark),
            held_bytes: read.held_bytes,
        })
    }

    /// The offset of a position in each of these partitions. An error is of all partitions.
    pub async fn offsets(
        &self,
        partitions: &[i32],
        at: OffsetAt,
        isolation: Isolation,
        timeout: Duration,
    ) -> sluice_wire::Result<Offsets> {
        let name = self.topic.physical.as_str();
        let listed = self.cluster.wire().list_offsets(name, partitions, at, isolation, timeout).await?;
        let one = |(partition, listed): (i32, sluice_wire::Result<sluice_wire::ListedOffset>)| {
            let log = self.span(partition);
            (partition, listed.map(|listed| listed.offset.map(|offset| logical(log, offset))))
        };
        Ok(listed.into_iter().map(one).collect())
    }

    /// The same for one partition.
    pub async fn offset(
        &self,
        partition: i32,
        at: OffsetAt,
        isolation: Isolation,
        timeout: Duration,
    ) -> sluice_wire::Result<Option<LogicalOffset>> {
        let mut found = self.offsets(&[partition], at, isolation, timeout).await?;
        found.remove(&partition).unwrap_or(Err(sluice_wire::Error::DeadlineExceeded))
    }

    /// What `group`, of which nobody is a member, has committed for partitions of this topic: offset and metadata by partition. Those
    /// without a position are left out. CLUSTER_UNAVAILABLE if one cannot be told.
    pub async fn committed(
        &self,
        group: &PhysicalGroup,
        partitions: &[i32],
        timeout: Duration,
    ) -> Result<BTreeMap<i32, (LogicalOffset, String)>, Error> {
        let wanted = [(self.topic.physical.as_str(), partitions)];
        let found =
            self.cluster.wire().committed_offsets(group.as_str(), Committer::Outside, Some(&wanted), timeout).await;
        let mut committed = BTreeMap::new();
        for ((_, partition), found) in found.map_err(unavailable)? {
            if let Some(found) = found.map_err(unavailable)? {
                committed.insert(partition, (logical(self.span(partition), found.offset), found.metadata));
            }
        }
        Ok(committed)
    }

    /// Commits positions of `group`, of which nobody is a member: offset and metadata by partition. CLUSTER_UNAVAILABLE if one was
    /// not taken.
    pub async fn commit(
        &self,
        group: &PhysicalGroup,
        positions: BTreeMap<i32, (LogicalOffset, String)>,
        timeout: Duration,
    ) -> Result<(), Error> {
        let commit = |(partition, (offset, metadata)): (i32, (LogicalOffset, String))| {
            let offset = self.span(partition).physical(offset).unwrap_or(PhysicalOffset::ZERO).get();
            let topic = self.topic.physical.as_str().to_owned();
            CommitOffset { topic, partition, offset, leader_epoch: None, metadata }
        };
        let commits: Vec<CommitOffset> = positions.into_iter().map(commit).collect();
        let wire = self.cluster.wire();
        let results = wire.commit_offsets(group.as_str(), Committer::Outside, &commits, timeout).await;
        results.map_err(unavailable)?.into_values().try_for_each(|result| result.map_err(unavailable))
    }

    /// Where the partition's records lie.
    fn span(&self, partition: i32) -> ClusterLog {
        let open = self.topic.placement.spans(partition).open();
        open.place.cluster_log().expect("the last span takes appends, so it is in a log")
    }
}

/// What Kafka says of an offset; it says −1 where it knows none.
fn logical(log: ClusterLog, offset: i64) -> LogicalOffset {
    let offset = PhysicalOffset::new(offset).unwrap_or(PhysicalOffset::ZERO);
    log.logical(offset).unwrap_or(LogicalOffset::ZERO)
}

/// The bounds in an error, as tenants see them.
fn in_logical(error: sluice_wire::Error, log: ClusterLog) -> sluice_wire::Error {
    match error {
        sluice_wire::Error::OffsetOutOfRange { topic, partition, offset, log_start_offset, end_offset } => {
            sluice_wire::Error::OffsetOutOfRange {
                topic,
                partition,
                offset: offset + log.delta,
                log_start_offset: logical(log, log_start_offset).get(),
                end_offset: logical(log, end_offset).get(),
            }
        }
        other => other,
    }
}
