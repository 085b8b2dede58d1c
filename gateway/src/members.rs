//! `sluice.members`: this gateway's heartbeats, and who else is alive.
//!
//! A heartbeat goes out every 500 ms and at once when the applied revision moves, so that a change's barrier waits for no
//! timer. It says what is applied at the moment it is made. While Kafka is away, heartbeats fail and are tried on.

pub mod live;
pub mod tail;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use sluice_proto::internal::control::v1::{MemberHeartbeat, MemberPhase};
use sluice_types::physical::MEMBERS_TOPIC;
use sluice_wire::{Client, KafkaTopicId, OutRecord};

use crate::view::applied::Applied;

const INTERVAL: Duration = Duration::from_millis(500);
/// Bound of one heartbeat.
const SEND_WITHIN: Duration = Duration::from_secs(2);

/// What this gateway says of itself.
pub struct Heartbeats {
    gateway_id: String,
    boot_id: String,
    internal_address: String,
    applied: Applied,
    phase: watch::Sender<MemberPhase>,
    sequence: AtomicI64,
    client: Client,
}

impl Heartbeats {
    /// Of this start of this gateway; the phase is STARTING.
    pub fn new(
        gateway_id: String,
        boot_id: String,
        internal_address: String,
        applied: Applied,
        client: Client,
    ) -> Self {
        let phase = watch::Sender::new(MemberPhase::Starting);
        Self { gateway_id, boot_id, internal_address, applied, phase, sequence: AtomicI64::new(0), client }
    }

    /// Changes the phase; the next heartbeat goes out at once.
    pub fn set_phase(&self, phase: MemberPhase) {
        self.phase.send_replace(phase);
    }

    /// What a heartbeat made now says.
    pub fn message(&self) -> MemberHeartbeat {
        let applied = self.applied.revision();
        // As Kafka's own tools write it; zeros and "nothing applied" before a log is known.
        let topic_id = KafkaTopicId(applied.map_or_else(|| self.applied.topic_id(), |revision| revision.topic_id));
        MemberHeartbeat {
            gateway_id: self.gateway_id.clone(),
            boot_id: self.boot_id.clone(),
            internal_address: self.internal_address.clone(),
            applied_offset: applied.map_or(-1, |revision| revision.offset),
            control_topic_id: topic_id.to_string(),
            phase: (*self.phase.borrow()).into(),
            sequence: self.sequence.load(Ordering::Relaxed),
            awaits_complete: self.applied.awaits_complete().unwrap_or_default(),
        }
    }

    /// Sends heartbeats until the shutdown.
    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        let mut applied = self.applied.subscribe();
        let mut phase = self.phase.subscribe();
        let mut failing = false;
        loop {
            applied.mark_unchanged();
            phase.mark_unchanged();
            match self.send().await {
                Ok(()) if failing => {
                    tracing::info!("heartbeats go out again");
                    failing = false;
                }
                Err(error) if !failing => {
                    tracing::warn!(%error, "heartbeats do not go out; trying on");
                    failing = true;
                }
                Ok(()) | Err(_) => {}
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(INTERVAL) => {}
                // While Kafka is away a moving revision must not turn into a busy loop.
                _ = applied.changed(), if !failing => {}
                _ = phase.changed(), if !failing => {}
            }
        }
    }

    /// The last heartbeat: nobody needs to wait for this gateway any more.
    pub async fn leave(&self) -> Result<(), sluice_wire::Error> {
        self.set_phase(MemberPhase::Left);
        self.send().await
    }

    async fn send(&self) -> Result<(), sluice_wire::Error> {
        self.sequence.fetch_add(1, Ordering::Relaxed);
        let record = OutRecord {
            key: Some(Bytes::copy_from_slice(self.gateway_id.as_bytes())),
            value: Some(self.message().encode_to_vec().into()),
            headers: Vec::new(),
            timestamp_ms: now_ms(),
        };
        self.client.produce_batch(MEMBERS_TOPIC, 0, &[record], SEND_WITHIN).await.map(drop)
    }
}

fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
