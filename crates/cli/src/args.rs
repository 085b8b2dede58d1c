//! The words of the command line.

pub(crate) mod consume;
pub(crate) mod groups;

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};
use sluice_proto::admin::v1::{Role, RoleGrant};
use sluice_proto::stream::v1::Position;
use sluice_proto::stream::v1::fetch_request::Start;
use sluice_proto::stream::v1::list_offsets_request::At;
use sluice_proto::wkt::Timestamp;

use crate::when;

const EPILOG: &str = "\
The API key comes from SLUICE_API_KEY or a file (--key-file), never from an argument, which others on this machine could read.
Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 130 interrupted.";

/// The command line of Sluice.
#[derive(Parser)]
#[command(name = "sluice", version, about, propagate_version = true, max_term_width = 100, after_help = EPILOG)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command takes. Where a variable of the environment is named, the option wins over it; [`crate::connect`]
/// reads them, so that no value of the environment shows in help or usage texts. The key itself has no option.
#[derive(Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// Address of the gateway, http:// or https:// [env: SLUICE_URL] [default: http://127.0.0.1:8080]
    #[arg(long, global = true)]
    pub(crate) url: Option<String>,
    /// A file that holds the API key; without it the key is SLUICE_API_KEY [env: SLUICE_API_KEY_FILE]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) key_file: Option<PathBuf>,
    /// Address of the operator listener, for `tenants` [env: SLUICE_OPERATOR_URL] [default: http://127.0.0.1:8090]
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) operator_url: Option<String>,
    /// The file that holds the operator's token, for `tenants` [env: SLUICE_OPERATOR_TOKEN_FILE] [default:
    /// .sluice/operator.token]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) operator_token_file: Option<PathBuf>,
    /// CA certificates (PEM) to trust instead of the system's [env: SLUICE_CA_FILE]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,
    /// How to print results
    #[arg(long, short, global = true, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
    /// How long one call may take, e.g. 10s
    #[arg(long, global = true, default_value = "30s", value_parser = parse_timeout)]
    pub(crate) timeout: Duration,
    /// No progress bars and notes
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
}

/// How results are printed.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// A table, or lines; where the terminal is too narrow for a table, a block of lines per row
    #[value(alias = "text")]
    Table,
    /// JSON as the HTTP API has it: an object; a list is {"topics": [...]}; `fetch` and `consume` print an object per line.
    /// 64-bit numbers are strings
    Json,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Tenants of the installation (operator)
    #[command(subcommand)]
    Tenants(Tenants),
    /// The tenant of your key, with the limits in force
    Whoami,
    /// Namespaces: groups of topics
    #[command(subcommand)]
    Namespaces(Namespaces),
    /// Topics: ordered, partitioned logs
    #[command(subcommand)]
    Topics(Topics),
    /// Consumer groups: readers of topics, with an acknowledgement per record
    #[command(subcommand)]
    Groups(groups::Groups),
    /// Service accounts: machine identities
    #[command(subcommand)]
    ServiceAccounts(ServiceAccounts),
    /// API keys of a service account
    #[command(subcommand)]
    Keys(Keys),
    /// Operations: what became of a change
    #[command(subcommand)]
    Operations(Operations),
    /// Publish records from standard input
    Produce(Produce),
    /// Read records of a topic
    Fetch(Fetch),
    /// Receive a group's records, and acknowledge each after it is printed
    Consume(consume::Consume),
    /// What you used, per topic and hour
    Usage(Usage),
    /// The version of this program, and of the server if there is a key to ask it with
    Version,
}

