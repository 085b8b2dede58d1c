//! A connection against a peer that plays the broker by hand, well or badly.

use tokio::io::DuplexStream;

use super::*;
use crate::codec::{
    ListOffsetsRequestData, ListOffsetsResponseData, SaslHandshakeRequestData, SaslHandshakeResponseData,
};

const LONG: Duration = Duration::from_secs(30);

/// A connection and the broker's end of it. SaslHandshake serves as any small request.
fn connect(request_timeout: Duration) -> (Connection, DuplexStream) {
    let (ours, brokers) = tokio::io::duplex(1 << 20);
    let address = Address { host: "broker".to_owned(), port: 1 };
    let config = ClientConfig { request_timeout, ..ClientConfig::new(["broker:1"]) };
    let versions = Versions::of([(SaslHandshakeRequestData::API, (1, 1)), (ListOffsetsRequestData::API, (6, 6))]);
    let greeting = Greeting { versions, session_lifetime: None };
    (Connection::start(Box::new(ours), &address, &config, greeting), brokers)
}

fn ask(connection: &Connection, wait: Duration) -> tokio::task::JoinHandle<Result<SaslHandshakeResponseData>> {
    let connection = connection.clone();
    tokio::spawn(
        async move { connection.call(&SaslHandshakeRequestData::default(), wait, Deadline::after(LONG)).await },
    )
}

/// The correlation id of the next request.
async fn take_request(broker: &mut DuplexStream) -> i32 {
    let length = broker.read_u32().await.unwrap() as usize;
    let mut frame = vec![0; length];
    broker.read_exact(&mut frame).await.unwrap();
    i32::from_be_bytes(frame[4..8].try_into().unwrap())
}

async fn answer(broker: &mut DuplexStream, id: i32, error: i16) {
    broker.write_u32(10).await.unwrap();
    broker.write_i32(id).await.unwrap();
    broker.write_i16(error).await.unwrap();
    broker.write_i32(0).await.unwrap();
}

#[tokio::test]
async fn requests_are_pipelined_and_answered_in_order() {
    let (connection, mut broker) = connect(LONG);
    let first = ask(&connection, LONG);
    let first_id = take_request(&mut broker).await;
    let second = ask(&connection, LONG);
    let second_id = take_request(&mut broker).await;
    answer(&mut broker, first_id, 1).await;
    answer(&mut broker, second_id, 2).await;
    assert_eq!(first.await.unwrap().unwrap().error_code, 1);
    assert_eq!(second.await.unwrap().unwrap().error_code, 2);
}

#[tokio::test]
async fn a_lost_connection_fails_all_its_requests_at_once() {
    let (connection, mut broker) = connect(LONG);
    let asked = [ask(&connection, LONG), ask(&connection, LONG)];
    take_request(&mut broker).await;
    drop(broker);
    for request in asked {
        assert!(matches!(request.await.unwrap(), Err(Error::Disconnected { .. })));
    }
    assert!(!connection.is_usable());
    let late = ask(&connection, LONG).await.unwrap();
    assert!(matches!(late, Err(Error::Disconnected { .. })), "{late:?}");
}

#[tokio::test]
async fn an_answer_nobody_asked_for_ends_the_connection() {
    let (connection, mut broker) = connect(LONG);
    let asked = ask(&connection, LONG);
    let id = take_request(&mut broker).await;
    answer(&mut broker, id + 1, 0).await;
    assert!(matches!(asked.await.unwrap(), Err(Error::Protocol(_))));
}

#[tokio::test]
async fn a_frame_over_the_bound_ends_the_connection_before_memory_is_taken() {
    let (connection, mut broker) = connect(LONG);
    let asked = ask(&connection, LONG);
    take_request(&mut broker).await;
    broker.write_u32(u32::MAX).await.unwrap();
    assert!(matches!(asked.await.unwrap(), Err(Error::Protocol(_))));
}

#[tokio::test]
async fn a_malformed_answer_ends_the_connection() {
    let (connection, mut broker) = connect(LONG);
    let asked = ask(&connection, LONG);
    let id = take_request(&mut broker).await;
    broker.write_u32(5).await.unwrap();
    broker.write_i32(id).await.unwrap();
    broker.write_u8(0).await.unwrap();
    assert!(matches!(asked.await.unwrap(), Err(Error::Protocol(_))));
    assert!(!connection.is_usable());
}

