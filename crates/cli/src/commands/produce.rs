//! `sluice produce`: standard input to records.
//!
//! Records go in batches. A batch that met a limit is sent again when the server says; records that were not persisted for a
//! passing reason are sent again; one that may have been persisted is not, because that could store it twice: it is counted
//! and named, and the exit code says so.

mod lines;

use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures::stream::{FuturesUnordered, StreamExt};
use sluice_proto::stream::v1::stream_service_client::StreamServiceClient;
use sluice_proto::stream::v1::{Outcome, ProduceRecord, ProduceRequest};
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::topic_name;
use crate::args::{Global, Produce};
use crate::connect::Session;
use crate::output;
use lines::Lines;

/// Bytes of payload a call, well below the server's 4 MiB.
const BATCH_BYTES: usize = 1 << 20;
/// Tries of a record before it is given up.
const TRIES_MAX: u32 = 20;
const PAUSE: Duration = Duration::from_millis(200);

/// What became of the input.
#[derive(Default)]
struct Tally {
    persisted: u64,
    failed: u64,
    unknown: u64,
    first_failure: Option<String>,
}

pub(crate) async fn run(global: &Global, command: Produce) -> Result<()> {
    let session = Session::tenant(global)?;
    let client = StreamServiceClient::new(session.channel.clone());
    let topic = topic_name(&command.topic);
    let mut lines = Lines::new(&command)?;
    let bar = output::progress(global, None, "published");
    let mut tally = Tally::default();
    let mut open = FuturesUnordered::new();
    loop {
        let batch = lines.batch(command.batch as usize, BATCH_BYTES).await?;
        let done = batch.is_empty();
        if !done {
            open.push(send(&session, client.clone(), &topic, batch));
        }
        while open.len() >= command.in_flight as usize || (done && !open.is_empty()) {
            let Some(sent) = open.next().await else { break };
            tally.add(sent?);
            bar.set_position(tally.persisted);
        }
        if done {
            break;
        }
    }
    bar.finish_and_clear();
    output::note(global, &format!("{} records persisted in {topic}", tally.persisted));
    if tally.failed + tally.unknown > 0 {
        bail!(
            "{} records not persisted, {} possibly persisted; the first: {}",
            tally.failed,
            tally.unknown,
            tally.first_failure.unwrap_or_default()
        );
    }
    Ok(())
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.persisted += other.persisted;
        self.failed += other.failed;
        self.unknown += other.unknown;
        if self.first_failure.is_none() {
            self.first_failure = other.first_failure;
        }
    }
}

async fn send(
    session: &Session,
    mut client: StreamServiceClient<Channel>,
    topic: &str,
    mut records: Vec<ProduceRecord>,
) -> Result<Tally> {
    let mut tally = Tally::default();
    for attempt in 1..=TRIES_MAX {
        let request = ProduceRequest { topic: topic.to_owned(), records: records.clone() };
        let answer = match client.produce(session.request(request)).await {
            Err(status) if attempt < TRIES_MAX && is_passing(&status) => {
                tokio::time::sleep(pause(&status)).await;
                continue;
            }
            answer => session.take(answer)?,
        };
        if answer.results.len() != records.len() {
            bail!("the server answered {} results for {} records", answer.results.len(), records.len());
        }
        let mut again = Vec::new();
        for (record, result) in records.into_iter().zip(answer.results) {
            let message = result.error.as_ref().map(|error| error.message.clone());
            match result.outcome() {
                Outcome::Persisted => tally.persisted += 1,
                Outcome::NotPersisted if result.retriable && attempt < TRIES_MAX => again.push(record),
                Outcome::NotPersisted => {
                    tally.failed += 1;
                    tally.first_failure = tally.first_failure.or(message);
                }
                Outcome::PossiblyPersisted | Outcome::Unspecified => {
                    tally.unknown += 1;
                    tally.first_failure = tally.first_failure.or(message);
                }
            }
        }
        if again.is_empty() {
            return Ok(tally);
        }
        records = again;
        tokio::time::sleep(PAUSE).await;
    }
    Ok(tally)
}

/// Refused before anything was written, for a reason that passes.
fn is_passing(status: &Status) -> bool {
    let limited = status.code() == Code::ResourceExhausted && retry_delay(status).is_some();
    limited || (status.code() == Code::Unavailable && status.get_details_error_info().is_some())
}

fn retry_delay(status: &Status) -> Option<Duration> {
    status.get_details_retry_info().and_then(|retry| retry.retry_delay)
}

fn pause(status: &Status) -> Duration {
    retry_delay(status).unwrap_or(PAUSE).min(Duration::from_secs(10))
}

/// Reads a timestamp field of NDJSON: RFC 3339 or milliseconds.
fn timestamp(value: &serde_json::Value) -> Result<sluice_proto::wkt::Timestamp> {
    match value {
        serde_json::Value::String(text) => crate::when::parse(text),
        value => {
            let millis = value.as_i64().context("timestamp: give RFC 3339 or milliseconds")?;
            Ok(sluice_proto::wkt::Timestamp::from_millis(millis))
        }
    }
}
