//! `sluice consume`: receive a group's records, and acknowledge each after it was written.
//!
//! Delivery is at least once: a record is acknowledged after standard output took it (of a pipe: its reader, see [`writer`]),
//! so one that was written when the connection broke may be written again. Records that wait to be written keep their leases;
//! one whose lease is over is not written, because it comes again. What could not be acknowledged on one connection is acknowledged on the next.
//! Connections are opened again with growing pauses until Ctrl-C, `--max` or a refusal. Ctrl-C stops taking, waits until what
//! was written is acknowledged, gives back what was not written (no failed attempt: nobody has seen it), and ends with 0; a second one ends at once.

mod line;
mod orders;
mod pull;
mod room;
mod stop;
mod stream;
mod waiting;
mod work;
mod writer;
pub(super) mod written;

use std::time::{Duration, Instant};

use anyhow::Result;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::args::Global;
use crate::args::consume::Consume;
use crate::args::groups::topic_of;
use crate::connect::Session;
use crate::failure::{Hint, Usage};
use crate::output;
use line::{Line, Opening};
use stop::Stop;
use work::{Ended, Work};

const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// A connection that held so long was a good one: the next pause is short again.
const GOOD_AFTER: Duration = Duration::from_secs(5);

pub(crate) async fn run(global: &Global, command: Consume) -> Result<()> {
    let group = command.namespace.group(&command.group).map_err(|Usage(text)| Usage(format!("--group: {text}")))?;
    let topics = command.topics.iter().map(|topic| topic_of(&group, topic)).collect::<Result<Vec<_>, _>>()?;
    let session = Session::tenant(global)?;
    let mut stop = Stop::listen()?;
    let mut work = Work::new(global, &command);
    let mut pause = PAUSE_FIRST;
    let mut told = false;
    while !work.is_over() && !stop.asked() {
        let begun = Instant::now();
        let (timeout, demand) = (global.timeout, work.connecting());
        let opening = Opening { session: &session, group: &group, topics: &topics, timeout, demand };
        let line = tokio::select! {
            line = Line::open(opening, command.transport) => line,
            () = stop.wait() => break,
        };
        let ended = match line {
            Ok(mut line) => {
                if told {
                    output::note(global, "note: connected again");
                    told = false;
                }
                work.serve(&mut line, &mut stop).await?
            }
            Err(status) => Ended::Lost(status),
        };
        let status = match ended {
            Ended::Over => break,
            Ended::Leaving => {
                output::note(global, "note: the gateway shuts down; connecting again");
                told = true;
                pause = PAUSE_FIRST;
                None
            }
            Ended::Lost(status) => Some(status),
        };
        if let Some(status) = &status {
            let unanswered = session.is_unanswered(status);
            // An address where nobody ever answered is rather wrong than away.
            let final_word = if unanswered { !work.was_answered() } else { !is_passing(status) };
            if final_word {
                work.report();
                let error = session.error(status.clone());
                if status.code() == Code::NotFound && topics.is_empty() {
                    let text = "a group that does not exist is made by naming what it shall read: --topic TOPIC";
                    return Err(error.context(Hint(text.into())));
                }
                return Err(error);
            }
            if !told {
                output::note(global, &format!("note: {:#}; connecting again", session.error(status.clone())));
                told = true;
            }
        }
        if begun.elapsed() > GOOD_AFTER {
            pause = PAUSE_FIRST;
        }
        let asked = status.and_then(|status| status.get_details_retry_info()?.retry_delay);
        tokio::select! {
            () = tokio::time::sleep(asked.unwrap_or(pause).min(PAUSE_MAX)) => {}
            () = stop.wait() => break,
        }
        pause = (pause * 2).min(PAUSE_MAX);
    }
    work.report();
    work.outcome()
}

/// A refusal that passes by itself.
fn is_passing(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable | Code::DeadlineExceeded | Code::ResourceExhausted | Code::Aborted | Code::Cancelled
    )
}
