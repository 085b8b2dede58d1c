//! `sluice groups describe`: the group, who consumes, and where it stands in each partition.

use std::collections::BTreeMap;
use std::io::Write;

use anyhow::{Error, Result};
use serde_json::json;
use sluice_proto::admin::v1::{Group, group};
use sluice_proto::stream::v1::consumer_service_client::ConsumerServiceClient;
use sluice_proto::stream::v1::{Consumer, GetGroupStatusRequest, GroupStatus, PartitionStatus};
use sluice_types::limits::{BACKOFF_MS_DEFAULT, BACKOFF_MS_MAX, MAX_ATTEMPTS_DEFAULT};

use super::{ack_deadline, ordering, span, states, topics, while_moving};
use crate::args::{Global, Output};
use crate::connect::Session;
use crate::output::printable;
use crate::{output, when};

/// Partitions that are shown unless all are asked for: those with the most lag.
const PARTITIONS_SHOWN: usize = 40;

pub(super) async fn run(global: &Global, session: &Session, group: &Group, all: bool) -> Result<()> {
    let (status, failure) = match status(global, session, group.name.clone()).await {
        Ok(status) => (Some(status), None),
        Err(error) => (None, Some(error)),
    };
    if global.output == Output::Json {
        let both = json!({"group": group, "status": status});
        writeln!(std::io::stdout(), "{}", serde_json::to_string_pretty(&both)?)?;
    } else {
        write!(std::io::stdout(), "{}", shown(group, status.as_ref(), all))?;
    }
    // What is declared is shown also when it cannot be told how the group fares.
    failure.map_or(Ok(()), Err)
}

/// How a group fares.
pub(super) async fn status(global: &Global, session: &Session, group: String) -> Result<GroupStatus, Error> {
    let client = ConsumerServiceClient::new(session.channel.clone());
    while_moving(global, session, &GetGroupStatusRequest { group }, |request| {
        let mut client = client.clone();
        async move { client.get_group_status(request).await }
    })
    .await
}

fn shown(group: &Group, status: Option<&GroupStatus>, all: bool) -> String {
    let mut text = output::pairs(&declared(group, status));
    let Some(status) = status else { return text };
    if !status.consumers.is_empty() {
        let columns = ["service account", "kind", "gateway", "out", "credit", "since"];
        text.push_str(&format!("\n{}\n", output::table(&columns, status.consumers.iter().map(consumer_row))));
    }
    let columns = ["part", "committed", "end", "lag", "window", "out", "delayed", "blocked", "state"];
    let chosen = chosen(&status.partitions, all);
    let mut by_topic: BTreeMap<&str, Vec<&PartitionStatus>> = BTreeMap::new();
    for partition in &chosen {
        by_topic.entry(super::last_part(&partition.topic)).or_default().push(partition);
    }
    for (topic, partitions) in by_topic {
        let rows = partitions.iter().map(|partition| partition_row(partition, !status.dispatcher.is_empty()));
        text.push_str(&format!("\n{}\n{}\n", printable(topic), output::table(&columns, rows)));
    }
    let left = status.partitions.len() - chosen.len();
    if left > 0 {
        text.push_str(&format!("\n{left} more partitions, with less lag; --all shows them\n"));
    }
    for partition in &status.partitions {
        if let Some(skipped) = &partition.skipped {
            text.push_str(&format!(
                "\n{}/{}: the offsets {}..{} were taken by retention before the group read them ({})\n",
                super::last_part(&partition.topic),
                partition.partition,
                skipped.from_offset,
                skipped.to_offset,
                when::shown(skipped.time.as_ref()),
            ));
        }
    }
    for finding in &status.findings {
        text.push_str(&format!("\n{}\n", super::explain::line(finding)));
    }
    text
}

