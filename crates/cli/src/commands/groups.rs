//! `sluice groups`: make and change consumer groups; the files beside tell how one fares and mend what went wrong.

mod dead_letters;
mod describe;
mod explain;
mod reset;
pub(super) mod states;

use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use sluice_proto::admin::v1::group_service_client::GroupServiceClient;
use sluice_proto::admin::v1::{
    CreateGroupRequest, DeleteGroupRequest, GetGroupRequest, Group, ListGroupsRequest, RetryPolicy, UpdateGroupRequest,
    group,
};
use sluice_proto::google::longrunning::{Operation, operation};
use sluice_proto::wkt::{self, FieldMask};
use sluice_types::limits::{ACK_DEADLINE_MS_DEFAULT, MAX_ATTEMPTS_DEFAULT};
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};
use tonic_types::StatusExt;

use super::confirm::Deletion;
use super::operations::{note_conditions, settle};
use super::{last_part, pages, short_group, short_topic};
use crate::args::groups::{Create, Groups, Ordering, Policy, Update, topic_of};
use crate::args::{Global, Output};
use crate::connect::{Session, request_id};
use crate::failure::Usage;
use crate::{output, when};

const COLUMNS: [&str; 6] = ["group", "topics", "ordering", "ack deadline", "attempts", "created"];

pub(crate) async fn run(global: &Global, command: Groups) -> Result<()> {
    let session = Session::tenant(global)?;
    let mut client = GroupServiceClient::new(session.channel.clone());
    match command {
        Groups::Create(create) => {
            let name = create.name.full()?;
            let (parent, group_id) = name.split_once("/groups/").context("name the group as namespace/group")?;
            let request = CreateGroupRequest {
                parent: parent.into(),
                group_id: group_id.into(),
                group: Some(new_group(&name, &create)?),
                request_id: request_id(),
                ..Default::default()
            };
            let operation = session.take(client.create_group(session.request(request)).await)?;
            print_operation(global, settle(global, &session, operation).await?)
        }
        Groups::List { of, namespace, page } => {
            let namespace = match of {
                Some(of) => of.strip_prefix("namespaces/").unwrap_or(&of).to_owned(),
                None => namespace.id().context(Usage("name the namespace whose groups to list".into()))?,
            };
            let parent = format!("namespaces/{namespace}");
            let found = pages!(
                global,
                session,
                client,
                list_groups,
                page.limit,
                groups,
                ListGroupsRequest { parent: parent.clone(), ..Default::default() }
            );
            output::print_list(global, "groups", &found, &COLUMNS, found.iter().map(row))
        }
        Groups::Describe { name, all } => {
            let group = get(&session, &mut client, name.full()?).await?;
            describe::run(global, &session, &group, all).await
        }
        Groups::Explain { name } => explain::run(global, &session, name.full()?).await,
        Groups::Update(update) => {
            let current = get(&session, &mut client, update.name.full()?).await?;
            let (group, paths) = changed(current, &update)?;
            let request = UpdateGroupRequest {
                group: Some(group),
                update_mask: Some(FieldMask { paths }),
                request_id: request_id(),
                ..Default::default()
            };
            let operation = session.take(client.update_group(session.request(request)).await)?;
            print_operation(global, settle(global, &session, operation).await?)
        }
        Groups::Delete { name, allow_missing, yes } => {
            let name = name.full()?;
            let what = format!("group {}", short_group(&name));
            Deletion { what, with: "its positions", name: &name }.confirm(yes)?;
            let request = DeleteGroupRequest { name, allow_missing, request_id: request_id(), ..Default::default() };
            let operation = session.take(client.delete_group(session.request(request)).await)?;
            print_operation(global, settle(global, &session, operation).await?)
        }
        Groups::Reset(command) => reset::run(global, &session, command).await,
        Groups::DeadLetters(command) => dead_letters::run(global, &session, command).await,
    }
}

async fn get(session: &Session, client: &mut GroupServiceClient<Channel>, name: String) -> Result<Group> {
    session.take(client.get_group(session.request(GetGroupRequest { name })).await)
}

/// A call about a group, made again while the group is moving between gateways, for as long as one call may take.
async fn while_moving<M, A, F>(
    global: &Global,
    session: &Session,
    message: &M,
    mut call: impl FnMut(Request<M>) -> F,
) -> Result<A>
where
    M: Clone,
    F: Future<Output = Result<Response<A>, Status>>,
{
    let begun = Instant::now();
    loop {
        let left = global.timeout.saturating_sub(begun.elapsed()).max(Duration::from_secs(1));
        let status = match call(session.request_within(message.clone(), left)).await {
            Ok(answer) => return session.take(Ok(answer)),
            Err(status) => status,
        };
        let moving = status.code() == Code::Unavailable && status.get_details_error_info().is_some();
        let retry = status.get_details_retry_info().and_then(|retry| retry.retry_delay);
        let pause = retry.unwrap_or(Duration::from_millis(250)).min(Duration::from_secs(5));
        if !moving || begun.elapsed() + pause > global.timeout {
            return Err(session.error(status));
        }
        tokio::time::sleep(pause).await;
    }
}

