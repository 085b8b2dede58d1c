//! A group that moves under load, again and again: rolling restarts.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use sluice_e2e::consumer::{Ledger, Place};
use sluice_e2e::{Installation, Options, long, wait};

use super::{World, all_acked, gateway_name, pull_and_ack};

const WORKERS: usize = 4;
const BATCH: i32 = 20;

#[tokio::test(flavor = "multi_thread")]
async fn rolling_restarts_skip_nothing_and_repeat_no_more_than_was_in_flight() -> Result<()> {
    let it = Installation::start(Options::default()).await?;
    let world = World::new(&it, 6, |group| group).await?;
    let ledger = Ledger::default();
    let stop = Arc::new(AtomicBool::new(false));
    let mut workers = Vec::new();
    for _ in 0..WORKERS {
        workers.push(tokio::spawn(pull_and_ack(
            world.apis.clone(),
            world.group.name.clone(),
            ledger.clone(),
            stop.clone(),
            BATCH,
        )));
    }
    let mut places: Vec<Place> = Vec::new();
    let moves = if long() { 20 } else { 4 };
    for turn in 0..moves {
        places.extend(publish_through_any(&world, 500).await?);
        let victim = gateway_name(turn % 2);
        let half = places.len() / 2;
        wait::until("half of it done", Duration::from_secs(20), async || {
            let (done, counts) = (ledger.acked_count(), ledger.counts());
            ensure!(done >= half, "turn {turn}: {done} of {half}, {counts:?}, {:?}", ledger.outcomes());
            Ok(Some(()))
        })
        .await?;
        let stopped = it.process(&victim)?.stop(Duration::from_secs(35)).await;
        ensure!(stopped.success(), "{victim}: {stopped}");
        it.restart(&victim).await?;
    }
    all_acked(&ledger, &places, Duration::from_secs(30)).await?;
    stop.store(true, Ordering::Release);
    for worker in workers {
        worker.await??;
    }
    ledger.check(true)?;
    let (deliveries, records) = ledger.counts();
    println!("{moves} moves: {records} records, {} delivered again, {:?}", deliveries - records, ledger.outcomes());
    let in_flight = WORKERS * usize::try_from(BATCH)? * moves;
    ensure!(deliveries - records <= in_flight, "{} delivered again, {in_flight} were in flight", deliveries - records);
    it.stop().await
}

/// Publishing goes on while either gateway is away.
async fn publish_through_any(world: &World, count: usize) -> Result<Vec<Place>> {
    wait::until("a gateway that takes records", Duration::from_secs(20), async || {
        Ok(Some(world.publish(count, 97).await?))
    })
    .await
}
