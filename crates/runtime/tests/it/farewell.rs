//! What a connection hears whose place another gets.

use std::time::Duration;

use sluice_runtime::server::Edge;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{PATIENCE, Server, exchange, until_closed};

/// More than a connection that has nothing under way gets to say goodbye.
const LONGER_THAN_A_GOODBYE: Duration = Duration::from_secs(1);

/// A server with one place.
async fn start() -> Server {
    Server::start(Edge { max_connections: 1, ..Edge::default() }, None, PATIENCE).await
}

/// Comes until it has the only place.
async fn newcomer(server: &Server) -> TcpStream {
    let served = async {
        loop {
            let mut stream = server.connect().await;
            if matches!(exchange(&mut stream, "/").await, Ok(Some(answer)) if answer.starts_with("HTTP/1.1 200")) {
                return stream;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, served).await.expect("who idles has to go")
}

/// A frame of HTTP/2.
#[derive(Debug)]
struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

const HEADERS: u8 = 1;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const ACK: u8 = 1;

/// An HTTP/2 client that hears everything and says only what it is told to.
struct Bare(TcpStream);

impl Bare {
    async fn connect(server: &Server) -> Self {
        let mut client = Self(server.connect().await);
        client.0.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.expect("write");
        client.say(4, 0, 0, &[]).await;
        client
    }

    async fn say(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let mut frame = u32::try_from(payload.len()).expect("short").to_be_bytes()[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        self.0.write_all(&frame).await.expect("write");
    }

    async fn get(&mut self, stream: u32, path: &str) {
        // GET, http, and the path and the authority as they are.
        let mut head = vec![0x82, 0x86, 0x04, u8::try_from(path.len()).expect("short")];
        head.extend(path.as_bytes());
        head.extend([0x01, 1, b'a']);
        self.say(HEADERS, END_STREAM | END_HEADERS, stream, &head).await;
    }

    /// The next frame; `None` when the server has closed cleanly.
    async fn next(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        let frame = async {
            match self.0.read_exact(&mut head).await {
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return None,
                Err(error) => panic!("{error}"),
            }
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            let mut payload = vec![0; length];
            self.0.read_exact(&mut payload).await.expect("a whole frame");
            Some(Frame { kind: head[3], flags: head[4], stream, payload })
        };
        tokio::time::timeout(PATIENCE, frame).await.expect("in time")
    }

    async fn until(&mut self, wanted: impl Fn(&Frame) -> bool) -> Frame {
        loop {
            let frame = self.next().await.expect("open");
            if wanted(&frame) {
                return frame;
            }
        }
    }

    /// Waits for the whole answer on a stream; whether it is 200.
    async fn answered(&mut self, stream: u32) -> bool {
        const STATUS_200: u8 = 0x88;
        let head = self.until(|frame| frame.stream == stream && frame.kind == HEADERS).await;
        self.until(|frame| frame.stream == stream && frame.flags & END_STREAM != 0).await;
        head.payload.first() == Some(&STATUS_200)
    }
}

/// The last stream that a GOAWAY leaves to its server, and why it goes.
fn leaves(goaway: &Frame) -> (u32, u32) {
    let number = |at: usize| u32::from_be_bytes(goaway.payload[at..at + 4].try_into().expect("four"));
    (number(0), number(4))
}

#[tokio::test]
async fn an_http2_connection_that_has_to_go_is_told_and_gets_the_answer_to_what_it_has_just_asked() {
    const NO_ERROR: u32 = 0;
    let server = start().await;
    let mut client = Bare::connect(&server).await;
    client.get(1, "/trust").await;
    assert!(client.answered(1).await);
    let _newcomer = newcomer(&server).await;
    assert_eq!(server.metrics.evicted.get(), 1);
    let first = client.until(|frame| frame.kind == GOAWAY).await;
    assert_eq!(leaves(&first), (i32::MAX as u32, NO_ERROR), "whatever is on its way may come");
    let ping = client.until(|frame| frame.kind == PING).await;

    // It was on its way.
    client.get(3, "/hold").await;
    server.until_held().await;
    client.say(PING, ACK, 0, &ping.payload).await;
    let last = client.until(|frame| frame.kind == GOAWAY).await;
    assert_eq!(leaves(&last), (3, NO_ERROR));
    tokio::time::sleep(LONGER_THAN_A_GOODBYE).await;
    server.gate.add_permits(1);
    assert!(client.answered(3).await);
    while client.next().await.is_some() {}
}

#[tokio::test]
async fn an_http1_connection_that_has_to_go_ends_cleanly() {
    let server = start().await;
    let mut known = server.connect().await;
    let answer = exchange(&mut known, "/trust").await.expect("an answer");
    assert!(answer.is_some_and(|answer| answer.starts_with("HTTP/1.1 200")));
    let _newcomer = newcomer(&server).await;
    until_closed(&mut known).await.expect("a clean end");
    assert_eq!(server.metrics.evicted.get(), 1);
}
