//! The relay: outbox → `sluice.control`, in order, at least once.
//!
//! One relay works at a time, by a lease; two that do (a stopped one that woke up) are harmless: records carry versions and
//! readers drop lower ones. That a stale record could become the last one of its key, which compaction would keep, is
//! mended by `control_log.rs`, and nothing is published before that has compared the log with the database.

use std::time::{Duration, Instant};

use sluice_db::DbError;
use sluice_runtime::{ComponentStatus, Health};
use sluice_types::Revision;
use sluice_types::physical::CONTROL_TOPIC;
use sluice_wire::{Client, KafkaTopicId, OutRecord};
use tokio_util::sync::CancellationToken;

use crate::domain::record::with_outbox_id;
use crate::plane::SharedPlane;
use crate::store::lease::{lease_acquire, lease_release};
use crate::store::outbox::{OutboxRow, outbox_published, outbox_unpublished};

const LEASE: &str = "relay";
/// A dead relay is replaced after this.
const LEASE_TTL: Duration = Duration::from_secs(2);
const LEASE_RENEW: Duration = Duration::from_millis(500);
/// Notifications may be lost.
const POLL: Duration = Duration::from_millis(500);
const PRODUCE_WITHIN: Duration = Duration::from_secs(2);
/// Rows and bytes of one batch.
const BATCH_ROWS_MAX: i64 = 500;
const BATCH_BYTES_MAX: usize = 512 << 10;

/// Why one round of publishing ended early; the next round tries again.
#[derive(Debug, thiserror::Error)]
enum RelayError {
    #[error("read or mark the outbox: {0}")]
    Database(#[from] DbError),
    #[error("write the control log: {0}")]
    Kafka(#[from] sluice_wire::Error),
}

/// Publishes until the shutdown.
pub(crate) async fn run(plane: SharedPlane, kafka: Client, health: Health, shutdown: CancellationToken) {
    let relay = Relay { plane, kafka, holder: None };
    let mut relay = relay;
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = relay.work(&health) => {}
    }
    relay.release().await;
}

/// What a round came to.
enum Round {
    /// A batch was published, or is to be looked for again; there may be more.
    Published,
    /// There was nothing to publish.
    Nothing,
    /// Another process has the lease.
    NotOurs,
}

struct Relay {
    plane: SharedPlane,
    kafka: Client,
    /// Until when the lease is surely ours.
    holder: Option<Instant>,
}

impl Relay {
    async fn work(&mut self, health: &Health) {
        let log = self.plane.revisions.log_ready().await;
        let mut outbox = self.plane.wakes.outbox.subscribe();
        let mut log = log;
        loop {
            self.plane.comparison.opened().await;
            match self.round(log).await {
                Ok(Round::Published) => {
                    health.set_component("relay", ComponentStatus::ok("publishing"));
                    log = self.plane.revisions.log_ready().await;
                    continue;
                }
                Ok(Round::Nothing) => health.set_component("relay", ComponentStatus::ok("idle")),
                Ok(Round::NotOurs) => health.set_component("relay", ComponentStatus::ok("standing by")),
                Err(error) => {
                    tracing::debug!(%error, "publishing ended early; trying again");
                    health.set_component("relay", ComponentStatus::failing("cannot publish; see the log at debug"));
                }
            }
            outbox.sleep(POLL).await;
            log = self.plane.revisions.log_ready().await;
        }
    }

    /// One batch.
    async fn round(&mut self, log: KafkaTopicId) -> Result<Round, RelayError> {
        if !self.hold_lease().await? {
            return Ok(Round::NotOurs);
        }
        let rows = self.next_rows().await?;
        if rows.is_empty() {
            return Ok(Round::Nothing);
        }
        let records: Vec<OutRecord> = rows.iter().map(out_record).collect();
        self.plane.fail_points.hit("relay.before_publish");
        if self.holder.is_none_or(|until| Instant::now() >= until) {
            // We were away for longer than the lease: somebody else may have published these by now.
            return Ok(Round::Published);
        }
        let produced = self.kafka.produce_batch(CONTROL_TOPIC, 0, &records, PRODUCE_WITHIN).await?;
        self.plane.fail_points.hit("relay.after_publish");
        self.mark(log, &rows, produced.base_offset).await?;
        self.plane.metrics.published.inc_by(rows.len() as u64);
        Ok(Round::Published)
    }

