//! `sluice groups reset`: move a group's positions.

use anyhow::Result;
use sluice_proto::stream::v1::consumer_service_client::ConsumerServiceClient;
use sluice_proto::stream::v1::reset_offsets_request::To;
use sluice_proto::stream::v1::{ResetOffsetsRequest, ResetPartition};
use sluice_proto::wkt::Timestamp;
use sluice_types::Reason;
use tonic::Status;
use tonic_types::StatusExt as _;

use super::{last_part, while_moving};
use crate::args::Global;
use crate::args::groups::{Reset, topic_of};
use crate::connect::Session;
use crate::failure::Hint;
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
        let would_be = reset(ResetOffsetsRequest { dry_run: true, force: true, ..request.clone() }).await;
        let would_be = would_be.map_err(|error| match is_beyond(&error) {
            true => error.context(Hint(instead(offset))),
            false => error,
        })?;
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

/// Whether the server refused an offset that nothing has yet.
fn is_beyond(error: &anyhow::Error) -> bool {
    let info = error.downcast_ref::<Status>().and_then(Status::get_details_error_info);
    info.is_some_and(|info| info.reason == Reason::OffsetOutOfRange.as_str())
}

/// What was most likely meant by an offset that nothing has yet.
fn instead(offset: i64) -> String {
    let mut text = "`--to latest` goes to the end; --topic with --partition moves other partitions alone".to_owned();
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
        assert_eq!(moved(None, 0), ["orders", "2", "-", "0", "-", "-"]);
    }

    #[test]
    fn a_number_that_is_a_time_is_shown_as_one() {
        assert!(!instead(341).contains("a time"));
        for time in [1_764_500_000, 1_764_500_000_000] {
            assert!(instead(time).contains("2025-11-30T10:53:20"), "{}", instead(time));
        }
    }
}
