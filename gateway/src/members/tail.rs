//! Follows `sluice.members` and tells who owns what from it.
//!
//! While the log is read from its beginning (at the start, or after a failure) the picture of before stands: half a log would
//! move groups that need not move.

use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use tokio_util::sync::CancellationToken;

use sluice_proto::internal::control::v1::MemberHeartbeat;
use sluice_types::physical::MEMBERS_TOPIC;
use sluice_wire::{Client, LogTail, OffsetAt, TailOptions};

use crate::groups::owner::MemberOwners;
use crate::members::live::Membership;

const POLL_WAIT: Duration = Duration::from_secs(1);
const RESTART_PAUSE: Duration = Duration::from_millis(500);

/// Reads until the shutdown. The log is compacted, so its beginning is near.
pub async fn run(client: Client, owners: Arc<MemberOwners>, shutdown: CancellationToken) {
    let options = TailOptions { poll_wait: POLL_WAIT, ..TailOptions::default() };
    let beginning = || LogTail::new(client.clone(), MEMBERS_TOPIC, 0, OffsetAt::Earliest, options.clone());
    let mut tail = beginning();
    let mut from_beginning = Some(Membership::default());
    while let Some(batch) = shutdown.run_until_cancelled(tail.next(POLL_WAIT)).await {
        match batch {
            Ok(batch) => {
                let caught_up = batch.is_caught_up();
                let heartbeats = batch.records.into_iter().filter_map(|record| {
                    let heartbeat = MemberHeartbeat::decode(record.value?).ok()?;
                    Some((heartbeat, record.timestamp_ms))
                });
                match &mut from_beginning {
                    Some(members) => heartbeats.for_each(|(heartbeat, time_ms)| members.beat(heartbeat, time_ms)),
                    None => owners.heard(heartbeats),
                }
                if caught_up && let Some(members) = from_beginning.take() {
                    owners.replace(members);
                }
            }
            Err(error) => {
                tracing::warn!(%error, "the members' log cannot be read on; reading it from its beginning");
                tokio::time::sleep(RESTART_PAUSE).await;
                tail = beginning();
                from_beginning = Some(Membership::default());
            }
        }
    }
}
