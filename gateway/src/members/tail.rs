//! Follows `sluice.members` into a [`Membership`].

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use prost::Message;
use tokio_util::sync::CancellationToken;

use sluice_proto::internal::control::v1::MemberHeartbeat;
use sluice_types::physical::MEMBERS_TOPIC;
use sluice_wire::{Client, LogTail, OffsetAt, TailOptions};

use crate::members::live::Membership;

const POLL_WAIT: Duration = Duration::from_secs(1);
const RESTART_PAUSE: Duration = Duration::from_millis(500);

/// Reads until the shutdown. The log is compacted, so its beginning is near.
pub async fn run(client: Client, members: Arc<Mutex<Membership>>, shutdown: CancellationToken) {
    let options = TailOptions { poll_wait: POLL_WAIT, ..TailOptions::default() };
    let beginning = || LogTail::new(client.clone(), MEMBERS_TOPIC, 0, OffsetAt::Earliest, options.clone());
    let mut tail = beginning();
    while let Some(batch) = shutdown.run_until_cancelled(tail.next(POLL_WAIT)).await {
        match batch {
            Ok(batch) => {
                let mut members = members.lock();
                for record in batch.records {
                    let heartbeat = record.value.and_then(|value| MemberHeartbeat::decode(value).ok());
                    if let Some(heartbeat) = heartbeat {
                        members.beat(heartbeat, record.timestamp_ms);
                    }
                }
            }
            Err(error) => {
                tracing::warn!(%error, "the members' log cannot be read on; reading it from its beginning");
                *members.lock() = Membership::default();
                tokio::time::sleep(RESTART_PAUSE).await;
                tail = beginning();
            }
        }
    }
}