fn declared(group: &Group, status: Option<&GroupStatus>) -> Vec<(&'static str, String)> {
    let start = match &group.start {
        Some(group::Start::StartTime(time)) => when::shown(Some(time)),
        Some(group::Start::StartPosition(position)) if *position == i32::from(group::StartPosition::Latest) => {
            "latest".into()
        }
        _ => "earliest".into(),
    };
    let mut pairs = vec![
        ("group", super::short_group(&group.name)),
        ("uid", group.uid.clone()),
        ("topics", topics(group)),
        ("start", start),
        ("ordering", ordering(group).into()),
        ("ack deadline", ack_deadline(group)),
        ("retries", retries(group)),
    ];
    if !group.display_name.is_empty() {
        pairs.insert(1, ("display name", group.display_name.clone()));
    }
    if !group.labels.is_empty() {
        let labels = group.labels.iter().map(|(key, value)| format!("{key}={value}"));
        pairs.push(("labels", labels.collect::<Vec<_>>().join(" ")));
    }
    if group.deletion_protection {
        pairs.push(("protected", "against deletion".into()));
    }
    pairs.push(("created", when::shown(group.create_time.as_ref())));
    if let Some(status) = status {
        let dispatcher = if status.dispatcher.is_empty() {
            "none".into()
        } else {
            format!("{} since {}", status.dispatcher, when::shown(status.dispatching_since.as_ref()))
        };
        pairs.push(("dispatcher", dispatcher));
        pairs.push(("lag", output::lag(status.lag)));
        let (word, sentence) = states::of_group(status);
        pairs.push(("state", format!("{word}: {sentence}")));
        if !status.missing_topics.is_empty() {
            let missing = status.missing_topics.iter().map(|topic| super::last_part(topic));
            pairs.push(("missing", missing.collect::<Vec<_>>().join(" ")));
        }
    }
    pairs
}

/// `after 2s, doubled up to 60s; 5 deliveries, then dead`.
fn retries(group: &Group) -> String {
    let policy = group.retry_policy.unwrap_or_default();
    let or = |given: Option<sluice_proto::wkt::Duration>, millis| {
        span(&given.unwrap_or_else(|| sluice_proto::wkt::Duration::from_millis(millis)))
    };
    let (least, most) = (or(policy.minimum_backoff, BACKOFF_MS_DEFAULT), or(policy.maximum_backoff, BACKOFF_MS_MAX));
    let end = if group.dead_letter_topic.is_empty() {
        "until it succeeds".into()
    } else {
        let attempts = if policy.max_attempts > 0 { policy.max_attempts } else { MAX_ATTEMPTS_DEFAULT };
        let plural = if attempts == 1 { "y" } else { "ies" };
        format!("{attempts} deliver{plural}, then to {}", super::last_part(&group.dead_letter_topic))
    };
    format!("after {least}, doubled up to {most}; {end}")
}

/// The partitions with the most lag, in their order.
fn chosen(partitions: &[PartitionStatus], all: bool) -> Vec<&PartitionStatus> {
    let mut order: Vec<usize> = (0..partitions.len()).collect();
    if !all && order.len() > PARTITIONS_SHOWN {
        // One that is not known, which is below 0, may be any.
        order.sort_by_key(|at| std::cmp::Reverse(partitions[*at].lag.cast_unsigned()));
        order.truncate(PARTITIONS_SHOWN);
        order.sort_unstable();
    }
    order.into_iter().map(|at| &partitions[at]).collect()
}

fn consumer_row(consumer: &Consumer) -> Vec<String> {
    let credit = consumer.credit_records;
    vec![
        consumer.service_account.clone(),
        consumer.kind.to_lowercase(),
        consumer.gateway.clone(),
        consumer.outstanding_records.to_string(),
        if credit < 0 { "-".into() } else { credit.to_string() },
        when::shown(consumer.since.as_ref()),
    ]
}

