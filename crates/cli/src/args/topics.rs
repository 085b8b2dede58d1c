//! `sluice topics`.

use std::time::Duration;

use clap::{ArgGroup, Subcommand, ValueEnum};
use sluice_proto::stream::v1::list_offsets_request::At;

use super::Page;
use super::values::{parse_at, parse_duration, topic_name};

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
