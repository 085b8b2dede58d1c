//! Reading logs.

use std::time::{Duration, Instant};

use sluice_wire::{BatchHeader, Compression, Error, Isolation, LogTail, OffsetAt, OutRecord, TailOptions, decode};

use crate::fixture::{TIMEOUT, client, eventually, make_topic, now_ms, read, record, unique};

#[tokio::test]
async fn what_was_produced_is_read_back() {
    let client = client().await;
    let topic = unique("back");
    let id = make_topic(&client, &topic, 1, &[]).await;
    let records = [record("a", "1"), record("b", "2")];
    let first = client.produce_batch(&topic, 0, &records, TIMEOUT).await.unwrap();
    let tombstone = OutRecord { key: Some("c".into()), timestamp_ms: now_ms() + 1, ..Default::default() };
    let second = client.produce_batch(&topic, 0, std::slice::from_ref(&tombstone), TIMEOUT).await.unwrap();
    assert_eq!((first.base_offset, second.base_offset), (0, 2));

    let fetched = client.fetch(read(&topic, 1), TIMEOUT).await.unwrap();
    assert_eq!((fetched.high_watermark, fetched.log_start_offset, fetched.topic_id), (3, 0, id));
    let decoded = decode(&fetched.batches, 1, &fetched.aborted).unwrap();
    assert_eq!(decoded.next_offset, 3);
    let [b, c] = &decoded.records[..] else { panic!("{decoded:?}") };
    assert_eq!((b.offset, b.key.as_deref(), b.value.as_deref()), (1, Some(&b"b"[..]), Some(&b"2"[..])));
    assert_eq!(b.headers, records[1].headers);
    assert_eq!((b.timestamp_ms, c.timestamp_ms, &c.value), (records[1].timestamp_ms, tombstone.timestamp_ms, &None));
}

#[tokio::test]
async fn offsets_are_found_at_both_ends_and_by_time() {
    let client = client().await;
    let topic = unique("offsets");
    make_topic(&client, &topic, 2, &[("retention.ms", "-1")]).await;
    for timestamp_ms in [1_000, 2_000, 3_000] {
        let record = OutRecord { timestamp_ms, ..record("k", "v") };
        client.produce_batch(&topic, 0, &[record], TIMEOUT).await.unwrap();
    }
    let at = |at| {
        let (client, topic) = (client.clone(), topic.clone());
        async move { client.list_offset(&topic, 0, at, Isolation::ReadCommitted, TIMEOUT).await.unwrap() }
    };
    assert_eq!(at(OffsetAt::Earliest).await.offset, Some(0));
    assert_eq!(at(OffsetAt::Latest).await.offset, Some(3));
    let by_time = at(OffsetAt::TimestampMs(1_500)).await;
    assert_eq!((by_time.offset, by_time.timestamp_ms), (Some(1), Some(2_000)));
    assert_eq!(at(OffsetAt::TimestampMs(4_000)).await.offset, None);

    let many =
        client.list_offsets(&topic, &[0, 1, 7], OffsetAt::Latest, Isolation::ReadCommitted, TIMEOUT).await.unwrap();
    assert_eq!(many[&1].as_ref().unwrap().offset, Some(0));
    assert!(matches!(many[&7], Err(Error::UnknownPartition { partition: 7, .. })));
}

#[tokio::test]
async fn a_long_poll_returns_on_the_first_record() {
    let client = client().await;
    let topic = unique("poll");
    make_topic(&client, &topic, 1, &[]).await;
    let poll = tokio::spawn({
        let (client, mut request) = (client.clone(), read(&topic, 0));
        request.max_wait = Duration::from_secs(20);
        async move { client.fetch(request, Duration::from_secs(25)).await.unwrap() }
    });
    let before = Instant::now();
    client.produce_batch(&topic, 0, &[record("a", "1")], TIMEOUT).await.unwrap();
    let fetched = poll.await.unwrap();
    assert!(!fetched.batches.is_empty());
    assert!(before.elapsed() < Duration::from_secs(5), "{:?}", before.elapsed());
}

#[tokio::test]
async fn an_oversized_first_batch_comes_whole_and_cut_off_ones_are_read_next() {
    let client = client().await;
    let topic = unique("bytes");
    make_topic(&client, &topic, 1, &[]).await;
    for value in ["x".repeat(5_000), "y".repeat(5_000)] {
        client.produce_batch(&topic, 0, &[record("k", &value)], TIMEOUT).await.unwrap();
    }
    let mut request = read(&topic, 0);
    request.max_bytes = 100;
    let fetched = client.fetch(request.clone(), TIMEOUT).await.unwrap();
    let decoded = decode(&fetched.batches, 0, &[]).unwrap();
    assert_eq!((decoded.records.len(), decoded.next_offset), (1, 1));
    request.max_bytes = 7_000;
    let fetched = client.fetch(request, TIMEOUT).await.unwrap();
    let decoded = decode(&fetched.batches, 0, &[]).unwrap();
    assert_eq!((decoded.records.len(), decoded.next_offset), (1, 1));
}

