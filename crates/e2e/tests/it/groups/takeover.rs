//! The dispatcher of a group dies, or stands still: the other gateway goes on.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use sluice_e2e::consumer::{Ledger, Place, ack_ids, place};
use sluice_e2e::{Installation, Options, long, wait};
use sluice_proto::stream::v1::SettleOutcome;

use super::{World, all_acked, all_acked_by_pulling, gateway_name, pull_and_ack, pull_exactly};

const TAKEOVER_WITHIN: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread")]
async fn the_survivor_delivers_in_time_after_a_kill_and_nothing_acknowledged_comes_again() -> Result<()> {
    let it = Installation::start(Options::default()).await?;
    let world = World::new(&it, 4, |group| group).await?;
    let kills = if long() { 20 } else { 2 };
    let mut took = Vec::new();
    for _ in 0..kills {
        let owner = world.dispatcher(&it).await?;
        let survivor = 1 - owner;
        let ledger = Ledger::default();
        let places = world.publish(300, 300).await?;
        // 100 done through the survivor's door, 100 outstanding, 100 not delivered.
        let done = pull_exactly(&world.apis[survivor], &world.group.name, 100, &ledger, TAKEOVER_WITHIN).await?;
        let results = world.apis[survivor].ack(&world.group.name, ack_ids(&done)).await?;
        ledger.acked(&done.iter().map(place).collect::<Vec<_>>(), &results);
        ensure!(ledger.acked_count() == 100, "{:?}", ledger.outcomes());
        let held = pull_exactly(&world.apis[owner], &world.group.name, 100, &ledger, TAKEOVER_WITHIN).await?;

        let killed = Instant::now();
        it.process(&gateway_name(owner))?.kill9().await;
        let first = wait::until("a record from the survivor", TAKEOVER_WITHIN, async || {
            let answer = world.apis[survivor].pull(&world.group.name, 50, Duration::from_secs(1)).await?;
            answer.records.iter().for_each(|record| ledger.delivered(record));
            Ok((!answer.records.is_empty()).then_some(answer.records))
        })
        .await?;
        took.push(killed.elapsed());
        // What the dead one had out is stale now, and says so.
        let results = world.apis[survivor].ack(&world.group.name, ack_ids(&held)).await?;
        ensure!(results.iter().all(|result| result.outcome() == SettleOutcome::StaleLease), "{results:?}");
        let results = world.apis[survivor].ack(&world.group.name, ack_ids(&first)).await?;
        ledger.acked(&first.iter().map(place).collect::<Vec<_>>(), &results);

        let stop = Arc::new(AtomicBool::new(false));
        let apis = vec![world.apis[survivor].clone()];
        let worker = pull_and_ack(apis, world.group.name.clone(), ledger.clone(), stop.clone(), 100);
        let worker = tokio::spawn(worker);
        all_acked(&ledger, &places, Duration::from_secs(20)).await?;
        stop.store(true, Ordering::Release);
        worker.await??;
        ledger.check(true)?;
        it.restart(&gateway_name(owner)).await?;
    }
    took.sort();
    println!("takeover after kill -9, to the first record: {took:?}");
    it.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dispatcher_that_stood_still_wakes_up_fenced() -> Result<()> {
    let it = Installation::start(Options::default()).await?;
    let world = World::new(&it, 4, |group| group).await?;
    let owner = world.dispatcher(&it).await?;
    let survivor = 1 - owner;
    let ledger = Ledger::default();
    world.publish(400, 400).await?;
    let held = pull_exactly(&world.apis[owner], &world.group.name, 40, &ledger, TAKEOVER_WITHIN).await?;

    let frozen = it.process(&gateway_name(owner))?;
    frozen.pause().await?;
    let paused = Instant::now();
    // The survivor delivers all of them; what the frozen one had out is not acknowledged yet.
    let again = pull_exactly(&world.apis[survivor], &world.group.name, 400, &ledger, Duration::from_secs(20)).await?;
    println!("all 400 delivered by the other {:?} after SIGSTOP", paused.elapsed());
    let out: HashSet<Place> = held.iter().map(place).collect();
    let (rest, kept): (Vec<_>, Vec<_>) = again.into_iter().partition(|record| !out.contains(&place(record)));
    let results = world.apis[survivor].ack(&world.group.name, ack_ids(&rest)).await?;
    ledger.acked(&rest.iter().map(place).collect::<Vec<_>>(), &results);
    ensure!(ledger.acked_count() == 360, "{:?}", ledger.outcomes());
    let stand = Duration::from_secs(if long() { 60 } else { 10 });
    tokio::time::sleep(stand.saturating_sub(paused.elapsed())).await;
    frozen.resume();

    // Through the woken one's own door: whether or not it knows better by now, nothing of it counts.
    let results = wait::until("an answer of the woken gateway", Duration::from_secs(10), async || {
        Ok(Some(world.apis[owner].ack(&world.group.name, ack_ids(&held)).await?))
    })
    .await?;
    ensure!(results.iter().all(|result| result.outcome() == SettleOutcome::StaleLease), "{results:?}");
    ensure!(world.apis[survivor].group_status(&world.group.name).await?.lag == 40, "the woken one's acks were stored");
    // Each is acknowledged in the end: with its new id, or with that of the next hand-over, for the group may move back.
    let results = world.apis[survivor].ack(&world.group.name, ack_ids(&kept)).await?;
    ledger.acked(&kept.iter().map(place).collect::<Vec<_>>(), &results);
    let left: Vec<Place> = out.into_iter().collect();
    all_acked_by_pulling(&world.apis, &world.group.name, &ledger, &left, Duration::from_secs(45)).await?;
    let more = world.publish(200, 50).await?;
    let woken = [world.apis[owner].clone()];
    all_acked_by_pulling(&woken, &world.group.name, &ledger, &more, Duration::from_secs(20)).await?;
    ledger.check(false)?;
    it.stop().await
}
