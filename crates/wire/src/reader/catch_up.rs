//! Reads that do not wait: one request for all callers at the same place.
//!
//! Who joins a request under way gets records that it brings, but does not take its word for it that there are none: they
//! may have been written, and acknowledged, after it was answered and before the caller came.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::client::Client;
use crate::deadline::Deadline;
use crate::error::{Error, Result};
use crate::fetch::{FetchLane, FetchPlace, FetchRequest, Fetched};
use crate::types::Isolation;

/// What makes two reads the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Spot {
    place: FetchPlace,
    partition: i32,
    offset: i64,
    last_epoch: Option<i32>,
    max_bytes: u32,
    isolation: Isolation,
}

/// A request under way.
#[derive(Clone)]
struct Flight {
    begun: Instant,
    answer: Shared<BoxFuture<'static, Result<Fetched>>>,
}

pub(super) struct CatchUp {
    client: Client,
    flights: Arc<Mutex<HashMap<Spot, Flight>>>,
}

impl CatchUp {
    pub(super) fn new(client: Client) -> Self {
        Self { client, flights: Arc::default() }
    }

    /// What is there now, possibly nothing.
    pub(super) async fn fetch(
        &self,
        place: FetchPlace,
        request: &FetchRequest,
        share: u64,
        deadline: Deadline,
    ) -> Result<Fetched> {
        let spot = Spot {
            place,
            partition: request.partition,
            offset: request.offset,
            last_epoch: request.last_epoch,
            max_bytes: request.max_bytes,
            isolation: request.isolation,
        };
        let asked = Instant::now();
        loop {
            let flight = match self.flights.lock().entry(spot) {
                Entry::Occupied(flight) => flight.get().clone(),
                Entry::Vacant(free) => free.insert(self.begin(spot, request, share)).clone(),
            };
            let fetched = deadline.bound(flight.answer).await?;
            if !fetched.batches.is_empty() || flight.begun >= asked {
                return Ok(fetched);
            }
        }
    }

    /// Others may come to rely on it, so it outlives the caller who began it and has a deadline of its own.
    fn begin(&self, spot: Spot, request: &FetchRequest, share: u64) -> Flight {
        let begun = Instant::now();
        let (client, flights) = (self.client.clone(), Arc::clone(&self.flights));
        let request = FetchRequest { max_wait: Duration::ZERO, min_bytes: 1, ..request.clone() };
        let deadline = Deadline::after(client.inner.config.connect_timeout + client.inner.config.request_timeout);
        let work = tokio::spawn(async move {
            let result = client.fetch_at(spot.place, &request, FetchLane::Shared(share), deadline).await;
            flights.lock().remove(&spot);
            result
        });
        let answer =
            async move { work.await.unwrap_or_else(|_| Err(Error::Protocol("fetch task ended early".to_owned()))) };
        Flight { begun, answer: answer.boxed().shared() }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tokio::sync::oneshot;

    use super::*;
    use crate::config::ClientConfig;
    use crate::types::KafkaTopicId;

    fn request() -> FetchRequest {
        FetchRequest {
            topic: "t".to_owned(),
            topic_id: None,
            partition: 0,
            offset: 7,
            last_epoch: None,
            max_bytes: 1,
            min_bytes: 1,
            max_wait: Duration::ZERO,
            isolation: Isolation::ReadCommitted,
        }
    }

    fn answer(batches: &'static [u8]) -> Fetched {
        let batches = Bytes::from_static(batches);
        let (high_watermark, last_stable_offset, log_start_offset) = (7, 7, 0);
        let (topic_id, aborted) = (KafkaTopicId::ZERO, Vec::new());
        Fetched { topic_id, batches, high_watermark, last_stable_offset, log_start_offset, aborted }
    }

    /// Comes to a request that is under way and is answered so. Nobody listens, so one of its own fails.
    async fn join(batches: &'static [u8]) -> Result<Fetched> {
        let catch_up = CatchUp::new(Client::new(ClientConfig::new(["localhost:1"])).unwrap());
        let place = FetchPlace { leader: 1, epoch: 0, topic_id: KafkaTopicId::ZERO };
        let isolation = Isolation::ReadCommitted;
        let spot = Spot { place, partition: 0, offset: 7, last_epoch: None, max_bytes: 1, isolation };
        let (tell, told) = oneshot::channel();
        let under_way = async move { told.await.unwrap() }.boxed().shared();
        catch_up.flights.lock().insert(spot, Flight { begun: Instant::now(), answer: under_way });
        let request = request();
        let mut joined = Box::pin(catch_up.fetch(place, &request, 0, Deadline::after(Duration::from_secs(5))));
        assert!((&mut joined).now_or_never().is_none());
        catch_up.flights.lock().remove(&spot);
        tell.send(Ok(answer(batches))).unwrap();
        joined.await
    }

    #[tokio::test]
    async fn a_request_under_way_that_found_nothing_does_not_answer_who_came_later() {
        assert!(join(b"").await.is_err(), "asked anew");
        assert_eq!(join(b"records").await.unwrap().batches, "records");
    }
}
