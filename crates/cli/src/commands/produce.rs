//! `sluice produce`: standard input to records.
//!
//! Records go in batches. A batch that met a limit is sent again when the server says; records that were not persisted for a
//! passing reason are sent again; one that may have been persisted is not, because that could store it twice: it is counted
//! and named, and the exit code says so.

mod lines;

use std::io::IsTerminal;
use std::time::Duration;

use anyhow::{Context, Error, Result, anyhow};
use futures::stream::{FuturesUnordered, StreamExt};
use sluice_proto::stream::v1::stream_service_client::StreamServiceClient;
use sluice_proto::stream::v1::{Outcome, ProduceRecord, ProduceRequest};
use tokio::sync::mpsc;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::short_topic;
use crate::args::{Global, Produce};
use crate::connect::Session;
use crate::failure::Interrupted;
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
    /// Why a record, or a whole call, was refused.
    failure: Option<Error>,
    /// After a call that was refused whole, the rest of the input would be too.
    stop: bool,
}

pub(crate) async fn run(global: &Global, command: Produce) -> Result<()> {
    let session = Session::tenant(global)?;
    let client = StreamServiceClient::new(session.channel.clone());
    let lines = Lines::new(&command)?;
    if std::io::stdin().is_terminal() {
        output::note(global, "reading records from the terminal, one a line; Ctrl-D ends");
    }
    // Input is read beside sending, so that neither waits for the other.
    let (to_send, mut batches) = mpsc::channel(1);
    tokio::spawn(read(lines, command.batch as usize, to_send));
    let bar = output::progress(global, "published");
    let mut tally = Tally::default();
    let mut open = FuturesUnordered::new();
    let (mut reading, mut interrupted) = (true, false);
    while reading || !open.is_empty() {
        tokio::select! {
            batch = batches.recv(), if reading && open.len() < command.in_flight as usize => match batch {
                Some(Ok(batch)) => open.push(send(&session, client.clone(), &command.topic, batch)),
                Some(Err(error)) => {
                    tally.failure = tally.failure.or(Some(error));
                    reading = false;
                }
                None => reading = false,
            },
            Some(sent) = open.next(), if !open.is_empty() => {
                tally.add(sent);
                reading &= !tally.stop;
                bar.set_position(tally.persisted);
            }
            signal = tokio::signal::ctrl_c(), if !interrupted => {
                signal.context("listen for Ctrl-C")?;
                // What is on its way is waited for, so that the count is true.
                (reading, interrupted) = (false, true);
            }
        }
    }
    bar.finish_and_clear();
    tally.report(global, &short_topic(&command.topic), interrupted)
}

/// Reads the input to its end, or to a line that is wrong; what was before it is sent.
async fn read(mut lines: Lines, count: usize, to_send: mpsc::Sender<Result<Vec<ProduceRecord>>>) {
    loop {
        let (batch, end) = lines.batch(count, BATCH_BYTES).await;
        if !batch.is_empty() && to_send.send(Ok(batch)).await.is_err() {
            return;
        }
        match end {
            lines::End::NotYet => {}
            lines::End::OfInput => return,
            // Nobody listens any more: then there is another failure to tell.
            lines::End::Wrong(error) => return drop(to_send.send(Err(error)).await),
        }
    }
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.persisted += other.persisted;
        self.failed += other.failed;
        self.unknown += other.unknown;
        self.stop |= other.stop;
        self.failure = self.failure.take().or(other.failure);
    }

    fn report(self, global: &Global, topic: &str, interrupted: bool) -> Result<()> {
        let mut text = format!("{} persisted in {topic}", output::records(self.persisted));
        if self.failed > 0 {
            text.push_str(&format!(", {} not persisted", self.failed));
        }
        if self.unknown > 0 {
            text.push_str(&format!(", {} possibly persisted", self.unknown));
        }
        output::note(global, &text);
        match self.failure {
            Some(error) => Err(error),
            None if interrupted => Err(Interrupted.into()),
            None => Ok(()),
        }
    }
}

async fn send(
    session: &Session,
    mut client: StreamServiceClient<Channel>,
    topic: &str,
    mut records: Vec<ProduceRecord>,
) -> Tally {
    let mut tally = Tally::default();
    for attempt in 1..=TRIES_MAX {
        let request = ProduceRequest { topic: topic.to_owned(), records: records.clone() };
        let answer = match client.produce(session.request(request)).await {
            Err(status) if attempt < TRIES_MAX && is_passing(&status) => {
                tokio::time::sleep(pause(&status)).await;
                continue;
            }
            Err(status) => {
                // Refused whole by Sluice: nothing was written. Else the answer is lost, and with it what became of them.
                let refused = status.get_details_error_info().is_some();
                let count = records.len() as u64;
                if refused {
                    tally.failed += count
                } else {
                    tally.unknown += count
                }
                return Tally { failure: Some(session.error(status)), stop: true, ..tally };
            }
            Ok(answer) => session.take(Ok(answer)),
        };
        let results = match answer {
            Ok(answer) if answer.results.len() == records.len() => answer.results,
            Ok(answer) => {
                let text = format!("the server answered {} results for {}", answer.results.len(), records.len());
                tally.unknown += records.len() as u64;
                return Tally { failure: Some(anyhow!(text)), stop: true, ..tally };
            }
            Err(error) => return Tally { failure: Some(error), stop: true, ..tally },
        };
        let mut again = Vec::new();
        for (record, result) in records.into_iter().zip(results) {
            let why =
                || result.error.as_ref().map_or_else(|| anyhow!("no reason given"), |e| anyhow!(e.message.clone()));
            match result.outcome() {
                Outcome::Persisted => tally.persisted += 1,
                Outcome::NotPersisted if result.retriable && attempt < TRIES_MAX => again.push(record),
                Outcome::NotPersisted => {
                    tally.failed += 1;
                    tally.failure.get_or_insert_with(why);
                }
                Outcome::PossiblyPersisted | Outcome::Unspecified => {
                    tally.unknown += 1;
                    tally.failure.get_or_insert_with(why);
                }
            }
        }
        if again.is_empty() {
            return tally;
        }
        records = again;
        tokio::time::sleep(PAUSE).await;
    }
    tally
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
        serde_json::Value::String(text) => {
            crate::when::parse(text).map_err(|error| anyhow!("timestamp: {error}, or milliseconds since 1970"))
        }
        value => {
            let millis = value
                .as_i64()
                .context("timestamp: give a time such as 2026-01-31T12:00:00Z, or milliseconds since 1970")?;
            Ok(sluice_proto::wkt::Timestamp::from_millis(millis))
        }
    }
}
