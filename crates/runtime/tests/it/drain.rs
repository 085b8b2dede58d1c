//! The end of a listener: no client that behaves sees a reset, and what cannot be waited for is counted.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use sluice_runtime::server::{Edge, bind};
use tokio::io::AsyncWriteExt;
use tokio_util::sync::CancellationToken;

use crate::support::{PATIENCE, Server, exchange, get, h2_client, read_answer, text_of, until_closed};

#[tokio::test]
async fn requests_in_flight_are_finished_and_told_to_go_elsewhere() {
    let server = Server::start(Edge::default(), None, PATIENCE).await;
    let mut http1 = server.connect().await;
    http1.write_all(b"GET /hold HTTP/1.1\r\nhost: a\r\n\r\n").await.expect("write");
    server.until_held().await;
    let (mut h2, connection) = h2_client(server.connect().await).await;
    let pending = tokio::spawn(h2.send_request(get("/hold")));
    server.until_held().await;

    let (addr, gate) = (server.addr, server.gate.clone());
    let stopped = tokio::spawn(server.stop());
    tokio::time::timeout(PATIENCE, async { while tokio::net::TcpStream::connect(addr).await.is_ok() {} })
        .await
        .expect("new connections are refused");
    gate.add_permits(2);

    let answer = read_answer(&mut http1).await.expect("no reset").expect("answer").to_lowercase();
    assert!(answer.contains("connection: close") && answer.starts_with("http/1.1 200"), "{answer}");
    until_closed(&mut http1).await.expect("a clean end");
    let response = pending.await.expect("task").expect("response");
    assert_eq!(text_of(response).await, "nobody sent 0");
    connection.await.expect("task").expect("a clean end");
    let report = stopped.await.expect("task");
    assert_eq!((report.cut_connections, report.cut_requests), (0, 0));
}

#[tokio::test]
async fn what_does_not_end_is_cut_when_the_drain_is_over_and_counted() {
    let server = Server::start(Edge::default(), None, Duration::from_millis(100)).await;
    let mut http1 = server.connect().await;
    http1.write_all(b"GET /hold HTTP/1.1\r\nhost: a\r\n\r\n").await.expect("write");
    server.until_held().await;
    let (mut h2, _connection) = h2_client(server.connect().await).await;
    let pending = [tokio::spawn(h2.send_request(get("/hold"))), tokio::spawn(h2.send_request(get("/hold")))];
    server.until_held().await;
    server.until_held().await;
    let report = server.stop().await;
    assert_eq!((report.cut_connections, report.cut_requests), (2, 3));
    for one in pending {
        assert!(one.await.expect("task").is_err());
    }
}

#[tokio::test]
async fn idle_connections_end_cleanly_and_quickly() {
    let server = Server::start(Edge::default(), None, PATIENCE).await;
    let mut silent = server.connect().await;
    let mut http1 = server.connect().await;
    assert!(exchange(&mut http1, "/").await.expect("answer").is_some());
    let (mut h2, connection) = h2_client(server.connect().await).await;
    h2.send_request(get("/")).await.expect("response");
    let began = std::time::Instant::now();
    let stopped = tokio::spawn(server.stop());
    until_closed(&mut http1).await.expect("a clean end");
    until_closed(&mut silent).await.expect("a clean end");
    connection.await.expect("task").expect("a clean end");
    drop((http1, silent));
    assert_eq!(stopped.await.expect("task").cut_connections, 0);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_request_on_an_idle_connection_during_the_drain_is_answered() {
    let edge = Edge { drain_idle: Duration::from_secs(10), ..Edge::default() };
    let server = Server::start(edge, None, PATIENCE).await;
    let mut stream = server.connect().await;
    assert!(exchange(&mut stream, "/").await.expect("answer").is_some());
    server.shutdown.cancel();
    let answer = exchange(&mut stream, "/").await.expect("no reset").expect("answer").to_lowercase();
    assert!(answer.contains("connection: close"), "{answer}");
    until_closed(&mut stream).await.expect("a clean end");
    drop(stream);
    server.stop().await;
}

/// Closing a listener resets what waits in its backlog; found by looking for resets under load.
#[tokio::test]
async fn connections_nobody_accepted_yet_are_served_before_the_listener_closes() {
    let listener = bind(([127, 0, 0, 1], 0).into()).await.expect("bind");
    let addr = listener.local_addr().expect("address");
    let mut waiting = Vec::new();
    for _ in 0..50 {
        let mut stream = std::net::TcpStream::connect(addr).expect("connect");
        stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").expect("write");
        stream.set_nonblocking(true).expect("nonblocking");
        waiting.push(tokio::net::TcpStream::from_std(stream).expect("stream"));
    }
    let shutdown = CancellationToken::new();
    shutdown.cancel();
    let server = Server::on(listener, Edge::default(), None, PATIENCE, shutdown);
    for stream in &mut waiting {
        let answer = read_answer(stream).await.expect("no reset").expect("answer").to_lowercase();
        assert!(answer.contains("connection: close"), "{answer}");
    }
    drop(waiting);
    assert_eq!(server.stop().await.accepted, 50);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_under_load_see_no_reset_and_no_half_answer() {
    let server = Server::start(Edge::default(), None, PATIENCE).await;
    let addr = server.addr;
    let answers = Arc::new(AtomicU32::new(0));
    let clients: Vec<_> = (0..32)
        .map(|number| {
            let answers = answers.clone();
            tokio::spawn(async move {
                // Some keep their connection, some open one for each request.
                'connections: loop {
                    let Ok(mut stream) = tokio::net::TcpStream::connect(addr).await else { break };
                    loop {
                        match exchange(&mut stream, "/").await {
                            Ok(Some(answer)) => {
                                answers.fetch_add(1, Ordering::Relaxed);
                                if answer.to_lowercase().contains("connection: close") {
                                    until_closed(&mut stream).await.expect("a clean end");
                                    break 'connections;
                                }
                                if number % 2 == 0 {
                                    break;
                                }
                            }
                            Ok(None) => break 'connections,
                            Err(error) => panic!("client {number}: {error}"),
                        }
                    }
                }
            })
        })
        .collect();
    tokio::time::timeout(PATIENCE, async {
        while answers.load(Ordering::Relaxed) < 2_000 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("all are at it");
    let report = server.stop().await;
    assert_eq!(report.cut_requests, 0);
    for client in clients {
        client.await.expect("no error");
    }
}
