//! The dispatcher of a group dies, or stands still: the other gateway goes on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use sluice_e2e::consumer::{Ledger, ack_ids, place};
use sluice_e2e::{Installation, Options, long, wait};
use sluice_proto::stream::v1::SettleOutcome;

use super::{World, all_acked, gateway_name, pull_and_ack, pull_exactly};

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
    let places = world.publish(400, 50).await?;
    let held = pull_exactly(&world.apis[owner], &world.group.name, 40, &ledger, TAKEOVER_WITHIN).await?;

    let frozen = it.process(&gateway_name(owner))?;
    frozen.pause().await?;
    let paused = Instant::now();
    let stop = Arc::new(AtomicBool::new(false));
    let apis = vec![world.apis[survivor].clone()];
    let worker = tokio::spawn(pull_and_ack(apis, world.group.name.clone(), ledger.clone(), stop.clone(), 50));
    all_acked(&ledger, &places, Duration::from_secs(30)).await?;
    println!("all done {:?} after SIGSTOP", paused.elapsed());
    let stand = Duration::from_secs(if long() { 60 } else { 10 });
    tokio::time::sleep(stand.saturating_sub(paused.elapsed())).await;
    frozen.resume();

    // Through the woken one's own door: whether or not it knows better by now, nothing of it counts.
    let results = wait::until("an answer of the woken gateway", Duration::from_secs(10), async || {
        Ok(Some(world.apis[owner].ack(&world.group.name, ack_ids(&held)).await?))
    })
    .await?;
    ensure!(results.iter().all(|result| result.outcome() == SettleOutcome::StaleLease), "{results:?}");
    let more = world.publish(200, 50).await?;
    let second = tokio::spawn(pull_and_ack(
        vec![world.apis[owner].clone()],
        world.group.name.clone(),
        ledger.clone(),
        stop.clone(),
        50,
    ));
    all_acked(&ledger, &more, Duration::from_secs(20)).await?;
    stop.store(true, Ordering::Release);
    worker.await??;
    second.await??;
    ledger.check(false)?;
    it.stop().await
}
