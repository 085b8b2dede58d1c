//! Brokers that die, freeze, and hand leadership over.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use sluice_devstack::ADMIN;
use sluice_wire::{
    Committer, DecodeLimits, EpochEnd, Error, FetchRequest, LogTail, OffsetAt, Reader, TailOptions, TailState, decode,
};

use crate::fixture::{TIMEOUT, eventually, make_replicated, make_topic, own_kafka, read, record};
use crate::groups::commit_of;

#[tokio::test]
async fn readers_go_on_after_the_broker_was_killed_and_started_again() {
    let stack = own_kafka(1).await;
    let kafka = stack.kafka().unwrap();
    let client = kafka.connection().client(ADMIN).unwrap();
    make_topic(&client, "log", 1, &[]).await;
    client.produce_batch("log", 0, &[record("a", "1")], TIMEOUT).await.unwrap();
    let mut tail = LogTail::new(client.clone(), "log", 0, OffsetAt::Earliest, TailOptions::default());
    assert_eq!(tail.next(TIMEOUT).await.unwrap().position, 1);
    let reader = Reader::new(client.clone());
    let waiting = tokio::spawn({
        let request = FetchRequest { max_wait: Duration::from_secs(120), ..read("log", 1) };
        async move { reader.fetch(request, 0, Duration::from_secs(120)).await }
    });

    kafka.kill9(1).await.unwrap();
    let unavailable = async {
        loop {
            if let TailState::Unavailable { .. } = tail.next(Duration::from_millis(50)).await.unwrap().state {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(5), unavailable).await.expect("the tail says that it cannot read");

    kafka.start_broker(1).await.unwrap();
    let serves = Instant::now();
    client.produce_batch("log", 0, &[record("b", "2")], TIMEOUT).await.unwrap();
    let batch = tail.next(TIMEOUT).await.unwrap();
    assert_eq!((batch.records.len(), batch.position), (1, 2));
    let fetched = waiting.await.unwrap().unwrap();
    assert_eq!(decode(&fetched.batches, 1, &[]).unwrap().next_offset, 2);
    assert!(serves.elapsed() < Duration::from_secs(5), "{:?}", serves.elapsed());
    stack.stop().await;
}

#[tokio::test]
async fn a_frozen_broker_fails_requests_in_time_and_is_used_again_afterwards() {
    let stack = own_kafka(1).await;
    let kafka = stack.kafka().unwrap();
    let mut config = kafka.connection().client_config(ADMIN).unwrap();
    config.request_timeout = Duration::from_secs(1);
    let client = sluice_wire::Client::new(config).unwrap();
    make_topic(&client, "log", 1, &[]).await;
    kafka.pause(1).await.unwrap();
    let started = Instant::now();
    let failed = client.metadata(&["log"], Duration::from_secs(2)).await.unwrap_err();
    assert!(failed.is_retriable(), "{failed:?}");
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
    kafka.resume(1).unwrap();
    eventually(
        || async { client.produce_batch("log", 0, &[record("a", "1")], Duration::from_secs(2)).await.map(drop) },
        Result::is_ok,
    )
    .await
    .unwrap();
    stack.stop().await;
}

#[tokio::test]
async fn a_commit_after_one_of_unknown_outcome_is_made_once_more() {
    let stack = own_kafka(1).await;
    let kafka = stack.kafka().unwrap();
    let client = kafka.connection().client(ADMIN).unwrap();
    make_topic(&client, "log", 1, &[]).await;
    let commit = async |offset, timeout| {
        let offsets = [commit_of("log", 0, offset, "")];
        client.commit_offsets("g", Committer::Outside, &offsets, timeout).await
    };
    commit(1, TIMEOUT).await.unwrap();
    // Each commit is a record of the group's partition.
    let offsets = client.metadata(&["__consumer_offsets"], TIMEOUT).await.unwrap().topics.remove(0);
    let partition = i32::from(b'g') % offsets.partitions.len() as i32;
    let written = async || {
        let (at, isolation) = (OffsetAt::Latest, sluice_wire::Isolation::ReadUncommitted);
        client.list_offset("__consumer_offsets", partition, at, isolation, TIMEOUT).await.unwrap().offset.unwrap()
    };
    let before = written().await;
    kafka.pause(1).await.unwrap();
    let lost = commit(2, Duration::from_millis(200)).await.unwrap_err();
    assert!(lost.is_outcome_unknown(), "{lost:?}");
    kafka.resume(1).unwrap();
    commit(3, TIMEOUT).await.unwrap();
    assert_eq!(written().await - before, 3, "the one in doubt, and the next one twice");
    commit(4, TIMEOUT).await.unwrap();
    assert_eq!(written().await - before, 4, "nothing is in doubt any more");
    stack.stop().await;
}

#[tokio::test]
async fn a_log_that_was_lost_is_told_from_one_that_was_trimmed() {
    let stack = own_kafka(1).await;
    let kafka = stack.kafka().unwrap();
    let client = kafka.connection().client(ADMIN).unwrap();
    make_topic(&client, "log", 1, &[]).await;
    let produce = async |count: i32| {
        for _ in 0..count {
            client.produce_batch("log", 0, &[record("k", "v")], TIMEOUT).await.unwrap();
        }
    };
    produce(5).await;
    let reader = Reader::new(client.clone());
    let from = async |offset, last_epoch| {
        let request = FetchRequest { last_epoch, max_wait: Duration::ZERO, ..read("log", offset) };
        reader.read(request, DecodeLimits::default(), 0, TIMEOUT).await
    };
    let found = from(0, None).await.unwrap();
    let epoch = found.epochs.last().unwrap().epoch;
    assert_eq!((found.next_offset, from(5, Some(epoch)).await.unwrap().next_offset), (5, 5));
    let end_of = async || client.epoch_ends("log", &BTreeMap::from([(0, epoch)]), TIMEOUT).await.unwrap();
    assert_eq!(end_of().await[&0].as_ref().unwrap(), &Some(EpochEnd { epoch, end_offset: 5 }));
    let mut tail = LogTail::from_offset(client.clone(), "log", 0, 4, TailOptions::default());
    assert_eq!(tail.next(TIMEOUT).await.unwrap().position, 5);

    // Below the log's start.
    client.delete_records_before("log", 0, 2, TIMEOUT).await.unwrap();
    let trimmed = from(1, Some(epoch)).await.unwrap_err();
    let Error::OffsetOutOfRange { log_start_offset: 2, end_offset: 5, .. } = trimmed else { panic!("{trimmed:?}") };

    // The disk is lost with the log; another one begins.
    kafka.stop(1).await.unwrap();
    std::fs::remove_dir_all(stack.dir().join("kafka/node-1/data/log-0")).unwrap();
    kafka.start_broker(1).await.unwrap();
    let above = eventually(|| from(5, None), |read| read.as_ref().is_err_and(|error| !error.is_retriable())).await;
    let Err(Error::OffsetOutOfRange { log_start_offset: 0, end_offset: 0, .. }) = above else { panic!("{above:?}") };
    // Once it has grown beyond the position, only the epoch tells.
    produce(8).await;
    assert_eq!(from(5, None).await.unwrap().next_offset, 8, "other records, silently");
    let truncated = from(5, Some(epoch)).await.unwrap_err();
    let Error::LogTruncated { offset: 5, end_offset: 0, .. } = truncated else { panic!("{truncated:?}") };
    let end = end_of().await.remove(&0).unwrap().unwrap();
    assert!(end.is_none_or(|end| !end.holds(epoch, 5)), "{end:?}");
    let lost = loop {
        match tail.next(TIMEOUT).await {
            Ok(batch) => assert!(batch.records.is_empty(), "{batch:?}"),
            Err(error) => break error,
        }
    };
    assert!(matches!(lost, Error::LogTruncated { .. }), "{lost:?}");
    stack.stop().await;
}

#[tokio::test]
async fn a_log_of_a_cluster_that_was_restored_from_an_older_copy_is_told_from_the_one_that_was_read() {
    let stack = own_kafka(1).await;
    let kafka = stack.kafka().unwrap();
    // Each time as a process that starts anew.
    let client = || kafka.connection().client(ADMIN).unwrap();
    let produce = async |count: i32| {
        let client = client();
        for _ in 0..count {
            client.produce_batch("log", 0, &[record("k", "v")], TIMEOUT).await.unwrap();
        }
    };
    let from = async |offset, last_epoch| {
        let request = FetchRequest { last_epoch, max_wait: Duration::ZERO, ..read("log", offset) };
        Reader::new(client()).read(request, DecodeLimits::default(), 0, TIMEOUT).await
    };
    make_topic(&client(), "log", 1, &[]).await;
    produce(5).await;
    kafka.stop(1).await.unwrap();
    let (data, copy) = (stack.dir().join("kafka/node-1/data"), stack.dir().join("copy"));
    copy_dir(&data, &copy);
    // Each start is another epoch.
    for _ in 0..3 {
        kafka.start_broker(1).await.unwrap();
        kafka.stop(1).await.unwrap();
    }
    kafka.start_broker(1).await.unwrap();
    produce(3).await;
    let epoch = from(7, None).await.unwrap().epochs.last().unwrap().epoch;
    kafka.stop(1).await.unwrap();

    std::fs::remove_dir_all(&data).unwrap();
    std::fs::rename(&copy, &data).unwrap();
    kafka.start_broker(1).await.unwrap();
    produce(8).await;
    let now = from(8, None).await.unwrap();
    assert!(now.epochs.last().unwrap().epoch < epoch && now.next_offset == 13, "{now:?}");
    let truncated = from(8, Some(epoch)).await.unwrap_err();
    assert!(matches!(truncated, Error::LogTruncated { offset: 8, .. }), "{truncated:?}");
    stack.stop().await;
}

fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        match entry.file_type().unwrap().is_dir() {
            true => copy_dir(&entry.path(), &to.join(entry.file_name())),
            false => drop(std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap()),
        }
    }
}

