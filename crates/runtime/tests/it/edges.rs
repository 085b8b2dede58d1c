//! What a listener lets peers do, and when it has had enough.

use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::ServerName;
use sluice_runtime::server::Edge;
use tokio::io::AsyncWriteExt;
use tokio_rustls::TlsConnector;

use crate::support::{PATIENCE, Pki, Server, exchange, get, h2_client, read_answer, text_of, until_closed};

const SHORT: Duration = Duration::from_millis(100);

async fn start(edge: Edge) -> Server {
    Server::start(edge, None, PATIENCE).await
}

#[tokio::test]
async fn both_protocols_are_served_on_one_port() {
    let server = start(Edge::default()).await;
    let mut http1 = server.connect().await;
    for _ in 0..2 {
        let answer = exchange(&mut http1, "/").await.expect("answer").expect("answer");
        assert!(answer.ends_with("nobody sent 0"), "{answer}");
    }
    let (mut h2, _connection) = h2_client(server.connect().await).await;
    let response = h2.send_request(get("/")).await.expect("response");
    assert_eq!(response.version(), http::Version::HTTP_2);
    assert_eq!(text_of(response).await, "nobody sent 0");
}

#[tokio::test]
async fn a_silent_connection_is_closed() {
    let server = start(Edge { first_byte_timeout: SHORT, ..Edge::default() }).await;
    let mut stream = server.connect().await;
    until_closed(&mut stream).await.expect("closed");
}

#[tokio::test]
async fn a_head_that_does_not_end_is_cut_on_the_first_and_on_later_requests() {
    let server = start(Edge { header_timeout: SHORT, ..Edge::default() }).await;
    let mut first = server.connect().await;
    first.write_all(b"GET / HTTP/1.1\r\nhost").await.expect("write");
    let _ = until_closed(&mut first).await;

    let mut later = server.connect().await;
    assert!(exchange(&mut later, "/").await.expect("answer").is_some());
    later.write_all(b"GET / HTTP/1.1\r\nhost").await.expect("write");
    let _ = until_closed(&mut later).await;

    let mut preface = server.connect().await;
    preface.write_all(b"PRI * HT").await.expect("write");
    let _ = until_closed(&mut preface).await;
}

#[tokio::test]
async fn time_between_requests_is_not_time_of_a_head() {
    let server = start(Edge { header_timeout: SHORT, ..Edge::default() }).await;
    let mut stream = server.connect().await;
    assert!(exchange(&mut stream, "/").await.expect("answer").is_some());
    tokio::time::sleep(SHORT * 3).await;
    assert!(exchange(&mut stream, "/").await.expect("answer").is_some());
}

#[tokio::test]
async fn a_body_that_stops_coming_fails_in_its_reader() {
    let server = start(Edge { body_idle_timeout: SHORT, ..Edge::default() }).await;
    let mut stream = server.connect().await;
    stream.write_all(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nabc").await.expect("write");
    let answer = read_answer(&mut stream).await.expect("answer").expect("answer");
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
}

#[tokio::test]
async fn idle_connections_are_closed_well_in_both_protocols() {
    let server = start(Edge { idle_timeout: SHORT, ..Edge::default() }).await;
    let mut http1 = server.connect().await;
    assert!(exchange(&mut http1, "/trust").await.expect("answer").is_some());
    until_closed(&mut http1).await.expect("a clean end");

    let (mut h2, connection) = h2_client(server.connect().await).await;
    h2.send_request(get("/trust")).await.expect("response");
    tokio::time::timeout(PATIENCE, connection).await.expect("in time").expect("task").expect("a clean end");
}

#[tokio::test]
async fn a_request_that_takes_long_is_not_idle() {
    let server = start(Edge { stranger_idle_timeout: SHORT, idle_timeout: SHORT, ..Edge::default() }).await;
    let mut stream = server.connect().await;
    stream.write_all(b"GET /hold HTTP/1.1\r\nhost: a\r\n\r\n").await.expect("write");
    server.until_held().await;
    tokio::time::sleep(SHORT * 3).await;
    server.gate.add_permits(1);
    assert!(read_answer(&mut stream).await.expect("answer").is_some());
}

#[tokio::test]
async fn a_peer_that_does_not_read_its_answer_loses_its_connection() {
    let server = start(Edge { max_connections: 1, write_timeout: SHORT, ..Edge::default() }).await;
    let mut deaf = server.connect().await;
    deaf.write_all(b"GET /large HTTP/1.1\r\nhost: a\r\n\r\n").await.expect("write");
    tokio::time::timeout(PATIENCE, async {
        while !matches!(exchange(&mut server.connect().await, "/").await, Ok(Some(_))) {}
    })
    .await
    .expect("its place is free again");
    drop(deaf);
}

#[tokio::test]
async fn a_request_that_names_no_host_or_two_is_refused() {
    let server = start(Edge::default()).await;
    for hosts in ["", "host: a\r\nhost: a\r\n", "host: a\r\nhost: b\r\n", "host: a b\r\n"] {
        let mut stream = server.connect().await;
        stream.write_all(format!("GET / HTTP/1.1\r\n{hosts}\r\n").as_bytes()).await.expect("write");
        let answer = read_answer(&mut stream).await.expect("answer").expect("answer");
        assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("\"field\":\"host\""), "{hosts:?}: {answer}");
    }
    let (mut h2, _connection) = h2_client(server.connect().await).await;
    let mut request = get("/");
    request.headers_mut().insert("host", "b".parse().expect("header"));
    let response = h2.send_request(request).await.expect("response");
    assert_eq!(response.status(), 400, "a host that is not :authority");
}

