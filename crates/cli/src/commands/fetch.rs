//! `sluice fetch`: read records, of one partition or of all; with `--follow` for ever.
//!
//! Without `--follow` it ends where the log ended when it began. With `--max` partitions are read one after the other, so
//! that no more is read, and counted as usage, than is shown; without they are read side by side and shown in rounds. A follower keeps
//! at most [`CALLS_MAX`] long polls open, and takes partitions that are added meanwhile.

use std::collections::VecDeque;
use std::io::Write;
use std::time::Duration;

use anyhow::{Result, bail};
use futures::stream::{self, FuturesUnordered, StreamExt};
use sluice_proto::stream::v1::fetch_request::Start;
use sluice_proto::stream::v1::stream_service_client::StreamServiceClient;
use sluice_proto::stream::v1::{
    FetchRequest, FetchResponse, GetTopicMetadataRequest, PayloadEncoding, Position, TopicMetadata,
};
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::shown::{Payload, write_record};
use crate::args::{Fetch, Global};
use crate::connect::Session;
use crate::failure::Usage;
use crate::output;

/// Calls at a time. Each may answer [`FETCH_BYTES`], which count against the tenant's bytes in flight.
const CALLS_MAX: usize = 8;
const FETCH_BYTES: i32 = 1 << 20;
const FETCH_RECORDS: u64 = 10_000;
/// How long a call of a follower waits for a first record, when every partition has a call of its own.
const WAIT: Duration = Duration::from_secs(10);
/// Every partition of a follower has its turn within this time.
const TURN: Duration = Duration::from_secs(5);
/// How often a follower looks for new partitions.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// Tries of a call that met a limit, before it is given up.
const TRIES_MAX: u32 = 20;

/// Where one partition stands.
struct Cursor {
    partition: i32,
    start: Start,
    /// The end when we began.
    end: i64,
    done: bool,
}

/// What calls of one command share.
struct Reader<'a> {
    global: &'a Global,
    session: Session,
    client: StreamServiceClient<Channel>,
    command: Fetch,
}

pub(crate) async fn run(global: &Global, command: Fetch) -> Result<()> {
    let session = Session::tenant(global)?;
    let client = StreamServiceClient::new(session.channel.clone());
    let reader = Reader { global, session, client, command };
    let metadata = reader.metadata().await?;
    let cursors: Vec<Cursor> = metadata
        .partitions
        .iter()
        .filter(|partition| reader.command.partition.is_none_or(|wanted| wanted == partition.partition))
        .map(|partition| Cursor {
            partition: partition.partition,
            start: reader.command.from,
            end: partition.end_offset,
            done: false,
        })
        .collect();
    if cursors.is_empty() {
        bail!(Usage(format!("--partition: the topic has the partitions 0..{}", metadata.partitions.len() - 1)));
    }
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    if reader.command.follow { reader.follow(cursors, &mut out).await } else { reader.read(cursors, &mut out).await }
}

