//! One connection to one broker: pipelined requests, answers in order, one deadline per request.
//!
//! Promises: an answer goes only to the request it belongs to; when the connection ends, for whatever reason, every
//! outstanding request fails at once; a broker that stays silent for longer than it may is given up. A caller that
//! goes away leaves its answer to be thrown away, never a stuck connection.
//!
//! A broker that throttles us says for how long, and does not read from the connection meanwhile. That is a state of the
//! connection and no silence: requests wait for its end, or fail at once with [`Error::Throttled`] if they cannot.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::codec::{self, Request};
use crate::config::ClientConfig;
use crate::deadline::Deadline;
use crate::error::{Error, Result};
use crate::handshake::{self, Greeting, Versions};
use crate::transport::{self, Address};

/// Largest answer we take. Fetches ask for less; a broker may exceed that by one batch.
pub(crate) const FRAME_BYTES_MAX: usize = 100 * 1024 * 1024;
/// Memory taken for an answer before its bytes arrive.
const FRAME_BYTES_AHEAD: usize = 1024 * 1024;
/// Requests on the way per connection; more callers wait for a place.
const IN_FLIGHT_MAX: usize = 512;
/// How often silence is checked.
const WATCH_INTERVAL: Duration = Duration::from_millis(250);
/// Longest pause a broker may impose on us.
const THROTTLE_MAX: Duration = Duration::from_secs(60);
/// A broker that has not let us in within this may not be alive; a call in more of a hurry cannot tell.
const SILENT: Duration = Duration::from_millis(300);

/// Handle to a connection; clones share it. It closes when the last handle is dropped.
#[derive(Clone)]
pub(crate) struct Connection {
    shared: Arc<Shared>,
    queue: mpsc::Sender<Outgoing>,
}

struct Shared {
    address: Address,
    client_id: String,
    versions: Versions,
    request_timeout: Duration,
    /// When the broker will stop honouring our authentication.
    expires: Option<Instant>,
    next_id: AtomicI32,
    slots: Arc<Semaphore>,
    state: Mutex<State>,
    closed: CancellationToken,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Waiting>,
    failure: Option<Error>,
    quiet_until: Option<Instant>,
    /// Since when the broker has been at the oldest request.
    front_since: Option<Instant>,
}

struct Waiting {
    id: i32,
    /// How long the broker may take for it once it is its turn.
    patience: Duration,
    /// Reads from the answer for how long the broker throttles us, should its caller be gone.
    throttle: fn(Bytes, i16) -> i32,
    version: i16,
    reply: oneshot::Sender<Result<Bytes>>,
    _slot: OwnedSemaphorePermit,
}

struct Outgoing {
    frame: Bytes,
    waiting: Waiting,
}

impl Connection {
    /// Connects and authenticates within the configured timeout and half of what is left until the deadline: the other half is for
    /// another broker, if this one is silent because it does not lead any more.
    pub(crate) async fn open(address: &Address, config: &ClientConfig, deadline: Deadline) -> Result<Self> {
        let connect = async {
            let mut stream = transport::open(address, &config.security).await?;
            let sasl = config.security.sasl.as_ref();
            let greeting = handshake::greet(stream.as_mut(), address, &config.client_id, sasl).await?;
            Ok((stream, greeting))
        };
        let half = Some(deadline.remaining() / 2).filter(|half| *half >= SILENT);
        let time = config.connect_timeout.min(half.unwrap_or(deadline.remaining()));
        let (stream, greeting) = deadline.at_most(time).bound(connect).await.map_err(|error| match error {
            Error::DeadlineExceeded => {
                Error::Connect { address: address.to_string(), source: Arc::new(std::io::ErrorKind::TimedOut.into()) }
            }
            other => other,
        })?;
        Ok(Self::start(stream, address, config, greeting))
    }

    fn start(stream: Box<dyn transport::Stream>, address: &Address, config: &ClientConfig, greeting: Greeting) -> Self {
        let shared = Arc::new(Shared {
            address: address.clone(),
            client_id: config.client_id.clone(),
            versions: greeting.versions,
            request_timeout: config.request_timeout,
            // Leave in good time: requests that run when the session ends would be cut off.
            expires: greeting.session_lifetime.map(|lifetime| Instant::now() + lifetime.mul_f32(0.8)),
            next_id: AtomicI32::new(0),
            slots: Arc::new(Semaphore::new(IN_FLIGHT_MAX)),
            state: Mutex::default(),
            closed: CancellationToken::new(),
        });
        let (queue, outgoing) = mpsc::channel(IN_FLIGHT_MAX);
        let (reader, writer) = tokio::io::split(stream);
        tokio::spawn(run(Arc::clone(&shared), reader, writer, outgoing));
        Self { shared, queue }
    }

