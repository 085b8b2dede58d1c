//! `sluice groups reset`: move a group's positions.

use anyhow::Result;
use sluice_proto::stream::v1::consumer_service_client::ConsumerServiceClient;
use sluice_proto::stream::v1::{ResetOffsetsRequest, ResetPartition};

use super::{last_part, while_moving};
use crate::args::Global;
use crate::args::groups::{Reset, topic_of};
use crate::connect::Session;
use crate::output;

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
    let answer = while_moving(global, session, &request, |request| {
        let mut client = client.clone();
        async move { client.reset_offsets(request).await }
    })
    .await?;
    if command.dry_run {
        output::note(global, "note: nothing was changed; this is what would be");
    }
    let columns = ["topic", "partition", "from", "to", "again", "skipped"];
    output::print(global, &answer, &columns, answer.partitions.iter().map(row))
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
}
