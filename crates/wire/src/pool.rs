//! The connections of one client: at most one per broker and lane, opened when first used.
//!
//! Connecting is done once for all who wait for it: if it fails, they all fail together instead of trying in turn.
//! After a failure the next try waits for a short, growing pause, so a dead broker costs little.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::config::ClientConfig;
use crate::conn::Connection;
use crate::deadline::Deadline;
use crate::error::{Error, Result};
use crate::transport::Address;

const BACKOFF_MIN: Duration = Duration::from_millis(20);
/// Short on purpose: readers must be back within a second after Kafka is.
const BACKOFF_MAX: Duration = Duration::from_millis(250);
/// How long a broker that failed is asked after the others.
const SUSPECT_FOR: Duration = Duration::from_secs(10);

/// What a connection is for. Requests that wait share none with requests that must not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Lane {
    /// Metadata and offsets: quick answers.
    Control,
    /// Admin calls, which may take seconds.
    Admin,
    /// Heartbeats of groups, spread by group.
    Heartbeat(u32),
    /// Offset commits and fetches of groups, which wait for replication; spread by group.
    Committed(u32),
    /// Single-shot produces.
    Produce,
    /// Fetches of everybody; one long poll at a time each.
    Fetch(u32),
    /// Fetches of one reader.
    OwnFetch(u32),
}

/// A broker by id, or a bootstrap address by position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Node {
    Broker(i32),
    Bootstrap(usize),
}

#[derive(Default)]
pub(crate) struct Pool {
    slots: Mutex<HashMap<(Node, Lane), Arc<Slot>>>,
    /// Brokers that failed, or kept silent, and when. As many as the cluster has had brokers.
    suspects: Mutex<HashMap<Address, Instant>>,
}

#[derive(Default)]
struct Slot {
    state: tokio::sync::Mutex<SlotState>,
}

#[derive(Default)]
struct SlotState {
    connection: Option<Connection>,
    failure: Option<Failure>,
}

struct Failure {
    at: Instant,
    count: u32,
    error: Error,
}

impl Pool {
    /// The connection of this lane, opened if need be.
    pub(crate) async fn get(
        &self,
        node: Node,
        lane: Lane,
        address: &Address,
        config: &ClientConfig,
        deadline: Deadline,
    ) -> Result<Connection> {
        let slot = Arc::clone(self.slots.lock().entry((node, lane)).or_default());
        let asked = Instant::now();
        let found = deadline.bound(async { slot.state.lock().await.get(asked, address, config, deadline).await }).await;
        if matches!(found, Err(Error::Connect { .. })) {
            self.suspect(address);
        }
        found
    }

    /// This broker failed, or does not answer: others shall be asked before it, for a while.
    pub(crate) fn suspect(&self, address: &Address) {
        self.suspects.lock().insert(address.clone(), Instant::now());
    }

    /// This broker answers.
    pub(crate) fn absolve(&self, address: &Address) {
        self.suspects.lock().remove(address);
    }

    pub(crate) fn is_suspect(&self, address: &Address) -> bool {
        self.suspects.lock().get(address).is_some_and(|since| since.elapsed() < SUSPECT_FOR)
    }

    /// Forgets a lane's connections to all brokers.
    pub(crate) fn forget_lane(&self, lane: Lane) {
        self.slots.lock().retain(|(_, other), _| *other != lane);
    }

    /// Forgets connections to brokers for which `keep` is false; running requests end first.
    pub(crate) fn retain(&self, keep: impl Fn(Node) -> bool) {
        self.slots.lock().retain(|(node, _), _| keep(*node));
    }
}

impl SlotState {
    async fn get(
        &mut self,
        asked: Instant,
        address: &Address,
        config: &ClientConfig,
        deadline: Deadline,
    ) -> Result<Connection> {
        if let Some(connection) = &self.connection
            && connection.is_usable()
            && connection.address() == address
        {
            return Ok(connection.clone());
        }
        self.connection = None;
        if let Some(failure) = &self.failure {
            if failure.at > asked {
                return Err(failure.error.clone());
            }
            tokio::time::sleep_until(failure.at + backoff(failure.count)).await;
        }
        // Boxed: a handshake is large, and every call, of which thousands may be under way, could come to make one.
        match Box::pin(Connection::open(address, config, deadline)).await {
            Ok(connection) => {
                self.failure = None;
                self.connection = Some(connection.clone());
                Ok(connection)
            }
            Err(error) => {
                let count = self.failure.as_ref().map_or(0, |failure| failure.count) + 1;
                self.failure = Some(Failure { at: Instant::now(), count, error: error.clone() });
                Err(error)
            }
        }
    }
}

fn backoff(failures: u32) -> Duration {
    (BACKOFF_MIN * 2_u32.pow(failures.min(5).saturating_sub(1))).min(BACKOFF_MAX)
}
