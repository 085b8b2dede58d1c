//! The bytes of one connection, with the limits that only they can keep: the time of a request's head, the time of a blocked
//! write; and a close that does not turn into a reset.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{Instant, Sleep};
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::edge::Edge;
use super::places::Place;

/// How long a closed connection is read on without a byte.
const LINGER: Duration = Duration::from_secs(1);

/// What the parts of one connection know together.
#[derive(Debug)]
pub(super) struct ConnState {
    in_flight: AtomicUsize,
    /// Bodies that are read on and thrown away.
    draining: AtomicUsize,
    /// Calls that may go on for long.
    long_calls: AtomicUsize,
    trusted: AtomicBool,
    /// The peer has yet to take what was written.
    sending: AtomicBool,
    since: Mutex<Instant>,
    head_since: Mutex<Option<Instant>>,
    /// A request began.
    pub(super) began: Notify,
    /// Its place is wanted by another.
    pub(super) evict: CancellationToken,
}

impl ConnState {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            in_flight: AtomicUsize::new(0),
            draining: AtomicUsize::new(0),
            long_calls: AtomicUsize::new(0),
            trusted: AtomicBool::new(false),
            sending: AtomicBool::new(false),
            since: Mutex::new(Instant::now()),
            head_since: Mutex::new(Some(Instant::now())),
            began: Notify::new(),
            evict: CancellationToken::new(),
        })
    }

    /// Counts a request until the guard is dropped.
    pub(super) fn begin(self: &Arc<Self>) -> InFlight {
        if self.in_flight.fetch_add(1, Ordering::AcqRel) == 0 {
            *self.since.lock() = Instant::now();
        }
        *self.head_since.lock() = None;
        self.began.notify_waiters();
        InFlight(self.clone())
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Acquire)
    }

    /// Whether a request is in flight, or its answer has not all gone: the last bytes of an answer are queued before they are sent.
    pub(super) fn is_busy(&self) -> bool {
        self.in_flight() > 0 || self.sending.load(Ordering::Acquire)
    }

    /// A write waits for the peer, or does so no more, which is when it is quiet from.
    pub(super) fn sending(&self, sending: bool) {
        if self.sending.swap(sending, Ordering::AcqRel) && !sending {
            *self.since.lock() = Instant::now();
        }
    }

    /// Since when there is no request; `None` while there is one.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        (self.in_flight() == 0).then(|| self.since())
    }

    /// Since when there is a request, or none.
    pub(super) fn since(&self) -> Instant {
        *self.since.lock()
    }

    /// Counts a body that is read on until the guard is dropped.
    pub(super) fn drain(self: &Arc<Self>) -> Draining {
        self.draining.fetch_add(1, Ordering::AcqRel);
        Draining(self.clone())
    }

    /// Counts a call that may go on for long, unless `max` of them do.
    pub(super) fn long_call(self: &Arc<Self>, max: usize) -> Option<LongCall> {
        let one_more = |count| (count < max).then_some(count + 1);
        self.long_calls.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more).ok()?;
        Some(LongCall(self.clone()))
    }

    /// Whether bytes that come now begin a request.
    fn awaits_head(&self) -> bool {
        self.in_flight() == 0 && self.draining.load(Ordering::Acquire) == 0
    }

    pub(super) fn trust(&self) {
        self.trusted.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_trusted(&self) -> bool {
        self.trusted.load(Ordering::Relaxed)
    }
}

/// A call that may go on for long, until it is dropped.
#[derive(Debug)]
pub struct LongCall(Arc<ConnState>);

