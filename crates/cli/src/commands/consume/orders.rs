//! Lines of standard input with `--manual`: what to do with which records.

use std::time::Duration;

use anyhow::{Result, bail};
use sluice_types::limits::ACK_IDS_MAX;
use tokio::io::BufReader;
use tokio::sync::mpsc;

use crate::args::parse_duration;
use crate::input;

/// Longest line.
const LINE_BYTES_MAX: usize = 4 << 20;

/// What to do with records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Ack,
    /// Again after this time, or after the group's backoff.
    Nack(Option<Duration>),
    /// To others at once, or after this time; no failure.
    Release(Option<Duration>),
    /// So much time from now, or the group's ack deadline.
    Extend(Option<Duration>),
}

/// A line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Order {
    pub(super) verb: Verb,
    pub(super) ids: Vec<String>,
    /// Why records are refused, for the dead letter.
    pub(super) reason: String,
}

impl Order {
    pub(super) fn new(verb: Verb, ids: Vec<String>) -> Self {
        Self { verb, ids, reason: String::new() }
    }
}

/// Reads orders to the end of the input. A line that is none is told and left out.
pub(super) fn read() -> mpsc::Receiver<Result<Order>> {
    let (sender, receiver) = mpsc::channel(16);
    tokio::spawn(async move {
        let mut input = BufReader::with_capacity(1 << 16, tokio::io::stdin());
        let mut number = 0;
        loop {
            let order = match input::line(&mut input, LINE_BYTES_MAX, &mut number).await {
                Ok(Some(line)) => {
                    parse(&String::from_utf8_lossy(&line)).map_err(|error| error.context(format!("line {number}")))
                }
                Ok(None) => return,
                Err(error) => {
                    // Where the next line begins is not known any more.
                    let _ = sender.send(Err(error)).await;
                    return;
                }
            };
            if sender.send(order).await.is_err() {
                return;
            }
        }
    });
    receiver
}

/// `ack ID…`, `nack ID… [DELAY] [: REASON]`, `release ID… [DELAY]`, `extend ID… [TIME]`.
fn parse(line: &str) -> Result<Order> {
    // No id has a colon.
    let (line, reason) = line.split_once(':').map_or((line, None), |(line, reason)| (line, Some(reason.trim())));
    let mut words: Vec<&str> = line.split_whitespace().collect();
    if words.is_empty() {
        bail!("an empty line; give ack ID…, nack ID… [DELAY] [: REASON], release ID… [DELAY] or extend ID… [TIME]");
    }
    let verb = words.remove(0);
    // An ack id is far longer than a time.
    let mut time = || {
        let time = words.last().and_then(|word| parse_duration(word).ok());
        if time.is_some() {
            words.pop();
        }
        time
    };
    let verb = match verb {
        "ack" => Verb::Ack,
        "nack" => Verb::Nack(time()),
        "release" => Verb::Release(time()),
        "extend" => Verb::Extend(time()),
        other => bail!(
            "{other:?} is no order; there are ack ID…, nack ID… [DELAY] [: REASON], release ID… [DELAY] and extend ID… [TIME]"
        ),
    };
    if words.is_empty() {
        bail!("no ack id; it stands in each record");
    }
    if words.len() > ACK_IDS_MAX {
        bail!("more than {ACK_IDS_MAX} ids; use more lines");
    }
    if reason.is_some() && !matches!(verb, Verb::Nack(_)) {
        bail!("only a nack has a reason");
    }
    let ids = words.into_iter().map(str::to_owned).collect();
    Ok(Order { verb, ids, reason: reason.unwrap_or_default().to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_a_verb_ids_and_perhaps_a_time() {
        let order = |verb, ids: &[&str]| Order::new(verb, ids.iter().map(|id| (*id).to_owned()).collect());
        assert_eq!(parse("ack AbC_-x  def\t").ok(), Some(order(Verb::Ack, &["AbC_-x", "def"])));
        assert_eq!(parse("nack abc").ok(), Some(order(Verb::Nack(None), &["abc"])));
        assert_eq!(parse("nack abc 5s").ok(), Some(order(Verb::Nack(Some(Duration::from_secs(5))), &["abc"])));
        assert_eq!(parse("release abc").ok(), Some(order(Verb::Release(None), &["abc"])));
        assert_eq!(parse("extend abc 1m").ok(), Some(order(Verb::Extend(Some(Duration::from_secs(60))), &["abc"])));
        let refused = parse("nack abc 5s : out of stock");
        assert!(refused.is_ok_and(|order| order.reason == "out of stock" && order.ids == ["abc"]));
        for wrong in ["", "  ", "ack", "nack 5s", "nack : why", "release abc : why", "ack abc : why", "acknowledge abc"]
        {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
