//! Sending batches until it is known what became of them.
//!
//! A batch that met a limit is sent again when the server says, and one that never left, because no connection could be made,
//! when there is one: then nothing of it can have been written. Records that were not persisted for a passing reason are sent
//! again. One that may have been persisted is not, because that could store it twice: it is counted and named, and the exit
//! code says so.

use std::cell::Cell;
use std::time::{Duration, Instant};

use anyhow::anyhow;
use sluice_proto::stream::v1::stream_service_client::StreamServiceClient;
use sluice_proto::stream::v1::{Outcome, ProduceRequest, ProduceResponse};
use tokio::sync::watch;
use tonic::transport::Channel;
use tonic::{Code, Response, Status};
use tonic_types::StatusExt;

use super::Tally;
use super::lines::Batch;
use crate::args::Global;
use crate::connect::Session;
use crate::output;

/// Tries of a record before it is given up.
const TRIES_MAX: u32 = 20;
const PAUSE: Duration = Duration::from_millis(200);
/// The longest pause between two tries to connect.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// How long a gateway that answered before may be away.
const AWAY_MAX: Duration = Duration::from_secs(300);

/// What the calls of one command share.
pub(super) struct Sender<'a> {
    global: &'a Global,
    session: &'a Session,
    client: StreamServiceClient<Channel>,
    topic: String,
    /// Whether the gateway ever answered: an address where nobody did is rather wrong than away.
    answered: Cell<bool>,
    /// Whether it was told that the gateway is away.
    told: Cell<bool>,
    stopping: watch::Sender<bool>,
}

impl<'a> Sender<'a> {
    pub(super) fn new(global: &'a Global, session: &'a Session, topic: String) -> Self {
        Self {
            global,
            session,
            client: StreamServiceClient::new(session.channel.clone()),
            topic,
            answered: Cell::new(false),
            told: Cell::new(false),
            stopping: watch::Sender::new(false),
        }
    }

    /// What waits to be sent is given up; what was sent is still waited for.
    pub(super) fn stop(&self) {
        self.stopping.send_replace(true);
    }

    /// Sends a batch, and tells what became of its records.
    pub(super) async fn send(&self, mut batch: Batch) -> Tally {
        let mut tally = Tally::default();
        let mut attempt = 0;
        while !batch.records.is_empty() {
            attempt += 1;
            let request = ProduceRequest { topic: self.topic.clone(), records: batch.records.clone() };
            let answer = match self.call(request).await {
                Err(status) if attempt < TRIES_MAX && is_passing(&status) && self.pause(pause(&status)).await => {
                    continue;
                }
                Err(status) => match refused_record(&status).filter(|at| *at < batch.records.len()) {
                    // The server names one record: those before it are good.
                    Some(at) => {
                        let what = without_place(status.message());
                        tally.failed += 1;
                        tally.failed_lines.add(batch.lines[at]);
                        tally.failure = Some(anyhow!("line {}: {what}", batch.lines[at]));
                        tally.stop = true;
                        batch.lines[at + 1..].iter().for_each(|line| tally.unsent_lines.add(*line));
                        batch.records.truncate(at);
                        batch.lines.truncate(at);
                        continue;
                    }
                    None => {
                        // Nothing was written, or it is not known what became of them.
                        let unwritten = is_refused(&status) || self.session.is_unsent(&status);
                        tally.all(&batch.lines, unwritten);
                        tally.failure = tally.failure.or_else(|| Some(self.session.error(status)));
                        return Tally { stop: true, ..tally };
                    }
                },
                Ok(answer) => self.session.take(Ok(answer)),
            };
            let results = match answer {
                Ok(answer) if answer.results.len() == batch.records.len() => answer.results,
                Ok(answer) => {
                    let text =
                        format!("the server answered {} results for {}", answer.results.len(), batch.records.len());
                    tally.all(&batch.lines, false);
                    return Tally { failure: Some(anyhow!(text)), stop: true, ..tally };
                }
                Err(error) => {
                    tally.all(&batch.lines, false);
                    return Tally { failure: Some(error), stop: true, ..tally };
                }
            };
            let mut again = Batch::default();
            for ((record, line), result) in batch.records.into_iter().zip(batch.lines).zip(results) {
                let why = || {
                    let what = result.error.as_ref().map_or("no reason given", |error| &error.message);
                    let what = without_place(what);
                    anyhow!("line {line}: {what}")
                };
                match result.outcome() {
                    Outcome::Persisted => tally.persisted += 1,
                    Outcome::NotPersisted if result.retriable && attempt < TRIES_MAX => {
                        again.records.push(record);
                        again.lines.push(line);
                    }
                    Outcome::NotPersisted => {
                        tally.failed += 1;
                        tally.failed_lines.add(line);
                        tally.failure.get_or_insert_with(why);
                    }
                    Outcome::PossiblyPersisted | Outcome::Unspecified => {
                        tally.unknown += 1;
                        tally.unknown_lines.add(line);
                        tally.failure.get_or_insert_with(why);
                    }
                }
            }
            batch = again;
            if !batch.records.is_empty() && !self.pause(PAUSE).await {
                tally.all(&batch.lines, true);
                return tally;
            }
        }
        tally
    }

