//! `sluice produce`: standard input to records.
//!
//! A line that is no record, or that the server refuses, ends it: what was before that line is published.

mod lines;
mod members;
mod record;
mod send;

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

/// Bytes of payload a call, well below the server's 4 MiB.
const BATCH_BYTES: usize = 1 << 20;

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
                Some(Ok(batch)) => open.push(sender.send(batch)),
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
