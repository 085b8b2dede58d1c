//! `sluice fetch`: read records, of one partition or of all in turn; with `--follow` for ever.

use std::io::Write;
use std::time::Duration;

use anyhow::Result;
use base64::Engine as _;
use futures::future::try_join_all;
use sluice_proto::stream::v1::fetch_request::Start;
use sluice_proto::stream::v1::stream_service_client::StreamServiceClient;
use sluice_proto::stream::v1::{
    FetchRequest, FetchResponse, GetTopicMetadataRequest, PayloadEncoding, Position, Record, header, record,
};
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::topic_name;
use crate::args::{Fetch, Global, Output};
use crate::connect::Session;
use crate::when;

/// How long one call waits for a first record.
const WAIT: Duration = Duration::from_secs(10);
const FETCH_BYTES: i32 = 4 << 20;
const FETCH_RECORDS: i32 = 10_000;

/// Where one partition stands.
struct Cursor {
    partition: i32,
    start: Start,
    /// Without `--follow`: the end when we began.
    end: i64,
    done: bool,
}

pub(crate) async fn run(global: &Global, command: Fetch) -> Result<()> {
    let session = Session::tenant(global)?;
    let mut client = StreamServiceClient::new(session.channel.clone());
    let topic = topic_name(&command.topic);
    let start = start(&command.from)?;
    let request = GetTopicMetadataRequest { topic: topic.clone() };
    let metadata = session.take(client.get_topic_metadata(session.request(request)).await)?;
    let mut cursors: Vec<Cursor> = metadata
        .partitions
        .iter()
        .filter(|partition| command.partition.is_none_or(|wanted| wanted == partition.partition))
        .map(|partition| Cursor { partition: partition.partition, start, end: partition.end_offset, done: false })
        .collect();
    if cursors.is_empty() {
        anyhow::bail!("partition: the topic has {} partitions, from 0", metadata.partitions.len());
    }
    let mut left = command.max.unwrap_or(u64::MAX);
    let mut out = std::io::stdout().lock();
    while left > 0 && cursors.iter().any(|cursor| !cursor.done) {
        let calls = cursors.iter().filter(|cursor| !cursor.done).map(|cursor| {
            let records_max = left.min(FETCH_RECORDS as u64) as i32;
            fetch(&session, client.clone(), &topic, cursor, records_max, command.follow)
        });
        // Partitions side by side; with --follow a quiet one must not hold up the others for long.
        let answers = try_join_all(calls).await?;
        for (cursor, answer) in cursors.iter_mut().filter(|cursor| !cursor.done).zip(answers) {
            for record in &answer.records {
                if left == 0 || (!command.follow && record.offset >= cursor.end) {
                    break;
                }
                write_record(global, &mut out, record)?;
                left -= 1;
            }
            cursor.start = Start::Offset(answer.next_offset);
            cursor.done = !command.follow && answer.next_offset >= cursor.end;
        }
        out.flush()?;
    }
    Ok(())
}

async fn fetch(
    session: &Session,
    mut client: StreamServiceClient<Channel>,
    topic: &str,
    cursor: &Cursor,
    max_records: i32,
    follow: bool,
) -> Result<FetchResponse> {
    // Several partitions share one loop, so a follower polls each of them briefly.
    let wait = if follow { Duration::from_millis(500) } else { Duration::ZERO };
    loop {
        let request = FetchRequest {
            topic: topic.to_owned(),
            partition: cursor.partition,
            start: Some(cursor.start),
            max_bytes: FETCH_BYTES,
            max_records,
            wait: Some(wait.into()),
            encoding: PayloadEncoding::Json.into(),
            ..Default::default()
        };
        match client.fetch(session.request_within(request, WAIT + Duration::from_secs(20))).await {
            Err(status) if follow && is_passing(&status) => tokio::time::sleep(pause(&status)).await,
            answer => return session.take(answer),
        }
    }
}

fn is_passing(status: &Status) -> bool {
    matches!(status.code(), Code::Unavailable | Code::ResourceExhausted | Code::DeadlineExceeded)
}

fn pause(status: &Status) -> Duration {
    let told = status.get_details_retry_info().and_then(|retry| retry.retry_delay);
    told.unwrap_or(Duration::from_millis(500)).min(Duration::from_secs(10))
}

fn start(text: &str) -> Result<Start> {
    Ok(match text {
        "earliest" => Start::Position(Position::Earliest.into()),
        "latest" => Start::Position(Position::Latest.into()),
        text => match text.parse::<i64>() {
            Ok(offset) if offset >= 0 => Start::Offset(offset),
            _ => Start::Time(when::parse(text)?),
        },
    })
}

fn write_record(global: &Global, out: &mut impl Write, record: &Record) -> Result<()> {
    match global.output {
        Output::Json => writeln!(out, "{}", serde_json::to_string(record)?)?,
        Output::Table => writeln!(
            out,
            "{}/{}  {}  {}  {}{}",
            record.partition,
            record.offset,
            when::shown(record.timestamp.as_ref()),
            key_text(record),
            value_text(record),
            headers_text(record),
        )?,
    }
    Ok(())
}

fn key_text(record: &Record) -> String {
    match &record.key_kind {
        None => "-".into(),
        Some(record::KeyKind::Key(bytes)) => base64(bytes),
        Some(record::KeyKind::KeyText(text)) => text.clone(),
        Some(record::KeyKind::KeyJson(json)) => serde_json::to_string(json).unwrap_or_default(),
    }
}

fn value_text(record: &Record) -> String {
    match &record.value_kind {
        None => "(null)".into(),
        Some(record::ValueKind::Value(bytes)) => base64(bytes),
        Some(record::ValueKind::ValueText(text)) => text.clone(),
        Some(record::ValueKind::ValueJson(json)) => serde_json::to_string(json).unwrap_or_default(),
    }
}

fn headers_text(record: &Record) -> String {
    record
        .headers
        .iter()
        .map(|header| match &header.value {
            None => format!("  {}", header.name),
            Some(header::Value::Text(text)) => format!("  {}={text}", header.name),
            Some(header::Value::Bytes(bytes)) => format!("  {}={}", header.name, base64(bytes)),
        })
        .collect()
}

fn base64(bytes: &[u8]) -> String {
    format!("base64:{}", base64::engine::general_purpose::STANDARD.encode(bytes))
}