#[derive(Subcommand)]
pub(crate) enum Tenants {
    /// Create a tenant
    Create {
        tenant: String,
        #[arg(long, default_value = "")]
        display_name: String,
    },
    /// Show a tenant
    Get { tenant: String },
    /// List tenants
    List(Page),
    /// Change limits; 0 gives back the default
    #[command(group = ArgGroup::new("limits").required(true).multiple(true))]
    SetLimits {
        tenant: String,
        #[arg(long, group = "limits")]
        requests_per_second: Option<i64>,
        #[arg(long, group = "limits")]
        ingress_bytes_per_second: Option<i64>,
        #[arg(long, group = "limits")]
        egress_bytes_per_second: Option<i64>,
        #[arg(long, group = "limits")]
        bytes_in_flight: Option<i64>,
        #[arg(long, group = "limits")]
        topics: Option<i64>,
        #[arg(long, group = "limits")]
        partitions: Option<i64>,
        #[arg(long, group = "limits")]
        namespaces: Option<i64>,
    },
    /// Switch a tenant off; its data stays
    Suspend {
        tenant: String,
        /// Why, for the audit log
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Switch a tenant on again
    Resume { tenant: String },
    /// Delete a tenant with all it has
    Delete {
        tenant: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
        /// Also if something of it is protected against deletion
        #[arg(long)]
        force: bool,
    },
    /// Make a key of the tenant's owner account; its text is printed once
    IssueKey { tenant: String },
}

#[derive(Subcommand)]
pub(crate) enum Namespaces {
    /// Create a namespace
    Create {
        namespace: String,
        #[arg(long, default_value = "")]
        display_name: String,
        /// Refuse deletion
        #[arg(long)]
        deletion_protection: bool,
    },
    /// Show a namespace
    Get { namespace: String },
    /// List namespaces
    List(Page),
    /// Change the display name, protect from deletion
    #[command(group = ArgGroup::new("change").required(true).multiple(true))]
    Update {
        namespace: String,
        #[arg(long, group = "change")]
        display_name: Option<String>,
        /// Whether deletion is refused
        #[arg(long, value_name = "true|false", group = "change")]
        deletion_protection: Option<bool>,
    },
    /// Delete an empty namespace
    Delete { namespace: String },
}

/// From which time on a topic keeps its records.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum KeepBy {
    /// The time that the producer gave
    CreateTime,
    /// The time at which they were appended
    LogAppendTime,
}

#[derive(Subcommand)]
pub(crate) enum Topics {
    /// Create a topic
    Create {
        /// namespace/topic, or namespaces/{namespace}/topics/{topic}
        #[arg(value_parser = topic_name)]
        topic: String,
        /// 1..1000
        #[arg(long, short)]
        partitions: Option<i32>,
        /// How long records are kept, e.g. 7d
        #[arg(long, value_parser = parse_duration)]
        retention: Option<Duration>,
        /// Keep the last record of each key instead
        #[arg(long)]
        compact: bool,
        /// From which time on records are kept; log-append-time takes records of any age, for old data [default: create-time]
        #[arg(long, value_enum, value_name = "TIME")]
        keep_by: Option<KeepBy>,
        /// Refuse deletion
        #[arg(long)]
        deletion_protection: bool,
    },
    /// Show a topic
    Get {
        /// namespace/topic
        #[arg(value_parser = topic_name)]
        topic: String,
    },
    /// Show the partitions of a topic with their first and next offsets
    Describe {
        /// namespace/topic
        #[arg(value_parser = topic_name)]
        topic: String,
    },
    /// Show the offset of a position in each partition of a topic
    Offsets {
        /// namespace/topic
        #[arg(value_parser = topic_name)]
        topic: String,
        /// earliest, latest, a time (RFC 3339), or an age such as -1h
        #[arg(long, default_value = "latest", allow_hyphen_values = true, value_parser = parse_at)]
        at: At,
        /// One partition; repeat or separate by commas for more; all without it
        #[arg(long = "partition", short, value_name = "N", value_delimiter = ',')]
        partitions: Vec<i32>,
    },
    /// List the topics of a namespace
    List {
        namespace: String,
        #[command(flatten)]
        page: Page,
    },
    /// Add partitions, change the retention, protect from deletion
    #[command(group = ArgGroup::new("change").required(true).multiple(true))]
    Update {
        /// namespace/topic
        #[arg(value_parser = topic_name)]
        topic: String,
        /// As many as there shall be; they only go up, and more break the order of keys
        #[arg(long, short, group = "change")]
        partitions: Option<i32>,
        /// How long records are kept, e.g. 7d
        #[arg(long, value_parser = parse_duration, group = "change")]
        retention: Option<Duration>,
        /// Whether deletion is refused
        #[arg(long, value_name = "true|false", group = "change")]
        deletion_protection: Option<bool>,
    },
    /// Delete a topic with its records
    Delete {
        /// namespace/topic
        #[arg(value_parser = topic_name)]
        topic: String,
        /// An absent topic is success
        #[arg(long)]
        allow_missing: bool,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Subcommand)]