#[tokio::test]
async fn a_caller_that_gives_up_leaves_the_connection_in_order() {
    let (connection, mut broker) = connect(LONG);
    let given_up = ask(&connection, LONG);
    let first = take_request(&mut broker).await;
    given_up.abort();
    let asked = ask(&connection, LONG);
    let second = take_request(&mut broker).await;
    answer(&mut broker, first, 1).await;
    answer(&mut broker, second, 2).await;
    assert_eq!(asked.await.unwrap().unwrap().error_code, 2);
}

#[tokio::test]
async fn a_silent_broker_is_given_up_without_any_caller_doing_so() {
    let (connection, mut broker) = connect(Duration::from_millis(50));
    let asked = ask(&connection, Duration::ZERO);
    take_request(&mut broker).await;
    assert!(matches!(asked.await.unwrap(), Err(Error::Disconnected { .. })));
}

#[test]
fn a_request_behind_a_slow_one_gets_its_own_time() {
    let now = Instant::now();
    let waiting = |patience| {
        let slot = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        let (throttle, reply) = (throttle_of::<ListOffsetsRequestData>, oneshot::channel().0);
        Waiting { id: 0, patience, throttle, version: 10, reply, _slot: slot }
    };
    let mut state = State { front_since: Some(now), ..State::default() };
    state.waiting.extend([waiting(Duration::from_secs(30)), waiting(Duration::from_secs(5))]);
    assert!(!state.is_silent(now + Duration::from_secs(20)));
    state.waiting.pop_front();
    state.front_since = Some(now + Duration::from_secs(20));
    assert!(!state.is_silent(now + Duration::from_secs(24)));
    assert!(state.is_silent(now + Duration::from_secs(26)));
}

/// A request whose answer may say that we are throttled.
fn list(connection: &Connection, within: Duration) -> tokio::task::JoinHandle<Result<ListOffsetsResponseData>> {
    let connection = connection.clone();
    let request = ListOffsetsRequestData::default();
    tokio::spawn(async move { connection.call(&request, Duration::ZERO, Deadline::after(within)).await })
}

async fn answer_throttled(broker: &mut DuplexStream, id: i32, throttle_ms: i32) {
    // Header with tags, throttle time, no topics, tags.
    broker.write_u32(11).await.unwrap();
    broker.write_i32(id).await.unwrap();
    broker.write_u8(0).await.unwrap();
    broker.write_i32(throttle_ms).await.unwrap();
    broker.write_u8(1).await.unwrap();
    broker.write_u8(0).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_throttled_connection_waits_and_does_not_count_as_silent() {
    let (connection, mut broker) = connect(Duration::from_secs(5));
    let (first, behind) = (list(&connection, LONG), list(&connection, LONG));
    let id = take_request(&mut broker).await;
    let second = take_request(&mut broker).await;
    answer_throttled(&mut broker, id, 20_000).await;
    first.await.unwrap().unwrap();
    // The broker reads no further for that long: what was sent before waits, what comes now is not sent.
    let late = list(&connection, LONG);
    let hasty = list(&connection, Duration::from_secs(3)).await.unwrap();
    assert!(matches!(hasty, Err(Error::Throttled { pause }) if pause > Duration::from_secs(15)), "{hasty:?}");
    tokio::time::sleep(Duration::from_secs(18)).await;
    assert!(connection.is_usable());
    answer_throttled(&mut broker, second, 0).await;
    behind.await.unwrap().unwrap();
    let third = take_request(&mut broker).await;
    answer_throttled(&mut broker, third, 0).await;
    late.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_throttle_that_nobody_waited_for_counts_all_the_same() {
    let (connection, mut broker) = connect(Duration::from_secs(5));
    let given_up = list(&connection, LONG);
    let id = take_request(&mut broker).await;
    given_up.abort();
    assert!(given_up.await.unwrap_err().is_cancelled());
    answer_throttled(&mut broker, id, 20_000).await;
    let noted = async {
        while connection.shared.state.lock().quiet_until.is_none() {
            tokio::task::yield_now().await;
        }
    };
    noted.await;
    let hasty = list(&connection, Duration::from_secs(3)).await.unwrap();
    assert!(matches!(hasty, Err(Error::Throttled { .. })), "{hasty:?}");
}
