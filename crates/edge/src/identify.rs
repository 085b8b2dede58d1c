//! Request id, route, trace.
//!
//! A caller's request id is taken over if it is 1..128 characters of `A-Za-z0-9._:-`, else one is made; it is in every
//! answer and log line. A `traceparent` is taken over if it is well-formed (W3C level 1), else ignored: it goes into record
//! headers, so nothing else may get through. The route was found by the service ([`crate::service`]), once.
//! On the way out this layer adds `x-request-id`, `sluice-revision`, `ratelimit-*`.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Instant;

use http::{HeaderMap, HeaderName, HeaderValue};
use tracing::Instrument;

use sluice_runtime::server::ConnInfo;
use sluice_runtime::statuses::REQUEST_ID;
use sluice_types::Revision;
use sluice_types::error::Error;

use crate::call::{Call, Facts, Protocol, Target};
use crate::{Answer, Inner, Middleware, Next, Request};

/// The header and metadata key with a revision, both ways.
pub const REVISION: &str = "sluice-revision";
const TRACEPARENT: &str = "traceparent";

/// The layer.
pub struct Identify;

impl Middleware for Identify {
    const NAME: &'static str = "identify";

    async fn handle<S: Inner>(&self, mut request: Request, next: Next<'_, S>) -> Answer {
        let target = request.extensions_mut().remove::<Target>();
        let target = target.ok_or_else(|| Error::internal("a request came past the service"))?;
        let call = Arc::new(identify(&request, target));
        request.extensions_mut().insert(Arc::clone(&call));
        let span = tracing::info_span!(
            "call",
            request_id = %call.request_id,
            rpc = call.target.label(),
            traceparent = call.traceparent.as_deref(),
        );
        let mut answer = next.run(request).instrument(span).await;
        if let Ok(response) = &mut answer {
            let facts = call.facts.lock().clone();
            finish(response.headers_mut(), &call.request_id, &facts);
        }
        answer
    }
}

fn identify(request: &Request, target: Target) -> Call {
    let headers = request.headers();
    let protocol = Protocol::of(headers);
    let conn = request.extensions().get::<ConnInfo>();
    Call {
        request_id: request_id(headers),
        protocol,
        target,
        traceparent: traceparent(headers),
        peer: conn.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |conn| conn.peer.ip().to_canonical()),
        started: Instant::now(),
        facts: Default::default(),
    }
}

fn finish(headers: &mut HeaderMap, request_id: &str, facts: &Facts) {
    if let Ok(id) = HeaderValue::from_str(request_id) {
        headers.insert(HeaderName::from_static(REQUEST_ID), id);
    }
    if let Some(applied) = facts.revision {
        set_revision(headers, applied);
    }
    if let Some(rate) = facts.rate {
        headers.insert(HeaderName::from_static("ratelimit-limit"), rate.limit.into());
        if let Ok(policy) = HeaderValue::from_str(&format!("{};w=1;burst={}", rate.per_second, rate.limit)) {
            headers.insert(HeaderName::from_static("ratelimit-policy"), policy);
        }
        headers.insert(HeaderName::from_static("ratelimit-remaining"), rate.remaining.into());
        let reset = rate.reset.as_secs() + u64::from(rate.reset.subsec_nanos() > 0);
        headers.insert(HeaderName::from_static("ratelimit-reset"), reset.into());
    }
}

/// The higher of ours and what a forwarded mutation answered: the caller must not lose sight of its own change.
fn set_revision(headers: &mut HeaderMap, applied: Revision) {
    let answered = headers.get(REVISION).and_then(|value| value.to_str().ok()?.parse::<Revision>().ok());
    let newer = |answered: Revision| answered.topic_id == applied.topic_id && answered.offset > applied.offset;
    if !answered.is_some_and(newer)
        && let Ok(value) = HeaderValue::from_str(&applied.to_string())
    {
        headers.insert(HeaderName::from_static(REVISION), value);
    }
}

fn request_id(headers: &HeaderMap) -> Arc<str> {
    sluice_runtime::statuses::request_id(headers).into()
}

fn traceparent(headers: &HeaderMap) -> Option<Arc<str>> {
    let mut values = headers.get_all(TRACEPARENT).iter();
    let value = values.next()?.to_str().ok()?;
    (values.next().is_none() && is_traceparent(value)).then(|| value.into())
}

/// `00-{32 hex}-{16 hex}-{2 hex}`, lower case, ids not zero. Other versions are not passed on.
fn is_traceparent(text: &str) -> bool {
    let hex = |part: &str, len: usize| {
        part.len() == len && part.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    let zero = |part: &str| part.bytes().all(|b| b == b'0');
    let mut parts = text.split('-');
    match (parts.next(), parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some("00"), Some(trace), Some(span), Some(flags), None) => {
            hex(trace, 32) && !zero(trace) && hex(span, 16) && !zero(span) && hex(flags, 2)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_well_formed_traces_get_through() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert!(is_traceparent(good));
        for bad in [
            "",
            &good[1..],
            &good.to_uppercase(),
            &format!("{good}-00"),
            &good.replacen("00", "ff", 1),
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
        ] {
            assert!(!is_traceparent(bad), "{bad}");
        }
    }

    #[test]
    fn a_request_id_that_could_harm_a_log_is_replaced() {
        let id = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(REQUEST_ID, HeaderValue::from_str(text).expect("header"));
            request_id(&headers)
        };
        assert_eq!(&*id("a-1:b.c_D"), "a-1:b.c_D");
        for bad in ["", "a b", "a\"b", &"x".repeat(129)] {
            assert_ne!(&*id(bad), bad);
        }
        assert_ne!(request_id(&HeaderMap::new()), request_id(&HeaderMap::new()));
    }

    #[test]
    fn the_answer_carries_the_higher_revision() {
        let applied = Revision { topic_id: [1; 16], offset: 5 };
        for (answered, wanted) in [
            (None, applied),
            (Some(Revision { offset: 9, ..applied }), Revision { offset: 9, ..applied }),
            (Some(Revision { offset: 3, ..applied }), applied),
            (Some(Revision { topic_id: [2; 16], offset: 9 }), applied),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(answered) = answered {
                headers.insert(REVISION, HeaderValue::from_str(&answered.to_string()).expect("header"));
            }
            set_revision(&mut headers, applied);
            assert_eq!(headers[REVISION].to_str().expect("text"), wanted.to_string());
        }
    }
}
