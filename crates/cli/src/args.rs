//! The words of the command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// The command line of Sluice.
#[derive(Parser)]
#[command(name = "sluice", version, about, propagate_version = true, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command takes.
#[derive(Args)]
pub(crate) struct Global {
    /// Address of the gateway, http:// or https://
    #[arg(long, global = true, env = "SLUICE_URL", default_value = "http://127.0.0.1:8080")]
    pub(crate) url: String,
    /// The API key
    #[arg(env = "SLUICE_API_KEY", hide_env_values = true, hide = true, long = "api-key-from-environment-only")]
    pub(crate) api_key: Option<String>,
    /// A file that holds the API key, instead of SLUICE_API_KEY
    #[arg(long, global = true, env = "SLUICE_API_KEY_FILE")]
    pub(crate) key_file: Option<PathBuf>,
    /// Address of the operator listener (tenants commands)
    #[arg(long, global = true, env = "SLUICE_OPERATOR_URL", default_value = "http://127.0.0.1:8090")]
    pub(crate) operator_url: String,
    /// The file that holds the operator's token (tenants commands)
    #[arg(long, global = true, env = "SLUICE_OPERATOR_TOKEN_FILE", default_value = ".sluice/operator.token")]
    pub(crate) operator_token_file: PathBuf,
    /// CA certificates (PEM) to trust instead of the system's
    #[arg(long, global = true, env = "SLUICE_CA_FILE")]
    pub(crate) ca_file: Option<PathBuf>,
    /// How to print results
    #[arg(long, short, global = true, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
    /// How long one call may take, e.g. 10s
    #[arg(long, global = true, default_value = "30s", value_parser = parse_duration)]
    pub(crate) timeout: Duration,
    /// No progress bars and notes
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
}

/// How results are printed.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// A table that fits the terminal
    Table,
    /// JSON, one document (or one per line where results stream)
    Json,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Tenants of the installation (operator)
    #[command(subcommand)]
    Tenants(Tenants),
    /// The tenant of your key, with its limits
    Whoami,
    /// Namespaces: groups of topics
    #[command(subcommand)]
    Namespaces(Namespaces),
    /// Topics: ordered, partitioned logs
    #[command(subcommand)]
    Topics(Topics),
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
    /// What you used, per topic and hour
    Usage(Usage),
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
    SetLimits {
        tenant: String,
        #[arg(long)]
        requests_per_second: Option<i64>,
        #[arg(long)]
        ingress_bytes_per_second: Option<i64>,
        #[arg(long)]
        egress_bytes_per_second: Option<i64>,
        #[arg(long)]
        bytes_in_flight: Option<i64>,
        #[arg(long)]
        topics: Option<i64>,
        #[arg(long)]
        partitions: Option<i64>,
        #[arg(long)]
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
    /// Delete an empty namespace
    Delete { namespace: String },
}

#[derive(Subcommand)]
pub(crate) enum Topics {
    /// Create a topic
    Create {
        /// namespace/topic, or namespaces/{namespace}/topics/{topic}
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
        /// Refuse deletion
        #[arg(long)]
        deletion_protection: bool,
    },
    /// Show a topic
    Get { topic: String },
    /// Show the partitions of a topic with their first and next offsets
    Describe { topic: String },
    /// List the topics of a namespace
    List {
        namespace: String,
        #[command(flatten)]
        page: Page,
    },
    /// Add partitions or change the retention
    Update {
        topic: String,
        #[arg(long, short)]
        partitions: Option<i32>,
        #[arg(long, value_parser = parse_duration)]
        retention: Option<Duration>,
    },
    /// Delete a topic with its records
    Delete {
        topic: String,
        /// An absent topic is success
        #[arg(long)]
        allow_missing: bool,
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
        #[arg(long = "grant", value_name = "ROLE[@RESOURCE]")]
        grants: Vec<String>,
    },
    /// Show a service account
    Get { account: String },
    /// List service accounts
    List(Page),
    /// Replace the grants of a service account
    SetGrants {
        account: String,
        #[arg(long = "grant", value_name = "ROLE[@RESOURCE]")]
        grants: Vec<String>,
    },
    /// Delete a service account and its keys
    Delete { account: String },
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
        /// serviceAccounts/{account}/apiKeys/{key}
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
    #[arg(long, default_value_t = 1000)]
    pub(crate) limit: usize,
}

/// How lines of standard input become records.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum InputFormat {
    /// A line is a value (see --key-separator)
    Lines,
    /// A line is a JSON object {"key":…, "value":…, "headers":{…}, "partition":…, "timestamp":…}
    Ndjson,
    /// A line is a JSON document that becomes the value (see --key-field)
    Json,
}

#[derive(Args)]
pub(crate) struct Produce {
    /// namespace/topic
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
    /// The partition for all records
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
    pub(crate) topic: String,
    /// Only this partition
    #[arg(long)]
    pub(crate) partition: Option<i32>,
    /// earliest, latest, an offset, a time (RFC 3339), or an age such as -1h
    #[arg(long, default_value = "earliest", allow_hyphen_values = true)]
    pub(crate) from: String,
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
    #[arg(long)]
    pub(crate) topic: Option<String>,
    /// From this time (RFC 3339) or age such as -24h
    #[arg(long, allow_hyphen_values = true)]
    pub(crate) since: Option<String>,
    /// Also the rows per hour
    #[arg(long)]
    pub(crate) hours: bool,
    /// Also the offsets that are counted and not
    #[arg(long)]
    pub(crate) coverage: bool,
}

/// `90`, `90s`, `5m`, `2h`, `7d`.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: u64 = number.parse().map_err(|_| format!("{text:?} is not a duration such as 30s, 5m, 2h or 7d"))?;
    let seconds = match unit {
        "" | "s" => Some(number),
        "ms" => return Ok(Duration::from_millis(number)),
        "m" => number.checked_mul(60),
        "h" => number.checked_mul(3_600),
        "d" => number.checked_mul(86_400),
        _ => None,
    };
    seconds.map(Duration::from_secs).ok_or_else(|| format!("{text:?} is not a duration such as 30s, 5m, 2h or 7d"))
}