    /// One call, which waits for a gateway that is away as long as nothing of the call was sent.
    async fn call(&self, request: ProduceRequest) -> Result<Response<ProduceResponse>, Status> {
        let (begun, mut pause) = (Instant::now(), PAUSE);
        loop {
            let answer = self.client.clone().produce(self.session.request(request.clone())).await;
            let status = match answer {
                Err(status) if self.session.is_unsent(&status) => status,
                answer => {
                    self.answered.set(true);
                    if self.told.replace(false) && answer.is_ok() {
                        output::note(self.global, "note: connected again");
                    }
                    return answer;
                }
            };
            if !self.answered.get() || begun.elapsed() > AWAY_MAX || *self.stopping.borrow() {
                return Err(status);
            }
            if !self.told.replace(true) {
                output::note(self.global, &format!("note: {:#}; trying again", self.session.error(status.clone())));
            }
            if !self.pause(pause).await {
                return Err(status);
            }
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Waits; false if the command is to end instead.
    async fn pause(&self, pause: Duration) -> bool {
        let mut stopping = self.stopping.subscribe();
        tokio::select! {
            () = tokio::time::sleep(pause) => true,
            _ = stopping.wait_for(|stopping| *stopping) => false,
        }
    }
}

/// Refused before anything was written, for a reason that passes.
fn is_passing(status: &Status) -> bool {
    let limited = status.code() == Code::ResourceExhausted && retry_delay(status).is_some();
    limited || (status.code() == Code::Unavailable && status.get_details_error_info().is_some())
}

/// Refused whole by Sluice, with its reason. One that ran out of time or failed inside may have been written all the same, and
/// without a reason of ours the answer was lost on the way.
fn is_refused(status: &Status) -> bool {
    let unsure = matches!(status.code(), Code::DeadlineExceeded | Code::Internal | Code::Cancelled | Code::Unknown);
    !unsure && status.get_details_error_info().is_some()
}

/// A message without the place of its record in the call, which the caller does not know: `records[7].value: …` is `value: …`.
fn without_place(message: &str) -> String {
    let place = message.find("records[").and_then(|from| Some((from, from + message[from..].find(']')? + 1)));
    match place {
        Some((from, to)) => format!("{}{}", &message[..from], message[to..].trim_start_matches(['.', ':', ' '])),
        None => message.to_owned(),
    }
}

/// The record at fault, `records[7].value`; nothing of the call was written.
fn refused_record(status: &Status) -> Option<usize> {
    let details = status.get_error_details();
    let field = &details.bad_request()?.field_violations.first()?.field;
    field.strip_prefix("records[")?.split_once(']')?.0.parse().ok()
}

fn retry_delay(status: &Status) -> Option<Duration> {
    status.get_details_retry_info().and_then(|retry| retry.retry_delay)
}

fn pause(status: &Status) -> Duration {
    retry_delay(status).unwrap_or(PAUSE).min(Duration::from_secs(10))
}

#[cfg(test)]
mod tests {
    use tonic_types::ErrorDetails;

    use super::*;

    #[test]
    fn a_record_is_told_by_its_line_and_not_by_its_place_in_a_call() {
        for (told, wanted) in [
            ("records[200].partition: is 9", "partition: is 9"),
            ("records[7]: has 2 bytes", "has 2 bytes"),
            ("records[7] has no key", "has no key"),
            ("the topic is gone", "the topic is gone"),
        ] {
            assert_eq!(without_place(told), wanted);
        }
    }

    #[test]
    fn only_a_refusal_with_a_reason_says_that_nothing_was_written() {
        let with_reason = |code| {
            let details = ErrorDetails::with_error_info("REASON", "sluice", [("a".to_owned(), "b".to_owned())]);
            Status::with_error_details(code, "no", details)
        };
        for code in [Code::InvalidArgument, Code::NotFound, Code::Unavailable, Code::ResourceExhausted] {
            assert!(is_refused(&with_reason(code)), "{code}");
        }
        for code in [Code::DeadlineExceeded, Code::Internal] {
            assert!(!is_refused(&with_reason(code)), "{code}: it may be written");
        }
        assert!(!is_refused(&Status::new(Code::Unavailable, "from a proxy")));
    }
}
