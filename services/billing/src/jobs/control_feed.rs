//! The control log: names, partitions and last ends of topics into the tables that GetUsage reads.
//!
//! A name follows the versions of its resource. If the log turns out to be another one, or lost something that was read, then
//! it says lower versions than are held, and they are right: maybe the database of the control plane was restored from an
//! older backup together with it. So it is read anew from its beginning, beside the names that are served on, and they become
//! what it says when it is complete ([`Reader`]). Until then the stored position stands at the beginning, so that a crash
//! anywhere leads to reading it all again.

use std::sync::Arc;

use bytes::Bytes;
use sluice_control_log::{Carried, Change, Ending, Reader, ReaderOptions, Stand, Step, WholeLog};
use sluice_db::SystemScope;
use sluice_proto::internal::control::v1::{ControlRecord, TopicState, control_record::Resource};
use sluice_runtime::ComponentStatus;
use sluice_types::physical::CONTROL_TOPIC;
use sluice_types::{ClusterUid, NamespaceUid, TenantUid, TopicUid};
use tokio_util::sync::CancellationToken;

use super::log_feed::{Ended, FeedError, LogFeed, PAUSE_MIN, POLL, RECORDS_PER_COMMIT};
use crate::store::log_position::{Log, Position};
use crate::store::names::{Named, names_adopt, names_adopted, names_store};

/// The control log has one partition.
pub const LOG: Log = Log { topic: CONTROL_TOPIC, partition: 0 };
/// Any record of the log that says that it is complete counts.
const ANY_TIME: i64 = -1;

/// Where names go.
pub struct NameSink {
    system: SystemScope,
}

impl NameSink {
    /// Into this database.
    pub fn new(system: SystemScope) -> Arc<Self> {
        Arc::new(Self { system })
    }
}

/// Reads until the shutdown.
pub async fn follow(feed: LogFeed<NameSink>, shutdown: CancellationToken) -> Result<(), FeedError> {
    loop {
        let Some(position) = feed.position(&shutdown, |log| Position::anew(log, ANY_TIME)).await? else {
            return Ok(());
        };
        match ControlFeed::begin(&feed, position).follow(&shutdown).await? {
            Ended::Shutdown => return Ok(()),
            Ended::Reload => {}
        }
    }
}

/// The reading from one stored position on.
struct ControlFeed<'a> {
    feed: &'a LogFeed<NameSink>,
    reader: Reader<Named>,
    stored: Position,
}

impl<'a> ControlFeed<'a> {
    fn begin(feed: &'a LogFeed<NameSink>, stored: Position) -> Self {
        let Position { topic_id: log, next, read_ms, anew_after_ms } = stored;
        let options = ReaderOptions { topic: feed.log.topic, log: Some(log), ..ReaderOptions::default() };
        let reader = match anew_after_ms {
            Some(after_ms) => Reader::anew(feed.kafka.clone(), options, after_ms),
            // Nothing was read that could be missing, wherever the log begins.
            None if next == 0 => Reader::from_beginning(feed.kafka.clone(), options),
            None => Reader::resume(feed.kafka.clone(), options, Stand { log, next, read_ms }),
        };
        Self { feed, reader, stored }
    }

    async fn follow(mut self, shutdown: &CancellationToken) -> Result<Ended, FeedError> {
        loop {
            let step = tokio::select! {
                () = shutdown.cancelled() => return Ok(Ended::Shutdown),
                step = self.reader.next(POLL) => step,
            };
            let Step { changes, whole, batch, .. } = match step {
                Ok(step) => step,
                Err(error) => match Ending::of(&error) {
                    Ending::Lost => return Ok(self.lost(shutdown).await),
                    // The position is checked against the topic's id before reading goes on.
                    Ending::Replaced => return Ok(Ended::Reload),
                    Ending::Damaged => {
                        return Err(FeedError::Kafka { log: self.feed.log.clone(), source: error });
                    }
                },
            };
            let waits = whole.is_none() && self.reader.reads_anew() && batch.is_caught_up();
            self.feed.tell(&batch, waits.then_some("the control log is not complete yet; names are those of before"));
            let ended = match whole {
                Some(log) => self.adopt(log, batch.position, shutdown).await,
                None if self.reader.reads_anew() => None,
                None => self.apply(changes, batch.position, shutdown).await,
            };
            if let Some(ended) = ended {
                return Ok(ended);
            }
        }
    }

    /// Stores what was read up to `to`. Tombstones change nothing: names stay.
    async fn apply(&mut self, changes: Vec<Change<Named>>, to: i64, shutdown: &CancellationToken) -> Option<Ended> {
        let read_ms = self.reader.read_ms();
        let mut changes = changes.into_iter().filter_map(|change| Some((change.offset, change.now?))).peekable();
        while self.stored.next < to {
            let part: Vec<(i64, Named)> = changes.by_ref().take(RECORDS_PER_COMMIT).collect();
            let end = match (changes.peek(), part.last()) {
                (Some(_), Some((last, _))) => last + 1,
                _ => to,
            };
            let (at, names): (Position, Arc<[Named]>) = (self.stored, part.into_iter().map(|(_, name)| name).collect());
            let work = || {
                let (sink, log, names) = (Arc::clone(&self.feed.sink), self.feed.log.clone(), Arc::clone(&names));
                async move { names_store(&sink.system, &log, (at, end), read_ms, &names).await }
            };
            if let Some(ended) = self.feed.store(at.next, work, shutdown).await {
                return Some(ended);
            }
            self.stored.next = end;
        }
        None
    }

