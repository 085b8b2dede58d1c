//! The words of `sluice groups`.

use std::time::Duration;

use clap::{ArgGroup, Args, Subcommand, ValueEnum};
use sluice_proto::admin::v1::group;
use sluice_proto::stream::v1::Position;
use sluice_proto::stream::v1::reset_offsets_request::To;

use super::{Page, parse_duration};
use crate::failure::Usage;
use crate::when;

/// A group, and the namespace of names that are given without one.
#[derive(Args)]
pub(crate) struct GroupName {
    /// namespace/group; or a group, with --namespace
    #[arg(value_name = "GROUP")]
    group: String,
    #[command(flatten)]
    namespace: Namespace,
}

/// The namespace of names that are given without one.
#[derive(Args)]
pub(crate) struct Namespace {
    /// The namespace of groups and topics that are named without one [env: SLUICE_NAMESPACE]
    #[arg(long, value_name = "NAMESPACE")]
    namespace: Option<String>,
}

impl GroupName {
    /// The full name.
    pub(crate) fn full(&self) -> Result<String, Usage> {
        self.namespace.group(&self.group)
    }
}

impl Namespace {
    /// The namespace's id, if the command line or the environment names one.
    pub(crate) fn id(&self) -> Option<String> {
        let given = self.namespace.clone().or_else(|| crate::connect::variable("SLUICE_NAMESPACE"));
        given.map(|text| text.strip_prefix("namespaces/").unwrap_or(&text).to_owned())
    }

    /// `prod/billing`, the full name, and `billing` with a namespace all mean `namespaces/prod/groups/billing`.
    pub(crate) fn group(&self, text: &str) -> Result<String, Usage> {
        child("groups", text, self.id().as_deref())
            .ok_or_else(|| Usage(format!("{text:?}: name the group as namespace/group, or give --namespace")))
    }
}

/// A topic of a group: `orders` is the one in the group's namespace.
pub(crate) fn topic_of(group: &str, topic: &str) -> Result<String, Usage> {
    let namespace = group.strip_prefix("namespaces/").and_then(|rest| rest.split('/').next());
    child("topics", topic, namespace).ok_or_else(|| {
        Usage(format!("{topic:?}: name the topic as namespace/topic, or alone in the group's namespace"))
    })
}

fn child(collection: &str, text: &str, namespace: Option<&str>) -> Option<String> {
    let (namespace, id) = match text.split('/').collect::<Vec<_>>()[..] {
        ["namespaces", namespace, given, id] if given == collection => (namespace, id),
        [namespace, id] => (namespace, id),
        [id] => (namespace?, id),
        _ => return None,
    };
    (!namespace.is_empty() && !id.is_empty()).then(|| format!("namespaces/{namespace}/{collection}/{id}"))
}

#[derive(Subcommand)]
pub(crate) enum Groups {
    /// Create a group
    Create(Create),
    /// List the groups of a namespace
    List {
        #[arg(value_name = "NAMESPACE")]
        of: Option<String>,
        #[command(flatten)]
        namespace: Namespace,
        #[command(flatten)]
        page: Page,
    },
    /// Show a group, who consumes, and where it stands in each partition
    #[command(visible_alias = "get")]
    Describe {
        #[command(flatten)]
        name: GroupName,
        /// All partitions, however many
        #[arg(long)]
        all: bool,
    },
    /// Say what holds records back, and what to do
    Explain {
        #[command(flatten)]
        name: GroupName,
    },
    /// Change a group; its consumers stay connected
    Update(Update),
    /// Delete a group with its positions; records stay
    Delete {
        #[command(flatten)]
        name: GroupName,
        /// An absent group is success
        #[arg(long)]
        allow_missing: bool,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Move a group's positions
    Reset(Reset),
    /// Records that the group gave up
    #[command(subcommand)]
    DeadLetters(DeadLetters),
}

/// Which records wait for which.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Ordering {
    /// One unacknowledged record of a key at a time
    Key,
    /// No record waits for another
    None,
}

#[derive(Args)]
pub(crate) struct Create {
    #[command(flatten)]
    pub(crate) name: GroupName,
    /// A topic to read, alone or as namespace/topic; repeat or separate by commas for more
    #[arg(long = "topic", short = 't', value_name = "TOPIC", required = true, value_delimiter = ',')]
    pub(crate) topics: Vec<String>,
    /// Where to begin: earliest, latest, a time (RFC 3339), or an age such as -1h
    #[arg(long, default_value = "earliest", allow_hyphen_values = true, value_parser = parse_start)]
    pub(crate) start: group::Start,
    /// Which records wait for which
    #[arg(long, value_enum, default_value_t = Ordering::Key)]
    pub(crate) ordering: Ordering,
    #[command(flatten)]
    pub(crate) policy: Policy,
    /// For people
    #[arg(long, default_value = "")]
    pub(crate) display_name: String,
    /// key=value; repeat for more
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = parse_label)]
    pub(crate) labels: Vec<(String, String)>,
    /// Refuse deletion
    #[arg(long)]
    pub(crate) deletion_protection: bool,
}

