//! Many readers whose partitions' leaders die and come back.

use std::time::{Duration, Instant};

use futures::future::join_all;
use sluice_devstack::ADMIN;
use sluice_wire::{Client, FetchRequest, Isolation, OffsetAt, Reader, decode};
use tokio::task::JoinHandle;

use crate::fixture::{TIMEOUT, eventually, make_replicated, own_kafka, read, record};

const PARTITIONS: i32 = 6;
const WAITERS: i32 = 120;

/// Waits at the end of every partition, many times; gives where each read ended beyond where it began.
fn wait_at(reader: &Reader, ends: &[i64]) -> Vec<JoinHandle<i64>> {
    let wait = |number: i32| {
        let (reader, partition) = (reader.clone(), number % PARTITIONS);
        let offset = ends[partition as usize];
        tokio::spawn(async move {
            let request = FetchRequest { partition, max_wait: Duration::from_secs(120), ..read("log", offset) };
            let fetched = reader.fetch(request, number as u64, Duration::from_secs(120)).await.unwrap();
            decode(&fetched.batches, offset, &[]).unwrap().next_offset - offset
        })
    };
    (0..WAITERS).map(wait).collect()
}

async fn served(waiters: Vec<JoinHandle<i64>>) {
    let written = Instant::now();
    assert!(join_all(waiters).await.into_iter().all(|read| read.unwrap() >= 1));
    eprintln!("all served {:?} after all was written", written.elapsed());
    assert!(written.elapsed() < Duration::from_secs(5), "{:?}", written.elapsed());
}

async fn ends(client: &Client) -> Vec<i64> {
    let end = async |partition| {
        let listed = client.list_offset("log", partition, OffsetAt::Latest, Isolation::ReadCommitted, TIMEOUT).await;
        listed.unwrap().offset.unwrap()
    };
    join_all((0..PARTITIONS).map(end)).await
}

async fn produce_everywhere(client: &Client) {
    let records = [record("k", "v")];
    let produce = async |partition| {
        let once = || client.produce_batch("log", partition, &records, Duration::from_secs(5));
        eventually(once, Result::is_ok).await.unwrap();
    };
    join_all((0..PARTITIONS).map(produce)).await;
}

#[tokio::test]
async fn waiters_are_served_wherever_their_leader_moves() {
    let stack = own_kafka(3).await;
    let kafka = stack.kafka().unwrap();
    let client = kafka.connection().client(ADMIN).unwrap();
    make_replicated(&client, "log", PARTITIONS, 3, &[("min.insync.replicas", "1")]).await;
    let all_in_sync = || async { client.metadata(&["log"], TIMEOUT).await.unwrap().topics.remove(0) };
    eventually(all_in_sync, |topic| topic.partitions.values().all(|partition| partition.isr.len() == 3)).await;
    let reader = Reader::new(client.clone());

    let waiters = wait_at(&reader, &[0; PARTITIONS as usize]);
    kafka.kill9(2).await.unwrap();
    produce_everywhere(&client).await;
    served(waiters).await;

    kafka.start_broker(2).await.unwrap();
    eventually(all_in_sync, |topic| topic.partitions.values().all(|partition| partition.isr.len() == 3)).await;
    // An orderly stop hands its leaders over.
    let waiters = wait_at(&reader, &ends(&client).await);
    kafka.stop(1).await.unwrap();
    produce_everywhere(&client).await;
    served(waiters).await;
    stack.stop().await;
}
