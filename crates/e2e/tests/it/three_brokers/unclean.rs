//! Two replicas, and the one that lagged behind leads: what only the other had is gone, and the offsets are given again.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use sluice_devstack::Kafka;
use sluice_e2e::consumer::{ack_ids, group_of, place, text};
use sluice_e2e::tenant::record;
use sluice_e2e::{Api, wait};
use sluice_proto::stream::v1::{GroupStatus, Outcome};
use sluice_types::physical::PhysicalGroup;
use sluice_wire::{CommitOffset, Committer, ConfigChange, Partition};
use tonic::Code;
use tonic_types::StatusExt as _;

use super::{CALL, NAMESPACE, World};

const KEPT: i64 = 10;
const LOST: i64 = 20;
const WITHIN: Duration = Duration::from_secs(30);

pub(super) async fn a_log_that_an_unclean_leader_cut_off_is_told(world: &World<'_>) -> Result<()> {
    world.replicas(2).await?;
    let api = &world.api;
    let topic = api.create_topic(NAMESPACE, "cut", 1).await?;
    let physical = world.it.physical(&world.namespace.uid, &topic.uid)?;
    let settings = [("min.insync.replicas", "1"), ("unclean.leader.election.enable", "true")];
    let settings = settings.map(|(name, value)| (name.to_owned(), ConfigChange::Set(value.to_owned())));
    world.admin.incremental_alter_configs(&physical, &BTreeMap::from(settings), false, CALL).await?;
    // One group consumes all the time. The other's position is of before, and nobody looks until the log has grown again.
    let live = api.create_group(NAMESPACE, "live", group_of(NAMESPACE, &["cut"])).await?;
    let idle = api.create_group(NAMESPACE, "idle", group_of(NAMESPACE, &["cut"])).await?;
    publish(api, &topic.name, "kept", KEPT).await?;
    let before = partition(world, &physical, |partition| partition.isr.len() == 2).await?;
    let leader = before.leader.context("a leader")?;
    let follower = *before.replicas.iter().find(|replica| **replica != leader).context("a follower")?;

    world.kafka.kill9(follower as u32).await?;
    let alone = partition(world, &physical, |partition| partition.isr == [leader]).await?;
    publish(api, &topic.name, "lost", LOST - KEPT).await?;
    consume(api, &live.name, LOST).await?;
    let position = CommitOffset {
        topic: physical.clone(),
        partition: 0,
        offset: LOST,
        leader_epoch: Some(alone.leader_epoch),
        metadata: String::new(),
    };
    let name = PhysicalGroup::new(world.namespace.uid.parse()?, idle.uid.parse()?);
    let stored = world.admin.commit_offsets(name.as_str(), Committer::Outside, &[position], CALL).await?;
    ensure!(stored.values().all(Result::is_ok), "{stored:?}");
    unclean_election(world.kafka, leader, follower).await?;
    partition(world, &physical, |partition| partition.leader == Some(follower)).await?;

    wait::until("the reader to be told", WITHIN, async || {
        let Err(status) = api.fetch(&topic.name, 0, LOST - 1, Duration::ZERO).await else { return Ok(None) };
        let end = status.get_details_error_info().and_then(|info| info.metadata.get("endOffset").cloned());
        ensure!(status.code() == Code::OutOfRange && end.as_deref() == Some("10"), "{status:?}");
        Ok(Some(()))
    })
    .await?;
    told(api, &live.name).await?;
    publish(api, &topic.name, "new", 3 * KEPT).await?;
    let news = consume(api, &live.name, 4 * KEPT).await?;
    ensure!(news.iter().all(|value| value.starts_with("new")) && news.len() == 3 * KEPT as usize, "{news:?}");
    // Offset 20 is in the log again, and another record's.
    let news = consume(api, &idle.name, 4 * KEPT).await?;
    ensure!(news.iter().all(|value| value.starts_with("new")) && news.len() == 3 * KEPT as usize, "{news:?}");
    told(api, &idle.name).await?;

    world.kafka.start_broker(leader as u32).await?;
    world.all_in_sync().await?;
    publish(api, &topic.name, "after", 1).await?;
    for group in [&live.name, &idle.name] {
        ensure!(consume(api, group, 4 * KEPT + 1).await? == ["after-0"], "one record more");
    }
    let log = std::fs::read_to_string(world.it.local.dir.join("logs/gateway-1.log"))?;
    let noticed = log.matches("the log was cut off below the position of a group").count();
    ensure!(noticed == 2, "noticed once by each group, not {noticed} times");
    Ok(())
}

/// The leader goes, and the follower comes back without what it missed. Two of three are there, as controllers must be.
async fn unclean_election(kafka: &Kafka, leader: i32, follower: i32) -> Result<()> {
    kafka.kill9(leader as u32).await?;
    kafka.start_broker(follower as u32).await?;
    Ok(())
}

async fn partition(world: &World<'_>, physical: &str, is: impl Fn(&Partition) -> bool) -> Result<Partition> {
    wait::until("the partition to be so", WITHIN, async || {
        let mut metadata = world.admin.metadata(&[physical], CALL).await?;
        let topic = metadata.topics.pop().context("the topic")?;
        let partition = topic.partitions.get(&0).cloned().context("its partition")?;
        ensure!(is(&partition), "{partition:?}");
        Ok(Some(partition))
    })
    .await
}

/// Each record by itself, so that one whose outcome is not known is not published twice.
async fn publish(api: &Api, topic: &str, what: &str, count: i64) -> Result<()> {
    for number in 0..count {
        let value = format!("{what}-{number}");
        wait::until("a record to be taken", WITHIN, async || {
            let results = api.produce(topic, vec![record(Some(value.as_bytes()), value.as_bytes())]).await?;
            match results[0].outcome() {
                Outcome::Persisted => Ok(Some(())),
                Outcome::NotPersisted if results[0].retriable => Ok(None),
                _ => Err(anyhow::anyhow!("{results:?}")),
            }
        })
        .await?;
    }
    Ok(())
}

/// Acknowledges what comes until all before an offset is done; the values that came.
async fn consume(api: &Api, group: &str, until: i64) -> Result<Vec<String>> {
    let mut values = Vec::new();
    wait::until("all to be consumed", WITHIN, async || {
        let records = api.pull(group, 100, Duration::from_millis(500)).await?.records;
        let results = api.ack(group, ack_ids(&records)).await?;
        for (record, result) in records.iter().zip(&results) {
            ensure!(result.error.is_none(), "{:?}: {result:?}", place(record));
            values.push(text(record));
        }
        let status = api.group_status(group).await?;
        let committed = status.partitions.first().and_then(|partition| partition.committed_offset);
        ensure!(committed == Some(until), "{committed:?} of {until}: {:?}", status.findings);
        Ok(Some(()))
    })
    .await?;
    Ok(values)
}

async fn told(api: &Api, group: &str) -> Result<()> {
    wait::until("the group to tell it", WITHIN, async || {
        api.pull(group, 1, Duration::ZERO).await?;
        let status = api.group_status(group).await?;
        ensure!(tells(&status), "{:?}", status.findings);
        Ok(Some(()))
    })
    .await
}

fn tells(status: &GroupStatus) -> bool {
    let what = format!("the log ended at offset {KEPT}, before the group's position {LOST}");
    status.findings.iter().any(|finding| finding.message.contains(&what) && finding.message.contains("goes on at 10"))
}
