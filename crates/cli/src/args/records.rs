//! `sluice produce`, `fetch` and `usage`.

use clap::{Args, ValueEnum};
use sluice_proto::stream::v1::fetch_request::Start;
use sluice_proto::wkt::Timestamp;

use super::values::{parse_start, topic_name};
use crate::when;

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
