//! What is refused, and what happens to a writer whose topic goes away.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_call_writes_nothing() {
    let world = World::new(1).await;
    let bad = ProduceRecord { partition: Some(1), ..keyed("k", "v") };
    let request = ProduceRequest { topic: NAME.into(), records: vec![keyed("k", "v"), bad] };
    let error = world.data.produce_records(&world.call(), request).await.expect_err("refused");
    assert_eq!(error.field.as_deref(), Some("records[1].partition"));
    assert!(world.read(world.physical.as_str(), 0).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_deleted_under_a_writer_is_not_found() {
    let world = World::new(1).await;
    world.produce(vec![keyed("k", "v")]).await;
    world.admin.delete_topic(world.physical.as_str(), WITHIN).await.expect("deleted");
    let until = Instant::now() + WITHIN;
    let error = loop {
        let request = ProduceRequest { topic: NAME.into(), records: vec![keyed("k", "v")] };
        match world.data.produce_records(&world.call(), request).await {
            Err(error) => break error,
            // Kafka answers a deletion before its broker acts on it: until then the broker still stores what comes, or
            // calls the topic unavailable.
            Ok(answer) => {
                let outcome = answer.results[0].outcome();
                let known = matches!(outcome, Outcome::Persisted | Outcome::NotPersisted);
                assert!(known && Instant::now() < until, "{answer:?}");
            }
        }
    };
    assert_eq!((error.kind, error.message.as_str()), (ErrorKind::NotFound, Error::not_found(NAME).message.as_str()));
    let request = FetchRequest { encoding: PayloadEncoding::Text.into(), ..Default::default() };
    assert_eq!(world.fetch(request).await.expect_err("gone").kind, ErrorKind::NotFound);
    world.clusters.forget(&world.resolved());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_without_key_does_not_take_its_neighbours_along() {
    let world = World::of(control::TopicState { compacted: true, ..Default::default() }).await;
    let keyless = || ProduceRecord { key_kind: None, ..keyed("", "lost") };
    let answer = world.produce(vec![keyless(), keyed("a", "1"), keyless(), keyed("b", "2"), keyed("", "3")]).await;
    let told: Vec<_> =
        answer.results.iter().map(|result| (result.outcome(), result.offset, result.retriable)).collect();
    let refused = (Outcome::NotPersisted, None, false);
    let stored = |offset| (Outcome::Persisted, Some(offset), false);
    assert_eq!(told, [refused, stored(0), refused, stored(1), stored(2)]);
    assert!(answer.results[0].error.as_ref().is_some_and(|error| error.message.contains("no key")));
    let none = world.produce(vec![keyless()]).await;
    assert_eq!(none.results[0].outcome(), Outcome::NotPersisted);
    let counted: u64 = world
        .windows()
        .await
        .iter()
        .flat_map(|window| &window.produced)
        .map(|p| p.intervals.iter().map(|i| i.bytes).sum::<u64>())
        .sum();
    let log = world.read(world.physical.as_str(), 0).await;
    assert_eq!((log.len(), counted), (3, 2 + 2 + 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_of_the_largest_size_passes_every_way_in_and_out_and_one_byte_more_none() {
    const MAX: usize = 1 << 20;
    let world = World::new(1).await;
    let bytes = |size: usize| Bytes::from(vec![0xa5; size]);
    let record = |size| ProduceRecord { value_kind: Some(ValueKind::Value(bytes(size))), ..Default::default() };
    let base64 = |size| base64::engine::general_purpose::STANDARD.encode(bytes(size));
    let ways = |size: usize| {
        let message = ProduceRequest { topic: String::new(), records: vec![record(size)] }.encode_to_vec();
        let json = format!(r#"{{"records":[{{"value":"{}"}}]}}"#, base64(size));
        [
            ("application/octet-stream", bytes(size)),
            ("application/json", json.into()),
            ("application/x-protobuf", message.into()),
        ]
    };
    let mut sizes = Vec::new();
    for size in [MAX - 1, MAX] {
        let grpc = world.produce(vec![record(size)]).await;
        assert_eq!(grpc.results[0].outcome(), Outcome::Persisted);
        sizes.push(size);
        for (kind, body) in ways(size) {
            let answer = world.data.http_produce(world.request("POST", "", &[("content-type", kind)], body)).await;
            assert_eq!(answer.expect(kind).status(), 200, "{kind}");
            sizes.push(size);
        }
    }
    let over = ProduceRequest { topic: NAME.into(), records: vec![record(MAX + 1)] };
    let grpc = world.data.produce_records(&world.call(), over).await.expect_err("too large");
    let mut refused = vec![grpc];
    for (kind, body) in ways(MAX + 1) {
        let answer = world.data.http_produce(world.request("POST", "", &[("content-type", kind)], body)).await;
        refused.push(answer.expect_err(kind));
    }
    for error in refused {
        assert_eq!((error.reason, error.field.as_deref()), (Reason::TooLarge, Some("records[0]")));
        assert!(error.message.contains("1048577") && error.message.contains("1048576"), "{}", error.message);
    }
    let mut offset = 0;
    let mut read = Vec::new();
    while read.len() < sizes.len() {
        let request = FetchRequest { start: Some(Start::Offset(offset)), ..Default::default() };
        let answer = world.fetch(request).await.expect("read");
        assert!(!answer.records.is_empty(), "the first record always comes whole");
        offset = answer.next_offset;
        read.extend(answer.records.into_iter().map(|record| match record.value_kind {
            Some(record::ValueKind::Value(bytes)) => bytes.len(),
            other => panic!("{other:?}"),
        }));
    }
    assert_eq!(read, sizes);
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_of_one_name_come_back_as_often_and_as_they_were_sent() {
    use sluice_proto::stream::v1::{Header, header::Value};
    let world = World::new(1).await;
    let header = |value| Header { name: "h".into(), value };
    let (empty, binary) = (Value::Bytes(Bytes::new()), Value::Bytes(Bytes::from_static(b"\xff\x00")));
    let once = [header(None), header(Some(empty)), header(Some(binary))];
    let sent = [once.clone(), once].concat();
    world.produce(vec![ProduceRecord { headers: sent.clone(), ..keyed("k", "v") }]).await;
    let read = world.fetch(FetchRequest::default()).await.expect("read").records;
    assert_eq!(read[0].headers, sent);
}
