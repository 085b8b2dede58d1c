//! A group that was deleted goes from Kafka, and nothing brings it back: no gateway that hears of it late, no restart of Kafka.

use std::time::Duration;

use anyhow::{Result, ensure};
use sluice_devstack::ADMIN;
use sluice_e2e::consumer::{Ledger, group_of};
use sluice_e2e::{Installation, Options, wait};
use sluice_types::physical::PhysicalGroup;
use sluice_wire::Client;

use super::{NAMESPACE, World, all_acked_by_pulling, gateway_name};

const BROKER: u32 = 1;
const CALL: Duration = Duration::from_secs(10);
const GONE_WITHIN: Duration = Duration::from_secs(60);
/// Longer than a gateway may be silent before it is not waited for.
const FROZEN_FOR: Duration = Duration::from_secs(8);

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_was_deleted_goes_from_kafka_and_does_not_return() -> Result<()> {
    let it = Installation::start(Options::default()).await?;
    let world = World::new(&it, 2, |group| group).await?;
    let ledger = Ledger::default();
    let places = world.publish(100, 10).await?;
    all_acked_by_pulling(&world.apis, &world.group.name, &ledger, &places, Duration::from_secs(20)).await?;
    let kafka = it.kafka()?.client(ADMIN)?;
    let namespace = world.namespace.uid.parse()?;
    let name = PhysicalGroup::new(namespace, world.group.uid.parse()?);
    ensure!(holds(&kafka, &name).await?, "its positions are there");

    // Its dispatcher stands still while it is deleted, and hears of it late.
    let dispatcher = world.dispatcher(&it).await?;
    let late = it.process(&gateway_name(dispatcher))?;
    late.pause().await?;
    let answer = world.apis[1 - dispatcher].delete_group(&world.group.name).await;
    tokio::time::sleep(FROZEN_FOR).await;
    late.resume();
    let answer = answer?;
    ensure!(answer.done, "{answer:?}");
    gone(&kafka, &name).await?;

    let again = world.apis[0].create_group(NAMESPACE, "billing", group_of(NAMESPACE, &["orders"])).await?;
    ensure!(again.uid != world.group.uid, "{again:?}");
    let ledger = Ledger::default();
    all_acked_by_pulling(&world.apis, &again.name, &ledger, &places, Duration::from_secs(20)).await?;
    it.stack.kafka()?.restart(BROKER).await?;
    // Kafka reads its groups anew.
    let next =
        wait::until("records to be taken", Duration::from_secs(20), async || Ok(Some(world.publish(10, 10).await?)))
            .await?;
    all_acked_by_pulling(&world.apis, &again.name, &ledger, &next, Duration::from_secs(30)).await?;
    ensure!(holds(&kafka, &PhysicalGroup::new(namespace, again.uid.parse()?)).await?, "the new one is there");
    ensure!(!holds(&kafka, &name).await?, "the deleted group is there again");
    it.stop().await
}

async fn holds(kafka: &Client, name: &PhysicalGroup) -> Result<bool> {
    let listed = kafka.list_groups(&[], CALL).await?;
    Ok(listed.iter().any(|listed| listed.group == name.as_str()))
}

async fn gone(kafka: &Client, name: &PhysicalGroup) -> Result<()> {
    wait::until("the deleted group to go from Kafka", GONE_WITHIN, async || {
        Ok((!holds(kafka, name).await?).then_some(()))
    })
    .await
}
