//! Clients that behave badly: they cost a bounded amount and stop nobody else.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use sluice_e2e::consumer::{Ledger, ack_ids, group_of, place};
use sluice_e2e::tenant::record;
use sluice_e2e::{Installation, Options, wait};
use sluice_proto::admin::v1::group::Ordering;
use sluice_proto::stream::v1::{DeliveryState, SettleOutcome, SettleResult};
use tonic::Code;

use super::{NAMESPACE, World, pull_exactly};

const WITHIN: Duration = Duration::from_secs(15);

#[tokio::test(flavor = "multi_thread")]
async fn who_never_acknowledges_fills_its_window_and_memory_stays_flat() -> Result<()> {
    let it = Installation::start(Options::default()).await?;
    let world = World::new(&it, 1, |group| group).await?;
    // Another group of the same topic, which behaves.
    let other = world.apis[0].create_group(NAMESPACE, "other", group_of(NAMESPACE, &["orders"])).await?;
    let owner = world.dispatcher(&it).await?;
    let before = resident(&it, owner)?;
    // 64 MiB, twice the window.
    let value = vec![7_u8; 16 << 10];
    for batch in 0..32 {
        let key = |i: usize| format!("{batch}/{i}").into_bytes();
        let records = (0..128).map(|i| record(Some(&key(i)), &value)).collect();
        world.apis[0].produce_all(&world.topic.name, records).await?;
    }
    let mut never = world.apis[1 - owner].consume(&world.group.name, 10_000).await?;
    let paused = async {
        let mut taken = 0;
        loop {
            let message = never.next().await?.context("the stream ended")?.message;
            use sluice_proto::stream::v1::consume_response::Message;
            match message {
                Some(Message::Records(records)) => taken += records.records.len(),
                Some(Message::Notice(notice)) if notice.state() == DeliveryState::WindowFull => return Ok(taken),
                _ => {}
            }
        }
    };
    let taken: Result<usize> = tokio::time::timeout(WITHIN, paused).await.context("no notice of a full window")?;
    println!("{} records out when the window was full", taken?);
    let status = world.apis[0].group_status(&world.group.name).await?;
    ensure!(status.partitions[0].state() == DeliveryState::WindowFull, "{status:?}");
    ensure!(status.findings.iter().any(|finding| finding.state() == DeliveryState::WindowFull), "{status:?}");
    // Nobody else waits for it.
    let ledger = Ledger::default();
    let mut left = 32 * 128;
    while left > 0 {
        let records = pull_exactly(&world.apis[owner], &other.name, left.min(500), &ledger, WITHIN).await?;
        let results = world.apis[owner].ack(&other.name, ack_ids(&records)).await?;
        ledger.acked(&records.iter().map(place).collect::<Vec<_>>(), &results);
        left -= records.len().min(left);
    }
    ensure!(ledger.acked_count() == 32 * 128, "{:?}", ledger.outcomes());
    let grown = resident(&it, owner)?.saturating_sub(before);
    println!("resident memory of the dispatcher grew by {} MiB", grown >> 20);
    ensure!(grown < 160 << 20, "grew by {} MiB", grown >> 20);
    it.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn who_never_reads_or_vanishes_loses_only_its_leases() -> Result<()> {
    let it = Installation::start(Options::default()).await?;
    let world = World::new(&it, 2, |group| sluice_proto::admin::v1::Group {
        ordering: Ordering::None.into(),
        ack_deadline: Some(Duration::from_secs(10).into()),
        ..group
    })
    .await?;
    let places = world.publish(2_000, 100).await?;
    // One opens a stream with much credit and never reads; one takes ten records and is gone.
    let deaf = world.apis[0].consume(&world.group.name, 200).await?;
    let mut gone = world.apis[1].consume(&world.group.name, 10).await?;
    gone.next().await?;
    drop(gone);
    let ledger = Ledger::default();
    wait::until("all others to come", Duration::from_secs(40), async || {
        let answer = world.apis[1].pull(&world.group.name, 500, Duration::from_secs(1)).await?;
        answer.records.iter().for_each(|record| ledger.delivered(record));
        if !answer.records.is_empty() {
            let results = world.apis[0].ack(&world.group.name, ack_ids(&answer.records)).await?;
            ledger.acked(&answer.records.iter().map(place).collect::<Vec<_>>(), &results);
        }
        // What the deaf one holds comes back when its leases end; then the stream takes as much again: it stays at its credit.
        ensure!(ledger.acked_count() + 200 >= places.len(), "{} of {}", ledger.acked_count(), places.len());
        Ok(Some(()))
    })
    .await?;
    drop(deaf);
    super::all_acked_by_pulling(&world.apis, &world.group.name, &ledger, &places, Duration::from_secs(40)).await?;
    ledger.check(false)?;
    it.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_that_are_wrong_acknowledge_nothing_and_say_the_same() -> Result<()> {
    let it = Installation::start(Options::default()).await?;
    let world = World::new(&it, 1, |group| group).await?;
    let stranger = it.tenant("rival").await?;
    let rival = it.api(1, &stranger.key)?;
    rival.create_namespace(NAMESPACE).await?;
    let topic = rival.create_topic(NAMESPACE, "orders", 1).await?;
    let group = rival.create_group(NAMESPACE, "billing", group_of(NAMESPACE, &["orders"])).await?;
    rival.produce_all(&topic.name, vec![record(Some(b"k"), b"theirs")]).await?;
    world.publish(3, 3).await?;
    let theirs = pull_exactly(&rival, &group.name, 1, &Ledger::default(), WITHIN).await?;
    let mine = pull_exactly(&world.apis[0], &world.group.name, 3, &Ledger::default(), WITHIN).await?;

    let mut wrong: Vec<(String, String)> = vec![
        ("another tenant's".into(), theirs[0].ack_id.clone()),
        ("empty".into(), String::new()),
        ("long".into(), "A".repeat(300)),
        ("not base64".into(), "?".repeat(75)),
    ];
    // Each character changed in turn: every bit is under the MAC.
    let id = &mine[0].ack_id;
    for at in 0..id.len() {
        let other = if id.as_bytes()[at] == b'A' { "B" } else { "A" };
        wrong.push((format!("character {at}"), format!("{}{other}{}", &id[..at], &id[at + 1..])));
    }
    let ids: Vec<String> = wrong.iter().map(|(_, id)| id.clone()).collect();
    let results = world.apis[1].ack(&world.group.name, ids).await?;
    let sample: &SettleResult = &results[0];
    for ((what, _), result) in wrong.iter().zip(&results) {
        ensure!(result.outcome() == SettleOutcome::Invalid && result == sample, "{what}: {result:?}");
    }
    // The group of another tenant is as absent as one that never was, whatever is done with it.
    for name in [&group.name, "namespaces/prod/groups/never-was"] {
        let lesser = it.tenant(if *name == group.name { "third" } else { "fourth" }).await?;
        let api = it.api(0, &lesser.key)?;
        let status = api.ack(name, vec![theirs[0].ack_id.clone()]).await.expect_err("not theirs");
        ensure!(status.code() == Code::NotFound, "{status:?}");
        ensure!(status.message() == format!("{name} does not exist"), "{status:?}");
    }
    // Nothing was acknowledged by any of it.
    let status = world.apis[0].group_status(&world.group.name).await?;
    ensure!(status.lag == 3, "{status:?}");
    ensure!(rival.group_status(&group.name).await?.lag == 1, "the rival's record was acknowledged");
    let results = world.apis[1].ack(&world.group.name, ack_ids(&mine)).await?;
    ensure!(results.iter().all(|result| result.outcome() == SettleOutcome::Ok), "{results:?}");
    it.stop().await
}

/// Resident bytes of a gateway.
fn resident(it: &Installation, gateway: usize) -> Result<u64> {
    let pid = it.process(&super::gateway_name(gateway))?.pid();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").trim().parse::<u64>()? << 10)
}
