//! A cluster that stands still, and comes back.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_cluster_is_answered_in_time_and_metered_when_it_thaws() {
    let stack = sluice_devstack::Stack::builder().without_postgres().build().await.expect("stack");
    let kafka = stack.kafka().expect("kafka");
    let world = World::on(kafka.connection(), 1).await;
    world.produce(vec![keyed("k", "before")]).await;
    kafka.pause(1).await.expect("paused");

    let mut told = Vec::new();
    for _ in 0..6 {
        let call = world.call_within(Duration::from_millis(600));
        let request = ProduceRequest { topic: NAME.into(), records: vec![keyed("k", "during")] };
        let answer = world.data.produce_records(&call, request).await.expect("results, not an error");
        assert!(call.context.deadline > Instant::now(), "answered before the deadline");
        told.push(answer.results[0].outcome());
    }
    assert_eq!(told[5], Outcome::NotPersisted, "{told:?}");
    let call = world.call_within(Duration::from_secs(1));
    let request = FetchRequest { topic: NAME.into(), start: Some(Start::Offset(0)), ..Default::default() };
    let error = world.fetch_by(&call, request).await.expect_err("nobody answers");
    assert_eq!((error.kind, error.reason), (ErrorKind::Unavailable, Reason::ClusterUnavailable));
    assert!(call.context.deadline > Instant::now(), "answered before the deadline");

    kafka.resume(1).expect("resumed");
    let thawed = Instant::now();
    loop {
        let call = world.call_within(Duration::from_millis(600));
        let request = ProduceRequest { topic: NAME.into(), records: vec![keyed("k", "after")] };
        let answer = world.data.produce_records(&call, request).await.expect("results");
        told.push(answer.results[0].outcome());
        if told.last() == Some(&Outcome::Persisted) {
            break;
        }
        assert!(thawed.elapsed() < Duration::from_secs(5), "{told:?}");
    }
    while world.fetch(FetchRequest::default()).await.is_err() {
        assert!(thawed.elapsed() < Duration::from_secs(5), "reading recovers, too");
    }

    let covered: i64 = world
        .windows()
        .await
        .iter()
        .flat_map(|window| &window.produced)
        .flat_map(|partition| &partition.intervals)
        .map(|interval| interval.end - interval.start)
        .sum();
    let log = world.read(world.physical.as_str(), 0).await;
    assert_eq!(covered, log.len() as i64, "late acknowledgements count: {told:?}");
    stack.stop().await;
}
