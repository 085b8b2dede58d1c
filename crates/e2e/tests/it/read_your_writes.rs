//! A change made through one gateway holds at once on the other: no retry, no sleep.

use std::time::Duration;

use anyhow::{Result, ensure};
use sluice_e2e::tenant::{finished, record};
use sluice_e2e::{Installation, Options, long};
use sluice_proto::admin::v1::{Role, Topic};
use tonic::Code;

fn rounds() -> usize {
    if long() { 500 } else { 100 }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_created_through_one_gateway_takes_records_at_the_other() -> Result<()> {
    let it = Installation::start(Options::default()).await?;
    let tenant = it.tenant("acme").await?;
    let (a, b) = (it.api(0, &tenant.key)?, it.api(1, &tenant.key)?);
    a.create_namespace("prod").await?;
    for round in 0..rounds() {
        let topic = a.create_topic("prod", &format!("t{round}"), 1).await?;
        let results = b.produce_all(&topic.name, vec![record(None, b"first")]).await?;
        ensure!(results[0].offset == Some(0), "round {round}: {results:?}");
        a.delete_topic(&topic.name).await?;
    }
    it.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_works_and_a_revoked_one_does_not_at_the_other_gateway() -> Result<()> {
    let it = Installation::start(Options::default()).await?;
    let tenant = it.tenant("acme").await?;
    let a = it.api(0, &tenant.key)?;
    a.create_namespace("prod").await?;
    let topic = a.create_topic("prod", "orders", 1).await?;
    a.create_account("writer", Role::Producer, "*").await?;
    for round in 0..rounds() {
        let key = a.create_key("writer").await?;
        let b = it.api(1, &key.key)?;
        b.produce_all(&topic.name, vec![record(None, b"hello")]).await?;
        a.revoke_key(&key.name).await?;
        let refused = b.produce(&topic.name, vec![record(None, b"again")]).await;
        let code = refused.as_ref().err().map(|status| status.code());
        ensure!(code == Some(Code::Unauthenticated), "round {round}: {refused:?}");
    }
    it.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_deleted_through_one_gateway_is_gone_at_the_other_and_a_new_one_is_empty() -> Result<()> {
    let it = Installation::start(Options::default()).await?;
    let tenant = it.tenant("acme").await?;
    let (a, b) = (it.api(0, &tenant.key)?, it.api(1, &tenant.key)?);
    a.create_namespace("prod").await?;
    let mut topic = a.create_topic("prod", "orders", 1).await?;
    for round in 0..rounds() {
        b.produce_all(&topic.name, vec![record(None, b"old")]).await?;
        finished::<Topic>(a.delete_topic(&topic.name).await?)?;
        let gone = b.produce(&topic.name, vec![record(None, b"late")]).await;
        let code = gone.as_ref().err().map(|status| status.code());
        ensure!(code == Some(Code::NotFound), "round {round}: {gone:?}");
        let new = a.create_topic("prod", "orders", 1).await?;
        ensure!(new.uid != topic.uid, "round {round}: the same uid twice");
        let read = b.fetch(&new.name, 0, 0, Duration::ZERO).await?;
        ensure!(read.records.is_empty() && read.end_offset == 0, "round {round}: {read:?}");
        topic = new;
    }
    it.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_added_through_one_gateway_takes_records_at_the_other() -> Result<()> {
    let it = Installation::start(Options::default()).await?;
    let tenant = it.tenant("acme").await?;
    let (a, b) = (it.api(0, &tenant.key)?, it.api(1, &tenant.key)?);
    a.create_namespace("prod").await?;
    let topic = a.create_topic("prod", "orders", 1).await?;
    for partitions in 2..=i32::try_from(rounds())? {
        a.set_partitions(&topic.name, partitions).await?;
        let mut last = record(None, b"into the new one");
        last.partition = Some(partitions - 1);
        let results = b.produce_all(&topic.name, vec![last]).await?;
        ensure!(results[0].partition == partitions - 1 && results[0].offset == Some(0), "{results:?}");
    }
    it.stop().await
}