pub(crate) enum ServiceAccounts {
    /// Create a service account
    Create {
        account: String,
        #[arg(long, default_value = "")]
        display_name: String,
        /// role or role@resource, e.g. producer@namespaces/prod; repeat for more
        #[arg(long = "grant", value_name = "ROLE[@RESOURCE]", value_parser = parse_grant)]
        grants: Vec<RoleGrant>,
    },
    /// Show a service account
    Get { account: String },
    /// List service accounts
    List(Page),
    /// Replace the grants of a service account
    #[command(group = ArgGroup::new("change").required(true))]
    SetGrants {
        account: String,
        /// role or role@resource; repeat for more
        #[arg(long = "grant", value_name = "ROLE[@RESOURCE]", value_parser = parse_grant, group = "change")]
        grants: Vec<RoleGrant>,
        /// Take all grants away, also the last one
        #[arg(long, group = "change")]
        none: bool,
    },
    /// Delete a service account and its keys
    Delete {
        account: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Subcommand)]
pub(crate) enum Keys {
    /// Create a key; its text is printed once
    Create {
        account: String,
        #[arg(long, default_value = "")]
        display_name: String,
        /// Stop working after this time, e.g. 90d
        #[arg(long, value_parser = parse_duration)]
        expires_in: Option<Duration>,
    },
    /// List the keys of a service account
    List {
        account: String,
        #[command(flatten)]
        page: Page,
    },
    /// Revoke a key for good
    Revoke {
        /// account/key, or serviceAccounts/{account}/apiKeys/{key}
        #[arg(value_parser = key_name)]
        key: String,
    },
}

#[derive(Subcommand)]
pub(crate) enum Operations {
    /// Show an operation
    Get { operation: String },
    /// List operations, the newest first
    List(Page),
    /// Wait for an operation
    Wait { operation: String },
}

/// Paging of lists.
#[derive(Args)]
pub(crate) struct Page {
    /// Stop after this many
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) limit: u32,
}

/// How lines of standard input become records.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum InputFormat {
    /// A line is a value (see --key-separator); empty lines are left out
    Lines,
    /// A line is a JSON object {"key":…, "value":…, "headers":{…}, "partition":…, "timestamp":…}, or a record as `fetch` and
    /// `consume` print it with --output json
    Ndjson,
    /// A line is a JSON document that becomes the value (see --key-field)
    Json,
}

#[derive(Args)]
pub(crate) struct Produce {
    /// namespace/topic
    #[arg(value_parser = topic_name)]
    pub(crate) topic: String,
    /// How lines become records
    #[arg(long, value_enum, default_value_t = InputFormat::Lines)]
    pub(crate) format: InputFormat,
    /// With lines: what is before the first one of these is the key
    #[arg(long)]
    pub(crate) key_separator: Option<String>,
    /// With json: the field whose text is the key
    #[arg(long)]
    pub(crate) key_field: Option<String>,
    /// The partition for all records, whatever their lines say
    #[arg(long)]
    pub(crate) partition: Option<i32>,
    /// Records a call
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) batch: u32,
    /// Calls in flight; 1 keeps the order over the whole input
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) in_flight: u32,
}

#[derive(Args)]
pub(crate) struct Fetch {
    /// namespace/topic
    #[arg(value_parser = topic_name)]
    pub(crate) topic: String,
    /// Only this partition
    #[arg(long)]
    pub(crate) partition: Option<i32>,
    /// earliest, latest, an offset, a time (RFC 3339), or an age such as -1h
    #[arg(long, default_value = "earliest", allow_hyphen_values = true, value_parser = parse_start)]
    pub(crate) from: Start,
    /// Go on at the end, waiting for more
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// Stop after this many records
    #[arg(long, short = 'n')]
    pub(crate) max: Option<u64>,
}

#[derive(Args)]
pub(crate) struct Usage {
    /// Only this topic (namespace/topic)
    #[arg(long, value_parser = topic_name)]
    pub(crate) topic: Option<String>,
    /// From this time (RFC 3339) or age such as -24h
    #[arg(long, allow_hyphen_values = true, value_parser = when::parse)]
    pub(crate) since: Option<Timestamp>,
    /// Also the rows per hour
    #[arg(long)]
    pub(crate) hours: bool,
    /// Also the offsets that are counted and not
    #[arg(long)]
    pub(crate) coverage: bool,
}

/// `90s`, `5m`, `2h`, `7d`; a bare number is seconds.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let wrong = || format!("{text:?} is not a duration such as 30s, 5m, 2h or 7d");
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let seconds = match unit {
        "" | "s" => Some(number),
        "ms" => return Ok(Duration::from_millis(number)),
        "m" => number.checked_mul(60),
        "h" => number.checked_mul(3_600),
        "d" => number.checked_mul(86_400),
        _ => None,
    };
    // The proto's Duration ends at 10,000 years.
    seconds.filter(|seconds| *seconds <= 315_576_000_000).map(Duration::from_secs).ok_or_else(wrong)
}

