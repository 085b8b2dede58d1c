//! The polls that wait for new records: two connections per broker and isolation.
//!
//! The **long poll** runs in a fetch session and covers every cursor. A broker serves one request per connection at a
//! time, so a new waiter cannot be added to a poll under way. Until the long poll returns (at most [`LONG_WAIT`], or
//! with the next record of anybody), the **short poll** on a second connection, [`SHORT_WAIT`] at a time, covers the
//! new ones. Whichever poll brings the records first serves the waiters.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use super::cursors::{Key, Marks, Outcome, Seat};
use super::polls::{Needs, Polls};
use super::session::single_request;
use crate::client::Client;
use crate::codec::{FetchRequestData, FetchResponseData, from_uuid};
use crate::deadline::Deadline;
use crate::error::{Error, KafkaError, Result, code};
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
    polls: Polls,
    running: bool,
}

/// A waiter's turn. Dropping it ends the wait.
pub(super) struct Turn {
    lane: Arc<TailLane>,
    seat: Seat,
    answer: oneshot::Receiver<Result<Outcome>>,
    served: bool,
}

impl Future for Turn {
    /// `Err` if the lane ended before.
    type Output = std::result::Result<Result<Outcome>, oneshot::error::RecvError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = Pin::new(&mut self.answer).poll(context);
        self.served = answer.is_ready();
        answer
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if !self.served {
            self.lane.state.lock().polls.leave(self.seat);
        }
    }
}

impl TailLane {
    pub(super) fn new(client: Client, broker: i32, isolation: Isolation) -> Self {
        let state = Mutex::default();
        Self { client, broker, isolation, state, long_wake: Notify::new(), short_wake: Notify::new() }
    }

    /// True if a poll under way waits at this offset: joining is enough, no need to ask first.
    pub(super) fn polls_at(&self, key: Key, offset: i64) -> bool {
        self.state.lock().polls.polls_at(key, offset)
    }

    pub(super) fn marks(&self, key: Key) -> Option<Marks> {
        self.state.lock().polls.marks(key)
    }

    /// Waits for what comes at `offset`.
    pub(super) fn join(
        self: &Arc<Self>,
        key: Key,
        offset: i64,
        max_bytes: u32,
        epoch: i32,
        marks: Option<Marks>,
    ) -> Turn {
        let mut state = self.state.lock();
        let (seat, answer, needs) = state.polls.join(key, offset, max_bytes, epoch, marks);
        if !std::mem::replace(&mut state.running, true) {
            tokio::spawn(Arc::clone(self).run());
        }
        match needs {
            Needs::Short => self.short_wake.notify_one(),
            Needs::Long => self.long_wake.notify_one(),
            Needs::Nothing => {}
        }
        Turn { lane: Arc::clone(self), seat, answer, served: false }
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
        loop {
            let request = self.state.lock().polls.begin(self.isolation, LONG_WAIT);
            let Some(request) = request else {
                if tokio::time::timeout(IDLE, self.long_wake.notified()).await.is_err() && self.stop_if_unused() {
                    return;
                }
                continue;
            };
            let answer = self.poll(lane, &request, LONG_WAIT).await;
            if let Err(Error::Throttled { pause }) = answer {
                // Nothing is wrong with anybody's place: they go on waiting.
                self.state.lock().polls.forgotten();
                tokio::time::sleep(pause).await;
                continue;
            }
            let polls = &mut self.state.lock().polls;
            match answer {
                Ok(response) if is_session_lost(response.error_code) => polls.forgotten(),
                Ok(response) => {
                    polls.ended(response.session_id);
                    hand_out(polls, response, Polls::asked);
                }
                Err(error) => polls.failed(&error),
            }
        }
    }

    /// Never ends by itself.
    async fn short_polls(&self, lane: &OwnLane) {
        loop {
            let wanted = self.state.lock().polls.uncovered();
            if wanted.is_empty() {
                self.short_wake.notified().await;
                continue;
            }
            let asked: HashMap<Key, i64> = wanted.iter().map(|(key, position)| (*key, position.offset)).collect();
            let request = single_request(&wanted, self.isolation, SHORT_WAIT);
            let answer = self.poll(lane, &request, SHORT_WAIT).await;
            if let Err(Error::Throttled { pause }) = answer {
                tokio::time::sleep(pause).await;
                continue;
            }
            let polls = &mut self.state.lock().polls;
            match answer {
                Ok(response) => hand_out(polls, response, |_, key| asked.get(&key).copied()),
                Err(error) => {
                    for (key, offset) in asked {
                        polls.answer(key, offset, Err(error.clone()));
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
        state.running = !state.polls.is_empty();
        !state.running
    }
}

fn is_session_lost(error: i16) -> bool {
    matches!(
        error,
        code::FETCH_SESSION_ID_NOT_FOUND | code::INVALID_FETCH_SESSION_EPOCH | code::FETCH_SESSION_TOPIC_ID_ERROR
    )
}

fn hand_out(polls: &mut Polls, response: FetchResponseData, asked: impl Fn(&Polls, Key) -> Option<i64>) {
    let partitions = response.responses.iter().flat_map(|topic| &topic.partitions);
    let frame_bytes: usize = partitions.filter_map(|data| data.records.as_ref()).map(Bytes::len).sum();
    for topic in response.responses {
        let topic_id = from_uuid(topic.topic_id);
        for data in topic.partitions {
            let key = Key { topic_id, partition: data.partition_index };
            let Some(offset) = asked(polls, key) else { continue };
            let answer = partition_result(data, topic_id).map(|fetched| detached(fetched, frame_bytes));
            polls.answer(key, offset, answer);
        }
    }
}

fn detached(mut fetched: Fetched, frame_bytes: usize) -> Fetched {
    if fetched.batches.len().saturating_mul(COPY_BELOW) < frame_bytes {
        fetched.batches = Bytes::copy_from_slice(&fetched.batches);
    }
    fetched
}