#[tokio::test]
async fn readers_follow_the_leader_to_another_broker() {
    let stack = own_kafka(3).await;
    let kafka = stack.kafka().unwrap();
    let client = kafka.connection().client(ADMIN).unwrap();
    make_replicated(&client, "log", 1, 3, &[("min.insync.replicas", "1")]).await;
    let topic = eventually(
        || async { client.metadata(&["log"], TIMEOUT).await.unwrap().topics.remove(0) },
        |topic| topic.partitions[&0].isr.len() == 3,
    )
    .await;
    client.produce_batch("log", 0, &[record("a", "1")], TIMEOUT).await.unwrap();
    let mut tail = LogTail::new(client.clone(), "log", 0, OffsetAt::Earliest, TailOptions::default());
    assert_eq!(tail.next(TIMEOUT).await.unwrap().position, 1);
    let reader = Reader::new(client.clone());
    let waiting = tokio::spawn({
        let request = FetchRequest { max_wait: Duration::from_secs(120), ..read("log", 1) };
        async move { reader.fetch(request, 0, Duration::from_secs(120)).await }
    });

    let records = [record("b", "2")];
    let leader = topic.partitions[&0].leader.unwrap();
    kafka.kill9(leader as u32).await.unwrap();
    let produced =
        eventually(|| client.produce_batch("log", 0, &records, Duration::from_secs(5)), Result::is_ok).await.unwrap();
    let elected = Instant::now();
    let batch = tail.next(TIMEOUT).await.unwrap();
    assert!(batch.position > produced.base_offset, "{batch:?}");
    let fetched = waiting.await.unwrap().unwrap();
    assert!(decode(&fetched.batches, 1, &[]).unwrap().next_offset >= 2);
    assert!(elected.elapsed() < Duration::from_secs(5), "{:?}", elected.elapsed());
    stack.stop().await;
}
