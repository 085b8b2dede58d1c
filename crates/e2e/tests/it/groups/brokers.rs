//! Three brokers, and what happens to them: leaders and coordinators move, topics go and grow, retention overtakes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use sluice_e2e::consumer::{Ledger, Place, group_of};
use sluice_e2e::tenant::record;
use sluice_e2e::{Installation, Options, kafka_reader, wait};

use super::{NAMESPACE, World, all_acked, pull_and_ack};

const RESUMES_WITHIN: Duration = Duration::from_secs(15);

#[tokio::test(flavor = "multi_thread")]
async fn groups_go_on_when_each_broker_dies_in_turn_and_when_topics_grow_and_go() -> Result<()> {
    let it = Installation::start(Options { brokers: 3, ..Options::default() }).await?;
    let world = World::new(&it, 3, |group| group).await?;
    let ledger = Ledger::default();
    let stop = Arc::new(AtomicBool::new(false));
    let worker =
        tokio::spawn(pull_and_ack(world.apis.clone(), world.group.name.clone(), ledger.clone(), stop.clone(), 50));
    let first = world.publish(300, 30).await?;
    all_acked(&ledger, &first, Duration::from_secs(20)).await?;

    // Whoever leads a partition or coordinates the group is among them.
    let kafka = it.stack.kafka()?;
    for broker in 1..=3 {
        kafka.kill9(broker).await?;
        let killed = Instant::now();
        let places = publish_somehow(&world, 100).await?;
        all_acked(&ledger, &places, RESUMES_WITHIN.saturating_sub(killed.elapsed())).await?;
        println!("broker {broker} killed: published and acknowledged after {:?}", killed.elapsed());
        kafka.start_broker(broker).await?;
        wait::until("all replicas in sync", Duration::from_secs(30), async || {
            let connection = it.kafka()?.clone();
            let behind = tokio::task::spawn_blocking(move || kafka_reader::partitions_behind(&connection)).await??;
            ensure!(behind == 0, "{behind} partitions are not in sync");
            Ok(Some(()))
        })
        .await?;
    }

    // Partitions that are added are read from their beginning.
    world.apis[0].set_partitions(&world.topic.name, 6).await?;
    let mut records = Vec::new();
    for partition in 3..6 {
        let mut one = record(Some(b"added"), b"first of a new partition");
        one.partition = Some(partition);
        records.push(one);
    }
    let results = world.apis[0].produce_all(&world.topic.name, records).await?;
    let mut places: Vec<Place> = Vec::new();
    for result in &results {
        places.push(world.place_of(result, "first of a new partition").await?);
    }
    all_acked(&ledger, &places, RESUMES_WITHIN).await?;

    // A topic that goes takes nothing else with it; made again it is read from its beginning.
    let both = world.apis[0].create_topic(NAMESPACE, "second", 1).await?;
    let two = world.apis[0].create_group(NAMESPACE, "two", group_of(NAMESPACE, &["orders", "second"])).await?;
    let seen = Ledger::default();
    let follow = tokio::spawn(pull_and_ack(world.apis.clone(), two.name.clone(), seen.clone(), stop.clone(), 100));
    world.apis[0].produce_all(&both.name, vec![record(None, b"old life")]).await?;
    all_acked(&seen, &[(both.name.clone(), 0, 0)], RESUMES_WITHIN).await?;
    world.apis[0].delete_topic(&both.name).await?;
    let places = world.publish(50, 5).await?;
    all_acked(&seen, &places, RESUMES_WITHIN).await?;
    let status = world.apis[1].group_status(&two.name).await?;
    ensure!(status.missing_topics == [both.name.clone()], "{status:?}");
    world.apis[0].create_topic(NAMESPACE, "second", 1).await?;
    world.apis[0].produce_all(&both.name, vec![record(None, b"new life"), record(None, b"its second")]).await?;
    all_acked(&seen, &[(both.name.clone(), 0, 1)], RESUMES_WITHIN).await?;
    stop.store(true, Ordering::Release);
    worker.await??;
    follow.await??;
    ledger.check(false)?;
    it.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_that_retention_has_overtaken_goes_on_at_what_is_left_and_says_so() -> Result<()> {
    let it = Installation::start(Options { gateways: 1, ..Options::default() }).await?;
    let world = World::new(&it, 1, |group| group).await?;
    let ledger = Ledger::default();
    let places = world.publish(10, 10).await?;
    super::all_acked_by_pulling(&world.apis, &world.group.name, &ledger, &places[..10], Duration::from_secs(20))
        .await?;
    // Nobody consumes while records come and go. The dispatcher is gone with its gateway.
    it.process("gateway-1")?.stop(Duration::from_secs(35)).await;
    it.restart("gateway-1").await?;
    let lost =
        wait::until("records to be taken", Duration::from_secs(10), async || Ok(Some(world.publish(100, 10).await?)))
            .await?;
    let physical = it.physical(&world.namespace.uid, &world.topic.uid)?;
    kafka_reader::delete_before(it.kafka()?, &physical, 0, 60).await?;
    let kept: Vec<Place> = lost.into_iter().filter(|(_, _, offset)| *offset >= 60).collect();
    super::all_acked_by_pulling(&world.apis, &world.group.name, &ledger, &kept, RESUMES_WITHIN).await?;
    let status = world.apis[0].group_status(&world.group.name).await?;
    let skipped = status.partitions[0].skipped.unwrap_or_default();
    ensure!((skipped.from_offset, skipped.to_offset) == (10, 60), "{status:?}");
    ensure!(status.lag == 0, "{status:?}");
    it.stop().await
}

/// Publishes although a broker has just died.
async fn publish_somehow(world: &World, count: usize) -> Result<Vec<Place>> {
    wait::until("records to be taken", RESUMES_WITHIN, async || Ok(Some(world.publish(count, 10).await?))).await
}
