//! Reads `sluice.control` back and keeps two promises that publishing alone cannot:
//!
//! - the last record of each key is its newest state. Two relays can leave an older one behind a newer one; readers that
//!   follow drop it, but compaction would keep it and drop the newer. Seen here, the newest state is published again;
//! - the log holds everything. When `sluice.control` turns out to be another topic than the one the outbox was published
//!   to (a restored or remade cluster), all states are published again.
//!
//! Memory: a version per live key; fine to some millions of resources.

use std::collections::HashMap;
use std::time::Duration;

use prost::Message as _;
use sluice_db::DbError;
use sluice_proto::internal::control::v1::ControlRecord;
use sluice_runtime::{ComponentStatus, Health};
use sluice_types::Uid;
use sluice_types::physical::CONTROL_TOPIC;
use sluice_wire::{Client, Isolation, LogTail, OffsetAt, Record, TailOptions, TopicId};
use tokio_util::sync::CancellationToken;

use crate::plane::SharedPlane;
use crate::store::outbox::{control_log_get, control_log_set, outbox_republish, outbox_republish_all};

const POLL: Duration = Duration::from_secs(1);
const AGAIN: Duration = Duration::from_secs(1);

#[derive(Debug, thiserror::Error)]
enum AuditError {
    #[error("read the control log: {0}")]
    Kafka(#[from] sluice_wire::Error),
    #[error("have states published again: {0}")]
    Database(#[from] DbError),
}

/// Reads until the shutdown.
pub(crate) async fn run(plane: SharedPlane, kafka: Client, health: Health, shutdown: CancellationToken) {
    let follow = async {
        loop {
            let log = plane.revisions.log_ready().await;
            let Err(error) = follow(&plane, &kafka, log, &health).await;
            tracing::debug!(%error, "reading the control log ended; beginning again");
            health.set_component("control_log", ComponentStatus::failing("the control log cannot be read back"));
            tokio::time::sleep(AGAIN).await;
        }
    };
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = follow => {}
    }
}

async fn follow(
    plane: &SharedPlane,
    kafka: &Client,
    log: TopicId,
    health: &Health,
) -> Result<std::convert::Infallible, AuditError> {
    adopt(plane, log).await?;
    let options = TailOptions { isolation: Isolation::ReadUncommitted, topic_id: Some(log), ..TailOptions::default() };
    let mut tail = LogTail::new(kafka.clone(), CONTROL_TOPIC, 0, OffsetAt::Earliest, options);
    let mut versions = Versions::default();
    loop {
        let batch = tail.next(POLL).await?;
        for record in &batch.records {
            versions.see(record);
        }
        if batch.is_caught_up() {
            health.set_component("control_log", ComponentStatus::ok(format!("{} resources", versions.newest.len())));
            mend(plane, &mut versions).await?;
        }
    }
}

/// When the log is a new one, has everything published to it.
async fn adopt(plane: &SharedPlane, log: TopicId) -> Result<(), DbError> {
    let (system, id) = (plane.db.system().clone(), log.to_string());
    let work = async move {
        let mut tx = system.begin().await?;
        let known = control_log_get(&mut tx).await?;
        let mut again = 0;
        if known.as_ref() != Some(&id) {
            if known.is_some() {
                again = outbox_republish_all(&mut tx).await?;
            }
            control_log_set(&mut tx, &id).await?;
        }
        tx.commit().await?;
        Ok::<_, DbError>(again)
    };
    let again = plane.db.run(work).await?;
    if again > 0 {
        tracing::warn!(states = again, log = %log, "the control log is a new one; publishing all states to it");
        plane.metrics.republished.inc_by(again);
        plane.wakes.outbox.wake();
    }
    Ok(())
}

async fn mend(plane: &SharedPlane, versions: &mut Versions) -> Result<(), DbError> {
    if versions.behind.is_empty() {
        return Ok(());
    }
    let stale: Vec<Uid> = versions.behind.keys().copied().collect();
    let system = plane.db.system().clone();
    let count = stale.len();
    let work = async move {
        let mut tx = system.begin().await?;
        outbox_republish(&mut tx, &stale).await?;
        tx.commit().await
    };
    plane.db.run(work).await?;
    tracing::warn!(
        resources = count,
        "older states stood behind newer ones in the control log; publishing the newest again"
    );
    plane.metrics.republished.inc_by(count as u64);
    plane.wakes.outbox.wake();
    versions.behind.clear();
    Ok(())
}

/// The newest version seen of each key, and the keys whose last record is older than that.
#[derive(Default)]
struct Versions {
    newest: HashMap<Uid, i64>,
    behind: HashMap<Uid, i64>,
}

impl Versions {
    fn see(&mut self, record: &Record) {
        let key = record.key.as_ref().and_then(|key| std::str::from_utf8(key).ok()?.parse::<Uid>().ok());
        let Some(key) = key else { return };
        let Some(value) = &record.value else {
            self.newest.remove(&key);
            self.behind.remove(&key);
            return;
        };
        let Ok(seen) = ControlRecord::decode(value.clone()) else { return };
        let newest = self.newest.entry(key).or_insert(seen.version);
        if seen.version >= *newest {
            *newest = seen.version;
            self.behind.remove(&key);
        } else {
            self.behind.insert(key, seen.version);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_wire::TimestampType;

    fn record(key: Uid, version: i64) -> Record {
        let value = ControlRecord { version, ..ControlRecord::default() }.encode_to_vec();
        Record {
            offset: 0,
            timestamp_ms: 0,
            timestamp_type: TimestampType::LogAppendTime,
            key: Some(key.to_string().into()),
            value: Some(value.into()),
            headers: Vec::new(),
        }
    }

    #[test]
    fn an_older_state_behind_a_newer_one_is_found_until_it_is_mended() {
        let (a, b) = (Uid::random(), Uid::random());
        let mut versions = Versions::default();
        for (key, version) in [(a, 1), (b, 1), (a, 2), (a, 2), (a, 1)] {
            versions.see(&record(key, version));
        }
        assert_eq!(versions.behind.keys().collect::<Vec<_>>(), [&a]);
        versions.see(&record(a, 2));
        assert!(versions.behind.is_empty());
        versions.see(&Record { value: None, ..record(a, 3) });
        assert!(!versions.newest.contains_key(&a));
    }
}