impl Reader<'_> {
    async fn metadata(&self) -> Result<TopicMetadata> {
        let request = GetTopicMetadataRequest { topic: self.command.topic.clone() };
        self.session.take(self.client.clone().get_topic_metadata(self.session.request(request)).await)
    }

    /// Up to where the log ended when we began.
    async fn read(&self, mut cursors: Vec<Cursor>, out: &mut impl Write) -> Result<()> {
        let mut left = self.command.max.unwrap_or(u64::MAX);
        let at_a_time = if self.command.max.is_some() { 1 } else { CALLS_MAX };
        while left > 0 && cursors.iter().any(|cursor| !cursor.done) {
            let open = cursors.iter().enumerate().filter(|(_, cursor)| !cursor.done);
            let calls: Vec<_> = open
                .map(|(i, cursor)| {
                    let answer = self.fetch(cursor.partition, cursor.start, left, Duration::ZERO);
                    async move { (i, answer.await) }
                })
                .collect();
            let mut answers = stream::iter(calls).buffered(at_a_time);
            while left > 0
                && let Some((i, answer)) = answers.next().await
            {
                let (answer, cursor) = (answer?, &mut cursors[i]);
                for record in answer.records.iter().take_while(|record| record.offset < cursor.end).take(to_usize(left))
                {
                    write_record(out, self.global.output, Payload::of(record))?;
                    left -= 1;
                }
                // Behind an open transaction there is nothing to be had.
                let stuck = answer.records.is_empty() && cursor.start == Start::Offset(answer.next_offset);
                cursor.done = stuck || answer.next_offset >= cursor.end;
                cursor.start = Start::Offset(answer.next_offset);
            }
            out.flush()?;
        }
        Ok(())
    }

    /// For ever, or until `--max`.
    async fn follow(&self, cursors: Vec<Cursor>, out: &mut impl Write) -> Result<()> {
        let mut left = self.command.max.unwrap_or(u64::MAX);
        let mut known = cursors.len();
        let mut waiting: VecDeque<Cursor> = cursors.into();
        let mut open = FuturesUnordered::new();
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.reset();
        while left > 0 {
            while open.len() < CALLS_MAX
                && let Some(cursor) = waiting.pop_front()
            {
                let wait = if known <= CALLS_MAX { WAIT } else { TURN * CALLS_MAX as u32 / known as u32 };
                open.push(async move {
                    let answer = self.fetch(cursor.partition, cursor.start, left, wait).await;
                    (cursor, answer)
                });
            }
            tokio::select! {
                Some((cursor, answer)) = open.next() => {
                    let answer = answer?;
                    for record in answer.records.iter().take(to_usize(left)) {
                        write_record(out, self.global.output, Payload::of(record))?;
                        left -= 1;
                    }
                    out.flush()?;
                    waiting.push_back(Cursor { start: Start::Offset(answer.next_offset), ..cursor });
                }
                _ = look.tick(), if self.command.partition.is_none() => {
                    // A failure here is one of the reading calls too, and theirs to tell.
                    let now = self.metadata().await.map_or(0, |metadata| metadata.partitions.len());
                    for partition in known..now {
                        let start = Start::Position(Position::Earliest.into());
                        waiting.push_front(Cursor { partition: partition as i32, start, end: 0, done: false });
                    }
                    known = known.max(now);
                }
            }
        }
        Ok(())
    }

    /// One call; sent again when it met a limit, and by a follower also while the server is away.
    async fn fetch(&self, partition: i32, start: Start, left: u64, wait: Duration) -> Result<FetchResponse> {
        let mut tries = 0;
        loop {
            let request = FetchRequest {
                topic: self.command.topic.clone(),
                partition,
                start: Some(start),
                max_bytes: FETCH_BYTES,
                max_records: left.min(FETCH_RECORDS) as i32,
                wait: Some(wait.into()),
                encoding: PayloadEncoding::Bytes.into(),
                ..Default::default()
            };
            let request = self.session.request_within(request, self.global.timeout.max(wait + Duration::from_secs(5)));
            let status = match self.client.clone().fetch(request).await {
                Ok(answer) => return self.session.take(Ok(answer)),
                Err(status) => status,
            };
            tries += 1;
            let limited = status.code() == Code::ResourceExhausted && retry_delay(&status).is_some();
            if !(self.command.follow && is_passing(&status) || limited && tries < TRIES_MAX) {
                return Err(self.session.error(status));
            }
            let pause = retry_delay(&status).unwrap_or(Duration::from_millis(500)).min(Duration::from_secs(10));
            if tries == 1 && !limited {
                let why = self.session.error(status);
                output::note(self.global, &format!("note: partition {partition}: {why:#}; trying again"));
            }
            tokio::time::sleep(pause).await;
        }
    }
}

fn to_usize(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

fn is_passing(status: &Status) -> bool {
    matches!(status.code(), Code::Unavailable | Code::ResourceExhausted | Code::DeadlineExceeded)
}

fn retry_delay(status: &Status) -> Option<Duration> {
    status.get_details_retry_info().and_then(|retry| retry.retry_delay)
}
