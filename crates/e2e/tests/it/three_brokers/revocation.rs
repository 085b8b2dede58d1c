//! The broker that led `sluice.control` is gone: what is published there reaches the gateway all the same.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use sluice_e2e::wait;
use sluice_proto::admin::v1::{ApiKey, Role};
use sluice_types::physical::CONTROL_TOPIC;

use super::{CALL, NAMESPACE, World};

/// From the moment that Kafka has another leader: a revoked key must not work for long.
const REFUSED_WITHIN: Duration = Duration::from_secs(5);
const LED_WITHIN: Duration = Duration::from_secs(30);

/// The broker that leads the control log.
pub(super) async fn leader(world: &World<'_>) -> Result<u32> {
    let mut metadata = world.admin.metadata(&[CONTROL_TOPIC], CALL).await?;
    let topic = metadata.topics.pop().context("the control log")?;
    let leader = topic.partitions.get(&0).and_then(|partition| partition.leader).context("its leader")?;
    Ok(u32::try_from(leader)?)
}

/// A key that works.
pub(super) async fn key(world: &World<'_>) -> Result<ApiKey> {
    world.api.create_account("leaver", Role::Developer, &format!("namespaces/{NAMESPACE}")).await?;
    let key = world.api.create_key("leaver").await?;
    let status = status(world, &key).await?;
    ensure!(status == 200, "it works: {status}");
    Ok(key)
}

pub(super) async fn reaches_the_gateway_through_another_leader(
    world: &World<'_>,
    key: &ApiKey,
    gone: u32,
) -> Result<()> {
    wait::until("another leader of the control log", LED_WITHIN, async || {
        Ok((leader(world).await? != gone).then_some(()))
    })
    .await?;
    world.api.revoke_key(&key.name).await?;
    wait::until("the revoked key to be refused", REFUSED_WITHIN, async || {
        let status = status(world, key).await?;
        ensure!(status == 401, "{status}");
        Ok(Some(()))
    })
    .await
}

async fn status(world: &World<'_>, key: &ApiKey) -> Result<u16> {
    Ok(world
        .it
        .http(0, Some(&key.key))
        .get(&format!("/v1/namespaces/{NAMESPACE}/topics/source:metadata"))
        .await?
        .status)
}
