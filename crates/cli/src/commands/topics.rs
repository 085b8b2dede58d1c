//! `sluice topics`.

use anyhow::{Context, Result, bail};
use sluice_proto::admin::v1::group_service_client::GroupServiceClient;
use sluice_proto::admin::v1::topic_service_client::TopicServiceClient;
use sluice_proto::admin::v1::{
    CreateTopicRequest, DeleteTopicRequest, GetTopicRequest, Group, ListGroupsRequest, ListTopicsRequest, Topic,
    UpdateTopicRequest, topic,
};
use sluice_proto::google::longrunning::{Operation, operation};
use sluice_proto::stream::v1::stream_service_client::StreamServiceClient;
use sluice_proto::stream::v1::{GetTopicMetadataRequest, ListOffsetsRequest, ListOffsetsResponse, TopicMetadata};
use sluice_proto::wkt::FieldMask;

use super::confirm::Deletion;
use super::operations::{note_conditions, settle};
use super::{full_name, last_part, pages, short_group, short_topic};
use crate::args::{Global, KeepBy, Output, Topics};
use crate::connect::{Session, request_id};
use crate::{output, when};

/// Groups that are named before a topic is deleted.
const USES_SHOWN: usize = 10;
const COLUMNS: [&str; 6] = ["topic", "state", "partitions", "retention", "created", "uid"];

pub(crate) async fn run(global: &Global, command: Topics) -> Result<()> {
    let session = Session::tenant(global)?;
    let mut client = TopicServiceClient::new(session.channel.clone());
    match command {
        Topics::Create { topic, partitions, retention, compact, keep_by, deletion_protection } => {
            let (parent, topic_id) = topic.split_once("/topics/").context("name the topic as namespace/topic")?;
            let request = CreateTopicRequest {
                parent: parent.into(),
                topic_id: topic_id.into(),
                topic: Some(Topic {
                    partition_count: partitions,
                    retention: retention.map(Into::into),
                    cleanup_policy: if compact { topic::CleanupPolicy::Compact.into() } else { 0 },
                    timestamp_policy: keep_by.map_or(0, |keep_by| match keep_by {
                        KeepBy::CreateTime => topic::TimestampPolicy::CreateTime.into(),
                        KeepBy::LogAppendTime => topic::TimestampPolicy::LogAppendTime.into(),
                    }),
                    deletion_protection,
                    ..Default::default()
                }),
                request_id: request_id(),
                ..Default::default()
            };
            let operation = session.take(client.create_topic(session.request(request)).await)?;
            print_operation(global, settle(global, &session, operation).await?)
        }
        Topics::Get { topic } => {
            let request = GetTopicRequest { name: topic };
            print(global, &session.take(client.get_topic(session.request(request)).await)?)
        }
        Topics::Describe { topic } => {
            let request = GetTopicMetadataRequest { topic };
            let mut stream = StreamServiceClient::new(session.channel.clone());
            print_metadata(global, &session.take(stream.get_topic_metadata(session.request(request)).await)?)
        }
        Topics::Offsets { topic, at, partitions } => {
            let request = ListOffsetsRequest { topic, partitions, at: Some(at) };
            let mut stream = StreamServiceClient::new(session.channel.clone());
            print_offsets(global, &session.take(stream.list_offsets(session.request(request)).await)?)
        }
        Topics::List { namespace, page } => {
            let parent = full_name("namespaces", &namespace);
            let found = pages!(
                global,
                session,
                client,
                list_topics,
                page.limit,
                topics,
                ListTopicsRequest { parent: parent.clone(), ..Default::default() }
            );
            output::print_list(global, "topics", &found, &COLUMNS, found.iter().map(row))
        }
        Topics::Update { topic, partitions, retention, deletion_protection } => {
            let mut paths = Vec::new();
            paths.extend(partitions.map(|_| "partition_count".to_owned()));
            paths.extend(retention.map(|_| "retention".to_owned()));
            paths.extend(deletion_protection.map(|_| "deletion_protection".to_owned()));
            let request = UpdateTopicRequest {
                topic: Some(Topic {
                    name: topic,
                    partition_count: partitions,
                    retention: retention.map(Into::into),
                    deletion_protection: deletion_protection.unwrap_or_default(),
                    ..Default::default()
                }),
                update_mask: Some(FieldMask { paths }),
                request_id: request_id(),
                ..Default::default()
            };
            let operation = session.take(client.update_topic(session.request(request)).await)?;
            print_operation(global, settle(global, &session, operation).await?)
        }
        Topics::Delete { topic, allow_missing, yes } => {
            let what = format!("topic {}", short_topic(&topic));
            let deletion = Deletion { what, with: "all its records", name: &topic };
            if deletion.must_ask(yes)? {
                deletion.ask(&users(&session, &topic).await)?;
            }
            let request =
                DeleteTopicRequest { name: topic, allow_missing, request_id: request_id(), ..Default::default() };
            let operation = session.take(client.delete_topic(session.request(request)).await)?;
            print_operation(global, settle(global, &session, operation).await?)
        }
    }
}

