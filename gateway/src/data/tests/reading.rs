//! Positions, long polls, partitions and their ends.

use sluice_proto::stream::v1::list_offsets_request::At;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn records_are_read_by_every_position() {
    let world = World::new(1).await;
    let before = wkt::Timestamp::from_millis(records::now_ms());
    let values: Vec<String> = (0..10).map(|i| format!("v{i}")).collect();
    world.produce(values.iter().map(|value| keyed("k", value)).collect()).await;

    let read = async |start, max_records| {
        let request = FetchRequest { start: Some(start), max_records, ..Default::default() };
        world.fetch(request).await.expect("read")
    };
    let earliest = Start::Position(Position::Earliest.into());
    let all = read(earliest, 0).await;
    assert_eq!(texts(&all), values);
    assert_eq!((all.next_offset, all.log_start_offset, all.end_offset), (10, 0, 10));
    let some = read(Start::Offset(3), 2).await;
    assert_eq!((texts(&some), some.next_offset), (vec!["v3".to_owned(), "v4".into()], 5));
    assert_eq!(texts(&read(Start::Time(before), 0).await), values);
    let late = wkt::Timestamp::from_millis(records::now_ms() + 3_600_000);
    assert!(read(Start::Time(late), 0).await.records.is_empty());
    let latest = read(Start::Position(Position::Latest.into()), 0).await;
    assert_eq!((latest.records.len(), latest.next_offset), (0, 10));
    let request = FetchRequest { start: Some(earliest), max_bytes: 1, ..Default::default() };
    assert_eq!(texts(&world.fetch(request).await.expect("read")), vec!["v0"], "the first record comes whole");

    let error = world.fetch(FetchRequest { start: Some(Start::Offset(11)), ..Default::default() }).await;
    let error = error.expect_err("beyond the end");
    assert_eq!((error.kind, error.reason), (ErrorKind::OutOfRange, Reason::OffsetOutOfRange));
    assert_eq!(error.metadata, vec![("logStartOffset", "0".to_owned()), ("endOffset", "10".to_owned())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn json_that_grows_as_a_message_is_read_to_its_end_by_a_client_of_the_default_size() {
    let world = World::new(1).await;
    let json = format!("[{}1]", "1,".repeat(500));
    let answer = world.produce((0..1_000).map(|_| keyed("k", &json)).collect()).await;
    assert!(answer.results.iter().all(|result| result.outcome() == Outcome::Persisted));
    let (mut next, mut offsets) = (0, Vec::new());
    while next < 1_000 {
        let start = Some(Start::Offset(next));
        let encoding = PayloadEncoding::Json.into();
        let request = FetchRequest { start, encoding, max_bytes: 2 << 20, ..Default::default() };
        let answer = world.fetch(request).await.expect("read");
        assert!(answer.encoded_len() <= 4 << 20, "{} bytes", answer.encoded_len());
        assert!(answer.next_offset > next, "it goes on");
        offsets.extend(answer.records.iter().map(|record| record.offset));
        next = answer.next_offset;
    }
    assert_eq!(offsets, (0..1_000).collect::<Vec<_>>(), "nothing is left out");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_poll_ends_when_its_caller_may_not_read_any_more() {
    let invalid = (ErrorKind::Unauthenticated, Reason::CredentialInvalid);
    let revoke: fn(&World) = |world| world.put_key(2, Life::Gone, 0);
    let expire: fn(&World) = |world| world.put_key(2, Life::Active, records::now_ms() + 300);
    let take_grant: fn(&World) = |world| world.put_account(2, "namespaces/other");
    let cases = [(revoke, invalid), (expire, invalid), (take_grant, (ErrorKind::NotFound, Reason::ResourceNotFound))];
    for (lose, wanted) in cases {
        let world = World::new(1).await;
        let request = FetchRequest {
            start: Some(Start::Position(Position::Latest.into())),
            wait: Some(wkt::Duration::from_millis(8_000)),
            ..Default::default()
        };
        let (fetched, ()) = tokio::join!(world.fetch(request), async {
            lose(&world);
            // Published after the loss, and before the poll would be over.
            tokio::time::sleep(Duration::from_millis(400)).await;
            let record = sluice_wire::OutRecord { value: Some("secret".into()), ..Default::default() };
            world.admin.produce_batch(world.physical.as_str(), 0, &[record], WITHIN).await.expect("published");
        });
        let error = fetched.expect_err("nothing is delivered");
        assert_eq!((error.kind, error.reason), wanted);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_poll_returns_with_the_first_record_or_after_its_wait() {
    let world = World::new(1).await;
    let request = |wait| FetchRequest {
        start: Some(Start::Position(Position::Latest.into())),
        wait: Some(wkt::Duration::from_millis(wait)),
        ..Default::default()
    };
    let started = Instant::now();
    let empty = world.fetch(request(300)).await.expect("read");
    assert!(empty.records.is_empty() && started.elapsed() >= Duration::from_millis(290), "{:?}", started.elapsed());

    let started = Instant::now();
    let wake = async {
        world.produce(vec![keyed("k", "first")]).await;
    };
    // The reader resolves "latest" before the record is there: ask at the offset to be sure.
    let waiting = FetchRequest { start: Some(Start::Offset(0)), ..request(8_000) };
    let (answer, ()) = tokio::join!(world.fetch(waiting), wake);
    assert_eq!(texts(&answer.expect("read")), vec!["first"]);
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_at_its_deadline_is_answered_before_it() {
    let world = World::new(1).await;
    let call = world.call_within(Duration::from_millis(700));
    let request =
        FetchRequest { topic: NAME.into(), wait: Some(wkt::Duration::from_millis(20_000)), ..Default::default() };
    let answer = world.fetch_by(&call, request).await.expect("empty, not an error");
    assert!(answer.records.is_empty() && call.context.deadline > Instant::now());
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_and_their_ends_are_told() {
    let world = World::new(2).await;
    let to = |partition, value: &str| ProduceRecord { partition: Some(partition), ..keyed("k", value) };
    world.produce(vec![to(1, "a"), to(1, "b")]).await;
    let request = GetTopicMetadataRequest { topic: NAME.into() };
    let told = world.data.topic_metadata(&world.call(), request).await.expect("told");
    assert_eq!((told.topic.as_str(), told.uid), (NAME, world.topic.to_string()));
    let ends: Vec<(i32, i64, i64, bool)> =
        told.partitions.iter().map(|p| (p.partition, p.log_start_offset, p.end_offset, p.available)).collect();
    assert_eq!(ends, vec![(0, 0, 0, true), (1, 0, 2, true)]);
    let list = async |at, partitions: Vec<i32>| {
        let request = ListOffsetsRequest { topic: NAME.into(), partitions, at };
        let listed = world.data.offsets(&world.call(), request).await?;
        Ok::<Vec<(i32, i64)>, Error>(listed.offsets.iter().map(|o| (o.partition, o.offset)).collect())
    };
    assert_eq!(list(None, vec![]).await.expect("latest"), vec![(0, 0), (1, 2)]);
    let late = wkt::Timestamp::from_millis(records::now_ms() + 60_000);
    assert_eq!(list(Some(At::Time(late)), vec![1, 1]).await.expect("by time"), vec![(1, 2)]);
    assert_eq!(list(None, vec![0, 2]).await.expect_err("no such").field.as_deref(), Some("partitions[1]"));
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_inflate_are_read_to_the_last_within_what_was_asked_for() {
    let world = World::new(1).await;
    // Kafka holds some KiB of each; all of them together fit one read of a MiB.
    let zeros = "0".repeat((1 << 20) - 100);
    for _ in 0..47 {
        world.produce((0..3).map(|_| keyed("k", &zeros)).collect()).await;
    }
    let call = world.call();
    let mut offset = 0;
    while offset < 141 {
        let request = FetchRequest {
            start: Some(Start::Offset(offset)),
            max_bytes: 4 << 20,
            encoding: PayloadEncoding::Bytes.into(),
            ..Default::default()
        };
        let found = world.fetch_by(&call, request).await.expect("read");
        let offsets: Vec<i64> = found.records.iter().map(|record| record.offset).collect();
        assert_eq!(offsets, (offset..found.next_offset).collect::<Vec<_>>());
        assert!((1..=4).contains(&offsets.len()), "{offsets:?}");
        offset = found.next_offset;
    }
    assert_eq!(call.limiter.bytes_in_flight(), 0, "given back");
}
