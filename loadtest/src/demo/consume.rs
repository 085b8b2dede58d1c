//! Reads everything back through the API, partition by partition, every next call through the other gateway.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use futures::future::try_join_all;
use indicatif::ProgressBar;
use sluice_e2e::Api;
use sluice_e2e::digest::Digest;
use sluice_proto::stream::v1::{Record, record};

use super::PARTITIONS;
use crate::flights::seq;

/// What came back.
#[derive(Default)]
pub(crate) struct ReadBack {
    pub(crate) digest: Digest,
    pub(crate) keys: u64,
    /// Times that an event of a key came before an earlier one.
    pub(crate) inversions: u64,
}

pub(crate) async fn run(apis: &[Api], topic: &str, bar: ProgressBar) -> Result<ReadBack> {
    let parts = try_join_all((0..PARTITIONS).map(|partition| one(apis, topic, partition, &bar))).await?;
    bar.finish();
    Ok(parts.into_iter().fold(ReadBack::default(), |mut sum, part| {
        sum.digest.merge(part.digest);
        sum.keys += part.keys;
        sum.inversions += part.inversions;
        sum
    }))
}

async fn one(apis: &[Api], topic: &str, partition: i32, bar: &ProgressBar) -> Result<ReadBack> {
    let mut seen = ReadBack::default();
    let mut last: HashMap<Bytes, u64> = HashMap::new();
    let (mut offset, mut call) = (0, partition as usize);
    loop {
        let api = &apis[call % apis.len()];
        call += 1;
        let answer = api.fetch(topic, partition, offset, Duration::ZERO).await.context("read back")?;
        for record in &answer.records {
            take(&mut seen, &mut last, record);
        }
        bar.inc(answer.records.len() as u64);
        offset = answer.next_offset;
        if offset >= answer.end_offset {
            seen.keys = last.len() as u64;
            return Ok(seen);
        }
    }
}

fn take(seen: &mut ReadBack, last: &mut HashMap<Bytes, u64>, record: &Record) {
    let key = match &record.key_kind {
        Some(record::KeyKind::Key(key)) => Some(key.clone()),
        _ => None,
    };
    let value = match &record.value_kind {
        Some(record::ValueKind::Value(value)) => Some(value.clone()),
        _ => None,
    };
    seen.digest.add(key.as_deref(), value.as_deref(), 0);
    if let (Some(key), Some(seq)) = (key, value.as_deref().and_then(seq)) {
        let before = last.insert(key, seq);
        seen.inversions += u64::from(before.is_some_and(|before| before >= seq));
    }
}