impl Drop for LongCall {
    fn drop(&mut self) {
        self.0.long_calls.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A body that is read on.
#[derive(Debug)]
pub(super) struct Draining(Arc<ConnState>);

impl Drop for Draining {
    fn drop(&mut self) {
        self.0.draining.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A request in flight: from its head to the last byte of its answer.
#[derive(Debug)]
pub(super) struct InFlight(Arc<ConnState>);

impl Drop for InFlight {
    fn drop(&mut self) {
        *self.0.since.lock() = Instant::now();
        self.0.in_flight.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A socket, with or without TLS.
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    fn into_tcp(self) -> TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(tls) => tls.into_inner().0,
        }
    }
}

macro_rules! each {
    ($self:expr, $stream:ident => $call:expr) => {
        match $self {
            Stream::Plain($stream) => $call,
            Stream::Tls($stream) => $call,
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        each!(&mut *self, stream => Pin::new(stream).poll_read(cx, buf))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        each!(&mut *self, stream => Pin::new(stream).poll_write(cx, buf))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(&mut *self, stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(&mut *self, stream => Pin::new(stream).poll_shutdown(cx))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(&mut *self, stream => Pin::new(stream).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        each!(self, stream => stream.is_write_vectored())
    }
}

/// A stream with its first bytes put back and its times kept.
pub(super) struct TimedIo {
    stream: Option<Stream>,
    prefix: Bytes,
    place: Arc<Place>,
    edge: Edge,
    /// Time for a head; `None` where the protocol keeps its own (HTTP/2).
    header_timeout: Option<Duration>,
    head_timer: Option<Pin<Box<Sleep>>>,
    write_timer: Option<Pin<Box<Sleep>>>,
    peer_closed: bool,
    closed_well: bool,
    lingering: TaskTracker,
}

impl TimedIo {
    pub(super) fn new(
        stream: Stream,
        prefix: Bytes,
        place: Arc<Place>,
        edge: Edge,
        header_timeout: Option<Duration>,
        lingering: TaskTracker,
    ) -> Self {
        Self {
            stream: Some(stream),
            prefix,
            place,
            edge,
            header_timeout,
            head_timer: None,
            write_timer: None,
            peer_closed: false,
            closed_well: false,
            lingering,
        }
    }

    fn stream(&mut self) -> Pin<&mut Stream> {
        Pin::new(self.stream.as_mut().expect("the stream is taken only on drop"))
    }

    /// A head that began must end in time.
    fn poll_head_timer(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let since = *self.place.state.head_since.lock();
        let (Some(timeout), Some(since)) = (self.header_timeout, since) else { return Poll::Pending };
        let timer = self.head_timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(since + timeout)));
        if timer.deadline() != since + timeout {
            timer.as_mut().reset(since + timeout);
        }
        timer.as_mut().poll(cx).map(|()| Err(timed_out("request head")))
    }

    /// A write that the peer blocks must go on in time.
    fn timed_write<T>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            if self.write_timer.take().is_some() {
                self.place.state.sending(false);
            }
            return polled;
        }
        self.place.state.sending(true);
        let timeout = self.edge.write_timeout;
        let timer = self.write_timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
        timer.as_mut().poll(cx).map(|()| Err(timed_out("write")))
    }
}

fn timed_out(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("{what} took too long"))
}

impl AsyncRead for TimedIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.prefix.is_empty() {
            let count = this.prefix.len().min(buf.remaining());
            buf.put_slice(&this.prefix[..count]);
            this.prefix.advance(count);
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let polled = this.stream().poll_read(cx, buf);
        match &polled {
            Poll::Pending => this.poll_head_timer(cx),
            Poll::Ready(Ok(())) if buf.filled().len() == before => {
                this.peer_closed = true;
                polled
            }
            Poll::Ready(Ok(())) => {
                let state = &this.place.state;
                if state.awaits_head() {
                    state.head_since.lock().get_or_insert_with(Instant::now);
                }
                polled
            }
            Poll::Ready(Err(_)) => {
                this.peer_closed = true;
                polled
            }
        }
    }
}

impl AsyncWrite for TimedIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = self.stream().poll_write(cx, buf);
        self.timed_write(cx, polled)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = self.stream().poll_flush(cx);
        self.timed_write(cx, polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = self.stream().poll_shutdown(cx);
        self.closed_well |= matches!(polled, Poll::Ready(Ok(())));
        self.timed_write(cx, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = self.stream().poll_write_vectored(cx, bufs);
        self.timed_write(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.as_ref().is_some_and(AsyncWrite::is_write_vectored)
    }
}

impl Drop for TimedIo {
    fn drop(&mut self) {
        if let Some(stream) = self.stream.take().filter(|_| self.closed_well && !self.peer_closed) {
            linger(stream, self.place.clone(), &self.edge, &self.lingering);
        }
    }
}

/// Closes our side and reads what still comes, until the peer closes too: bytes left unread would make the system reset
/// the connection and take our last answer from the peer. The connection keeps its place meanwhile.
pub(super) fn linger(stream: Stream, place: Arc<Place>, edge: &Edge, lingering: &TaskTracker) {
    let (time, mut left) = (edge.unread_time, edge.unread_bytes_max);
    lingering.spawn(async move {
        let mut tcp = stream.into_tcp();
        let read_on = async {
            tcp.shutdown().await?;
            let mut buffer = [0u8; 4096];
            while left > 0 {
                match tokio::time::timeout(LINGER, tcp.read(&mut buffer)).await?? {
                    0 => break,
                    count => left = left.saturating_sub(count as u64),
                }
            }
            Ok::<_, io::Error>(())
        };
        tokio::select! {
            // However it ends, the socket is closed now.
            _ = tokio::time::timeout(time, read_on) => {}
            () = place.state.evict.cancelled() => {}
        }
    });
}
