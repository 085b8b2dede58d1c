//! The time of a record, and which times a topic takes.
//!
//! A topic that keeps records by their producers' time deletes one that is older than its retention as soon as it looks, whatever
//! was answered. So such a record is refused, alone; and Kafka keeps each record for three hours beyond the retention, so that
//! the oldest that is taken can be read, and its usage counted. A topic that keeps records by the time of appending takes any.

use sluice_proto::wkt::Timestamp;
use sluice_types::error::Error;
use sluice_types::{ErrorKind, Reason};

use super::Rules;

/// How far in the future a record's time may lie. Brokers allow an hour more, because clocks differ: they refuse whole batches
/// for one record.
pub(super) const FUTURE_MS_MAX: i64 = 3_600_000;

/// The time in milliseconds, as Kafka has times; 0 would mean "now" to the producer.
pub(super) fn check(timestamp: Timestamp, rules: &Rules<'_>) -> Result<i64, String> {
    let millis = timestamp.as_millis();
    if rules.log_append_time {
        return match timestamp.is_valid() {
            true => Ok(millis),
            false => Err("must be in the years 1 to 9999".to_owned()),
        };
    }
    if !timestamp.is_valid() || millis < 1 {
        return Err("must be after 1970-01-01T00:00:00Z".to_owned());
    }
    if millis > rules.now_ms.saturating_add(FUTURE_MS_MAX) {
        return Err("must be at most an hour in the future; correct the clock, or leave it out".to_owned());
    }
    Ok(millis)
}

/// Why the topic cannot take a record of this time, if so.
pub(super) fn misfit(time_ms: i64, rules: &Rules<'_>) -> Option<String> {
    let age_ms_max = rules.age_ms_max?;
    let is_old = rules.now_ms.saturating_sub(time_ms) > age_ms_max;
    is_old.then(|| {
        format!(
            "is {}, but the topic keeps records for {} only, so this one would be deleted at once; it was not stored; correct the \
             time, raise the topic's retention, or write to a topic with timestampPolicy LOG_APPEND_TIME",
            Timestamp::from_millis(time_ms),
            in_words(age_ms_max)
        )
    })
}

pub(super) fn too_old(field: String, what: &str) -> Error {
    let mut error = Error::new(ErrorKind::InvalidArgument, Reason::TimestampTooOld, format!("{field}: {what}"));
    error.field = Some(field);
    error
}

fn in_words(span_ms: i64) -> String {
    const UNITS: [(i64, &str); 4] = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "min"), (1_000, "s")];
    let unit = UNITS.iter().find(|(length, _)| span_ms % length == 0);
    unit.map_or_else(|| format!("{span_ms} ms"), |(length, name)| format!("{} {name}", span_ms / length))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_764_000_000_000;
    const RETENTION: i64 = 3 * 3_600_000;
    const BY_CREATION: Rules<'static> = Rules {
        partitions: 1,
        keyless: 0,
        compacted: false,
        age_ms_max: Some(RETENTION),
        log_append_time: false,
        traceparent: None,
        now_ms: NOW,
    };

    #[test]
    fn a_record_may_be_as_old_as_the_retention_and_no_older() {
        assert_eq!(misfit(NOW - RETENTION, &BY_CREATION), None);
        let what = misfit(NOW - RETENTION - 1, &BY_CREATION).expect("too old");
        for part in ["2025-11-24T12:59:59.999Z", "3 h", "LOG_APPEND_TIME"] {
            assert!(what.contains(part), "{what}");
        }
        assert_eq!(misfit(1, &Rules { age_ms_max: None, ..BY_CREATION }), None);
    }

    #[test]
    fn a_topic_by_append_time_takes_any_time() {
        let by_append = Rules { age_ms_max: None, log_append_time: true, ..BY_CREATION };
        for time in [Timestamp::from_millis(-1), Timestamp::from_millis(NOW + 10 * FUTURE_MS_MAX)] {
            assert_eq!(check(time, &by_append), Ok(time.as_millis()));
            assert!(check(time, &BY_CREATION).is_err());
        }
        let never = Timestamp { seconds: i64::MAX, nanos: 0 };
        assert!(check(never, &by_append).is_err() && check(never, &BY_CREATION).is_err());
    }

    #[test]
    fn spans_are_told_in_their_largest_whole_unit() {
        let spans = [(604_800_000, "7 d"), (90_000, "90 s"), (1_500, "1500 ms")];
        spans.iter().for_each(|(span, words)| assert_eq!(in_words(*span), *words));
    }
}
