//! Fields of requests: each fault named with its limit and the remedy.

use std::ops::RangeInclusive;
use std::time::Duration;

use sluice_proto::stream::v1::PayloadEncoding;
use sluice_proto::wkt;
use sluice_types::error::Error;
use sluice_types::limits::{ACK_IDS_MAX, GROUP_TOPICS_MAX, NACK_REASON_BYTES_MAX};

/// 1..`max`, or 0 for a default.
pub(super) fn bounded(field: &str, value: i32, default: usize, max: usize) -> Result<usize, Error> {
    match usize::try_from(value) {
        Ok(0) => Ok(default),
        Ok(value) if value <= max => Ok(value),
        _ => Err(Error::invalid(field, format!("is {value}; it must be 1..{max}, or 0 for {default}"))),
    }
}

/// A span of time within bounds in milliseconds.
pub(super) fn time(
    field: &str,
    value: Option<wkt::Duration>,
    bounds: RangeInclusive<i64>,
) -> Result<Option<Duration>, Error> {
    let Some(value) = value else { return Ok(None) };
    let millis = value.as_millis();
    let sign = i64::from(value.nanos % 1_000_000).signum();
    // A part of a millisecond beyond a bound is beyond it.
    let beyond = (millis == *bounds.start() && sign < 0) || (millis == *bounds.end() && sign > 0);
    match u64::try_from(millis) {
        Ok(whole) if bounds.contains(&millis) && !beyond => Ok(Some(Duration::from_millis(whole))),
        _ => {
            let (from, to) = (seconds(*bounds.start()), seconds(*bounds.end()));
            Err(Error::invalid(field, format!("must be {from}..{to}, e.g. {to:?}")))
        }
    }
}

fn seconds(millis: i64) -> String {
    match millis % 1_000 {
        0 => format!("{}s", millis / 1_000),
        part => format!("{}.{part:03}s", millis / 1_000),
    }
}

/// A known encoding.
pub(super) fn encoding(value: i32) -> Result<PayloadEncoding, Error> {
    PayloadEncoding::try_from(value).map_err(|_| {
        Error::invalid(
            "encoding",
            format!("is {value}, which is none; it must be PAYLOAD_ENCODING_BYTES, PAYLOAD_ENCODING_TEXT or PAYLOAD_ENCODING_JSON"),
        )
    })
}

/// 1..10,000 ids.
pub(super) fn ack_ids(ids: &[String]) -> Result<(), Error> {
    match ids.len() {
        0 => Err(Error::invalid("ackIds", "is empty; send at least one")),
        1..=ACK_IDS_MAX => Ok(()),
        many => Err(Error::invalid("ackIds", format!("has {many} ids, more than {ACK_IDS_MAX}; send several calls"))),
    }
}

/// Why a record is refused.
pub(super) fn reason(reason: &str) -> Result<(), Error> {
    match reason.len() {
        0..=NACK_REASON_BYTES_MAX => Ok(()),
        long => {
            Err(Error::invalid("reason", format!("has {long} bytes, more than {NACK_REASON_BYTES_MAX}; shorten it")))
        }
    }
}

/// Topics to make a group with.
pub(super) fn topics(topics: &[String]) -> Result<(), Error> {
    match topics.len() {
        0..=GROUP_TOPICS_MAX => Ok(()),
        many => Err(Error::invalid("topics", format!("has {many} topics, more than {GROUP_TOPICS_MAX}; name fewer"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_held_to_their_bounds_exactly() {
        let check = |seconds, nanos| time("wait", Some(wkt::Duration { seconds, nanos }), 0..=30_000);
        assert_eq!(time("wait", None, 0..=1).expect("absent"), None);
        assert_eq!(check(30, 0).expect("the most"), Some(Duration::from_secs(30)));
        assert_eq!(check(1, 500_000_000).expect("good"), Some(Duration::from_millis(1_500)));
        for (seconds, nanos) in [(30, 1), (31, 0), (0, -1), (-1, 0), (i64::MAX, 0)] {
            let error = check(seconds, nanos).expect_err("out of bounds");
            assert_eq!(error.field.as_deref(), Some("wait"));
            assert!(error.message.contains("0s..30s"), "{}", error.message);
        }
    }

    #[test]
    fn counts_and_words_are_named_with_their_limits() {
        assert_eq!(bounded("maxRecords", 0, 100, 1_000).expect("default"), 100);
        for (error, wanted) in [
            (bounded("maxRecords", 1_001, 100, 1_000).expect_err("over"), "1..1000"),
            (bounded("maxRecords", -1, 100, 1_000).expect_err("under"), "1..1000"),
            (encoding(9).expect_err("unknown"), "is 9"),
            (ack_ids(&[]).expect_err("none"), "at least one"),
            (ack_ids(&vec![String::new(); 10_001]).expect_err("many"), "10000"),
            (reason(&"x".repeat(1_001)).expect_err("long"), "1000"),
            (topics(&vec![String::new(); 17]).expect_err("many"), "16"),
        ] {
            assert!(error.message.contains(wanted), "{}", error.message);
        }
    }
}