    /// False once it failed, or when its authentication is about to end.
    pub(crate) fn is_usable(&self) -> bool {
        !self.shared.closed.is_cancelled() && self.shared.expires.is_none_or(|at| Instant::now() < at)
    }

    pub(crate) fn address(&self) -> &Address {
        &self.shared.address
    }

    pub(crate) fn versions(&self) -> &Versions {
        &self.shared.versions
    }

    /// Sends a request and waits for its answer. `broker_wait` is how long the request itself lets the broker wait.
    /// [`Error::Throttled`] says that it was not sent: the broker would not read it before the deadline.
    pub(crate) async fn call<R: Request>(
        &self,
        request: &R,
        broker_wait: Duration,
        deadline: Deadline,
    ) -> Result<R::Response> {
        let version = self.shared.versions.pick::<R>()?;
        let payload = deadline.bound(self.exchange(request, version, broker_wait, deadline)).await?;
        let response = codec::decode_payload::<R>(payload, version).inspect_err(|error| {
            self.shared.fail(error.clone());
        })?;
        self.shared.note_throttle(R::throttle_ms(&response));
        Ok(response)
    }

    async fn exchange<R: Request>(
        &self,
        request: &R,
        version: i16,
        broker_wait: Duration,
        deadline: Deadline,
    ) -> Result<Bytes> {
        let slot = Arc::clone(&self.shared.slots).acquire_owned().await.map_err(|_| self.shared.failure())?;
        self.shared.quiet(deadline).await?;
        let id = self.shared.next_id.fetch_add(1, Ordering::Relaxed) & i32::MAX;
        let frame = codec::encode_frame(request, version, id, &self.shared.client_id)?;
        let (reply, answer) = oneshot::channel();
        let patience = broker_wait + self.shared.request_timeout;
        let waiting = Waiting { id, patience, throttle: throttle_of::<R>, version, reply, _slot: slot };
        self.queue.send(Outgoing { frame, waiting }).await.map_err(|_| self.shared.failure())?;
        answer.await.unwrap_or_else(|_| Err(self.shared.failure()))
    }
}

impl Shared {
    /// Ends the connection: the first reason counts, everybody who waits hears it.
    fn fail(&self, error: Error) {
        let waiting = {
            let mut state = self.state.lock();
            state.failure.get_or_insert(error);
            std::mem::take(&mut state.waiting)
        };
        self.closed.cancel();
        self.slots.close();
        for request in waiting {
            let _gone = request.reply.send(Err(self.failure()));
        }
    }

    fn failure(&self) -> Error {
        self.state.lock().failure.clone().unwrap_or_else(|| self.disconnected("closed"))
    }

    fn disconnected(&self, reason: impl ToString) -> Error {
        Error::Disconnected { address: self.address.to_string(), reason: reason.to_string() }
    }

    fn note_throttle(&self, throttle_ms: i32) {
        let pause = Duration::from_millis(u64::try_from(throttle_ms).unwrap_or(0)).min(THROTTLE_MAX);
        if !pause.is_zero() {
            tracing::debug!(broker = %self.address, throttle_ms, "broker throttles this client");
            let mut state = self.state.lock();
            state.quiet_until = state.quiet_until.max(Some(Instant::now() + pause));
        }
    }

    /// Waits until the broker reads from the connection again.
    async fn quiet(&self, deadline: Deadline) -> Result<()> {
        loop {
            let until = self.state.lock().quiet_until;
            let pause = until.map(|until| until.saturating_duration_since(Instant::now())).unwrap_or_default();
            if pause.is_zero() {
                return Ok(());
            }
            deadline.pause(pause).await.map_err(|_| Error::Throttled { pause })?;
        }
    }

