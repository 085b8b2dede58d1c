//! The words of `sluice consume`.

use clap::{Args, ValueEnum};

use super::groups::Namespace;

/// How records come.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Transport {
    /// Over one gRPC stream
    Stream,
    /// Call by call
    Pull,
}

/// How keys, values and headers are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Encoding {
    /// JSON where it parses as JSON, else text, else base64
    Json,
    /// Text where it is UTF-8, else base64
    Text,
    /// Base64
    Bytes,
}

#[derive(Args)]
pub(crate) struct Consume {
    /// namespace/group; or a group, with --namespace
    #[arg(long, short)]
    pub(crate) group: String,
    #[command(flatten)]
    pub(crate) namespace: Namespace,
    /// Make the group with defaults if it does not exist, reading this topic; repeat for more
    #[arg(long = "topic", short = 't', value_name = "TOPIC", value_delimiter = ',')]
    pub(crate) topics: Vec<String>,
    /// Do not acknowledge: show ids, and read lines `ack ID…`, `nack ID… [DELAY] [: REASON]`,
    /// `release ID… [DELAY]`, `extend ID… [TIME]` from standard input
    #[arg(long)]
    pub(crate) manual: bool,
    /// Stop after this many records
    #[arg(long, short = 'n', value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) max: Option<u64>,
    /// How keys, values and headers are shown
    #[arg(long, value_enum, default_value_t = Encoding::Json)]
    pub(crate) encoding: Encoding,
    /// Records out at a time: sent to us and not acknowledged [default: 1000, of which at most 64 wait to be written]
    #[arg(long, value_name = "RECORDS", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) credit: Option<u32>,
    /// How records come
    #[arg(long, value_enum, default_value_t = Transport::Stream)]
    pub(crate) transport: Transport,
    /// Say why no records come, also when standard error is no terminal
    #[arg(long, short)]
    pub(crate) verbose: bool,
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Command, Output};

    #[test]
    fn it_follows_by_stream_unless_told_otherwise() {
        let parse = |args: &[&str]| Cli::try_parse_from([&["sluice", "consume"], args].concat());
        let Ok(Cli { command: Command::Consume(command), global }) = parse(&["--group", "demo/billing"]) else {
            panic!("it is right")
        };
        assert!(command.transport == Transport::Stream && !command.manual && command.max.is_none());
        assert!(global.output == Output::Table);
        let text = parse(&["--group", "demo/billing", "--output", "text"]);
        assert!(text.is_ok_and(|cli| cli.global.output == Output::Table), "text is another word for lines");
        for wrong in [&[][..], &["--group", "g", "--max", "0"], &["--group", "g", "--credit", "10001"]] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
