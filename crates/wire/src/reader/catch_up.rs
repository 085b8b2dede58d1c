//! Reads that do not wait: one request for all callers at the same place.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};
use parking_lot::Mutex;

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

type Flight = Shared<BoxFuture<'static, Result<Fetched>>>;

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
        let flight = match self.flights.lock().entry(spot) {
            Entry::Occupied(flight) => flight.get().clone(),
            Entry::Vacant(free) => free.insert(self.begin(spot, request, share)).clone(),
        };
        deadline.bound(flight).await
    }

    /// Others may come to rely on it, so it outlives the caller who began it and has a deadline of its own.
    fn begin(&self, spot: Spot, request: &FetchRequest, share: u64) -> Flight {
        let (client, flights) = (self.client.clone(), Arc::clone(&self.flights));
        let request = FetchRequest { max_wait: Duration::ZERO, min_bytes: 1, ..request.clone() };
        let deadline = Deadline::after(client.inner.config.connect_timeout + client.inner.config.request_timeout);
        let work = tokio::spawn(async move {
            let result = client.fetch_at(spot.place, &request, FetchLane::Shared(share), deadline).await;
            flights.lock().remove(&spot);
            result
        });
        async move { work.await.unwrap_or_else(|_| Err(Error::Protocol("fetch task ended early".to_owned()))) }
            .boxed()
            .shared()
    }
}
