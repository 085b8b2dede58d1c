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
            // A Kafka with much to do calls it unavailable for a while; nothing is stored.
            Ok(answer) => {
                let refused = answer.results[0].outcome() == Outcome::NotPersisted;
                assert!(refused && Instant::now() < until, "{answer:?}");
            }
        }
    };
    assert_eq!((error.kind, error.message.as_str()), (ErrorKind::NotFound, Error::not_found(NAME).message.as_str()));
    let request = FetchRequest { encoding: PayloadEncoding::Text.into(), ..Default::default() };
    assert_eq!(world.fetch(request).await.expect_err("gone").kind, ErrorKind::NotFound);
    world.data.forget(&world.physical);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_without_key_does_not_take_its_neighbours_along() {
    let world = World::compacted().await;
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
