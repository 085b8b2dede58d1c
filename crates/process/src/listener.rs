//! A listener of a role: bound when the role is built, serving once it starts, closed by the stops. One that ends before it was
//! told to ends the process: nobody could reach it, and it would look as if it served.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::{Request, Response};
use sluice_runtime::server::{ConnMetrics, Edge, RequestBody, ServeReport, serve_counted};
use sluice_runtime::tls::ReloadingTls;
use sluice_runtime::{BoxError, TaskSet};
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

    /// Serves until `stop`. Its end before that, e.g. by a panic, is that of a critical one of `tasks`.
    pub fn start(self, stop: CancellationToken, tasks: &TaskSet) -> Serving {
        let (told, ended) = (stop.clone(), CancellationToken::new());
        let (ends, serve) = (ended.clone().drop_guard(), (self.serve)(stop));
        let task = tokio::spawn(async move {
            let _ends = ends;
            serve.await
        });
        tasks.spawn_critical(self.name, watch(told, ended, tasks.shutdown()));
        Serving { name: self.name, drain: self.drain, task }
    }
}

async fn watch(
    told: CancellationToken,
    ended: CancellationToken,
    shutdown: CancellationToken,
) -> Result<(), &'static str> {
    tokio::select! {
        biased;
        () = told.cancelled() => {}
        () = shutdown.cancelled() => {}
        () = ended.cancelled() => return Err("the listener ended before it was told to"),
    }
    // A critical task ends with the others.
    shutdown.cancelled().await;
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stops::Stops;

    #[tokio::test]
    async fn a_listener_that_ends_before_it_was_told_to_ends_the_process() {
        let tasks = TaskSet::new("test", CancellationToken::new());
        let serve: Serve = Box::new(|_| async { panic!("as the test wants") }.boxed());
        let listener = Listener { name: "public", drain: Duration::from_secs(1), serve };
        let serving = listener.start(CancellationToken::new(), &tasks);
        let ended = tasks.shutdown();
        tokio::time::timeout(Duration::from_secs(20), ended.cancelled()).await.expect("the process is told to stop");
        let why = "task public of test failed: the listener ended before it was told to";
        assert_eq!(tasks.failure().as_deref(), Some(why));
        Stops::new().listener(serving).tasks(&tasks, Duration::from_secs(1)).run().await;
    }

    #[tokio::test]
    async fn a_listener_that_was_told_to_close_ends_nothing() {
        let tasks = TaskSet::new("test", CancellationToken::new());
        let socket = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let manner = Manner {
            tls: None,
            edge: Edge::internal(),
            drain: Duration::from_secs(1),
            metrics: ConnMetrics::default(),
        };
        let stop = CancellationToken::new();
        let serving = Listener::new("public", socket, manner, axum::Router::new()).start(stop.clone(), &tasks);
        stop.cancel();
        serving.closed().await;
        tokio::task::yield_now().await;
        assert!(!tasks.shutdown().is_cancelled(), "{:?}", tasks.failure());
        Stops::new().tasks(&tasks, Duration::from_secs(1)).run().await;
        assert_eq!(tasks.failure(), None);
    }
}
