//! `sluice produce`: standard input to records.
//!
//! A line that is no record, or for which the server refuses a call, ends it: what was before that line is published, and what calls
//! beside it (`--in-flight`) had behind it. A record that alone cannot be stored does not. The last words say which lines are
//! stored, which are not, and of which nobody knows.

mod lines;
mod members;
mod record;
mod send;
mod spans;

use std::io::IsTerminal;

use anyhow::{Context, Error, Result, bail};
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::sync::mpsc;

use super::short_topic;
use crate::args::{Global, Produce};
use crate::connect::Session;
use crate::failure::Interrupted;
use crate::output;
use lines::{Batch, Lines};
use send::Sender;
use spans::Spans;

/// Bytes of payload a call, well below the server's 4 MiB.
const BATCH_BYTES: usize = 1 << 20;

/// What became of the input.
#[derive(Default)]
struct Tally {
    persisted: u64,
    failed: u64,
    unknown: u64,
    /// Lines that were sent and are not persisted.
    failed_lines: Spans,
    /// Lines of which it is not known.
    unknown_lines: Spans,
    /// Lines beside one that was refused, which were not sent without it.
    unsent_lines: Spans,
    /// The last line that was taken to be sent.
    last: u64,
    /// Why a record, or a whole call, was refused.
    failure: Option<Error>,
    /// After a call that was refused whole, the rest of the input would be too.
    stop: bool,
}

pub(crate) async fn run(global: &Global, command: Produce) -> Result<()> {
    let session = Session::tenant(global)?;
    let lines = Lines::new(&command)?;
    let sender = Sender::new(global, &session, command.topic.clone());
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
                Some(Ok(batch)) => {
                    tally.last = batch.lines.last().copied().unwrap_or(tally.last);
                    open.push(sender.send(batch));
                }
                Some(Err(error)) => {
                    tally.failure = tally.failure.or(Some(error));
                    (reading, tally.stop) = (false, true);
                }
                None => reading = false,
            },
            Some(sent) = open.next(), if !open.is_empty() => {
                tally.add(sent);
                reading &= !tally.stop;
                bar.set_position(tally.persisted);
            }
            signal = tokio::signal::ctrl_c() => {
                signal.context("listen for Ctrl-C")?;
                if interrupted {
                    bail!(Interrupted);
                }
                // What is on its way is waited for, so that the count is true; a second Ctrl-C ends that.
                (reading, interrupted) = (false, true);
                sender.stop();
            }
        }
    }
    bar.finish_and_clear();
    tally.report(global, &short_topic(&command.topic), interrupted)
}

/// Reads the input to its end, or to a line that is wrong; what was before it is sent.
async fn read(mut lines: Lines, count: usize, to_send: mpsc::Sender<Result<Batch>>) {
    loop {
        let (batch, end) = lines.batch(count, BATCH_BYTES).await;
        if !batch.records.is_empty() && to_send.send(Ok(batch)).await.is_err() {
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
    /// Lines of a call that brought nothing, or nothing that is known.
    fn all(&mut self, lines: &[u64], is_unwritten: bool) {
        let (count, spans) = match is_unwritten {
            true => (&mut self.failed, &mut self.failed_lines),
            false => (&mut self.unknown, &mut self.unknown_lines),
        };
        *count += lines.len() as u64;
        lines.iter().for_each(|line| spans.add(*line));
    }

    fn add(&mut self, other: Self) {
        self.persisted += other.persisted;
        self.failed += other.failed;
        self.unknown += other.unknown;
        self.failed_lines.append(other.failed_lines);
        self.unknown_lines.append(other.unknown_lines);
        self.unsent_lines.append(other.unsent_lines);
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
        if let Some(text) = self.of_lines(interrupted) {
            output::note(global, &text);
        }
        match self.failure {
            Some(error) => Err(error),
            None if interrupted => Err(Interrupted.into()),
            None => Ok(()),
        }
    }
    /// Where to go on, if not everything is stored.
    fn of_lines(&self, interrupted: bool) -> Option<String> {
        let of = [
            (&self.failed_lines, "not persisted"),
            (&self.unsent_lines, "not sent"),
            (
                &self.unknown_lines,
                "persisted or not, which nobody can tell: look at the topic before you send them again",
            ),
        ];
        let mut parts: Vec<String> =
            of.iter().filter(|(lines, _)| !lines.is_empty()).map(|(lines, what)| format!("{lines}: {what}")).collect();
        if !parts.is_empty() && self.persisted > 0 {
            parts.push(format!("all others up to line {}: persisted, do not send them again", self.last));
        }
        if self.stop || interrupted {
            parts.push(format!("behind line {}: nothing was sent", self.last));
        }
        (!parts.is_empty()).then(|| parts.iter().map(|part| format!("  {part}")).collect::<Vec<_>>().join("\n"))
    }
}