/// What happens to records that are not acknowledged.
#[derive(Args)]
pub(crate) struct Policy {
    /// How long a consumer has for a record, 10s..10m [default of a new group: 30s]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub(crate) ack_deadline: Option<Duration>,
    /// Deliveries before a record goes to the dead-letter topic, 1..100 [default: 5]
    #[arg(long, value_name = "N")]
    pub(crate) max_attempts: Option<i32>,
    /// Where records go that failed as often; without one they are retried until they succeed
    #[arg(long, value_name = "TOPIC")]
    pub(crate) dead_letter_topic: Option<String>,
    /// Wait before the second delivery, doubled for each further one, 0s..60s [default: 2s]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub(crate) min_backoff: Option<Duration>,
    /// The longest wait, up to 60s [default: 60s]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub(crate) max_backoff: Option<Duration>,
}

#[derive(Args)]
#[command(group = ArgGroup::new("change").required(true).multiple(true)
    .args(["ack_deadline", "max_attempts", "dead_letter_topic", "min_backoff", "max_backoff"]))]
pub(crate) struct Update {
    #[command(flatten)]
    pub(crate) name: GroupName,
    /// All the topics to read from now on; repeat for more
    #[arg(long = "topic", short = 't', value_name = "TOPIC", value_delimiter = ',', group = "change", conflicts_with_all = ["add_topics", "remove_topics"])]
    pub(crate) topics: Vec<String>,
    /// One more topic; it is read from the group's start position
    #[arg(long = "add-topic", value_name = "TOPIC", group = "change")]
    pub(crate) add_topics: Vec<String>,
    /// One topic less; its positions are kept for 7 days
    #[arg(long = "remove-topic", value_name = "TOPIC", group = "change")]
    pub(crate) remove_topics: Vec<String>,
    #[command(flatten)]
    pub(crate) policy: Policy,
    /// Retry records until they succeed
    #[arg(long, group = "change", conflicts_with_all = ["dead_letter_topic", "max_attempts"])]
    pub(crate) no_dead_letter_topic: bool,
    /// For people
    #[arg(long, group = "change")]
    pub(crate) display_name: Option<String>,
    /// Set a label; repeat for more
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = parse_label, group = "change")]
    pub(crate) labels: Vec<(String, String)>,
    /// Take a label away; repeat for more
    #[arg(long = "remove-label", value_name = "KEY", group = "change")]
    pub(crate) remove_labels: Vec<String>,
    /// Whether deletion is refused
    #[arg(long, value_name = "true|false", group = "change")]
    pub(crate) deletion_protection: Option<bool>,
}

#[derive(Args)]
pub(crate) struct Reset {
    #[command(flatten)]
    pub(crate) name: GroupName,
    /// earliest, latest, an offset, a time (RFC 3339), or an age such as -1h
    #[arg(long, allow_hyphen_values = true, value_parser = parse_to)]
    pub(crate) to: To,
    /// Only this topic
    #[arg(long)]
    pub(crate) topic: Option<String>,
    /// Only this partition of the topic; repeat for more
    #[arg(long = "partition", value_name = "N", requires = "topic")]
    pub(crate) partitions: Vec<i32>,
    /// Only tell what would be
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Also while consumers are connected; what they hold becomes stale
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Subcommand)]
pub(crate) enum DeadLetters {
    /// List them, the oldest of each partition first
    List {
        #[command(flatten)]
        name: GroupName,
        #[command(flatten)]
        page: Page,
    },
    /// Show one, with the record as it was
    Show {
        #[command(flatten)]
        name: GroupName,
        /// As `list` shows it, e.g. 0-17
        #[arg(value_parser = dead_letter_id)]
        id: String,
    },
    /// Publish them once more to their topics, for this group only
    #[command(group = ArgGroup::new("which").required(true))]
    Redrive {
        #[command(flatten)]
        name: GroupName,
        /// As `list` shows them
        #[arg(group = "which", value_name = "ID", value_parser = dead_letter_id)]
        ids: Vec<String>,
        /// All that are there
        #[arg(long, group = "which")]
        all: bool,
        /// Only tell how many
        #[arg(long)]
        dry_run: bool,
    },
}

fn parse_start(text: &str) -> Result<group::Start, String> {
    Ok(match text {
        "earliest" => group::Start::StartPosition(group::StartPosition::Earliest.into()),
        "latest" => group::Start::StartPosition(group::StartPosition::Latest.into()),
        text => group::Start::StartTime(when::parse(text).map_err(|error| format!("{error}, or earliest, or latest"))?),
    })
}