fn new_group(name: &str, create: &Create) -> Result<Group> {
    let policy = &create.policy;
    let topics = create.topics.iter().map(|topic| topic_of(name, topic)).collect::<Result<_, _>>()?;
    let dead_letter_topic = policy.dead_letter_topic.as_deref().map(|topic| topic_of(name, topic)).transpose()?;
    if policy.max_attempts.is_some() && dead_letter_topic.is_none() {
        bail!(Usage(
            "--max-attempts needs --dead-letter-topic: without one records are retried until they succeed".into()
        ));
    }
    Ok(Group {
        topics,
        start: Some(create.start),
        ordering: match create.ordering {
            Ordering::Key => group::Ordering::Key.into(),
            Ordering::None => group::Ordering::None.into(),
        },
        ack_deadline: policy.ack_deadline.map(Into::into),
        retry_policy: retries(None, policy),
        dead_letter_topic: dead_letter_topic.unwrap_or_default(),
        display_name: create.display_name.clone(),
        labels: create.labels.iter().cloned().collect(),
        deletion_protection: create.deletion_protection,
        ..Default::default()
    })
}

/// The policy with what the command line says about it; `None` if it says nothing.
fn retries(current: Option<RetryPolicy>, policy: &Policy) -> Option<RetryPolicy> {
    let says = policy.max_attempts.is_some() || policy.min_backoff.is_some() || policy.max_backoff.is_some();
    says.then(|| {
        let current = current.unwrap_or_default();
        RetryPolicy {
            max_attempts: policy.max_attempts.unwrap_or(current.max_attempts),
            minimum_backoff: policy.min_backoff.map(Into::into).or(current.minimum_backoff),
            maximum_backoff: policy.max_backoff.map(Into::into).or(current.maximum_backoff),
        }
    })
}

/// The group as it shall be, with its etag, and the paths that change.
fn changed(mut group: Group, update: &Update) -> Result<(Group, Vec<String>)> {
    let mut paths = Vec::new();
    let mut change = |path: &str| paths.push(path.to_owned());
    let name = group.name.clone();
    if !update.topics.is_empty() {
        group.topics = update.topics.iter().map(|topic| topic_of(&name, topic)).collect::<Result<_, _>>()?;
        change("topics");
    }
    if !(update.add_topics.is_empty() && update.remove_topics.is_empty()) {
        for topic in &update.remove_topics {
            let topic = topic_of(&name, topic)?;
            let at = group.topics.iter().position(|known| *known == topic);
            let at =
                at.with_context(|| Usage(format!("--remove-topic: the group does not read {}", short_topic(&topic))))?;
            group.topics.remove(at);
        }
        for topic in &update.add_topics {
            let topic = topic_of(&name, topic)?;
            if !group.topics.contains(&topic) {
                group.topics.push(topic);
            }
        }
        change("topics");
    }
    if let Some(deadline) = update.policy.ack_deadline {
        group.ack_deadline = Some(deadline.into());
        change("ack_deadline");
    }
    if let Some(topic) = &update.policy.dead_letter_topic {
        group.dead_letter_topic = topic_of(&name, topic)?;
        change("dead_letter_topic");
    }
    if update.no_dead_letter_topic {
        group.dead_letter_topic.clear();
        // Without the topic there is nothing to count to.
        group.retry_policy = group.retry_policy.map(|policy| RetryPolicy { max_attempts: 0, ..policy });
        change("dead_letter_topic");
        change("retry_policy");
    }
    if let Some(policy) = retries(group.retry_policy, &update.policy) {
        group.retry_policy = Some(policy);
        if !update.no_dead_letter_topic {
            change("retry_policy");
        }
    }
    if !(update.labels.is_empty() && update.remove_labels.is_empty()) {
        group.labels.retain(|key, _| !update.remove_labels.contains(key));
        group.labels.extend(update.labels.iter().cloned());
        change("labels");
    }
    if let Some(display_name) = &update.display_name {
        group.display_name.clone_from(display_name);
        change("display_name");
    }
    if let Some(protection) = update.deletion_protection {
        group.deletion_protection = protection;
        change("deletion_protection");
    }
    Ok((group, paths))
}