/// What groups do with a topic. Who may not see them is not told.
async fn users(session: &Session, topic: &str) -> Vec<String> {
    let mut client = GroupServiceClient::new(session.channel.clone());
    let parent = topic.split("/topics/").next().unwrap_or_default().to_owned();
    let (mut uses, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListGroupsRequest { parent: parent.clone(), page_size: 1_000, page_token };
        let Ok(page) = session.take(client.list_groups(session.request(request)).await) else { return uses };
        uses.extend(page.groups.iter().filter_map(|group| use_of(group, topic)));
        page_token = page.next_page_token;
        if page_token.is_empty() || uses.len() > USES_SHOWN {
            break;
        }
    }
    if uses.len() > USES_SHOWN {
        uses.truncate(USES_SHOWN);
        uses.push("More groups use it.".into());
    }
    uses
}

fn use_of(group: &Group, topic: &str) -> Option<String> {
    let name = short_group(&group.name);
    if group.dead_letter_topic == topic {
        return Some(format!("It holds the dead letters of group {name}, which cannot give up a record without it."));
    }
    group.topics.iter().any(|read| read == topic).then(|| format!("Group {name} reads it."))
}

fn print_operation(global: &Global, operation: Operation) -> Result<()> {
    let Some(operation::Result::Response(any)) = &operation.result else {
        return Ok(());
    };
    let Some(topic) = any.unpack::<Topic>() else {
        return Ok(());
    };
    let topic = topic.context("read the operation's response")?;
    // What was absent, and was allowed to be, has nothing to show.
    if topic.uid.is_empty() && global.output == Output::Table {
        output::note(global, &format!("{} does not exist", topic.name));
        return Ok(());
    }
    print(global, &topic)
}

fn print(global: &Global, topic: &Topic) -> Result<()> {
    note_conditions(global, &topic.conditions);
    output::print(global, topic, &COLUMNS, [row(topic)])
}

fn row(topic: &Topic) -> Vec<String> {
    let retention = topic.effective_retention.map_or_else(
        || "-".into(),
        |retention| match retention.seconds {
            seconds if seconds % 86_400 == 0 => format!("{}d", seconds / 86_400),
            seconds if seconds % 3_600 == 0 => format!("{}h", seconds / 3_600),
            seconds => format!("{seconds}s"),
        },
    );
    vec![
        last_part(&topic.name).to_owned(),
        output::word(topic.state().as_str_name(), "STATE_"),
        topic.effective_partition_count.to_string(),
        retention,
        when::shown(topic.create_time.as_ref()),
        topic.uid.clone(),
    ]
}

fn print_metadata(global: &Global, metadata: &TopicMetadata) -> Result<()> {
    let rows = metadata.partitions.iter().map(|partition| {
        let told = |offset: i64| if partition.available { offset.to_string() } else { "-".into() };
        vec![
            partition.partition.to_string(),
            told(partition.log_start_offset),
            told(partition.end_offset),
            if partition.available { "yes" } else { "no" }.into(),
        ]
    });
    output::print(global, metadata, &["partition", "first offset", "next offset", "available"], rows)
}

/// What is known goes to standard output; the command fails if a partition is not.
fn print_offsets(global: &Global, answer: &ListOffsetsResponse) -> Result<()> {
    output::print(global, answer, &["partition", "offset", "error"], offset_rows(answer))?;
    match answer.failures.len() {
        0 => Ok(()),
        failed => bail!("{failed} of {} partitions could not be told", failed + answer.offsets.len()),
    }
}

/// A row per partition, by number.
fn offset_rows(answer: &ListOffsetsResponse) -> Vec<Vec<String>> {
    let found = answer.offsets.iter().map(|found| (found.partition, found.offset.to_string(), "-".to_owned()));
    let failed = answer.failures.iter().map(|failure| {
        let why = failure.error.as_ref().map_or_else(|| "unknown".to_owned(), |error| error.message.clone());
        (failure.partition, "-".to_owned(), why)
    });
    let mut rows: Vec<_> = found.chain(failed).collect();
    rows.sort();
    rows.into_iter().map(|(partition, offset, error)| vec![partition.to_string(), offset, error]).collect()
}

#[cfg(test)]
mod tests {
    use sluice_proto::google::rpc::Status;
    use sluice_proto::stream::v1::{PartitionFailure, PartitionOffset};

    use super::*;

    #[test]
    fn groups_that_a_deletion_would_hit_are_named() {
        let group = Group {
            name: "namespaces/prod/groups/billing".into(),
            topics: vec!["namespaces/prod/topics/orders".into()],
            dead_letter_topic: "namespaces/prod/topics/dead".into(),
            ..Default::default()
        };
        let used = |topic: &str| use_of(&group, &format!("namespaces/prod/topics/{topic}"));
        assert!(used("dead").is_some_and(|text| text.contains("dead letters of group prod/billing")));
        assert_eq!(used("orders").as_deref(), Some("Group prod/billing reads it."));
        assert_eq!(used("other"), None);
    }

    #[test]
    fn a_partition_that_cannot_be_told_stands_among_the_others_with_its_error() {
        let error = Some(Status { code: 14, message: "no answer".into(), details: Vec::new() });
        let answer = ListOffsetsResponse {
            offsets: [(0, 7), (2, 0)].map(|(partition, offset)| PartitionOffset { partition, offset }).to_vec(),
            failures: vec![PartitionFailure { partition: 1, error }],
        };
        assert_eq!(offset_rows(&answer), [["0", "7", "-"], ["1", "-", "no answer"], ["2", "0", "-"]]);
    }
}