    /// Takes the request that the answer with this id belongs to. Brokers answer in order.
    fn take_waiting(&self, id: i32) -> Result<Waiting> {
        let next = {
            let mut state = self.state.lock();
            state.front_since = Some(Instant::now());
            state.waiting.pop_front()
        };
        match next {
            Some(waiting) if waiting.id == id => Ok(waiting),
            _ => Err(Error::Protocol(format!("answer {id} from {} belongs to no request", self.address))),
        }
    }

    fn enlist(&self, waiting: Waiting) -> Result<()> {
        let mut state = self.state.lock();
        if let Some(failure) = &state.failure {
            let failure = failure.clone();
            drop(state);
            let _gone = waiting.reply.send(Err(failure.clone()));
            return Err(failure);
        }
        if state.waiting.is_empty() {
            state.front_since = Some(Instant::now());
        }
        state.waiting.push_back(waiting);
        Ok(())
    }
}

impl State {
    /// True if the broker has been at the oldest request for longer than it may. What it throttles it does not read.
    fn is_silent(&self, now: Instant) -> bool {
        let oldest = self.waiting.front().zip(self.front_since.max(self.quiet_until));
        oldest.is_some_and(|(request, since)| now.saturating_duration_since(since) > request.patience)
    }
}

/// Runs until the connection fails or nobody holds it any more.
async fn run(
    shared: Arc<Shared>,
    reader: impl AsyncRead + Unpin,
    writer: impl AsyncWrite + Unpin,
    outgoing: mpsc::Receiver<Outgoing>,
) {
    let end = tokio::select! {
        end = read_answers(&shared, reader) => end,
        end = write_requests(&shared, writer, outgoing) => end,
        end = watch_silence(&shared) => end,
        () = shared.closed.cancelled() => Ok(()),
    };
    let error = end.err().unwrap_or_else(|| shared.disconnected("no longer used"));
    tracing::debug!(broker = %shared.address, %error, "connection ended");
    shared.fail(error);
}

async fn write_requests(
    shared: &Shared,
    mut writer: impl AsyncWrite + Unpin,
    mut outgoing: mpsc::Receiver<Outgoing>,
) -> Result<()> {
    while let Some(Outgoing { frame, waiting }) = outgoing.recv().await {
        shared.enlist(waiting)?;
        writer.write_all(&frame).await.map_err(|error| shared.disconnected(error))?;
        if outgoing.is_empty() {
            writer.flush().await.map_err(|error| shared.disconnected(error))?;
        }
    }
    Ok(())
}

async fn read_answers(shared: &Shared, reader: impl AsyncRead + Unpin) -> Result<()> {
    let mut reader = BufReader::with_capacity(16 * 1024, reader);
    loop {
        let payload = read_frame(shared, &mut reader).await?;
        let id = codec::correlation_id(&payload)
            .ok_or_else(|| Error::Protocol(format!("answer of {} bytes", payload.len())))?;
        let Waiting { throttle, version, reply, .. } = shared.take_waiting(id)?;
        if let Err(Ok(unread)) = reply.send(Ok(payload)) {
            shared.note_throttle(throttle(unread, version));
        }
    }
}

fn throttle_of<R: Request>(payload: Bytes, version: i16) -> i32 {
    codec::decode_payload::<R>(payload, version).map_or(0, |response| R::throttle_ms(&response))
}

async fn read_frame(shared: &Shared, reader: &mut (impl AsyncRead + Unpin)) -> Result<Bytes> {
    let lost = |error: std::io::Error| shared.disconnected(error);
    let length = reader.read_u32().await.map_err(lost)? as usize;
    if length > FRAME_BYTES_MAX {
        return Err(Error::Protocol(format!("answer of {length} bytes is over {FRAME_BYTES_MAX}")));
    }
    let mut payload = BytesMut::with_capacity(length.min(FRAME_BYTES_AHEAD));
    let mut body = reader.take(length as u64);
    while payload.len() < length {
        if body.read_buf(&mut payload).await.map_err(lost)? == 0 {
            return Err(shared.disconnected("closed within an answer"));
        }
    }
    Ok(payload.freeze())
}

async fn watch_silence(shared: &Shared) -> Result<()> {
    let mut tick = tokio::time::interval(WATCH_INTERVAL);
    loop {
        let now = tick.tick().await;
        if shared.state.lock().is_silent(now) {
            return Err(shared.disconnected("broker does not answer"));
        }
    }
}

#[cfg(test)]
#[path = "conn_tests.rs"]
mod tests;