fn print_operation(global: &Global, operation: Operation) -> Result<()> {
    let Some(operation::Result::Response(any)) = &operation.result else {
        return Ok(());
    };
    let Some(group) = any.unpack::<Group>() else {
        return Ok(());
    };
    let group = group.context("read the operation's response")?;
    // What was absent, and was allowed to be, has nothing to show.
    if group.uid.is_empty() && global.output == Output::Table {
        output::note(global, &format!("{} does not exist", group.name));
        return Ok(());
    }
    note_conditions(global, &group.conditions);
    output::print(global, &group, &COLUMNS, [row(&group)])
}

fn row(group: &Group) -> Vec<String> {
    let attempts = match (&group.retry_policy, group.dead_letter_topic.is_empty()) {
        (_, true) => "-".to_owned(),
        (Some(policy), false) if policy.max_attempts > 0 => policy.max_attempts.to_string(),
        (_, false) => MAX_ATTEMPTS_DEFAULT.to_string(),
    };
    vec![
        last_part(&group.name).to_owned(),
        topics(group),
        ordering(group).to_uppercase(),
        ack_deadline(group),
        attempts,
        when::shown(group.create_time.as_ref()),
    ]
}

/// The topics by id: they are all of the group's namespace.
fn topics(group: &Group) -> String {
    group.topics.iter().map(|topic| last_part(topic)).collect::<Vec<_>>().join(" ")
}

fn ordering(group: &Group) -> &'static str {
    match group.ordering() {
        group::Ordering::None => "none",
        group::Ordering::Key | group::Ordering::Unspecified => "key",
    }
}

fn ack_deadline(group: &Group) -> String {
    span(&group.ack_deadline.unwrap_or_else(|| wkt::Duration::from_millis(ACK_DEADLINE_MS_DEFAULT)))
}

/// `30s`, `1.5s`, `10m`.
fn span(duration: &wkt::Duration) -> String {
    match duration.as_millis() {
        0 => "0s".into(),
        millis if millis % 60_000 == 0 => format!("{}m", millis / 60_000),
        millis if millis % 1_000 == 0 => format!("{}s", millis / 1_000),
        millis => format!("{}s", millis as f64 / 1_000.0),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Command};

    fn group() -> Group {
        Group {
            name: "namespaces/prod/groups/billing".into(),
            topics: vec!["namespaces/prod/topics/orders".into()],
            dead_letter_topic: "namespaces/prod/topics/dead".into(),
            retry_policy: Some(RetryPolicy {
                max_attempts: 7,
                minimum_backoff: Some(wkt::Duration::from_millis(1_000)),
                maximum_backoff: None,
            }),
            labels: [("team".into(), "a".into()), ("tier".into(), "1".into())].into(),
            etag: "e1".into(),
            ..Default::default()
        }
    }

    fn update(args: &[&str]) -> Result<(Group, Vec<String>)> {
        let cli = Cli::try_parse_from([&["sluice", "groups", "update", "prod/billing"], args].concat())?;
        match cli.command {
            Command::Groups(Groups::Update(update)) => changed(group(), &update),
            _ => unreachable!("it is an update"),
        }
    }

    #[test]
    fn an_update_changes_what_it_names_and_carries_the_etag() {
        let (group, paths) = update(&["--max-backoff", "30s"]).expect("it is right");
        assert_eq!(paths, ["retry_policy"]);
        let policy = group.retry_policy.expect("a policy");
        assert_eq!((policy.max_attempts, policy.minimum_backoff.map(|time| time.seconds)), (7, Some(1)));
        assert_eq!(policy.maximum_backoff.map(|time| time.seconds), Some(30));
        assert_eq!(group.etag, "e1");

        let (group, paths) =
            update(&["--add-topic", "refunds", "--label", "tier=2", "--remove-label", "team"]).expect("it is right");
        assert_eq!(paths, ["topics", "labels"]);
        assert_eq!(topics(&group), "orders refunds");
        assert_eq!(group.labels, [("tier".to_owned(), "2".to_owned())].into());
        assert!(update(&["--remove-topic", "nope"]).is_err());
    }

    #[test]
    fn without_a_dead_letter_topic_there_are_no_attempts_to_count() {
        let (group, paths) = update(&["--no-dead-letter-topic", "--min-backoff", "5s"]).expect("it is right");
        assert_eq!(paths, ["dead_letter_topic", "retry_policy"]);
        assert_eq!(group.retry_policy.map(|policy| policy.max_attempts), Some(0));
        assert_eq!(group.dead_letter_topic, "");
    }

    #[test]
    fn spans_have_one_unit() {
        for (millis, text) in [(0, "0s"), (30_000, "30s"), (600_000, "10m"), (1_500, "1.5s"), (90_000, "90s")] {
            assert_eq!(span(&wkt::Duration::from_millis(millis)), text);
        }
    }
}
