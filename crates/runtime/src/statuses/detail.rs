//! An error as callers see it, before it is written in one protocol or the other.

use std::time::Duration;

use sluice_types::{Error, ErrorKind, Reason};

/// When to come back, if an error that asks for it does not say.
const RETRY_AFTER_DEFAULT: Duration = Duration::from_secs(1);

/// The content of an answer.
pub(super) struct Answer<'a> {
    pub(super) kind: ErrorKind,
    pub(super) reason: Reason,
    pub(super) message: &'a str,
    pub(super) field: Option<&'a str>,
    pub(super) metadata: &'a [(&'static str, String)],
    /// Whole milliseconds, rounded up.
    pub(super) retry_after: Option<Duration>,
    /// What limit was hit.
    pub(super) quota: Option<&'a str>,
    pub(super) request_id: &'a str,
}

impl<'a> Answer<'a> {
    pub(super) fn new(error: &'a Error, request_id: &'a str) -> Self {
        let retry_after = error.retry_after.or_else(|| asks_to_retry(error).then_some(RETRY_AFTER_DEFAULT));
        let limit = || error.metadata.iter().find(|(key, _)| *key == "limit").map(|(_, value)| value.as_str());
        Self {
            kind: error.kind,
            reason: error.reason,
            message: &error.message,
            field: error.field.as_deref(),
            metadata: &error.metadata,
            retry_after: retry_after.map(whole_millis),
            quota: is_quota(error.reason).then(|| limit().unwrap_or(error.reason.as_str())),
            request_id,
        }
    }
}

/// Everything that is only a matter of waiting says for how long.
fn asks_to_retry(error: &Error) -> bool {
    error.kind == ErrorKind::Unavailable
        || matches!(
            error.reason,
            Reason::RateLimited | Reason::AuthenticationRateLimited | Reason::InFlightLimited | Reason::Overloaded
        )
}

fn is_quota(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::RateLimited | Reason::AuthenticationRateLimited | Reason::InFlightLimited | Reason::QuotaExceeded
    )
}

fn whole_millis(duration: Duration) -> Duration {
    let millis = duration.as_nanos().div_ceil(1_000_000);
    Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
}

/// `Retry-After` holds whole seconds only.
pub(super) fn whole_seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}