fn parse_timeout(text: &str) -> Result<Duration, String> {
    let timeout = parse_duration(text)?;
    if timeout.is_zero() { Err("give more than 0".into()) } else { Ok(timeout) }
}

/// `prod/orders` and the full name both mean `namespaces/prod/topics/orders`.
fn topic_name(text: &str) -> Result<String, String> {
    match text.split('/').collect::<Vec<_>>()[..] {
        [namespace, topic] | ["namespaces", namespace, "topics", topic]
            if !namespace.is_empty() && !topic.is_empty() =>
        {
            Ok(format!("namespaces/{namespace}/topics/{topic}"))
        }
        _ => Err("name the topic as namespace/topic".into()),
    }
}

/// `app/kemho3iwiends` and the full name both mean `serviceAccounts/app/apiKeys/kemho3iwiends`.
fn key_name(text: &str) -> Result<String, String> {
    match text.split('/').collect::<Vec<_>>()[..] {
        [account, key] | ["serviceAccounts", account, "apiKeys", key] if !account.is_empty() && !key.is_empty() => {
            Ok(format!("serviceAccounts/{account}/apiKeys/{key}"))
        }
        // Not repeated: it may be the text of a key.
        _ => Err("name the key as account/key; `sluice keys list` shows the names".into()),
    }
}

fn parse_start(text: &str) -> Result<Start, String> {
    Ok(match text {
        "earliest" => Start::Position(Position::Earliest.into()),
        "latest" => Start::Position(Position::Latest.into()),
        text if text.bytes().all(|byte| byte.is_ascii_digit()) => {
            Start::Offset(text.parse().map_err(|_| format!("{text:?} is no offset"))?)
        }
        text => Start::Time(
            when::parse(text).map_err(|error| format!("{error}, or earliest, latest, or an offset such as 42"))?,
        ),
    })
}

fn parse_at(text: &str) -> Result<At, String> {
    Ok(match text {
        "earliest" => At::Position(Position::Earliest.into()),
        "latest" => At::Position(Position::Latest.into()),
        text => At::Time(when::parse(text).map_err(|error| format!("{error}, or earliest, or latest"))?),
    })
}

/// `role` or `role@resource`.
fn parse_grant(text: &str) -> Result<RoleGrant, String> {
    let (role, resource) = text.split_once('@').unwrap_or((text, "*"));
    let known = Role::from_str_name(&format!("ROLE_{}", role.to_uppercase())).filter(|role| *role != Role::Unspecified);
    let role = known.ok_or_else(|| format!("{role:?} is no role: owner, developer, producer, consumer or viewer"))?;
    Ok(RoleGrant { role: role.into(), resource: resource.into() })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn all_grants_can_be_taken_away_and_who_gives_none_is_told_how() {
        let parse =
            |args: &[&str]| Cli::try_parse_from([&["sluice", "service-accounts", "set-grants", "app"], args].concat());
        assert!(parse(&["--none"]).is_ok());
        assert!(parse(&["--grant", "viewer", "--grant", "producer@namespaces/prod"]).is_ok());
        assert!(parse(&["--grant", "viewer", "--none"]).is_err());
        let text = parse(&[]).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(text.contains("--grant") && text.contains("--none"), "{text}");
    }

    #[test]
    fn short_names_are_made_whole() {
        assert_eq!(topic_name("prod/orders").as_deref(), Ok("namespaces/prod/topics/orders"));
        assert_eq!(topic_name("namespaces/prod/topics/orders").as_deref(), Ok("namespaces/prod/topics/orders"));
        assert_eq!(topic_name("namespaces/orders").as_deref(), Ok("namespaces/namespaces/topics/orders"));
        for wrong in ["orders", "/orders", "prod/", "a/b/c", ""] {
            assert!(topic_name(wrong).is_err(), "{wrong}");
        }
        assert_eq!(key_name("app/k").as_deref(), Ok("serviceAccounts/app/apiKeys/k"));
    }

    #[test]
    fn a_start_is_a_position_an_offset_a_time_or_an_age_with_a_unit() {
        assert_eq!(parse_start("42"), Ok(Start::Offset(42)));
        assert!(matches!(parse_start("-1h"), Ok(Start::Time(_))));
        assert!(matches!(parse_start("2026-01-01T00:00:00Z"), Ok(Start::Time(_))));
        for wrong in ["-5", "yesterday", "", "99999999999999999999", "-1y"] {
            assert!(parse_start(wrong).is_err(), "{wrong}");
        }
    }
}
