//! Times of records: what is too old is refused alone, and what is kept by append time keeps its producer's time.

use super::*;

const HOUR_MS: i64 = 3_600_000;

fn at(time_ms: i64) -> ProduceRecord {
    ProduceRecord { timestamp: Some(wkt::Timestamp::from_millis(time_ms)), ..keyed("k", "v") }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_older_than_the_retention_is_refused_and_its_neighbours_are_stored() {
    let world = World::of(control::TopicState { record_age_ms_max: 3 * HOUR_MS, ..Default::default() }).await;
    let now = sluice_devstack::now_ms();
    let answer = world.produce(vec![at(now - 48 * HOUR_MS), at(now - 2 * HOUR_MS), at(now)]).await;
    let told: Vec<_> =
        answer.results.iter().map(|result| (result.outcome(), result.offset, result.retriable)).collect();
    let stored = |offset| (Outcome::Persisted, Some(offset), false);
    assert_eq!(told, [(Outcome::NotPersisted, None, false), stored(0), stored(1)]);
    let error = answer.results[0].error.clone().expect("an error");
    assert!(error.message.starts_with("records[0].timestamp: ") && error.message.contains("3 h"), "{error:?}");
    let log = world.read(world.physical.as_str(), 0).await;
    assert_eq!(log.iter().map(|record| record.timestamp_ms).collect::<Vec<_>>(), [now - 2 * HOUR_MS, now]);
    let only_old = world.produce(vec![at(1_451_606_400_000)]).await;
    assert_eq!(only_old.results[0].outcome(), Outcome::NotPersisted);
}

#[tokio::test(flavor = "multi_thread")]
async fn old_data_is_kept_from_the_time_of_appending_and_keeps_its_own_time() {
    let world = World::of(control::TopicState { log_append_time: true, ..Default::default() }).await;
    let before = sluice_devstack::now_ms();
    let (old, future) = (-86_400_000, before + 48 * HOUR_MS);
    let answer = world.produce(vec![at(old), keyed("k", "now"), at(future)]).await;
    let millis = |time: Option<wkt::Timestamp>| time.map(|time| time.as_millis());
    assert_eq!(millis(answer.results[0].timestamp), Some(old));
    assert!(millis(answer.results[1].timestamp).is_some_and(|time| time >= before));

    let read = world.fetch(FetchRequest::default()).await.expect("read").records;
    assert_eq!((millis(read[0].timestamp), millis(read[2].timestamp)), (Some(old), Some(future)));
    assert!(millis(read[0].append_time).is_some_and(|time| time >= before));
    assert!(millis(read[1].timestamp).is_some_and(|time| time >= before) && read[1].append_time.is_none());
    assert!(read.iter().all(|record| record.headers.is_empty()), "{read:?}");

    let log = world.read(world.physical.as_str(), 0).await;
    assert!(log.iter().all(|record| record.timestamp_type == sluice_wire::TimestampType::LogAppendTime));
    let at_time =
        |time| FetchRequest { start: Some(Start::Time(wkt::Timestamp::from_millis(time))), ..Default::default() };
    let found = world.fetch(at_time(before)).await.expect("read").records;
    assert_eq!(found.first().map(|record| record.offset), Some(0), "look-ups go by the time of appending");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_ahead_of_the_brokers_takes_the_latest_record_it_may_and_its_neighbours_are_stored() {
    // Clocks may differ by almost as much as the brokers allow beyond the hour.
    const AHEAD_MS: i64 = HOUR_MS - 60_000;
    let world = World::new(1).await;
    let now = sluice_devstack::now_ms();
    let produce = async |records, now_ms| {
        let request = ProduceRequest { topic: NAME.into(), records };
        world.data.produce_as_of(&world.call(), request, now_ms).await
    };
    let latest = now + AHEAD_MS + HOUR_MS;
    // Of two callers at once, whose records go to Kafka together.
    for records in [vec![at(latest), keyed("k", "now")], vec![at(latest)]] {
        let (ours, others) =
            tokio::join!(produce(records, now + AHEAD_MS), produce(vec![keyed("k", "another's")], now));
        for result in [ours, others].into_iter().flat_map(|answer| answer.expect("accepted").results) {
            assert_eq!(result.outcome(), Outcome::Persisted, "{result:?}");
        }
    }
    let error = produce(vec![at(latest + 1), keyed("k", "now")], now + AHEAD_MS).await.expect_err("beyond the hour");
    assert_eq!(error.field.as_deref(), Some("records[0].timestamp"));
    // And one that is behind refuses what the brokers would take.
    assert!(produce(vec![at(now + 60_001)], now - AHEAD_MS).await.is_err());
    let log = world.read(world.physical.as_str(), 0).await;
    assert_eq!(log.iter().filter(|record| record.timestamp_ms == latest).count(), 2);
}
