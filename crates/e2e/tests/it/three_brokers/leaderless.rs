//! One replica each, and one broker gone: some partitions have a leader.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use sluice_e2e::tenant::record;
use sluice_e2e::wait;
use sluice_proto::stream::v1::list_offsets_request::At;
use sluice_proto::wkt::Timestamp;
use tonic::Code;

use super::producers::Picky;
use super::{NAMESPACE, World, dead_letters, revocation};

const PARTITIONS: i32 = 6;

pub(super) async fn partitions_without_a_leader_fail_alone(world: &World<'_>) -> Result<()> {
    dead_letters::source(world).await?;
    let picky = Picky::create(world).await?;
    let key = revocation::key(world).await?;
    world.replicas(1).await?;
    dead_letters::refused(world).await?;
    let topic = world.api.create_topic(NAMESPACE, "single", PARTITIONS).await?;
    let records = (0..PARTITIONS).map(|partition| {
        let mut one = record(Some(b"k"), b"v");
        one.partition = Some(partition);
        one
    });
    world.api.produce_all(&topic.name, records.collect()).await?;
    let http = world.it.http(0, Some(&world.tenant.key));
    let path = format!("/v1/{}:listOffsets", topic.name);
    let whole = http.post(&path, &json!({})).await?;
    ensure!(whole.status == 200 && whole.json()["failures"] == json!([]), "{whole:?}");

    let gone = revocation::leader(world).await?;
    world.kafka.stop(gone).await?;
    // Not beside the others: a producer is replaced meanwhile, and what is on its way may be answered as unknown.
    let revoked = revocation::reaches_the_gateway_through_another_leader(world, &key, gone);
    tokio::try_join!(revoked, picky.makes_the_gateway_unready(world))?;
    those_that_are_led_go_on(world, &topic.name).await?;

    world.kafka.start_broker(gone).await?;
    wait::until("all partitions", Duration::from_secs(30), async || {
        let answer = world.api.list_offsets(&topic.name, &[], None).await?;
        Ok((answer.offsets.len() == PARTITIONS as usize && answer.failures.is_empty()).then_some(()))
    })
    .await?;
    world.sluice.done(&["topics", "offsets", "prod/single", "--at", "earliest"])?;
    dead_letters::the_others_are_still_there(world).await?;
    world.all_in_sync().await
}

/// While a broker is gone.
async fn those_that_are_led_go_on(world: &World<'_>, topic: &str) -> Result<()> {
    let http = world.it.http(0, Some(&world.tenant.key));
    let path = format!("/v1/{topic}:listOffsets");
    let answer = wait::until("a partition without a leader", Duration::from_secs(20), async || {
        let answer = world.api.list_offsets(topic, &[], None).await?;
        Ok(Some(answer).filter(|answer| !answer.failures.is_empty()))
    })
    .await?;
    let lost: Vec<i32> = answer.failures.iter().map(|failure| failure.partition).collect();
    let mut all: Vec<i32> = answer.offsets.iter().map(|found| found.partition).chain(lost.clone()).collect();
    all.sort_unstable();
    ensure!(all == (0..PARTITIONS).collect::<Vec<_>>(), "each partition once: {answer:?}");
    ensure!(answer.offsets.iter().all(|found| found.offset == 1), "{answer:?}");
    let error = answer.failures[0].error.clone().context("its error")?;
    ensure!(error.code == Code::Unavailable as i32 && !error.details.is_empty(), "{error:?}");
    // Behind all records there is none to be found: the ends of those that are led.
    let late = Timestamp::from_millis(i64::from(i32::MAX) * 1_000);
    let answer = world.api.list_offsets(topic, &[], Some(At::Time(late))).await?;
    ensure!(answer.offsets.iter().all(|found| found.offset == 1), "{answer:?}");
    ensure!(answer.failures.len() == lost.len(), "{answer:?}");
    let none = world.api.list_offsets(topic, &lost, None).await;
    ensure!(none.as_ref().is_err_and(|status| status.code() == Code::Unavailable), "nothing is known: {none:?}");

    let partly = http.post(&path, &json!({ "position": "POSITION_EARLIEST" })).await?;
    let failure = &partly.json()["failures"][0];
    ensure!(partly.status == 207 && failure["partition"] == lost[0], "{partly:?}");
    ensure!(failure["error"]["details"][0]["reason"] == "CLUSTER_UNAVAILABLE", "{failure}");
    let output = world.sluice.run(&["topics", "offsets", "prod/single"])?;
    let (shown, errors) = (String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?);
    ensure!(output.status.code() == Some(1) && shown.lines().count() == 1 + PARTITIONS as usize, "{shown}{errors}");
    let row = shown.lines().nth(1 + lost[0] as usize).context("its row")?;
    ensure!(row.contains("does not answer"), "{shown}");
    ensure!(errors.contains(&format!("{} of {PARTITIONS} partitions", lost.len())), "{errors}");

    dead_letters::those_of_led_partitions_go_on(world).await
}
