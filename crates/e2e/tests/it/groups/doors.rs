//! Any gateway serves any call of a group.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, ensure};
use sluice_e2e::consumer::{Ledger, ack_ids, place};
use sluice_e2e::{Installation, Options, wait};
use sluice_proto::stream::v1::SettleOutcome;

use super::{World, gateway_name, pull_exactly};

const WITHIN: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_another_gateway_gets_all_partitions_and_any_gateway_takes_its_acks() -> Result<()> {
    let it = Installation::start(Options { gateways: 3, ..Options::default() }).await?;
    let world = World::new(&it, 6, |group| group).await?;
    let owner = world.dispatcher(&it).await?;
    let (door, third) = ((owner + 1) % 3, (owner + 2) % 3);
    let ledger = Ledger::default();
    let places = world.publish(600, 600).await?;
    let records = pull_exactly(&world.apis[door], &world.group.name, 600, &ledger, WITHIN).await?;
    let partitions: BTreeSet<i32> = records.iter().map(|record| place(record).1).collect();
    ensure!(partitions.len() == 6, "only partitions {partitions:?}");
    ensure!(ledger.counts() == (600, 600), "{:?} of {}", ledger.counts(), places.len());

    // Delivered by one door, acknowledged through another.
    let (first, rest) = records.split_at(300);
    let results = world.apis[third].ack(&world.group.name, ack_ids(first)).await?;
    ensure!(results.iter().all(|result| result.outcome() == SettleOutcome::Ok), "{results:?}");
    let again = world.apis[door].ack(&world.group.name, ack_ids(first)).await?;
    ensure!(again.iter().all(|result| result.outcome() == SettleOutcome::Ok), "twice is OK twice: {again:?}");
    let status = world.apis[third].group_status(&world.group.name).await?;
    ensure!(status.lag == 300, "{status:?}");

    // After a hand-over in good order what was out is stale, and comes again.
    let stopped = it.process(&gateway_name(owner))?.stop(Duration::from_secs(35)).await;
    ensure!(stopped.success(), "{stopped}");
    let fresh = pull_exactly(&world.apis[door], &world.group.name, 300, &Ledger::default(), WITHIN).await?;
    let results = world.apis[third].ack(&world.group.name, ack_ids(rest)).await?;
    ensure!(results.iter().all(|result| result.outcome() == SettleOutcome::StaleLease), "{results:?}");
    let came: BTreeSet<_> = fresh.iter().map(place).collect();
    ensure!(came == rest.iter().map(place).collect(), "other records came again than were out");
    let results = world.apis[third].ack(&world.group.name, ack_ids(&fresh)).await?;
    ensure!(results.iter().all(|result| result.outcome() == SettleOutcome::Ok), "{results:?}");
    wait::until("no lag", WITHIN, async || {
        Ok((world.apis[door].group_status(&world.group.name).await?.lag == 0).then_some(()))
    })
    .await?;
    it.stop().await
}