#[tokio::test]
async fn absent_things_are_typed_errors() {
    let client = client().await;
    let topic = unique("absent");
    let unknown = client.fetch(read(&topic, 0), TIMEOUT).await.unwrap_err();
    assert!(matches!(unknown, Error::UnknownTopic { .. }), "{unknown:?}");
    make_topic(&client, &topic, 1, &[]).await;
    let beyond = client.fetch(read(&topic, 5), TIMEOUT).await.unwrap_err();
    assert!(matches!(beyond, Error::OffsetOutOfRange { offset: 5, .. }), "{beyond:?}");
    let mut request = read(&topic, 0);
    request.partition = 9;
    let partition = client.fetch(request, TIMEOUT).await.unwrap_err();
    assert!(matches!(partition, Error::UnknownPartition { partition: 9, .. }), "{partition:?}");
}

#[tokio::test]
async fn a_topic_made_again_under_the_same_name_is_not_read_silently() {
    let client = client().await;
    let topic = unique("again");
    let old = make_topic(&client, &topic, 1, &[]).await;
    client.produce_batch(&topic, 0, &[record("a", "old")], TIMEOUT).await.unwrap();
    client.fetch(read(&topic, 0), TIMEOUT).await.unwrap();

    let other = crate::fixture::client().await;
    other.delete_topic(&topic, TIMEOUT).await.unwrap();
    let deleted = eventually(|| client.fetch(read(&topic, 0), TIMEOUT), Result::is_err).await.unwrap_err();
    assert!(matches!(deleted, Error::UnknownTopic { .. }), "{deleted:?}");

    let new = make_topic(&other, &topic, 1, &[]).await;
    let mut pinned = read(&topic, 0);
    pinned.topic_id = Some(old);
    let replaced = client.fetch(pinned, TIMEOUT).await.unwrap_err();
    assert!(matches!(replaced, Error::TopicReplaced { expected, found, .. } if (expected, found) == (old, new)));
    client.fetch(read(&topic, 0), TIMEOUT).await.expect("the new topic is readable as itself");
}

#[tokio::test]
async fn a_tail_gives_records_in_order_and_tells_when_it_caught_up() {
    let client = client().await;
    let topic = unique("tail");
    let id = make_topic(&client, &topic, 1, &[("message.timestamp.type", "LogAppendTime")]).await;
    client.produce_batch(&topic, 0, &[record("a", "1"), record("b", "2")], TIMEOUT).await.unwrap();
    let mut tail = LogTail::new(client.clone(), &topic, 0, OffsetAt::Earliest, TailOptions::default());
    let batch = tail.next(TIMEOUT).await.unwrap();
    assert_eq!((batch.records.len(), batch.position, batch.end_offset), (2, 2, 2));
    assert!(batch.is_caught_up());
    assert_eq!(tail.topic_id(), Some(id));

    // A wait that is given up loses nothing.
    let given_up = tokio::time::timeout(Duration::from_millis(20), tail.next(TIMEOUT)).await;
    assert!(given_up.is_err());
    client.produce_batch(&topic, 0, &[record("c", "3")], TIMEOUT).await.unwrap();
    let batch = tail.next(TIMEOUT).await.unwrap();
    assert_eq!((batch.records[0].offset, batch.position), (2, 3));
    assert!(tail.next(Duration::from_millis(10)).await.unwrap().records.is_empty());
}

#[tokio::test]
async fn every_compression_that_brokers_use_is_read() {
    let client = client().await;
    for compression in ["gzip", "snappy", "lz4", "zstd"] {
        let topic = unique(compression);
        make_topic(&client, &topic, 1, &[("compression.type", compression)]).await;
        let records: Vec<_> = (0..300).map(|number| record(&number.to_string(), &"value ".repeat(number))).collect();
        client.produce_batch(&topic, 0, &records, TIMEOUT).await.unwrap();
        let fetched = client.fetch(read(&topic, 0), TIMEOUT).await.unwrap();
        let header = BatchHeader::read(&fetched.batches).unwrap();
        assert_ne!(header.compression(), Ok(Compression::None), "{compression}");
        let decoded = decode(&fetched.batches, 0, &[]).unwrap_or_else(|error| panic!("{compression}: {error:?}"));
        assert_eq!((decoded.records.len(), decoded.next_offset), (300, 300), "{compression}");
        for (sent, found) in records.iter().zip(&decoded.records) {
            assert_eq!((&sent.key, &sent.value, &sent.headers), (&found.key, &found.value, &found.headers));
        }
    }
}