    /// Makes the names be what a log says that was read anew to `to`. Each part may be stored twice; the position moves last.
    async fn adopt(&mut self, whole: WholeLog<Named>, to: i64, shutdown: &CancellationToken) -> Option<Ended> {
        let (at, read_ms) = (self.stored, self.reader.read_ms());
        let names: Vec<Named> = whole.into_states().map(|(_, _, name)| name).collect();
        for part in names.chunks(RECORDS_PER_COMMIT) {
            if shutdown.is_cancelled() {
                return Some(Ended::Shutdown);
            }
            let part: Arc<[Named]> = part.into();
            let work = || {
                let (sink, log, part) = (Arc::clone(&self.feed.sink), self.feed.log.clone(), Arc::clone(&part));
                async move { names_adopt(&sink.system, &log, at, &part).await }
            };
            if let Some(ended) = self.feed.store(at.next, work, shutdown).await {
                return Some(ended);
            }
        }
        let known: Arc<[i64]> = names.iter().map(Named::uid).collect();
        let work = || {
            let (sink, log, known) = (Arc::clone(&self.feed.sink), self.feed.log.clone(), Arc::clone(&known));
            async move { names_adopted(&sink.system, &log, (at, to), read_ms, &known).await }
        };
        if let Some(ended) = self.feed.store(at.next, work, shutdown).await {
            return Some(ended);
        }
        tracing::info!(log = ?self.feed.log, names = names.len(), "names are what the control log says now");
        self.stored = Position { next: to, anew_after_ms: None, ..self.stored };
        None
    }

    /// The log lacks something that was read. Where it begins to differ is not known, so all is read again. That must be stored
    /// before reading goes on: from the old position the other records would be taken for the ones that follow.
    async fn lost(self, shutdown: &CancellationToken) -> Ended {
        let read_ms = self.reader.read_ms().max(self.stored.read_ms);
        let anew = Position { read_ms, ..Position::anew(self.stored.topic_id, read_ms) };
        let mut pause = PAUSE_MIN;
        loop {
            let Err(error) = self.feed.restart(self.stored, anew, "the control log lacks what was read of it").await
            else {
                return Ended::Reload;
            };
            tracing::info!(log = ?self.feed.log, %error, "try again to store the position");
            let failure = format!("begin the control log again: {error}");
            self.feed.health.set_component(self.feed.component, ComponentStatus::failing(failure));
            if self.feed.paused(&mut pause, shutdown).await {
                return Ended::Shutdown;
            }
        }
    }
}

/// Accounts, keys, groups and what this build cannot read have no name for billing.
impl Carried for Named {
    fn read(_: &Bytes, record: Option<ControlRecord>) -> Option<Self> {
        named(record?)
    }
}

fn named(record: ControlRecord) -> Option<Named> {
    let version = record.version;
    let tenant = || record.tenant_uid.parse::<TenantUid>().ok().map(TenantUid::as_i64);
    match record.resource? {
        Resource::Tenant(it) => {
            let uid = it.uid.parse::<TenantUid>().ok()?.as_i64();
            Some(Named::Tenant { uid, id: it.id, life: it.life, version })
        }
        Resource::Namespace(it) => {
            let uid = it.uid.parse::<NamespaceUid>().ok()?.as_i64();
            Some(Named::Namespace { uid, tenant_uid: tenant()?, id: it.id, life: it.life, version })
        }
        Resource::Topic(it) => Some(Named::Topic {
            uid: it.uid.parse::<TopicUid>().ok()?.as_i64(),
            tenant_uid: tenant()?,
            namespace_uid: it.namespace_uid.parse::<NamespaceUid>().ok()?.as_i64(),
            cluster_uid: cluster(&it).map(ClusterUid::as_i64),
            namespace_id: it.namespace_id,
            id: it.id,
            life: it.life,
            partitions: it.partitions,
            final_end_offsets: it.final_end_offsets,
            version,
        }),
        Resource::Account(_) | Resource::Key(_) | Resource::Group(_) | Resource::Complete(_) => None,
    }
}

/// The cluster of a topic that has one log: its first one. Records from before placements mean the first cluster.
fn cluster(topic: &TopicState) -> Option<ClusterUid> {
    match &topic.placement {
        None => Some(ClusterUid::FIRST),
        Some(placement) if placement.moved.is_empty() && placement.log_uid == topic.uid => {
            placement.cluster_uid.parse().ok()
        }
        Some(_) => None,
    }
}
