//! The admin listener, as probes and scrapers use it.

use std::net::SocketAddr;

use axum::Router;
use axum::routing::get;
use sluice_runtime::{AdminServer, ComponentStatus, Health, Metrics};
use tokio_util::sync::CancellationToken;

use crate::support::exchange;

async fn ask(addr: SocketAddr, path: &str) -> String {
    let mut stream = tokio::net::TcpStream::connect(addr).await.expect("connect");
    exchange(&mut stream, path).await.expect("answer").expect("answer")
}

#[tokio::test]
async fn probes_follow_health_and_metrics_are_open_metrics() {
    let (health, end) = (Health::new(), CancellationToken::new());
    let extra = Router::new().route("/extra", get(async || "more"));
    let any = ([127, 0, 0, 1], 0).into();
    let admin = AdminServer::bind(any, health.clone(), Metrics::new(), extra).await.expect("bind");
    let addr = admin.local_addr();
    let running = tokio::spawn(admin.run(end.clone()));

    assert!(ask(addr, "/livez").await.starts_with("HTTP/1.1 200"));
    assert!(ask(addr, "/readyz").await.starts_with("HTTP/1.1 503"));
    assert!(ask(addr, "/health/kafka").await.starts_with("HTTP/1.1 404"));

    health.set_ready(true);
    health.set_component("kafka", ComponentStatus::failing("no broker answers"));
    let ready = ask(addr, "/readyz").await;
    assert!(ready.starts_with("HTTP/1.1 200") && ready.contains("no broker answers"), "{ready}");
    assert!(ask(addr, "/health/kafka").await.starts_with("HTTP/1.1 503"));

    health.require("kafka");
    assert!(ask(addr, "/readyz").await.starts_with("HTTP/1.1 503"));
    health.set_component("kafka", ComponentStatus::ok("3 brokers"));
    assert!(ask(addr, "/readyz").await.starts_with("HTTP/1.1 200"));
    assert!(ask(addr, "/health/kafka").await.contains("3 brokers"));

    let metrics = ask(addr, "/metrics").await;
    assert!(metrics.contains("application/openmetrics-text; version=1.0.0"), "{metrics}");
    assert!(metrics.ends_with("# EOF\n"), "{metrics}");
    assert!(ask(addr, "/extra").await.ends_with("more"));
    end.cancel();
    running.await.expect("ends");
}