#[tokio::test]
async fn heads_over_16_kib_are_refused() {
    let server = start(Edge::default()).await;
    let mut stream = server.connect().await;
    let large = "x".repeat(17 << 10);
    stream.write_all(format!("GET / HTTP/1.1\r\nhost: a\r\nlarge: {large}\r\n\r\n").as_bytes()).await.expect("write");
    let answer = read_answer(&mut stream).await.expect("answer").expect("answer");
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");

    let (mut h2, _connection) = h2_client(server.connect().await).await;
    let mut request = get("/");
    request.headers_mut().insert("large", large.parse().expect("header"));
    assert!(!matches!(h2.send_request(request).await, Ok(response) if response.status().is_success()));
}

#[tokio::test]
async fn a_handshake_that_does_not_end_is_cut() {
    let pki = Pki::new();
    let tls = pki.process("gateway").server_tls().expect("TLS");
    let server = Server::start(Edge { handshake_timeout: SHORT, ..Edge::default() }, Some(tls), PATIENCE).await;
    let mut stream = server.connect().await;
    until_closed(&mut stream).await.expect("closed");
}

#[tokio::test]
async fn only_named_processes_of_our_ca_get_onto_an_internal_listener() {
    let (pki, stranger) = (Pki::new(), Pki::new());
    let gateway = pki.process("gateway");
    let server = Server::start(Edge::internal(), Some(gateway.server_tls().expect("TLS")), PATIENCE).await;
    let ask = async |config: Arc<rustls::ClientConfig>| {
        let name = ServerName::try_from("localhost").expect("name");
        let stream = TlsConnector::from(config).connect(name, server.connect().await).await.ok()?;
        let io = hyper_util::rt::TokioIo::new(stream);
        let executor = hyper_util::rt::TokioExecutor::new();
        let (mut client, connection) = hyper::client::conn::http2::handshake(executor, io).await.ok()?;
        tokio::spawn(connection);
        Some(text_of(client.send_request(get("/")).await.ok()?).await)
    };

    let control_plane = pki.process("control-plane");
    let config = control_plane.client_config("gateway").expect("config");
    assert_eq!(ask(config).await.as_deref(), Some("control-plane sent 0"));

    // The server is not of the role that was meant.
    assert_eq!(ask(control_plane.client_config("billing").expect("config")).await, None);
    // No certificate, and one of another CA.
    assert_eq!(ask(sluice_runtime::tls::client_config_for_ca(&pki.ca()).expect("config")).await, None);
    assert_eq!(ask(stranger.process("gateway").client_config("gateway").expect("config")).await, None);
    // A certificate of our CA that names no process.
    let nameless = pki.issue("nameless", &[]);
    assert!(sluice_runtime::tls::InternalTls::load(&nameless).is_err());
    let two = pki.issue("two", &["spiffe://sluice/gateway/a", "spiffe://sluice/billing/a"]);
    assert!(sluice_runtime::tls::InternalTls::load(&two).is_err());
}
