//! Old writers never reach a topic that was made again under the same name.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use parking_lot::Mutex;
use sluice_e2e::tenant::record;
use sluice_e2e::{Installation, Options, kafka_reader, wait};
use sluice_proto::stream::v1::Outcome;
use tonic::Code;

#[tokio::test(flavor = "multi_thread")]
async fn writers_of_a_deleted_topic_get_not_found_and_never_reach_its_successor() -> Result<()> {
    let it = Installation::start(Options::default()).await?;
    let tenant = it.tenant("acme").await?;
    let api = it.api(0, &tenant.key)?;
    let namespace = api.create_namespace("prod").await?;
    let first = api.create_topic("prod", "orders", 2).await?;

    // Writers stamp each value with the life of the topic that they last saw being made.
    let life = Arc::new(AtomicU64::new(1));
    let stop = Arc::new(AtomicBool::new(false));
    let persisted = Arc::new(Mutex::new(HashSet::new()));
    let mut writers = Vec::new();
    for writer in 0..4_u64 {
        let api = it.api(writer as usize % 2, &tenant.key)?;
        let (life, stop, persisted) = (life.clone(), stop.clone(), persisted.clone());
        let topic = first.name.clone();
        writers.push(tokio::spawn(async move {
            let mut not_found = 0_u64;
            for i in 0_u64.. {
                if stop.load(Ordering::Acquire) {
                    break;
                }
                let value = format!("{}/{writer}/{i}", life.load(Ordering::Acquire));
                match api.produce(&topic, vec![record(Some(value.as_bytes()), value.as_bytes())]).await {
                    Ok(results) => match results[0].outcome() {
                        Outcome::Persisted => {
                            persisted.lock().insert(value);
                        }
                        _ => not_found += 1,
                    },
                    Err(status) if status.code() == Code::NotFound => not_found += 1,
                    // The name is taken again by a topic that is still being made.
                    Err(status) if status.code() == Code::Unavailable => {}
                    Err(status) => {
                        println!("writer {writer}: {status:?}");
                        anyhow::bail!("{status:?}")
                    }
                }
            }
            Ok(not_found)
        }));
    }
    wait::until("some records of the first life", Duration::from_secs(20), async || {
        Ok((persisted.lock().len() > 200).then_some(()))
    })
    .await?;
    api.delete_topic(&first.name).await?;
    life.store(2, Ordering::Release);
    let second = api.create_topic("prod", "orders", 2).await?;
    wait::until("some records of the second life", Duration::from_secs(20), async || {
        for writer in &writers {
            ensure!(!writer.is_finished(), "a writer ended early");
        }
        Ok((persisted.lock().iter().filter(|value| value.starts_with("2/")).count() > 200).then_some(()))
    })
    .await?;
    stop.store(true, Ordering::Release);
    let mut refused = 0;
    for writer in writers {
        refused += writer.await??;
    }
    ensure!(refused > 0, "no writer met the deletion");
    ensure!(first.uid != second.uid, "the same uid twice");

    let kafka = it.kafka()?.clone();
    let physical = it.physical(&namespace.uid, &second.uid)?;
    let mut strangers = Vec::new();
    let mut found = HashSet::new();
    let read = tokio::task::spawn_blocking(move || {
        kafka_reader::read_topic(&kafka, &physical, |raw| {
            let value = String::from_utf8_lossy(raw.value.as_deref().unwrap_or_default()).into_owned();
            if value.starts_with("1/") {
                strangers.push(value.clone());
            }
            found.insert(value);
        })
        .map(|ends| (ends, strangers, found))
    });
    let (_, strangers, found) = read.await??;
    // A call that began before the deletion and was let through after the creation carries "1/": it was sent to the second
    // life by name, after it existed, so only what was answered matters.
    let unanswered: Vec<&String> = strangers.iter().filter(|value| !persisted.lock().contains(*value)).collect();
    ensure!(unanswered.is_empty(), "records without an answer in the new topic: {unanswered:?}");
    let missing = persisted.lock().iter().filter(|value| value.starts_with("2/") && !found.contains(*value)).count();
    ensure!(missing == 0, "{missing} persisted records of the second life are missing");

    let usage = wait::until("usage of both lives", Duration::from_secs(30), async || {
        let usage = api.usage(&second.name).await?;
        let settled = usage.len() == 2
            && usage.iter().all(|life| life.coverage.iter().all(|partition| partition.uncovered.is_empty()));
        Ok(settled.then_some(usage))
    })
    .await?;
    let by_uid = |uid: &str| usage.iter().find(|life| life.topic_uid == uid).context("a life is missing");
    ensure!(by_uid(&first.uid)?.deleted && !by_uid(&second.uid)?.deleted, "{usage:?}");
    let records = by_uid(&second.uid)?.totals.map_or(0, |totals| totals.ingress_records);
    ensure!(records == found.len() as u64, "{records} billed, {} in the log", found.len());
    it.stop().await
}
