//! `sluice groups reset`: move a group's positions.

use anyhow::{Result, bail};
use sluice_proto::stream::v1::consumer_service_client::ConsumerServiceClient;
use sluice_proto::stream::v1::reset_offsets_request::To;
use sluice_proto::stream::v1::{ResetOffsetsRequest, ResetPartition};
use sluice_proto::wkt::Timestamp;

use super::{last_part, while_moving};
use crate::args::Global;
use crate::args::groups::{Reset, topic_of};
use crate::connect::Session;
use crate::{output, when};

pub(super) async fn run(global: &Global, session: &Session, command: Reset) -> Result<()> {
    let group = command.name.full()?;
    let topic = command.topic.as_deref().map(|topic| topic_of(&group, topic)).transpose()?;
    let request = ResetOffsetsRequest {
        group,
        topic: topic.unwrap_or_default(),
        partitions: command.partitions,
        to: Some(command.to),
        dry_run: command.dry_run,
        force: command.force,
    };
    let client = ConsumerServiceClient::new(session.channel.clone());
    let reset = |request: ResetOffsetsRequest| {
        let client = &client;
        async move {
            while_moving(global, session, &request, |request| {
                let mut client = client.clone();
                async move { client.reset_offsets(request).await }
            })
            .await
        }
    };
    if let To::Offset(offset) = command.to {
        let would_be = reset(ResetOffsetsRequest { dry_run: true, force: true, ..request.clone() }).await?;
        if let Some(partition) = would_be.partitions.iter().find(|partition| partition.to_offset < offset) {
            bail!("{}", beyond(offset, partition));
        }
        if let Some(partition) = would_be.partitions.iter().find(|partition| partition.to_offset > offset) {
            let place = place(partition);
            output::note(global, &format!("note: {place} begins at {}: what was before is gone", partition.to_offset));
        }
    }
    let answer = reset(request).await?;
    if command.dry_run {
        output::note(global, "note: nothing was changed; this is what would be");
    }
    let columns = ["topic", "partition", "from", "to", "again", "skipped"];
    output::print(global, &answer, &columns, answer.partitions.iter().map(row))
}

/// Why an offset is refused: nothing would be left to read, and most likely something else was meant.
fn beyond(offset: i64, partition: &ResetPartition) -> String {
    let mut text = format!(
        "nothing was moved: offset {offset} is beyond the end of {}, which is {}; `latest` goes to the end, and --topic with \
         --partition moves other partitions alone",
        place(partition),
        partition.to_offset,
    );
    // Seconds or milliseconds since 1970, from 2001 on.
    let millis = match offset {
        1_000_000_000..100_000_000_000 => Some(offset * 1_000),
        1_000_000_000_000..100_000_000_000_000 => Some(offset),
        _ => None,
    };
    if let Some(millis) = millis {
        text.push_str(&format!("; a time is written as {}", when::shown(Some(&Timestamp::from_millis(millis)))));
    }
    text
}

fn place(partition: &ResetPartition) -> String {
    format!("{}/{}", last_part(&partition.topic), partition.partition)
}

/// Where it was, where it is, and what that means.
fn row(partition: &ResetPartition) -> Vec<String> {
    let to = partition.to_offset;
    let count = |count: i64| if count > 0 { count.to_string() } else { "-".into() };
    vec![
        last_part(&partition.topic).to_owned(),
        partition.partition.to_string(),
        partition.from_offset.map_or("-".into(), |from| from.to_string()),
        to.to_string(),
        count(partition.from_offset.map_or(0, |from| from.saturating_sub(to))),
        count(partition.from_offset.map_or(0, |from| to.saturating_sub(from))),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_move_says_what_comes_again_and_what_is_skipped() {
        let moved = |from_offset, to_offset| {
            row(&ResetPartition { topic: "namespaces/demo/topics/orders".into(), partition: 2, from_offset, to_offset })
        };
        assert_eq!(moved(Some(10), 4), ["orders", "2", "10", "4", "6", "-"]);
        assert_eq!(moved(Some(4), 10), ["orders", "2", "4", "10", "-", "6"]);
        let partition = ResetPartition {
            topic: "namespaces/demo/topics/orders".into(),
            partition: 2,
            from_offset: None,
            to_offset: 340,
        };
        let text = beyond(341, &partition);
        assert!(text.contains("orders/2, which is 340") && !text.contains("a time"), "{text}");
        for time in [1_764_500_000, 1_764_500_000_000] {
            let text = beyond(time, &partition);
            assert!(text.contains("2025-11-30T10:53:20"), "{text}");
        }
        assert_eq!(moved(None, 0), ["orders", "2", "-", "0", "-", "-"]);
    }
}
