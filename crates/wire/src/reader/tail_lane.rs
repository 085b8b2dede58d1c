//! The polls that wait for new records: two connections per broker and isolation.
//!
//! The **long poll** runs in a fetch session and covers every cursor. A broker serves one request per connection at a
//! time, so a new waiter cannot be added to a poll under way. Until the long poll returns (at most [`LONG_WAIT`], or
//! with the next record of anybody), the **short poll** on a second connection, [`SHORT_WAIT`] at a time, covers the
//! new ones. Whichever poll brings the records first serves the waiters.
//!
//! Each long poll walks all cursors of the broker: fine to ~10 k, then keep a list of those that changed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::cursors::{Cursors, Key, Marks, Outcome};
use super::session::{Session, single_request};
use crate::client::Client;
use crate::codec::{FetchRequestData, FetchResponseData, from_uuid};
use crate::deadline::Deadline;
use crate::error::{KafkaError, Result, code};
use crate::fetch::{Fetched, OwnLane, partition_result};
use crate::pool::Lane;
use crate::types::Isolation;

const LONG_WAIT: Duration = Duration::from_millis(500);
const SHORT_WAIT: Duration = Duration::from_millis(20);
/// Without cursors for so long, the task ends. The next waiter starts it again.
const IDLE: Duration = Duration::from_secs(30);
/// A slice this much smaller than its frame is copied, or a slow reader of few bytes would hold the whole frame.
const COPY_BELOW: usize = 4;

/// The tail of one broker. Waiters join; a task polls while there are any.
pub(super) struct TailLane {
    client: Client,
    broker: i32,
    isolation: Isolation,
    state: Mutex<State>,
    long_wake: Notify,
    short_wake: Notify,
}

#[derive(Default)]
struct State {
    cursors: Cursors,
    running: bool,
    /// A long poll is under way: new waiters need the short one.
    polling: bool,
}

impl TailLane {
    pub(super) fn new(client: Client, broker: i32, isolation: Isolation) -> Self {
        let state = Mutex::default();
        Self { client, broker, isolation, state, long_wake: Notify::new(), short_wake: Notify::new() }
    }

    /// True if a poll under way waits at this offset: joining is enough, no need to ask first.
    pub(super) fn polls_at(&self, key: Key, offset: i64) -> bool {
        self.state.lock().cursors.polls_at(key, offset)
    }

    pub(super) fn marks(&self, key: Key) -> Option<Marks> {
        self.state.lock().cursors.marks(key)
    }

    /// Waits for what comes at `offset`. Dropping the receiver ends the wait.
    pub(super) fn join(
        self: &Arc<Self>,
        key: Key,
        offset: i64,
        max_bytes: u32,
        epoch: i32,
        marks: Option<Marks>,
    ) -> oneshot::Receiver<Result<Outcome>> {
        let mut state = self.state.lock();
        let (turn, uncovered) = state.cursors.join(key, offset, max_bytes, epoch, marks);
        if !std::mem::replace(&mut state.running, true) {
            tokio::spawn(Arc::clone(self).run());
        }
        match (uncovered, state.polling) {
            (true, true) => self.short_wake.notify_one(),
            (true, false) => self.long_wake.notify_one(),
            (false, _) => {}
        }
        turn
    }

    async fn run(self: Arc<Self>) {
        let (long, short) = (self.client.own_lane(), self.client.own_lane());
        tokio::select! {
            () = self.long_polls(&long) => {}
            () = self.short_polls(&short) => {}
        }
    }

    /// Ends when nobody waits for a while.
    async fn long_polls(&self, lane: &OwnLane) {
        let mut session = Session::default();
        loop {
            let wanted = {
                let mut state = self.state.lock();
                let wanted = state.cursors.take_all(Instant::now());
                state.polling = !wanted.is_empty();
                wanted
            };
            if wanted.is_empty() {
                if tokio::time::timeout(IDLE, self.long_wake.notified()).await.is_err() && self.stop_if_unused() {
                    return;
                }
                continue;
            }
            let request = session.request(&wanted, self.isolation, LONG_WAIT);
            let answer = self.poll(lane, &request, LONG_WAIT).await;
            let mut state = self.state.lock();
            state.cursors.uncover();
            match answer {
                Ok(response) if is_session_lost(response.error_code) => session.reset(),
                Ok(response) => {
                    session.advance(response.session_id);
                    hand_out(&mut state.cursors, response, |key| session.offset(key));
                }
                Err(error) => {
                    session.reset();
                    state.cursors.fail_all(&error);
                }
            }
        }
    }

    /// Never ends by itself.
    async fn short_polls(&self, lane: &OwnLane) {
        loop {
            let wanted = self.state.lock().cursors.uncovered();
            if wanted.is_empty() {
                self.short_wake.notified().await;
                continue;
            }
            let asked: HashMap<Key, i64> = wanted.iter().map(|(key, position)| (*key, position.offset)).collect();
            let request = single_request(&wanted, self.isolation, SHORT_WAIT);
            let answer = self.poll(lane, &request, SHORT_WAIT).await;
            let mut state = self.state.lock();
            match answer {
                Ok(response) => hand_out(&mut state.cursors, response, |key| asked.get(&key).copied()),
                Err(error) => {
                    for (key, offset) in asked {
                        state.cursors.answer(key, offset, Err(error.clone()));
                    }
                }
            }
        }
    }

    async fn poll(&self, lane: &OwnLane, request: &FetchRequestData, wait: Duration) -> Result<FetchResponseData> {
        let config = &self.client.inner.config;
        let deadline = Deadline::after(config.connect_timeout + wait + config.request_timeout);
        let connection = self.client.connection(self.broker, Lane::OwnFetch(lane.number), deadline).await?;
        let response = connection.call(request, wait, deadline).await?;
        if !is_session_lost(response.error_code) {
            KafkaError::check(response.error_code, None)?;
        }
        Ok(response)
    }

    fn stop_if_unused(&self) -> bool {
        let mut state = self.state.lock();
        state.running = !state.cursors.is_empty();
        !state.running
    }
}

fn is_session_lost(error: i16) -> bool {
    matches!(
        error,
        code::FETCH_SESSION_ID_NOT_FOUND | code::INVALID_FETCH_SESSION_EPOCH | code::FETCH_SESSION_TOPIC_ID_ERROR
    )
}

fn hand_out(cursors: &mut Cursors, response: FetchResponseData, asked: impl Fn(Key) -> Option<i64>) {
    let partitions = response.responses.iter().flat_map(|topic| &topic.partitions);
    let frame_bytes: usize = partitions.filter_map(|data| data.records.as_ref()).map(Bytes::len).sum();
    for topic in response.responses {
        let topic_id = from_uuid(topic.topic_id);
        for data in topic.partitions {
            let key = Key { topic_id, partition: data.partition_index };
            let Some(offset) = asked(key) else { continue };
            let answer = partition_result(data, topic_id).map(|fetched| detached(fetched, frame_bytes));
            cursors.answer(key, offset, answer);
        }
    }
}

fn detached(mut fetched: Fetched, frame_bytes: usize) -> Fetched {
    if fetched.batches.len().saturating_mul(COPY_BELOW) < frame_bytes {
        fetched.batches = Bytes::copy_from_slice(&fetched.batches);
    }
    fetched
}
