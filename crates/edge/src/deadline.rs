//! When the caller stops waiting.
//!
//! From `grpc-timeout`, or `x-request-timeout-ms` over HTTP; 30 s if none is sent, never more than 60 s. Everything below
//! waits within it. Whatever is still running [`MARGIN`] before the caller stops waiting is dropped and answered
//! DEADLINE_EXCEEDED, so that an answer arrives while the caller still waits for it. Handlers stop a little earlier (see
//! [`kept`]) and say what they know. A short timeout keeps a share of itself for the way back, so that some of it is left for the
//! work. Of an answer that is a stream only the beginning is bounded: the layer has done its work when the answer's head leaves.

use std::time::{Duration, Instant};

use http::HeaderMap;

use sluice_types::error::Error;
use sluice_types::{ErrorKind, Reason};

use crate::call::Protocol;
use crate::{Answer, Inner, Middleware, Next, Request, call_of};

/// The header of HTTP callers.
pub const TIMEOUT_MS: &str = "x-request-timeout-ms";
/// Without a timeout of the caller's.
pub const DEFAULT: Duration = Duration::from_secs(30);
/// Longer ones are cut.
pub const MAX: Duration = Duration::from_secs(60);

/// An answer leaves so long before the deadline, or a tenth of a short timeout before it.
pub const MARGIN: Duration = Duration::from_millis(50);

/// The layer.
pub struct Deadlines;

/// When the answer leaves at the latest; in the request's extensions.
#[derive(Debug, Clone, Copy)]
pub struct Deadline(pub Instant);

impl Deadline {
    /// How long a layer may wait and still say itself what it waited for.
    pub fn patience(&self) -> Duration {
        let left = self.0.saturating_duration_since(Instant::now());
        left - kept(left, MARGIN)
    }
}

/// What is kept of the time that is left, to say in time what became of the work: so much, or a fifth if little is left.
pub fn kept(left: Duration, most: Duration) -> Duration {
    most.min(left / 5)
}

impl Middleware for Deadlines {
    const NAME: &'static str = "deadline";

    async fn handle<S: Inner>(&self, mut request: Request, next: Next<'_, S>) -> Answer {
        let call = call_of(&request)?;
        let timeout = timeout(call.protocol, request.headers())?.unwrap_or(DEFAULT).min(MAX);
        let deadline = answer_by(call.started, timeout);
        request.extensions_mut().insert(Deadline(deadline));
        match tokio::time::timeout_at(deadline.into(), next.run(request)).await {
            Ok(answer) => answer,
            Err(_) => Err(Error::new(
                ErrorKind::DeadlineExceeded,
                Reason::DeadlineExceeded,
                format!("time was over after {} ms", timeout.as_millis()),
            )),
        }
    }
}

/// When the answer leaves: this layer's own, if there is no other.
fn answer_by(started: Instant, timeout: Duration) -> Instant {
    started + (timeout - MARGIN.min(timeout / 10))
}

fn timeout(protocol: Protocol, headers: &HeaderMap) -> Result<Option<Duration>, Error> {
    let (name, parse): (_, fn(&str) -> Option<Duration>) = match protocol {
        Protocol::Grpc => ("grpc-timeout", grpc_timeout),
        Protocol::Http => (TIMEOUT_MS, |text| text.parse().ok().filter(|ms| *ms > 0).map(Duration::from_millis)),
    };
    let Some(value) = headers.get(name) else { return Ok(None) };
    match value.to_str().ok().and_then(parse) {
        Some(timeout) => Ok(Some(timeout)),
        None => {
            let example = if protocol == Protocol::Grpc { "5S" } else { "5000" };
            Err(Error::invalid(name, format!("must be a time above zero, e.g. {example}")))
        }
    }
}

/// At most eight digits and a unit.
fn grpc_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let value: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(value * 3600),
        "M" => Duration::from_secs(value * 60),
        "S" => Duration::from_secs(value),
        "m" => Duration::from_millis(value),
        "u" => Duration::from_micros(value),
        "n" => Duration::from_nanos(value),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_leaves_before_its_caller_stops_waiting() {
        let started = Instant::now();
        assert_eq!(answer_by(started, Duration::from_millis(700)), started + Duration::from_millis(650));
        assert_eq!(answer_by(started, Duration::from_millis(10)), started + Duration::from_millis(9));
    }

    #[test]
    fn a_short_deadline_leaves_most_of_itself_for_the_work() {
        assert_eq!(kept(Duration::from_secs(30), MARGIN), MARGIN);
        assert_eq!(kept(Duration::from_millis(45), MARGIN), Duration::from_millis(9));
        assert_eq!(kept(Duration::ZERO, MARGIN), Duration::ZERO);
        let patience = Deadline(Instant::now() + Duration::from_millis(50)).patience();
        assert!(patience > Duration::from_millis(20), "{patience:?}");
    }

    #[test]
    fn timeouts_of_both_protocols_are_read_strictly() {
        assert_eq!(grpc_timeout("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        assert_eq!(grpc_timeout("250m"), Some(Duration::from_millis(250)));
        for bad in ["", "S", "1", "-1S", "1.5S", "123456789S", "1s", "1é"] {
            assert_eq!(grpc_timeout(bad), None, "{bad}");
        }
        let mut headers = HeaderMap::new();
        headers.insert(TIMEOUT_MS, "1500".parse().expect("header"));
        assert_eq!(timeout(Protocol::Http, &headers).expect("good"), Some(Duration::from_millis(1500)));
        assert_eq!(timeout(Protocol::Grpc, &headers).expect("another header"), None);
        headers.insert(TIMEOUT_MS, "0".parse().expect("header"));
        assert_eq!(timeout(Protocol::Http, &headers).expect_err("zero").field.as_deref(), Some(TIMEOUT_MS));
    }
}
