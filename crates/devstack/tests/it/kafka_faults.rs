//! Faults of Kafka: what was stored stays, on the same address.

use std::time::{Duration, Instant};

use sluice_devstack::{ADMIN, Error, Stack};
use sluice_wire::{Client, ClientConfig};

use crate::support::{CALL, alive, eventually, produce, topic};

const BACK: Duration = Duration::from_secs(15);

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_paused_killed_or_restarted_comes_back_with_its_records() {
    let stack = Stack::builder().without_postgres().build().await.unwrap();
    let kafka = stack.kafka().unwrap();
    let client = kafka.connection().client(ADMIN).unwrap();
    client.create_topic(&topic("faults", 1), CALL).await.unwrap();
    assert_eq!(produce(&client, "faults", "0", BACK).await, 0);

    kafka.pause(1).await.unwrap();
    assert!(client.metadata(&[], Duration::from_millis(500)).await.is_err(), "a paused broker does not answer");
    kafka.resume(1).unwrap();
    assert_eq!(produce(&client, "faults", "1", BACK).await, 1);

    let pid = kafka.pid(1).unwrap().unwrap();
    kafka.kill9(1).await.unwrap();
    assert!(!alive(pid) && kafka.pid(1).unwrap().is_none());
    let start = Instant::now();
    kafka.start_broker(1).await.unwrap();
    println!("ready {:?} after the start that followed a kill", start.elapsed());
    assert_eq!(produce(&client, "faults", "2", BACK).await, 2);

    let start = Instant::now();
    kafka.restart(1).await.unwrap();
    println!("restarted in {:?}", start.elapsed());
    assert_eq!(produce(&client, "faults", "3", BACK).await, 3);

    kafka.stop_all().await;
    kafka.start_all().await.unwrap();
    assert_eq!(produce(&client, "faults", "4", BACK).await, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn three_brokers_serve_while_one_is_killed() {
    let stack = Stack::builder().brokers(3).without_postgres().build().await.unwrap();
    let kafka = stack.kafka().unwrap();
    assert_eq!(kafka.brokers().collect::<Vec<_>>(), [1, 2, 3]);
    let client = kafka.connection().client(ADMIN).unwrap();
    client.create_topic(&topic("copies", 3), CALL).await.unwrap();
    assert_eq!(produce(&client, "copies", "0", BACK).await, 0);

    kafka.kill9(2).await.unwrap();

    let dead = Instant::now();
    // A try that was not answered in time may have been stored: the dead one counts as in sync for some seconds.
    let second = produce(&client, "copies", "1", BACK).await;
    assert!(second >= 1);
    println!("written again {:?} after the kill", dead.elapsed());
    kafka.start_broker(2).await.unwrap();
    assert_eq!(client.metadata(&[], CALL).await.unwrap().brokers.len(), 3);
    assert!(produce(&client, "copies", "2", BACK).await > second);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_cannot_start_says_why() {
    let stack = Stack::builder().without_postgres().build().await.unwrap();
    let kafka = stack.kafka().unwrap();
    let address: std::net::SocketAddr =
        kafka.connection().bootstrap[0].replace("localhost", "127.0.0.1").parse().unwrap();
    kafka.kill9(1).await.unwrap();
    let listener = std::net::TcpListener::bind(address).unwrap();

    let error = kafka.start_broker(1).await.unwrap_err();

    assert!(matches!(error, Error::Ended { .. }), "{error}");
    drop(listener);
    kafka.start_broker(1).await.unwrap();
    assert!(Client::connect(ClientConfig { ..kafka.connection().client_config(ADMIN).unwrap() }, CALL).await.is_ok());
    eventually("the broker runs", CALL, async || kafka.pid(1).unwrap().is_some()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_of_kafka_and_postgresql_dies_is_named_with_its_log() {
    let stack = Stack::builder().brokers(2).build().await.unwrap();
    let died = async |name: &str, log: &str| {
        let error = tokio::time::timeout(BACK, stack.ended()).await.expect("is noticed");
        let text = error.to_string();
        assert!(matches!(&error, Error::Died { name: found, .. } if found == name), "{text}");
        assert!(text.contains("SIGKILL") && text.contains(log), "{text}");
    };
    assert!(tokio::time::timeout(Duration::from_millis(100), stack.ended()).await.is_err(), "all of them run");
    tokio::join!(died("kafka-2", "node-2/server.log"), async { stack.kafka().unwrap().kill9(2).await.unwrap() });
    tokio::join!(died("postgres", "postgres.log"), stack.postgres().unwrap().kill9());
}