fn partition_row(partition: &PartitionStatus, is_dispatched: bool) -> Vec<String> {
    vec![
        partition.partition.to_string(),
        partition.committed_offset.map_or("-".into(), |offset| offset.to_string()),
        partition.end_offset.to_string(),
        if partition.lag < 0 { "-".into() } else { partition.lag.to_string() },
        partition.window_offsets.to_string(),
        partition.outstanding_records.to_string(),
        partition.delayed_records.to_string(),
        partition.blocked_records.to_string(),
        if is_dispatched { states::short(partition.state()) } else { "-" }.to_owned(),
    ]
}

#[cfg(test)]
mod tests {
    use sluice_proto::stream::v1::{DeliveryState, Finding, SkippedRange};

    use super::*;

    fn group() -> Group {
        Group {
            name: "namespaces/demo/groups/billing".into(),
            uid: "u1".into(),
            topics: vec!["namespaces/demo/topics/orders".into(), "namespaces/demo/topics/refunds".into()],
            ordering: group::Ordering::Key.into(),
            ..Default::default()
        }
    }

    fn partition(number: i32, lag: i64) -> PartitionStatus {
        PartitionStatus {
            topic: "namespaces/demo/topics/orders".into(),
            partition: number,
            committed_offset: Some(123_456_789),
            end_offset: 123_456_789 + lag,
            lag,
            window_offsets: 10_000,
            outstanding_records: 100,
            delayed_records: 1,
            blocked_records: 12,
            state: DeliveryState::WindowFull.into(),
            ..Default::default()
        }
    }

    #[test]
    fn it_fits_a_terminal_and_says_all_there_is_to_know() {
        let mut skipping = partition(1, 0);
        skipping.skipped = Some(SkippedRange { from_offset: 5, to_offset: 9, time: None, total_offsets: 4 });
        let status = GroupStatus {
            state: DeliveryState::WindowFull.into(),
            dispatcher: "gateway-2".into(),
            partitions: vec![partition(0, 9_999), skipping],
            consumers: vec![Consumer { service_account: "app".into(), kind: "CONSUME".into(), ..Default::default() }],
            lag: 9_999,
            findings: vec![Finding {
                state: DeliveryState::WindowFull.into(),
                topic: "namespaces/demo/topics/orders".into(),
                partition: 0,
                message: "10,000 records wait behind offset 7".into(),
            }],
            missing_topics: vec!["namespaces/demo/topics/refunds".into()],
            ..Default::default()
        };
        let text = shown(&group(), Some(&status), false);
        for words in [
            "demo/billing",
            "orders refunds",
            "until it succeeds",
            "gateway-2",
            "9999 records",
            "123456789",
            "window full",
            "5..9 were taken by retention",
            "orders/0: 10,000 records wait behind offset 7",
            "missing",
        ] {
            assert!(text.contains(words), "{words:?} is missing in\n{text}");
        }
        let sentences = ["state ", "orders/"];
        let mut tables = text.lines().filter(|line| !sentences.iter().any(|start| line.starts_with(start)));
        assert!(tables.all(|line| line.chars().count() <= 80), "{text}");
    }

    #[test]
    fn of_many_partitions_those_with_the_most_lag_are_shown() {
        let many: Vec<_> = (0..100).map(|number| partition(number, i64::from(number))).collect();
        let shown = chosen(&many, false);
        assert_eq!((shown.len(), shown[0].partition, shown[39].partition), (PARTITIONS_SHOWN, 60, 99));
        assert_eq!(chosen(&many, true).len(), 100);
    }

    #[test]
    fn nobody_dispatches_and_nothing_is_stored_yet() {
        let never = PartitionStatus { topic: "namespaces/demo/topics/orders".into(), ..Default::default() };
        let status = GroupStatus { partitions: vec![never], ..Default::default() };
        let text = shown(&group(), Some(&status), false);
        assert!(text.contains("nobody consumes") && text.contains("0     -"), "{text}");
        assert!(shown(&group(), None, false).contains("demo/billing"), "what is declared is shown anyhow");
    }
}
