//! One connection from its socket to its end.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service;

use super::body::RequestBody;
use super::edge::Edge;
use super::info::{Alpn, ConnInfo};
use super::io::{ConnState, Stream, TimedIo, linger};
use super::places::Place;
use super::service::{Counted, Wrapped};
use super::sniff::{Version, sniff};
use super::unread::Drains;
use crate::body::BoxError;
use crate::tls::{PeerIdentity, ReloadingTls};

/// What an HTTP/1.1 connection buffers each way: a body is asked for more only when less than this waits for the client.
const H1_BUFFER_BYTES: usize = 64 << 10;

/// What all connections of a listener share.
pub(super) struct Shared<F> {
    pub(super) tls: Option<ReloadingTls>,
    pub(super) edge: Edge,
    pub(super) make_service: F,
    /// The drain began.
    pub(super) shutdown: CancellationToken,
    /// The drain is over.
    pub(super) kill: CancellationToken,
    pub(super) lingering: TaskTracker,
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// By itself, or for a fault of the peer.
    Closed,
    /// By the end of the drain, with so many requests in flight.
    Cut(usize),
}

/// Time for a connection whose place is wanted by another to say goodbye.
const EVICTED: Duration = Duration::from_millis(250);
/// The same, at most, for one that authenticated and has begun a request meanwhile.
const EVICTED_BUSY: Duration = Duration::from_secs(60);
/// How often it is looked whether it still is at work.
const BUSY_LOOK: Duration = Duration::from_millis(100);

/// Handshake, first bytes, then requests until the end.
pub(super) async fn connection<F, S, B>(
    shared: Arc<Shared<F>>,
    tcp: TcpStream,
    info: ConnInfo,
    place: Arc<Place>,
) -> End
where
    F: Fn(&ConnInfo) -> S,
    S: Service<Request<RequestBody>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let peer = info.peer;
    let opened = tokio::select! {
        opened = open(&shared, tcp, info, &place) => opened,
        () = shared.kill.cancelled() => return End::Closed,
        () = place.state.evict.cancelled() => return End::Closed,
    };
    let (stream, info, version, first) = match opened {
        Ok(Some(opened)) => opened,
        Ok(None) => return End::Closed,
        Err(error) => {
            tracing::debug!(%peer, %error, "connection refused");
            return End::Closed;
        }
    };
    let edge = &shared.edge;
    let state = place.state.clone();
    if info.client.is_some() {
        state.trust();
    }
    let header_timeout = (version == Version::Http1).then_some(edge.header_timeout);
    let io = TimedIo::new(stream, first, place, edge.clone(), header_timeout, shared.lingering.clone());
    let io = TokioIo::new(io);
    let service = (shared.make_service)(&info);
    let drains = Drains {
        edge: edge.clone(),
        state: state.clone(),
        tasks: shared.lingering.clone(),
        cut: (version == Version::H2).then(|| shared.shutdown.clone()),
    };
    let service = Wrapped::new(service, info, drains, shared.shutdown.clone());
    match version {
        Version::Http1 => drive(http1_builder(edge).serve_connection(io, service), version, &state, &shared).await,
        Version::H2 => drive(http2_builder(edge).serve_connection(io, service), version, &state, &shared).await,
    }
}

type Opened = (Stream, ConnInfo, Version, Bytes);

async fn open<F>(
    shared: &Shared<F>,
    tcp: TcpStream,
    mut info: ConnInfo,
    place: &Arc<Place>,
) -> io::Result<Option<Opened>> {
    tcp.set_nodelay(true)?;
    notice_absence(&tcp, &shared.edge)?;
    let mut stream = match &shared.tls {
        None => Stream::Plain(tcp),
        Some(tls) => {
            let acceptor = TlsAcceptor::from(tls.current());
            let stream = timeout(shared.edge.handshake_timeout, acceptor.accept(tcp)).await??;
            let session = stream.get_ref().1;
            info.tls = true;
            info.alpn = match session.alpn_protocol() {
                Some(b"h2") => Some(Alpn::H2),
                Some(b"http/1.1") => Some(Alpn::Http11),
                _ => None,
            };
            if let Some(leaf) = session.peer_certificates().and_then(<[_]>::first) {
                match PeerIdentity::from_certificate(leaf) {
                    Ok(identity) => info.client = Some(Arc::new(identity)),
                    Err(error) if tls.requires_identity() => return Err(io::Error::other(error)),
                    Err(_) => {}
                }
            }
            if tls.requires_identity() && info.client.is_none() {
                return Err(io::Error::other("no client certificate"));
            }
            Stream::Tls(Box::new(stream))
        }
    };
    // Who connected just before the drain most likely has a request under way.
    let too_late = async {
        shared.shutdown.cancelled().await;
        tokio::time::sleep(shared.edge.drain_idle).await;
    };
    let sniffed = tokio::select! {
        sniffed = sniff(&mut stream, &shared.edge) => Some(sniffed?),
        () = too_late => None,
    };
    match sniffed {
        Some(Some((version, first))) => Ok(Some((stream, info, version, first))),
        Some(None) => Ok(None),
        None => {
            linger(stream, place.clone(), &shared.edge, &shared.lingering);
            Ok(None)
        }
    }
}

