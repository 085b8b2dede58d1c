//! The bytes of one connection, with the limits that only they can keep: the time of a request's head, the time of a blocked
//! write; and a close that does not turn into a reset.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{Instant, Sleep};
use tokio_rustls::server::TlsStream;
use tokio_util::task::TaskTracker;

/// How long, and for how many bytes, a closed connection is read on.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES_MAX: usize = 64 << 10;

/// What the parts of one connection know together.
#[derive(Debug)]
pub(super) struct ConnState {
    in_flight: AtomicUsize,
    idle_since: Mutex<Instant>,
    head_since: Mutex<Option<Instant>>,
    /// A request began.
    pub(super) began: Notify,
}

impl ConnState {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            in_flight: AtomicUsize::new(0),
            idle_since: Mutex::new(Instant::now()),
            head_since: Mutex::new(Some(Instant::now())),
            began: Notify::new(),
        })
    }

    /// Counts a request until the guard is dropped.
    pub(super) fn begin(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::AcqRel);
        *self.head_since.lock() = None;
        self.began.notify_waiters();
        InFlight(self.clone())
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Acquire)
    }

    /// Since when there is no request; `None` while there is one.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        (self.in_flight() == 0).then(|| *self.idle_since.lock())
    }
}

/// A request in flight: from its head to the last byte of its answer.
#[derive(Debug)]
pub(super) struct InFlight(Arc<ConnState>);

impl Drop for InFlight {
    fn drop(&mut self) {
        *self.0.idle_since.lock() = Instant::now();
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
    state: Arc<ConnState>,
    /// Time for a head; `None` where the protocol keeps its own (HTTP/2).
    header_timeout: Option<Duration>,
    write_timeout: Duration,
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
        state: Arc<ConnState>,
        header_timeout: Option<Duration>,
        write_timeout: Duration,
        lingering: TaskTracker,
    ) -> Self {
        Self {
            stream: Some(stream),
            prefix,
            state,
            header_timeout,
            write_timeout,
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
        let since = *self.state.head_since.lock();
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
            self.write_timer = None;
            return polled;
        }
        let timeout = self.write_timeout;
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
                if this.state.in_flight() == 0 {
                    this.state.head_since.lock().get_or_insert_with(Instant::now);
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
            linger(stream, &self.lingering);
        }
    }
}

/// Closes our side and reads what still comes, until the peer closes too: bytes left unread would make the system reset
/// the connection and take our last answer from the peer.
pub(super) fn linger(stream: Stream, lingering: &TaskTracker) {
    lingering.spawn(async move {
        let mut tcp = stream.into_tcp();
        let read_on = async {
            tcp.shutdown().await?;
            let mut buffer = [0u8; 4096];
            let mut left = LINGER_BYTES_MAX;
            while left > 0 {
                match tcp.read(&mut buffer).await? {
                    0 => break,
                    count => left = left.saturating_sub(count),
                }
            }
            Ok::<_, io::Error>(())
        };
        // However it ends, the socket is closed now.
        let _ = tokio::time::timeout(LINGER, read_on).await;
    });
}
