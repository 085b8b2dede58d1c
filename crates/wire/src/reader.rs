//! Reading for many: thousands of callers wait for records without waiting for each other.
//!
//! A read first asks at once (catch-up), on one of a few connections shared fairly. If the log ends there, the caller
//! becomes a waiter at the tail: per broker one long poll serves everybody who waits at the end of some partition.
//! Callers at the same place share one fetch and its bytes. See `tail_lane.rs` for how a new waiter is let in while
//! the long poll is under way.

mod catch_up;
mod cursors;
mod polls;
pub(crate) mod records;
mod session;
mod tail_lane;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::Instant;

use self::catch_up::CatchUp;
use self::cursors::{Key, Marks, Outcome};
use self::tail_lane::TailLane;
use crate::client::Client;
use crate::deadline::Deadline;
use crate::error::Result;
use crate::fetch::{FetchPlace, FetchRequest, Fetched, RETRY_FOR};
use crate::retry::Retry;
use crate::types::{Isolation, KafkaTopicId};

/// Reads raw batches for many callers. Clones share everything.
#[derive(Clone)]
pub struct Reader {
    inner: Arc<Inner>,
}

struct Inner {
    client: Client,
    catch_up: CatchUp,
    tails: Mutex<HashMap<(i32, Isolation), Arc<TailLane>>>,
}

impl Reader {
    /// A reader on this client's cluster. Does no I/O yet.
    pub fn new(client: Client) -> Self {
        let catch_up = CatchUp::new(client.clone());
        Self { inner: Arc::new(Inner { client, catch_up, tails: Mutex::default() }) }
    }

    /// Reads batches at an offset; waits up to `max_wait` for the first record (`min_bytes` counts as 1). An empty
    /// answer after that is no error. `max_bytes` bounds the answer, except for a first batch that is larger alone.
    ///
    /// `share` names who asks (a tenant, as a number): busy connections are shared fairly between shares.
    /// Leaders that move and brokers that restart are followed within `timeout`; the other errors are those of
    /// [`Client::fetch`].
    pub async fn fetch(&self, request: FetchRequest, share: u64, timeout: Duration) -> Result<Fetched> {
        let deadline = Deadline::after(timeout);
        let wait_until = Instant::now() + request.max_wait;
        let mut retry = Retry::new(request.max_wait.max(RETRY_FOR), deadline);
        let mut expected = request.topic_id;
        loop {
            let attempt = async {
                // What does not wait for records is boxed: who does, perhaps one of thousands, stays small.
                let locate = self.inner.client.locate(&request, &mut expected, retry.refresh, deadline);
                let place = Box::pin(locate).await?;
                self.read_at(place, &request, share, wait_until, deadline).await
            };
            match attempt.await {
                Ok(fetched) => return Ok(fetched),
                Err(error) => {
                    Box::pin(self.inner.client.after_failure(error, &request, &mut retry, deadline)).await?;
                }
            }
        }
    }

    async fn read_at(
        &self,
        place: FetchPlace,
        request: &FetchRequest,
        share: u64,
        wait_until: Instant,
        deadline: Deadline,
    ) -> Result<Fetched> {
        let key = Key { topic_id: place.topic_id, partition: request.partition };
        let tail = self.tail(place.leader, request.isolation);
        let mut marks = None;
        loop {
            // A log cannot have been cut off below a record that was written under its leader of now.
            let is_checked = request.last_epoch.is_none_or(|epoch| epoch == place.epoch);
            if Instant::now() >= wait_until || !is_checked || !tail.polls_at(key, request.offset) {
                let fetched = Box::pin(self.inner.catch_up.fetch(place, request, share, deadline)).await?;
                if !fetched.batches.is_empty() || Instant::now() >= wait_until {
                    return Ok(fetched);
                }
                marks = Some(Marks::of(&fetched));
            }
            let turn = tail.join(key, request.offset, request.max_bytes, place.epoch, marks);
            let answer = deadline.bound(async { Ok(tokio::time::timeout_at(wait_until, turn).await) }).await?;
            match answer {
                Ok(Ok(Ok(Outcome::Data(fetched)))) => return Ok(fetched),
                Ok(Ok(Ok(Outcome::Behind))) => {}
                Ok(Ok(Err(error))) => return Err(error),
                Ok(Err(_lane_ended)) => {}
                Err(_waited_in_vain) => {
                    if let Some(marks) = tail.marks(key).or(marks) {
                        return Ok(marks.empty(place.topic_id));
                    }
                }
            }
        }
    }

    fn tail(&self, broker: i32, isolation: Isolation) -> Arc<TailLane> {
        let mut tails = self.inner.tails.lock();
        let lane = || Arc::new(TailLane::new(self.inner.client.clone(), broker, isolation));
        Arc::clone(tails.entry((broker, isolation)).or_insert_with(lane))
    }
}

impl Marks {
    fn of(fetched: &Fetched) -> Self {
        Self {
            high_watermark: fetched.high_watermark,
            last_stable_offset: fetched.last_stable_offset,
            log_start_offset: fetched.log_start_offset,
        }
    }

    fn empty(self, topic_id: KafkaTopicId) -> Fetched {
        Fetched {
            topic_id,
            batches: Bytes::new(),
            high_watermark: self.high_watermark,
            last_stable_offset: self.last_stable_offset,
            log_start_offset: self.log_start_offset,
            aborted: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ClientConfig;

    #[test]
    fn a_wait_takes_little_memory() {
        let reader = Reader::new(Client::new(ClientConfig::new(["localhost:1"])).unwrap());
        let request = FetchRequest {
            topic: "t".to_owned(),
            topic_id: None,
            partition: 0,
            offset: 0,
            last_epoch: None,
            max_bytes: 1,
            min_bytes: 1,
            max_wait: Duration::from_secs(60),
            isolation: Isolation::ReadCommitted,
        };
        let wait = reader.fetch(request, 0, Duration::from_secs(60));
        let bytes = size_of_val(&wait);
        assert!(bytes <= 2_048, "{bytes} bytes");
    }
}
