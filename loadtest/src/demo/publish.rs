//! Publishes the events: a few publishers, each with its own keys, so that the order of a key is the order of its calls.

use std::time::Duration;

use anyhow::{Result, bail};
use futures::future::try_join_all;
use indicatif::ProgressBar;
use sluice_e2e::Api;
use sluice_e2e::tenant::record;
use sluice_proto::stream::v1::{Outcome, ProduceRecord};
use tonic::Code;
use tonic_types::StatusExt;

use crate::flights::Event;

const BATCH: usize = 500;

/// What the answers said.
#[derive(Default)]
pub(crate) struct Published {
    pub(crate) persisted: u64,
    pub(crate) not_persisted: u64,
    pub(crate) possibly: u64,
    pub(crate) refused_and_repeated: u64,
}

pub(crate) async fn run(
    apis: &[Api],
    topic: &str,
    events: &[Event],
    publishers: usize,
    bar: ProgressBar,
) -> Result<Published> {
    let mut shares: Vec<Vec<&Event>> = vec![Vec::new(); publishers];
    for (i, event) in events.iter().enumerate() {
        let share = event.key.as_ref().map_or(i, |key| crc32fast::hash(key) as usize) % publishers;
        shares[share].push(event);
    }
    let all = try_join_all(shares.into_iter().enumerate().map(|(i, share)| one(apis, topic, share, i, &bar))).await?;
    bar.finish();
    Ok(all.into_iter().fold(Published::default(), |sum, part| Published {
        persisted: sum.persisted + part.persisted,
        not_persisted: sum.not_persisted + part.not_persisted,
        possibly: sum.possibly + part.possibly,
        refused_and_repeated: sum.refused_and_repeated + part.refused_and_repeated,
    }))
}

/// One publisher: a batch at a time, every next one through the other gateway.
async fn one(apis: &[Api], topic: &str, share: Vec<&Event>, first: usize, bar: &ProgressBar) -> Result<Published> {
    let mut seen = Published::default();
    for (i, batch) in share.chunks(BATCH).enumerate() {
        let api = &apis[(first + i) % apis.len()];
        let records: Vec<ProduceRecord> =
            batch.iter().map(|event| record(event.key.as_deref(), &event.value)).collect();
        let results = loop {
            match api.produce(topic, records.clone()).await {
                Ok(results) => break results,
                // A limit was met before anything was written: come back when told.
                Err(status) if status.code() == Code::ResourceExhausted => {
                    let delay = status.get_details_retry_info().and_then(|retry| retry.retry_delay);
                    seen.refused_and_repeated += 1;
                    tokio::time::sleep(delay.unwrap_or(Duration::from_millis(100))).await;
                }
                Err(status) => bail!("publish: {status}"),
            }
        };
        for result in &results {
            match result.outcome() {
                Outcome::Persisted => seen.persisted += 1,
                Outcome::NotPersisted => seen.not_persisted += 1,
                _ => seen.possibly += 1,
            }
        }
        bar.inc(batch.len() as u64);
    }
    Ok(seen)
}
