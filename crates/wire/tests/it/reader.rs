//! Many readers at once.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures::future::join_all;
use sluice_devstack::{ADMIN, shared};
use sluice_wire::{Client, DecodeLimits, Error, FetchRequest, Isolation, OffsetAt, Reader, decode};

use crate::fixture::{TIMEOUT, client, make_topic, read, record, unique};

fn long(topic: &str, partition: i32, offset: i64) -> FetchRequest {
    FetchRequest { partition, max_wait: Duration::from_secs(60), ..read(topic, offset) }
}

#[tokio::test]
async fn thousands_of_waiters_do_not_wait_for_each_other() {
    let client = client().await;
    let topic = unique("crowd");
    make_topic(&client, &topic, 20, &[]).await;
    let reader = Reader::new(client.clone());
    let waiters: Vec<_> = (0..2_000)
        .map(|number| {
            let (reader, request) = (reader.clone(), long(&topic, number % 20, 0));
            tokio::spawn(async move { reader.fetch(request, number as u64, Duration::from_secs(90)).await })
        })
        .collect();
    // One more, so that its partition's poll is certainly under way when it is served.
    client.produce_batch(&topic, 7, &[record("a", "1")], TIMEOUT).await.unwrap();
    let started = Instant::now();
    let mut served = 0;
    for (number, waiter) in waiters.into_iter().enumerate() {
        if number % 20 == 7 {
            let fetched = waiter.await.unwrap().unwrap();
            assert_eq!(decode(&fetched.batches, 0, &[]).unwrap().records.len(), 1);
            served += 1;
        } else {
            waiter.abort();
        }
    }
    assert_eq!(served, 100);
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_new_waiter_is_served_while_a_long_poll_is_under_way() {
    let client = client().await;
    let (busy, topic) = (unique("idle"), unique("new"));
    make_topic(&client, &busy, 1, &[]).await;
    make_topic(&client, &topic, 1, &[]).await;
    let reader = Reader::new(client.clone());
    let parked = tokio::spawn({
        let (reader, request) = (reader.clone(), long(&busy, 0, 0));
        async move { reader.fetch(request, 1, Duration::from_secs(90)).await }
    });
    for offset in 0..20 {
        let mut wait = Box::pin(reader.fetch(long(&topic, 0, offset), 1, TIMEOUT));
        // Let it get to wait before the record comes.
        assert!(tokio::time::timeout(Duration::from_millis(15), &mut wait).await.is_err());
        client.produce_batch(&topic, 0, &[record("a", "1")], TIMEOUT).await.unwrap();
        let fetched = wait.await.unwrap();
        assert_eq!(decode(&fetched.batches, offset, &[]).unwrap().next_offset, offset + 1);
    }
    parked.abort();
}

#[tokio::test]
async fn every_reader_gets_every_record_once_and_in_order() {
    const READERS: i32 = 60;
    const RECORDS: i64 = 100;
    let client = client().await;
    let topic = unique("stress");
    make_topic(&client, &topic, 6, &[]).await;
    let reader = Reader::new(client.clone());
    let readers = (0..READERS).map(|number| {
        let (reader, topic) = (reader.clone(), topic.clone());
        tokio::spawn(async move {
            let (mut offset, mut seen) = (0, Vec::new());
            while offset < RECORDS {
                let fetched = reader.fetch(long(&topic, number % 6, offset), 0, Duration::from_secs(90)).await.unwrap();
                let decoded = decode(&fetched.batches, offset, &fetched.aborted).unwrap();
                seen.extend(decoded.records.iter().map(|record| record.offset));
                offset = decoded.next_offset;
            }
            assert_eq!(seen, (0..RECORDS).collect::<Vec<_>>());
        })
    });
    let readers: Vec<_> = readers.collect();
    let writers = (0..6).map(|partition| {
        let (client, topic) = (client.clone(), topic.clone());
        async move {
            for _ in 0..RECORDS {
                client.produce_batch(&topic, partition, &[record("k", "v")], TIMEOUT).await.unwrap();
            }
        }
    });
    join_all(writers).await;
    for reader in readers {
        tokio::time::timeout(TIMEOUT, reader).await.expect("readers end").unwrap();
    }
}

#[tokio::test]
async fn readers_at_the_same_place_share_the_bytes() {
    let client = client().await;
    let topic = unique("share");
    make_topic(&client, &topic, 1, &[]).await;
    let reader = Reader::new(client.clone());
    let waits = (0..50).map(|share| reader.fetch(long(&topic, 0, 0), share, TIMEOUT));
    let records = [record("a", "1")];
    let (answers, produced) = tokio::join!(join_all(waits), client.produce_batch(&topic, 0, &records, TIMEOUT));
    produced.unwrap();
    let pointers: std::collections::HashSet<_> =
        answers.iter().map(|answer| answer.as_ref().unwrap().batches.as_ptr()).collect();
    assert!(pointers.len() <= 2, "{} copies for 50 readers", pointers.len());
}

#[tokio::test]
async fn a_wait_in_vain_ends_in_time_with_the_logs_marks() {
    let client = client().await;
    let topic = unique("vain");
    make_topic(&client, &topic, 1, &[]).await;
    client.produce_batch(&topic, 0, &[record("a", "1")], TIMEOUT).await.unwrap();
    let reader = Reader::new(client);
    for _ in 0..2 {
        let started = Instant::now();
        let request = FetchRequest { max_wait: Duration::from_millis(200), ..read(&topic, 1) };
        let fetched = reader.fetch(request, 0, TIMEOUT).await.unwrap();
        assert!(fetched.batches.is_empty());
        assert_eq!((fetched.high_watermark, fetched.log_start_offset), (1, 0));
        assert!((200..1_000).contains(&started.elapsed().as_millis()), "{:?}", started.elapsed());
    }
}

#[tokio::test]
async fn a_topic_deleted_under_a_waiter_is_a_typed_error() {
    let client = client().await;
    let topic = unique("deleted");
    let id = make_topic(&client, &topic, 1, &[]).await;
    let reader = Reader::new(client.clone());
    let waiter = tokio::spawn({
        let (reader, request) = (reader.clone(), long(&topic, 0, 0));
        async move { reader.fetch(request, 0, Duration::from_secs(90)).await }
    });
    client.list_offset(&topic, 0, OffsetAt::Latest, Isolation::ReadCommitted, TIMEOUT).await.unwrap();
    client.delete_topic_by_id(id, TIMEOUT).await.unwrap();
    let error = tokio::time::timeout(TIMEOUT, waiter).await.expect("is told").unwrap().unwrap_err();
    assert!(matches!(error, Error::UnknownTopic { .. }), "{error:?}");

    let beyond = make_topic(&client, &topic, 1, &[]).await;
    let pinned = FetchRequest { topic_id: Some(id), ..read(&topic, 0) };
    let replaced = reader.fetch(pinned, 0, TIMEOUT).await.unwrap_err();
    assert!(matches!(replaced, Error::TopicReplaced { found, .. } if found == beyond), "{replaced:?}");
    let out = reader.fetch(read(&topic, 9), 0, TIMEOUT).await.unwrap_err();
    assert!(matches!(out, Error::OffsetOutOfRange { offset: 9, .. }), "{out:?}");
}

#[tokio::test]
async fn a_position_that_the_log_left_behind_is_out_of_range_also_for_who_would_wait() {
    let client = client().await;
    let topic = unique("retained");
    make_topic(&client, &topic, 1, &[]).await;
    client.produce_batch(&topic, 0, &vec![record("a", "1"); 10], TIMEOUT).await.unwrap();
    let reader = Reader::new(client.clone());
    let at_the_end = tokio::spawn({
        let (reader, request) = (reader.clone(), long(&topic, 0, 10));
        async move { reader.fetch(request, 0, Duration::from_secs(90)).await }
    });
    assert_eq!(client.delete_records_before(&topic, 0, 10, TIMEOUT).await.unwrap(), 10);
    let started = Instant::now();
    let out = reader.fetch(long(&topic, 0, 5), 0, Duration::from_secs(90)).await.unwrap_err();
    assert!(matches!(out, Error::OffsetOutOfRange { offset: 5, .. }), "{out:?}");
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    client.produce_batch(&topic, 0, &[record("b", "2")], TIMEOUT).await.unwrap();
    let fetched = tokio::time::timeout(TIMEOUT, at_the_end).await.expect("is served").unwrap().unwrap();
    assert_eq!(decode(&fetched.batches, 10, &[]).unwrap().next_offset, 11);
    let beyond = client.delete_records_before(&topic, 0, 99, TIMEOUT).await.unwrap_err();
    assert_eq!(beyond.kafka_code(), Some(sluice_wire::code::OFFSET_OUT_OF_RANGE), "{beyond:?}");
}

#[tokio::test]
async fn records_that_inflate_come_within_the_readers_bound_and_all_of_them() {
    let client = client().await;
    let topic = unique("inflate");
    make_topic(&client, &topic, 1, &[("compression.type", "lz4")]).await;
    let zeros = record("k", &"0".repeat(900_000));
    for _ in 0..24 {
        client.produce_batch(&topic, 0, std::slice::from_ref(&zeros), TIMEOUT).await.unwrap();
    }
    let reader = Reader::new(client.clone());
    let (mut offset, mut reads) = (0, 0);
    while offset < 24 {
        let found = reader.read(read(&topic, offset), DecodeLimits::held_bytes(4 << 20), 0, TIMEOUT).await.unwrap();
        assert!(found.held_bytes <= 4 << 20, "{}", found.held_bytes);
        let offsets: Vec<i64> = found.records.iter().map(|record| record.offset).collect();
        assert_eq!(offsets, (offset..found.next_offset).collect::<Vec<_>>());
        assert_eq!(found.stopped, found.next_offset < 24, "all of it is fetched at once, and four fit");
        assert!(found.records.iter().all(|record| record.value == zeros.value));
        (offset, reads) = (found.next_offset, reads + 1);
    }
    assert_eq!(reads, 6);
}

#[tokio::test]
async fn a_reader_that_kafka_throttles_gets_everything_later_and_no_error() {
    let client = client().await;
    let (topic, throttled) = (unique("quota"), unique("throttled"));
    make_topic(&client, &topic, 1, &[]).await;
    let value = record("k", &"x".repeat(250_000));
    for _ in 0..14 {
        client.produce_batch(&topic, 0, std::slice::from_ref(&value), TIMEOUT).await.unwrap();
    }
    // Brokers give ten seconds' worth at once.
    let quota = |rate| BTreeMap::from([("consumer_byte_rate".to_owned(), rate)]);
    client.alter_client_quotas(&throttled, &quota(Some(250_000.0)), TIMEOUT).await.unwrap();
    let config = shared().await.unwrap().kafka().unwrap().client_config(ADMIN).unwrap().with_client_id(&throttled);
    let reader = Reader::new(Client::new(config).unwrap());
    let began = Instant::now();
    let mut offset = 0;
    while offset < 14 {
        let request = FetchRequest { max_bytes: 1, ..read(&topic, offset) };
        let found = reader.read(request, DecodeLimits::default(), 0, Duration::from_secs(60)).await.unwrap();
        assert_eq!(found.next_offset, offset + 1, "a record each time");
        offset = found.next_offset;
    }
    assert!(began.elapsed() > Duration::from_secs(1), "was not throttled at all: {:?}", began.elapsed());
    client.alter_client_quotas(&throttled, &quota(None), TIMEOUT).await.unwrap();
}