    async fn hold_lease(&mut self) -> Result<bool, DbError> {
        let now = Instant::now();
        if self.holder.is_some_and(|until| until > now + (LEASE_TTL - LEASE_RENEW)) {
            return Ok(true);
        }
        let (system, holder) = (self.plane.scopes.leases.clone(), self.plane.settings.holder.clone());
        let work = async move {
            let mut tx = system.begin().await?;
            let epoch = lease_acquire(&mut tx, LEASE, &holder, LEASE_TTL.as_millis() as i64).await?;
            tx.commit().await?;
            Ok::<_, DbError>(epoch)
        };
        let held = self.plane.db.run(work).await?.is_some();
        // Counted from before the question, so never longer than the database thinks.
        self.holder = held.then_some(now + LEASE_TTL);
        Ok(held)
    }

    async fn next_rows(&self) -> Result<Vec<OutboxRow>, DbError> {
        let system = self.plane.scopes.relay.clone();
        let work = async move {
            let mut tx = system.begin().await?;
            let rows = outbox_unpublished(&mut tx, BATCH_ROWS_MAX).await?;
            tx.rollback().await?;
            Ok::<_, DbError>(rows)
        };
        let mut rows = self.plane.db.run(work).await?;
        let mut bytes = 0;
        let fit = rows.iter().take_while(|row| {
            bytes += row.payload.as_ref().map_or(0, Vec::len);
            bytes <= BATCH_BYTES_MAX
        });
        let fit = fit.count().max(1);
        rows.truncate(fit);
        Ok(rows)
    }

    async fn mark(&self, log: KafkaTopicId, rows: &[OutboxRow], base_offset: i64) -> Result<(), DbError> {
        let ids: Vec<i64> = rows.iter().map(|row| row.id).collect();
        let offsets: Vec<i64> = (base_offset..).take(ids.len()).collect();
        let revisions: Vec<String> =
            offsets.iter().map(|offset| Revision { topic_id: log.0, offset: *offset }.to_string()).collect();
        // Those who wait may go on before it is marked: it is in the log.
        if !self.plane.revisions.record(&ids, &offsets) {
            tracing::warn!(offset = base_offset, "the control log was cut off below what was published to it");
            self.plane.comparison.require();
        }
        self.plane.wakes.published.wake();
        let system = self.plane.scopes.relay.clone();
        let work = async move {
            let mut tx = system.begin().await?;
            outbox_published(&mut tx, &ids, &offsets, &revisions).await?;
            tx.commit().await?;
            Ok::<_, DbError>(())
        };
        self.plane.db.run(work).await
    }

    async fn release(&self) {
        if self.holder.is_none() {
            return;
        }
        let (system, holder) = (self.plane.scopes.leases.clone(), self.plane.settings.holder.clone());
        let work = async move {
            let mut tx = system.begin().await?;
            lease_release(&mut tx, LEASE, &holder).await?;
            tx.commit().await
        };
        if let Err(error) = self.plane.db.run(work).await {
            tracing::debug!(%error, "the relay's lease was not given back; it runs out");
        }
    }
}

fn out_record(row: &OutboxRow) -> OutRecord {
    OutRecord {
        key: Some(row.aggregate().to_string().into()),
        value: row.payload.as_ref().map(|payload| with_outbox_id(payload, row.id).into()),
        headers: Vec::new(),
        timestamp_ms: crate::changes::key::now_us() / 1_000,
    }
}
