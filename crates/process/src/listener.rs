//! A listener of a role: bound when the role is built, serving once it starts, closed by the stops.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::{Request, Response};
use sluice_runtime::BoxError;
use sluice_runtime::server::{ConnMetrics, Edge, RequestBody, ServeReport, serve_counted};
use sluice_runtime::tls::ReloadingTls;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tower::Service;

type Serve = Box<dyn FnOnce(CancellationToken) -> BoxFuture<'static, ServeReport> + Send>;

/// A listener that is bound and does not serve yet: who connects waits.
pub struct Listener {
    name: &'static str,
    drain: Duration,
    serve: Serve,
}

/// How a listener is to be served.
pub struct Manner {
    /// TLS, if it has it.
    pub tls: Option<ReloadingTls>,
    /// The bounds of connections.
    pub edge: Edge,
    /// How long calls in flight may go on when it closes.
    pub drain: Duration,
    /// Counts connections.
    pub metrics: ConnMetrics,
}

impl Listener {
    /// With the service that answers on it; the name is for logs.
    pub fn new<S, B>(name: &'static str, socket: TcpListener, manner: Manner, service: S) -> Self
    where
        S: Service<Request<RequestBody>, Response = Response<B>, Error = Infallible> + Clone + Send + Sync + 'static,
        S::Future: Send,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let Manner { tls, edge, drain, metrics } = manner;
        let serve =
            move |stop| serve_counted(socket, tls, edge, move |_| service.clone(), stop, drain, metrics).boxed();
        Self { name, drain, serve: Box::new(serve) }
    }

    /// Serves until `stop`.
    pub fn start(self, stop: CancellationToken) -> Serving {
        Serving { name: self.name, drain: self.drain, task: tokio::spawn((self.serve)(stop)) }
    }
}

/// A listener that serves.
pub struct Serving {
    name: &'static str,
    drain: Duration,
    task: JoinHandle<ServeReport>,
}

impl Serving {
    /// Its name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// How long calls in flight may go on when it closes.
    pub fn drain(&self) -> Duration {
        self.drain
    }

    /// Waits until it was told to stop and has finished its calls, and logs what came of it.
    pub async fn closed(self) {
        match self.task.await {
            Ok(report) => tracing::info!(?report, "{} listener closed", self.name),
            Err(error) => tracing::error!(%error, "{} listener", self.name),
        }
    }
}
