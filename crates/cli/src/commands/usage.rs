//! `sluice usage`.

use anyhow::Result;
use sluice_proto::billing::v1::usage_service_client::UsageServiceClient;
use sluice_proto::billing::v1::{GetUsageRequest, OffsetRange, TopicUsage, UsageTotals};

use super::{pages, short_topic};
use crate::args::{Global, Usage};
use crate::connect::Session;
use crate::{output, when};

pub(crate) async fn run(global: &Global, command: Usage) -> Result<()> {
    let session = Session::tenant(global)?;
    let mut client = UsageServiceClient::new(session.channel.clone());
    let topic = command.topic.unwrap_or_default();
    let start_time = command.since;
    let found = pages!(
        global,
        session,
        client,
        get_usage,
        10_000,
        topics,
        GetUsageRequest { topic: topic.clone(), start_time, ..Default::default() }
    );
    if command.coverage {
        let columns = ["topic", "uid", "partition", "end", "counted", "not yet counted", "counted bytes"];
        return output::print_list(global, "topics", &found, &columns, found.iter().flat_map(coverage_rows));
    }
    let columns = ["topic", "uid", "hour", "in bytes", "in records", "out bytes", "out records"];
    output::print_list(
        global,
        "topics",
        &found,
        &columns,
        found.iter().flat_map(|topic| total_rows(topic, command.hours)),
    )
}

fn total_rows(topic: &TopicUsage, hours: bool) -> Vec<Vec<String>> {
    let row = |hour: String, totals: &UsageTotals| {
        vec![
            shown(topic),
            topic.topic_uid.clone(),
            hour,
            totals.ingress_bytes.to_string(),
            totals.ingress_records.to_string(),
            totals.egress_bytes.to_string(),
            totals.egress_records.to_string(),
        ]
    };
    let mut rows = vec![row("all".into(), &topic.totals.unwrap_or_default())];
    if hours {
        rows.extend(
            topic.hours.iter().map(|hour| row(when::shown(hour.start_time.as_ref()), &hour.totals.unwrap_or_default())),
        );
    }
    rows
}

fn coverage_rows(topic: &TopicUsage) -> Vec<Vec<String>> {
    topic
        .coverage
        .iter()
        .map(|partition| {
            let end = if partition.end_offset_known { partition.end_offset.to_string() } else { "unknown".into() };
            vec![
                shown(topic),
                topic.topic_uid.clone(),
                partition.partition.to_string(),
                end,
                ranges(&partition.covered),
                ranges(&partition.uncovered),
                output::bytes(partition.covered_bytes),
            ]
        })
        .collect()
}

fn shown(topic: &TopicUsage) -> String {
    let name = short_topic(&topic.topic);
    if topic.deleted { format!("{name} (deleted)") } else { name }
}

fn ranges(ranges: &[OffsetRange]) -> String {
    const SHOWN: usize = 4;
    let mut text: Vec<String> =
        ranges.iter().take(SHOWN).map(|range| format!("{}..{}", range.start, range.end)).collect();
    if ranges.len() > SHOWN {
        text.push(format!("and {} more", ranges.len() - SHOWN));
    }
    if text.is_empty() { "-".into() } else { text.join(" ") }
}
