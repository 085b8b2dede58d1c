//! Records that inflate: what the process of a gateway holds of them.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use sluice_e2e::consumer::group_of;
use sluice_e2e::tenant::record;
use sluice_e2e::{Api, Installation, Options, wait};

/// Kafka holds some KiB of each.
const RECORDS: usize = 159;
const BYTES: usize = (1 << 20) - 100;
/// In one call.
const CALL: usize = 3;
const PULLS: usize = 24;
const WITHIN: Duration = Duration::from_secs(30);
/// What a gateway may read ahead for all groups, see `docs/reference/limits.md`.
const READ_AHEAD: u64 = 64 << 20;
/// Beside that, for each pull: a batch while it is inflated, its record, and that record's answer, with as much again for what an
/// allocator keeps. One read of all that Kafka holds would be 159 MiB.
const OF_A_PULL: u64 = 6 << 20;

/// A figure of a process, in bytes.
fn memory(pid: u32, figure: &str) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(figure)?.strip_prefix(':'));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")).with_context(|| format!("{figure}: {status}"))?;
    Ok(kib.trim().parse::<u64>()? << 10)
}

/// A record of a group. What the tenant may have in flight does not suffice for all of them at once.
async fn one_record(api: &Api, group: &str) -> Result<()> {
    wait::until("a record", WITHIN, async || {
        let pulled = api.pull(group, 1, Duration::from_secs(5)).await?;
        Ok((pulled.records.len() == 1).then_some(()))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn many_pulls_of_records_that_inflate_stay_within_a_gateways_memory() -> Result<()> {
    let it = Installation::start(Options { gateways: 1, ..Options::default() }).await?;
    let tenant = it.tenant("acme").await?;
    let api = it.api(0, &tenant.key)?;
    api.create_namespace("prod").await?;
    let topic = api.create_topic("prod", "zeros", 1).await?;
    let names: Vec<String> = (0..PULLS).map(|at| format!("zeros-{at}")).collect();
    let groups = names.iter().map(|name| api.create_group("prod", name, group_of("prod", &["zeros"])));
    let groups = try_join_all(groups).await?;
    let value = vec![0; BYTES];
    for _ in 0..RECORDS / CALL {
        api.produce_all(&topic.name, (0..CALL).map(|_| record(None, &value)).collect()).await?;
    }

    let pid = it.process("gateway-1")?.pid();
    let before = memory(pid, "VmRSS")?;
    // The highest is counted from now on.
    std::fs::write(format!("/proc/{pid}/clear_refs"), "5")?;
    // The second round comes when each has read ahead.
    for _ in 0..2 {
        try_join_all(groups.iter().map(|group| one_record(&api, &group.name))).await?;
    }
    let (peak, most) = (memory(pid, "VmHWM")?, READ_AHEAD + PULLS as u64 * OF_A_PULL);
    println!("{} MiB before, {} MiB at the peak", before >> 20, peak >> 20);
    ensure!(peak - before < most, "{} MiB more than before; {} MiB at most", (peak - before) >> 20, most >> 20);
    it.stop().await
}
