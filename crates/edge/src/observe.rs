//! One line in the access log and one tick of the metrics for every call, whatever becomes of it.
//!
//! Tenant and account go into the log, never into labels. A caller that goes away before the answer is counted, too.

use std::sync::Arc;
use std::time::Instant;

use tonic::Code;

use crate::call::{Call, Protocol};
use crate::metrics::CallMetrics;
use crate::{Answer, Inner, Middleware, Next, Request, Response, call_of};

/// The layer.
pub struct Observe {
    /// The listener's name in the log.
    pub listener: &'static str,
    /// Where calls are counted.
    pub metrics: CallMetrics,
}

/// Counts the call when it is dropped, also when the caller has gone away.
struct Observation<'a> {
    listener: &'static str,
    metrics: &'a CallMetrics,
    call: Arc<Call>,
    code: &'static str,
}

impl Middleware for Observe {
    const NAME: &'static str = "observe";

    async fn handle<S: Inner>(&self, request: Request, next: Next<'_, S>) -> Answer {
        let call = call_of(&request)?;
        self.metrics.in_flight.inc();
        let mut observation =
            Observation { listener: self.listener, metrics: &self.metrics, call, code: "CLIENT_GONE" };
        let answer = next.run(request).await;
        observation.code = answer.as_ref().map_or("INTERNAL", |response| code_of(observation.call.protocol, response));
        answer
    }
}

impl Drop for Observation<'_> {
    fn drop(&mut self) {
        let took = Instant::now().duration_since(self.call.started);
        self.metrics.in_flight.dec();
        self.metrics.record(self.call.target.label(), self.call.protocol.as_str(), self.code, took);
        let facts = self.call.facts.lock().clone();
        tracing::info!(
            target: "access",
            listener = self.listener,
            request_id = %self.call.request_id,
            rpc = self.call.target.label(),
            protocol = self.call.protocol.as_str(),
            code = self.code,
            reason = facts.failure.map(|(_, reason)| reason.as_str()),
            tenant = facts.tenant.map(|uid| uid.to_string()),
            account = facts.account.map(|uid| uid.to_string()),
            peer = %self.call.peer,
            took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
        );
    }
}

/// The outcome, from a fixed set of words.
fn code_of(protocol: Protocol, response: &Response) -> &'static str {
    match protocol {
        // A stream that fails later says so in trailers; then this is OK, and the handler counts its own.
        Protocol::Grpc => match response.headers().get("grpc-status") {
            Some(code) => grpc_word(Code::from_bytes(code.as_bytes())),
            None => "OK",
        },
        Protocol::Http => match response.status().as_u16() {
            200..=299 | 304 => "OK",
            400 => "INVALID_ARGUMENT",
            401 => "UNAUTHENTICATED",
            403 => "PERMISSION_DENIED",
            404 => "NOT_FOUND",
            405 | 501 => "UNIMPLEMENTED",
            409 => "ABORTED",
            429 => "RESOURCE_EXHAUSTED",
            499 => "CANCELLED",
            503 => "UNAVAILABLE",
            504 => "DEADLINE_EXCEEDED",
            _ => "INTERNAL",
        },
    }
}

fn grpc_word(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Unavailable => "UNAVAILABLE",
        Code::Unauthenticated => "UNAUTHENTICATED",
        Code::Unknown | Code::Internal | Code::DataLoss => "INTERNAL",
    }
}
