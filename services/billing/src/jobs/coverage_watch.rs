//! Tells how many records no gateway reported, for health and metrics: those of a gateway that was killed before its last
//! window, and those that were written around the gateways. `GetUsage` lists them as uncovered to their tenant.
//!
//! Topics are looked at in turns, a page at a time: a hundred thousand partitions have their turn within some minutes.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use sluice_db::{Database, DbError};
use sluice_runtime::{ComponentStatus, Health};
use sluice_types::{ClusterUid, TopicUid};
use tokio_util::sync::CancellationToken;

use crate::domain::uncovered::Watch;
use crate::domain::window::PartitionKey;
use crate::log_ends::{LogEnds, Wanted};
use crate::metrics::Metrics;
use crate::store::uncovered::{counted_below, living_topic_list};

const EVERY: Duration = Duration::from_secs(10);
/// How long a gateway has to report a record.
pub const GRACE: Duration = Duration::from_secs(60);
/// Topics of one look.
const TOPICS: i64 = 500;
/// Partitions that are judged in one look.
const JUDGED_MAX: usize = 1_000;
/// Counted ranges that are read of one partition.
const RANGES_MAX: i64 = 1_000;
/// Topics whose ends are asked for at once, and how long that may take.
const AT_ONCE: usize = 8;
const ENDS_WITHIN: Duration = Duration::from_secs(2);
/// The name in health.
pub const COMPONENT: &str = "usage-coverage";

/// The watch.
pub struct CoverageWatch {
    database: Database,
    ends: LogEnds,
    watch: Watch,
    after: Option<TopicUid>,
    /// Clusters whose logs could not be looked at the last time.
    silent: BTreeSet<ClusterUid>,
}

impl CoverageWatch {
    /// Over this database and the clusters with the tenants' topics.
    pub fn new(database: Database, ends: LogEnds) -> Self {
        Self { database, ends, watch: Watch::default(), after: None, silent: BTreeSet::new() }
    }

    /// Looks every 10 s until the shutdown.
    pub async fn run(mut self, health: Health, metrics: Metrics, shutdown: CancellationToken) {
        loop {
            match self.look(GRACE, Instant::now()).await {
                Ok(status) => {
                    let (partitions, records) = self.sums();
                    metrics.uncovered_partitions.set(partitions);
                    metrics.uncovered_records.set(records);
                    health.set_component(COMPONENT, status);
                }
                Err(error) => tracing::debug!(%error, "look for uncovered records"),
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(EVERY) => {}
            }
        }
    }

    /// Looks at the next page of topics.
    pub async fn look(&mut self, grace: Duration, now: Instant) -> Result<ComponentStatus, DbError> {
        let (topics, counted) = living_topic_list(self.database.system(), self.after, TOPICS).await?;
        let page_end = (topics.len() as i64 == TOPICS).then(|| topics.last().map(|topic| topic.topic)).flatten();
        self.forget_gone(&topics, page_end);
        self.after = page_end;
        let look = &self.ends.look();
        let mut ends = futures::stream::iter(topics)
            .map(|topic| async move { (topic.topic, look.of(topic, ENDS_WITHIN).await) })
            .buffer_unordered(AT_ONCE);
        while let Some((topic, ends)) = ends.next().await {
            for (partition, end) in ends {
                let key = PartitionKey { topic, partition };
                self.watch.seen(key, end, counted.get(&key).copied().unwrap_or_default(), now);
            }
        }
        drop(ends);
        self.silent = look.silent();
        let mut due = self.watch.due(grace, now);
        due.truncate(JUDGED_MAX);
        let counted = counted_below(self.database.system(), &due, RANGES_MAX).await?;
        for (key, below) in due {
            let ranges = counted.get(&key).map_or(&[][..], Vec::as_slice);
            // Of one with more ranges only what was read can be judged.
            let read_to = ranges.last().filter(|_| ranges.len() as i64 >= RANGES_MAX).map(|&(_, end)| end);
            self.watch.judged(key, read_to.unwrap_or(below).min(below), ranges, now);
        }
        Ok(self.status())
    }

    /// Topics that are not among the living of this page any more.
    fn forget_gone(&mut self, topics: &[Wanted], page_end: Option<TopicUid>) {
        let living: BTreeSet<TopicUid> = topics.iter().map(|topic| topic.topic).collect();
        let after = self.after;
        self.watch.retain(|key| {
            let of_page = after.is_none_or(|after| key.topic > after) && page_end.is_none_or(|end| key.topic <= end);
            !of_page || living.contains(&key.topic)
        });
    }

    fn sums(&self) -> (i64, i64) {
        self.watch.uncovered().fold((0, 0), |(partitions, records), (_, of)| (partitions + 1, records + of.records))
    }

    fn status(&self) -> ComponentStatus {
        let (partitions, records) = self.sums();
        let Some((key, uncovered)) = self.watch.uncovered().next() else {
            return match self.silent.first() {
                None => ComponentStatus::ok("all records that are older than a minute are counted"),
                Some(cluster) => ComponentStatus::failing(format!(
                    "whether all records are counted is not known: {} clusters do not answer, the first is {cluster}",
                    self.silent.len()
                )),
            };
        };
        let (from, to) = uncovered.first;
        ComponentStatus::failing(format!(
            "{records} records in {partitions} partitions are not counted, because no gateway reported them: topic {} \
             partition {} has the first at [{from}, {to})",
            key.topic, key.partition
        ))
    }
}