/// A peer that went away without a word is noticed: by questions while nothing is sent, and by what it does not
/// acknowledge while something is, which the system would else send again for a quarter of an hour.
fn notice_absence(tcp: &TcpStream, edge: &Edge) -> io::Result<()> {
    let socket = SockRef::from(tcp);
    let asked = TcpKeepalive::new().with_time(edge.keepalive).with_interval(edge.keepalive / 3).with_retries(3);
    socket.set_tcp_keepalive(&asked)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(edge.write_timeout))?;
    Ok(())
}

fn http1_builder(edge: &Edge) -> http1::Builder {
    let mut builder = http1::Builder::new();
    // The time of a head is kept by the stream: here it would also run between requests.
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .max_buf_size(H1_BUFFER_BYTES.max(edge.max_header_bytes as usize))
        .max_header_size(edge.max_header_bytes as usize)
        .max_headers(edge.max_headers);
    builder
}

fn http2_builder(edge: &Edge) -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(edge.h2_max_streams)
        .initial_stream_window_size(edge.h2_stream_window_bytes)
        .initial_connection_window_size(edge.h2_connection_window_bytes)
        .max_header_list_size(edge.max_header_bytes)
        .keep_alive_interval(Some(edge.h2_ping_interval))
        .keep_alive_timeout(edge.h2_ping_timeout);
    builder
}

/// A connection that can be told to take no more requests.
trait Graceful: Future<Output = hyper::Result<()>> {
    fn graceful(self: Pin<&mut Self>);
}

impl<S> Graceful for http1::Connection<TokioIo<TimedIo>, S>
where
    S: hyper::service::Service<Request<Incoming>, Response = Response<Counted>, Error = Infallible>,
{
    fn graceful(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

impl<S> Graceful for http2::Connection<TokioIo<TimedIo>, S, TokioExecutor>
where
    S: hyper::service::Service<Request<Incoming>, Response = Response<Counted>, Error = Infallible>,
    S::Future: Send + 'static,
{
    fn graceful(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

async fn drive<C: Graceful, F>(connection: C, version: Version, state: &ConnState, shared: &Shared<F>) -> End {
    let mut connection = pin!(connection);
    tokio::select! {
        biased;
        _ = connection.as_mut() => return End::Closed,
        () = state.evict.cancelled() => {
            connection.as_mut().graceful();
            return farewell(connection, state, shared).await;
        }
        () = shared.shutdown.cancelled() => {}
        () = idle_too_long(state, &shared.edge) => {}
    }
    let wait = if shared.shutdown.is_cancelled() { shared.edge.drain_idle } else { Duration::ZERO };
    // Closing an idle HTTP/1.1 connection collides with a request that is just coming: it gets a moment, and the
    // request is answered with `connection: close`. HTTP/2 sorts this out by itself.
    if version == Version::Http1 {
        tokio::select! {
            biased;
            _ = connection.as_mut() => return End::Closed,
            () = request_or(state, wait) => {}
        }
    }
    connection.as_mut().graceful();
    tokio::select! {
        biased;
        _ = connection.as_mut() => End::Closed,
        () = state.evict.cancelled() => farewell(connection, state, shared).await,
        () = shared.kill.cancelled() => killed(state),
    }
}

fn killed(state: &ConnState) -> End {
    match state.in_flight() {
        0 => End::Closed,
        requests => End::Cut(requests),
    }
}

/// Lets a connection that takes no more requests, and whose place is wanted, end what it has begun, if it authenticated: a
/// request may have come with the wish for its place.
async fn farewell<C: Future, F>(mut connection: Pin<&mut C>, state: &ConnState, shared: &Shared<F>) -> End {
    let over = async {
        // It has no more time than to say so.
        tokio::time::sleep(EVICTED).await;
        let until = Instant::now() + EVICTED_BUSY;
        while state.is_trusted() && state.is_busy() && Instant::now() < until {
            tokio::time::sleep(BUSY_LOOK).await;
        }
    };
    tokio::select! {
        biased;
        _ = connection.as_mut() => End::Closed,
        () = over => End::Closed,
        () = shared.kill.cancelled() => killed(state),
    }
}

/// Until there has been no request for too long.
async fn idle_too_long(state: &ConnState, edge: &Edge) {
    loop {
        let stranger = edge.stranger_idle_timeout.min(edge.idle_timeout);
        let time = if state.is_trusted() { edge.idle_timeout } else { stranger };
        let since = state.idle_since().unwrap_or_else(Instant::now);
        if since.elapsed() >= time && state.in_flight() == 0 {
            return;
        }
        tokio::time::sleep_until(since + time).await;
    }
}

/// Until a request is in flight, or for so long.
async fn request_or(state: &ConnState, time: Duration) {
    let mut began = pin!(state.began.notified());
    began.as_mut().enable();
    if state.in_flight() == 0 {
        // Either way is well.
        let _ = timeout(time, began).await;
    }
}
