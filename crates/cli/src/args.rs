//! The words of the command line.

pub(crate) mod clusters;
pub(crate) mod consume;
pub(crate) mod groups;
mod records;
mod topics;
mod values;

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};
use sluice_proto::admin::v1::RoleGrant;

pub(crate) use self::records::{Fetch, InputFormat, Produce, Usage};
pub(crate) use self::topics::{KeepBy, Topics};
pub(crate) use self::values::parse_duration;
use self::values::{key_name, parse_grant, parse_timeout};

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
    /// Address of the operator listener, for `tenants` and `clusters` [env: SLUICE_OPERATOR_URL] [default: http://127.0.0.1:8090]
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) operator_url: Option<String>,
    /// The file that holds the operator's token, for `tenants` and `clusters` [env: SLUICE_OPERATOR_TOKEN_FILE] [default:
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
    /// Kafka clusters, and on which one a namespace's topics are made (operator)
    #[command(subcommand)]
    Clusters(clusters::Clusters),
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
}
