//! What happens to a request's body when the answer does not wait for it.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use http_body::Frame;
use http_body_util::StreamBody;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use sluice_runtime::server::Edge;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{PATIENCE, Server, exchange, read_answer, text_of, until_closed};

/// More than the sockets of both sides hold.
const LARGE: usize = 24 << 20;

async fn start() -> Server {
    Server::start(Edge::default(), None, PATIENCE).await
}

fn head(extra: &str) -> String {
    format!("POST /refuse/401 HTTP/1.1\r\nhost: a\r\n{extra}\r\n")
}

#[tokio::test]
async fn a_client_that_sends_all_before_it_reads_gets_its_answer_and_a_goodbye() {
    let server = start().await;
    let chunk = format!("100000\r\n{}\r\n", "x".repeat(1 << 20));
    let bodies = [
        (format!("content-length: {LARGE}\r\n"), "x".repeat(LARGE)),
        ("transfer-encoding: chunked\r\n".into(), chunk.repeat(24) + "0\r\n\r\n"),
    ];
    for (length, body) in bodies {
        let mut stream = server.connect().await;
        stream.write_all(head(&length).as_bytes()).await.expect("the head");
        stream.write_all(body.as_bytes()).await.expect("the whole body is taken");
        let answer = read_answer(&mut stream).await.expect("not reset").expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 401") && answer.contains("connection: close"), "{answer}");
        until_closed(&mut stream).await.expect("a clean end");
    }
}

#[tokio::test]
async fn a_connection_outlives_a_small_body_that_nobody_read() {
    let server = start().await;
    let mut stream = server.connect().await;
    stream.write_all(head("content-length: 10000\r\n").as_bytes()).await.expect("head");
    let answer = read_answer(&mut stream).await.expect("not reset").expect("an answer before the body");
    assert!(!answer.contains("connection: close"), "{answer}");
    stream.write_all(&[b'x'; 10_000]).await.expect("body");
    let answer = exchange(&mut stream, "/").await.expect("not reset").expect("the next answer");
    assert!(answer.ends_with("nobody sent 0"), "{answer}");
}

#[tokio::test]
async fn a_client_that_asks_first_is_refused_or_told_to_go_on() {
    let server = start().await;
    let expect = "expect: 100-continue\r\ncontent-length: 3\r\n";
    let mut refused = server.connect().await;
    refused.write_all(head(expect).as_bytes()).await.expect("head");
    let answer = read_answer(&mut refused).await.expect("not reset").expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 401") && answer.contains("connection: close"), "{answer}");
    until_closed(&mut refused).await.expect("a clean end");

    let mut welcome = server.connect().await;
    welcome.write_all(format!("POST / HTTP/1.1\r\nhost: a\r\n{expect}\r\n").as_bytes()).await.expect("head");
    let mut interim = [0u8; 25];
    welcome.read_exact(&mut interim).await.expect("an invitation");
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    welcome.write_all(b"abc").await.expect("body");
    let answer = read_answer(&mut welcome).await.expect("not reset").expect("an answer");
    assert!(answer.ends_with("nobody sent 3"), "{answer}");
}

#[tokio::test]
async fn a_body_that_never_ends_is_not_read_for_ever() {
    let short = Duration::from_millis(100);
    let edges = [
        Edge { unread_bytes_max: 1 << 20, ..Edge::default() },
        Edge { unread_idle: short, ..Edge::default() },
        Edge { unread_time: short, ..Edge::default() },
    ];
    for edge in edges {
        let server = Server::start(edge.clone(), None, PATIENCE).await;
        let mut stream = server.connect().await;
        stream.write_all(head("content-length: 1000000000\r\n").as_bytes()).await.expect("head");
        let endless = async {
            // Silent where silence is what ends it.
            while edge.unread_idle != short && stream.write_all(&[b'x'; 65_536]).await.is_ok() {}
            read_answer(&mut stream).await
        };
        let _ = tokio::time::timeout(PATIENCE, endless).await.expect("it ends");
        assert_eq!(server.stop().await.cut_connections, 0);
    }
}

#[tokio::test]
async fn over_http2_the_rest_is_taken_and_the_connection_goes_on() {
    let server = start().await;
    let io = TokioIo::new(server.connect().await);
    let (mut client, connection) = http2::handshake(TokioExecutor::new(), io).await.expect("handshake");
    let connection = tokio::spawn(connection);
    for _ in 0..3 {
        let (sender, mut taken) = tokio::sync::mpsc::unbounded_channel();
        let chunks = (0..LARGE >> 20).map(move |chunk| {
            // Asked for once the ones before it are on their way.
            let _ = sender.send(chunk);
            Ok::<_, Infallible>(Frame::data(Bytes::from(vec![0; 1 << 20])))
        });
        let body = StreamBody::new(futures::stream::iter(chunks));
        let request = http::Request::post("http://a/refuse/401").body(body).expect("request");
        let response = client.send_request(request).await.expect("an answer");
        assert_eq!(response.status(), 401);
        assert_eq!(text_of(response).await, "refused");
        let mut chunks = 0;
        // The channel ends with the body, whether it was taken or cut off.
        let over = async {
            while taken.recv().await.is_some() {
                chunks += 1
            }
        };
        tokio::time::timeout(PATIENCE, over).await.expect("the body ends");
        assert_eq!(chunks, LARGE >> 20, "all of it was taken");
    }
    assert!(!connection.is_finished());
}
