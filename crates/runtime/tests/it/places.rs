//! Who has a connection, and who has to go.

use std::net::SocketAddr;
use std::time::Duration;

use sluice_runtime::server::Edge;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::support::{LARGE, PATIENCE, Server, exchange, read_answer, until_closed};

async fn start(edge: Edge) -> Server {
    Server::start(edge, None, PATIENCE).await
}

/// Connects from `127.0.0.{source}`.
async fn connect_from(source: u8, server: &Server) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("socket");
    socket.bind(SocketAddr::from(([127, 0, 0, source], 0))).expect("an address of this machine");
    socket.connect(server.addr).await.expect("connect")
}

async fn is_served(stream: &mut TcpStream, path: &str) -> bool {
    matches!(exchange(stream, path).await, Ok(Some(answer)) if answer.starts_with("HTTP/1.1 200"))
}

#[tokio::test]
async fn those_who_only_connect_keep_nobody_out() {
    let server = start(Edge { max_connections: 8, max_connections_per_source: 4, ..Edge::default() }).await;
    let mut known = connect_from(3, &server).await;
    assert!(is_served(&mut known, "/trust").await);
    // Two sources take all they can get, and go on.
    let mut idle = Vec::new();
    for round in 0..12 {
        let mut stream = connect_from(1 + round % 2, &server).await;
        assert!(is_served(&mut stream, "/").await, "round {round}");
        idle.push(stream);
    }
    let mut newcomer = connect_from(4, &server).await;
    assert!(is_served(&mut newcomer, "/").await, "a newcomer takes the place of one that only connected");
    assert!(is_served(&mut known, "/").await, "who authenticated kept its place");
    drop(idle);
    assert!(server.stop().await.evicted >= 5);
}

#[tokio::test]
async fn who_is_at_work_keeps_its_place_and_a_free_one_is_used_again() {
    let server = start(Edge { max_connections: 1, ..Edge::default() }).await;
    let mut first = server.connect().await;
    first.write_all(b"GET /hold HTTP/1.1\r\nhost: a\r\n\r\n").await.expect("write");
    server.until_held().await;
    // Sockets that were told to go may still be closing, so there are a few more of them than places.
    let mut refused = 0;
    for _ in 0..4 {
        refused += usize::from(!is_served(&mut server.connect().await, "/").await);
    }
    assert_eq!(refused, 4);
    server.gate.add_permits(1);
    assert!(read_answer(&mut first).await.expect("answer").is_some());
    drop(first);
    tokio::time::timeout(PATIENCE, async { while !is_served(&mut server.connect().await, "/").await {} })
        .await
        .expect("a free place");
    assert!(server.stop().await.refused >= 4);
}

#[tokio::test]
async fn who_reads_slowly_gets_all_of_its_answer() {
    let server = start(Edge { max_connections: 1, ..Edge::default() }).await;
    let mut slow = server.connect().await;
    assert!(is_served(&mut slow, "/trust").await);
    slow.write_all(b"GET /large HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.expect("write");
    slow.readable().await.expect("an answer");
    // Longer than who authenticated counts as at work after its last request.
    let begun = std::time::Instant::now();
    while begun.elapsed() < Duration::from_secs(2) {
        assert!(!is_served(&mut server.connect().await, "/").await, "its place is taken");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let mut answer = Vec::new();
    tokio::time::timeout(PATIENCE, slow.read_to_end(&mut answer)).await.expect("in time").expect("a clean end");
    assert!(answer.len() > LARGE, "{}", answer.len());
    assert_eq!(server.stop().await.evicted, 0);
}

#[tokio::test]
async fn a_connection_without_a_credential_idles_for_a_shorter_time() {
    let short = Duration::from_millis(100);
    let server = start(Edge { stranger_idle_timeout: short, ..Edge::default() }).await;
    let (mut known, mut stranger) = (server.connect().await, server.connect().await);
    assert!(is_served(&mut known, "/trust").await && is_served(&mut stranger, "/").await);
    until_closed(&mut stranger).await.expect("a clean end");
    assert!(is_served(&mut known, "/").await);
}

/// `/proc/net/tcp` shows which timer runs for a socket; 2 is the one that asks whether the peer is still there.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_peer_that_is_silent_is_asked_whether_it_is_still_there() {
    let server = start(Edge::default()).await;
    let mut stream = server.connect().await;
    assert!(is_served(&mut stream, "/").await);
    let address = |addr: SocketAddr| format!("0100007F:{:04X}", addr.port());
    let ends = format!("{} {} 01", address(server.addr), address(stream.local_addr().expect("address")));
    let asked = async {
        loop {
            let table = std::fs::read_to_string("/proc/net/tcp").expect("the table of sockets");
            let line = table.lines().find(|line| line.contains(&ends)).expect("our connection");
            if line.split_whitespace().nth(5).is_some_and(|timer| timer.starts_with("02:")) {
                return;
            }
            // The answer was not acknowledged yet, which has a timer of its own.
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, asked).await.expect("the system asks");
}