fn parse_to(text: &str) -> Result<To, String> {
    Ok(match text {
        "earliest" => To::Position(Position::Earliest.into()),
        "latest" => To::Position(Position::Latest.into()),
        text if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) => {
            To::Offset(text.parse().map_err(|_| format!("{text:?} is no offset"))?)
        }
        text => To::Time(
            when::parse(text).map_err(|error| format!("{error}, or earliest, latest, or an offset such as 42"))?,
        ),
    })
}

fn parse_label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("{text:?} is no label such as team=billing")),
    }
}

/// `{partition}-{offset}`.
fn dead_letter_id(text: &str) -> Result<String, String> {
    let number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    match text.split_once('-') {
        Some((partition, offset)) if number(partition) && number(offset) => Ok(text.to_owned()),
        _ => Err(format!("{text:?} is no id such as 0-17; `sluice groups dead-letters list` shows the ids")),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Command};

    fn parsed(args: &[&str]) -> Result<Groups, clap::Error> {
        match Cli::try_parse_from([&["sluice", "groups"], args].concat())?.command {
            Command::Groups(command) => Ok(command),
            _ => unreachable!("it begins with groups"),
        }
    }

    #[test]
    fn names_are_made_whole_with_the_namespace() {
        let with = Namespace { namespace: Some("demo".into()) };
        for (text, name) in [
            ("billing", "namespaces/demo/groups/billing"),
            ("prod/billing", "namespaces/prod/groups/billing"),
            ("namespaces/prod/groups/billing", "namespaces/prod/groups/billing"),
        ] {
            assert_eq!(with.group(text).ok().as_deref(), Some(name));
        }
        for wrong in ["", "/billing", "prod/", "a/b/c", "namespaces/prod/topics/orders"] {
            assert!(with.group(wrong).is_err(), "{wrong}");
        }
        let group = "namespaces/prod/groups/billing";
        assert_eq!(topic_of(group, "orders").ok().as_deref(), Some("namespaces/prod/topics/orders"));
        assert_eq!(topic_of(group, "dev/orders").ok().as_deref(), Some("namespaces/dev/topics/orders"));
        assert!(topic_of(group, "a/b/c").is_err());
    }

    #[test]
    fn create_takes_topics_and_a_policy() {
        let Ok(Groups::Create(create)) = parsed(&[
            "create",
            "demo/billing",
            "--topic",
            "orders,refunds",
            "--start",
            "-1h",
            "--ordering",
            "none",
            "--ack-deadline",
            "1m",
            "--max-attempts",
            "3",
            "--dead-letter-topic",
            "dead",
            "--label",
            "team=a=b",
        ]) else {
            panic!("it is right")
        };
        assert_eq!(create.topics, ["orders", "refunds"]);
        assert!(matches!(create.start, group::Start::StartTime(_)));
        assert!(create.ordering == Ordering::None);
        assert_eq!(create.policy.ack_deadline, Some(Duration::from_secs(60)));
        assert_eq!(create.labels, [("team".to_owned(), "a=b".to_owned())]);
        assert!(parsed(&["create", "demo/billing"]).is_err(), "topics");
        assert!(parsed(&["create", "demo/billing", "--topic", "a", "--start", "42"]).is_err(), "an offset is no start");
    }

    #[test]
    fn wrong_usage_is_refused_before_anything_is_sent() {
        for wrong in [
            &["update", "demo/billing"][..],
            &["update", "demo/billing", "--no-dead-letter-topic", "--max-attempts", "3"],
            &["update", "demo/billing", "--topic", "a", "--add-topic", "b"],
            &["update", "demo/billing", "--label", "nonsense"],
            &["reset", "demo/billing"],
            &["reset", "demo/billing", "--to", "yesterday"],
            &["reset", "demo/billing", "--to", "5", "--partition", "1"],
            &["dead-letters", "redrive", "demo/billing"],
            &["dead-letters", "redrive", "demo/billing", "0-1", "--all"],
            &["dead-letters", "redrive", "demo/billing", "17"],
            &["dead-letters", "show", "demo/billing"],
        ] {
            assert!(parsed(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_reset_goes_to_an_end_an_offset_or_a_time() {
        assert_eq!(parse_to("42"), Ok(To::Offset(42)));
        assert_eq!(parse_to("latest"), Ok(To::Position(Position::Latest.into())));
        assert!(matches!(parse_to("-1h"), Ok(To::Time(_))));
        assert!(parse_to("-5").is_err());
        let update = parsed(&["update", "demo/billing", "--min-backoff", "0s"]);
        assert!(matches!(update, Ok(Groups::Update(Update { policy: Policy { min_backoff: Some(_), .. }, .. }))));
    }
}
