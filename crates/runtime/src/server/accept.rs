//! The accept loop, and the drain at its end.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service;

use super::body::RequestBody;
use super::drive::{End, Shared, connection};
use super::edge::Edge;
use super::info::ConnInfo;
use super::metrics::ConnMetrics;
use super::places::Places;
use crate::body::BoxError;
use crate::tls::ReloadingTls;

/// Pause after an accept that failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Connections taken out of the backlog when the listener closes.
const BACKLOG_MAX: usize = 4096;
/// How long cut and closed connections may take to let go.
const LAST_WAIT: Duration = Duration::from_secs(2);

/// What happened on a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ServeReport {
    /// Connections accepted.
    pub accepted: u64,
    /// Connections closed at once: there was no place.
    pub refused: u64,
    /// Connections closed because another wanted their place.
    pub evicted: u64,
    /// Connections that still had requests when the drain was over.
    pub cut_connections: usize,
    /// Those requests.
    pub cut_requests: usize,
}

/// Binds a listener; port 0 lets the system choose.
///
/// # Errors
/// The address cannot be bound; the message names it.
pub async fn bind(addr: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(addr).await.map_err(|error| io::Error::new(error.kind(), format!("listen on {addr}: {error}")))
}

/// Serves until `shutdown` is cancelled, then drains for at most `drain`.
///
/// `make_service` makes a connection's service; every request carries the same [`ConnInfo`] in its extensions. Once the
/// drain is over, what is left is cut and reported.
pub async fn serve<F, S, B>(
    listener: TcpListener,
    tls: Option<ReloadingTls>,
    edge: Edge,
    make_service: F,
    shutdown: CancellationToken,
    drain: Duration,
) -> ServeReport
where
    F: Fn(&ConnInfo) -> S + Send + Sync + 'static,
    S: Service<Request<RequestBody>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    serve_counted(listener, tls, edge, make_service, shutdown, drain, ConnMetrics::default()).await
}

/// The same, and counts its connections.
pub async fn serve_counted<F, S, B>(
    listener: TcpListener,
    tls: Option<ReloadingTls>,
    edge: Edge,
    make_service: F,
    shutdown: CancellationToken,
    drain: Duration,
    metrics: ConnMetrics,
) -> ServeReport
where
    F: Fn(&ConnInfo) -> S + Send + Sync + 'static,
    S: Service<Request<RequestBody>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let local = listener.local_addr().unwrap_or_else(|_| ([0, 0, 0, 0], 0).into());
    let places = Places::new(edge.max_connections, edge.max_connections_per_source, metrics.evicted.clone());
    let connections = TaskTracker::new();
    let cut = Arc::new((AtomicUsize::new(0), AtomicUsize::new(0)));
    let mut report = ServeReport::default();
    let shared = Arc::new(Shared {
        tls,
        edge,
        make_service,
        shutdown: shutdown.clone(),
        kill: CancellationToken::new(),
        lingering: TaskTracker::new(),
    });
    let start = |tcp: TcpStream, peer: SocketAddr, report: &mut ServeReport| {
        let Some(place) = places.enter(peer.ip()) else {
            report.refused += 1;
            metrics.refused.inc();
            tracing::debug!(%peer, "no place for a connection");
            return;
        };
        report.accepted += 1;
        metrics.accepted.inc();
        let info = ConnInfo { peer, local, client: None, alpn: None, tls: false };
        let (shared, cut) = (shared.clone(), cut.clone());
        connections.spawn(async move {
            if let End::Cut(requests) = connection(shared, tcp, info, place).await {
                cut.0.fetch_add(1, Ordering::Relaxed);
                cut.1.fetch_add(requests, Ordering::Relaxed);
            }
        });
    };

    while let Some(accepted) = shutdown.run_until_cancelled(listener.accept()).await {
        match accepted {
            Ok((tcp, peer)) => start(tcp, peer, &mut report),
            // The peer gave up while it waited.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                tracing::warn!(%local, %error, "accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    for (tcp, peer) in backlog(listener) {
        start(tcp, peer, &mut report);
    }
    connections.close();
    if tokio::time::timeout(drain, connections.wait()).await.is_err() {
        shared.kill.cancel();
        let _ = tokio::time::timeout(LAST_WAIT, connections.wait()).await;
    }
    shared.lingering.close();
    let _ = tokio::time::timeout(LAST_WAIT, shared.lingering.wait()).await;
    report.evicted = places.evicted();
    report.cut_connections = cut.0.load(Ordering::Relaxed);
    report.cut_requests = cut.1.load(Ordering::Relaxed);
    if report.cut_requests > 0 {
        tracing::warn!(%local, ?report, "drain was over before all requests were");
    }
    report
}

/// Closes the listener. The system resets connections nobody accepted, so those that wait are accepted first, on the
/// socket itself: the runtime may not have heard of them yet.
fn backlog(listener: TcpListener) -> Vec<(TcpStream, SocketAddr)> {
    let Ok(listener) = listener.into_std() else { return Vec::new() };
    let waiting = std::iter::from_fn(|| listener.accept().ok()).take(BACKLOG_MAX);
    waiting
        .filter_map(|(tcp, peer)| {
            tcp.set_nonblocking(true).ok()?;
            Some((TcpStream::from_std(tcp).ok()?, peer))
        })
        .collect()
}
