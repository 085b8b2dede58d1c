//! The admin listener: `/livez`, `/readyz`, `/health/{component}`, `/metrics`, plain HTTP for operators' machines.
//!
//! It has its own token, to be cancelled last: health and metrics stay readable to the end of a shutdown.

use std::net::SocketAddr;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use http::{StatusCode, header};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::health::Health;
use crate::metrics::Metrics;
use crate::server::{Edge, bind, serve};

/// How long a scrape may go on once the end has come.
const DRAIN: Duration = Duration::from_secs(1);

/// A bound admin listener.
#[derive(Debug)]
pub struct AdminServer {
    listener: TcpListener,
    local_addr: SocketAddr,
    router: Router,
}

#[derive(Clone)]
struct Shown {
    health: Health,
    metrics: Metrics,
}

impl AdminServer {
    /// Binds; `extra` are further routes of the process.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub async fn bind(addr: SocketAddr, health: Health, metrics: Metrics, extra: Router) -> std::io::Result<Self> {
        let listener = bind(addr).await?;
        let local_addr = listener.local_addr()?;
        let router = Router::new()
            .route("/livez", get(|| async { "ok\n" }))
            .route("/readyz", get(readyz))
            .route("/health/{component}", get(component))
            .route("/metrics", get(show_metrics))
            .with_state(Shown { health, metrics })
            .merge(extra);
        Ok(Self { listener, local_addr, router })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Serves until its own token is cancelled.
    pub async fn run(self, shutdown: CancellationToken) {
        let router = self.router;
        serve(self.listener, None, Edge::admin(), move |_| router.clone(), shutdown, DRAIN).await;
    }
}

fn code(ok: bool) -> StatusCode {
    if ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

async fn readyz(State(shown): State<Shown>) -> Response {
    (code(shown.health.is_ready()), Json(shown.health.to_json())).into_response()
}

async fn component(State(shown): State<Shown>, Path(name): Path<String>) -> Response {
    match shown.health.component(&name) {
        Some(status) => (code(status.ok), Json(status)).into_response(),
        None => (StatusCode::NOT_FOUND, "no such component\n").into_response(),
    }
}

async fn show_metrics(State(shown): State<Shown>) -> Response {
    const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, OPEN_METRICS)], shown.metrics.encode()).into_response()
}
