//! The dispatcher of a group is killed with -9, again and again: how long until the survivor delivers.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use sluice_e2e::consumer::{ack_ids, group_of, settled_dispatcher};
use sluice_e2e::tenant::record;
use sluice_e2e::{Installation, wait};

use super::{NAMESPACE, api};

/// Runs it; the lines of the report.
pub(super) async fn run(it: &Installation, kills: usize) -> Result<String> {
    let apis = [api(it, 0)?, api(it, 1)?];
    let topic = apis[0].create_topic(NAMESPACE, "takeover", 4).await?;
    let group = apis[0].create_group(NAMESPACE, "takeover", group_of(NAMESPACE, &["takeover"])).await?.name;
    let mut took = Vec::with_capacity(kills);
    for kill in 0..kills {
        eprintln!("kill {} of {kills}", kill + 1);
        let name = settled_dispatcher(&apis[0], &group).await?;
        let dispatcher = usize::from(name == "gateway-2");
        let survivor = &apis[1 - dispatcher];
        survivor.produce_all(&topic.name, (0..100).map(|i| record(Some(&[i]), b"x")).collect()).await?;
        let out = survivor.pull(&group, 100, Duration::from_secs(5)).await?;
        it.process(&name)?.kill9().await;
        let killed = Instant::now();
        let records = wait::until("a record from the survivor", Duration::from_secs(30), async || {
            let taken = survivor.pull(&group, 200, Duration::from_secs(1)).await?.records;
            Ok((!taken.is_empty()).then_some(taken))
        })
        .await
        .with_context(|| format!("{} records were out", out.records.len()))?;
        took.push(killed.elapsed());
        survivor.ack(&group, ack_ids(&records)).await?;
        it.restart(&name).await?;
    }
    took.sort_unstable();
    let at = |share: f64| took.get(((took.len() as f64 - 1.0) * share) as usize).map_or(0.0, Duration::as_secs_f64);
    Ok(format!(
        "\nTakeover after kill -9 of a group's dispatcher with 100 records out, until the survivor delivers, over {kills} kills: \
         median {:.2} s, slowest {:.2} s.\n",
        at(0.5),
        at(1.0)
    ))
}
