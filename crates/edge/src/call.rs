//! What is known of a call outside of its authentication: ids, protocol, route, and facts that inner layers add for the
//! answer's headers and the access log.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use sluice_proto::{Audience, RouteError, RouteMatch, Rpc, match_route, rpc_by_path};
use sluice_types::error::Error;
use sluice_types::limits::ADMIN_BODY_BYTES_MAX;
use sluice_types::{AccountUid, ErrorKind, Reason, Revision, TenantUid};

use crate::browsers;

/// How the caller speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// gRPC.
    Grpc,
    /// HTTP with JSON.
    Http,
}

impl Protocol {
    /// gRPC announces itself in the content type.
    pub fn of(headers: &http::HeaderMap) -> Self {
        let content_type = headers.get(http::header::CONTENT_TYPE).map(http::HeaderValue::as_bytes);
        match content_type.and_then(|value| value.strip_prefix(b"application/grpc")) {
            Some([] | [b'+' | b';', ..]) => Self::Grpc,
            _ => Self::Http,
        }
    }

    /// Its word in logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::Http => "http",
        }
    }
}

/// Where a call goes.
#[derive(Debug, Clone)]
pub enum Target {
    /// An RPC, by gRPC.
    Grpc(&'static Rpc),
    /// An RPC, by HTTP.
    Http(RouteMatch),
    /// gRPC health, reflection or the OpenAPI document. A listener decides whether they need a credential.
    Common,
    /// Nowhere.
    Nowhere(RouteError),
    /// A gRPC call whose messages are in another format than protobuf.
    Foreign(Box<str>),
}

/// Services that are none of ours.
const COMMON_SERVICES: &[&str] =
    &["/grpc.health.v1.Health/", "/grpc.reflection.v1.ServerReflection/", "/grpc.reflection.v1alpha.ServerReflection/"];

/// The path of the OpenAPI document.
pub const OPENAPI_PATH: &str = "/openapi.json";

/// Packages of calls that manage and look, as opposed to calls with records.
const ADMIN: &[&str] = &["sluice.admin.", "sluice.billing.", "sluice.operator."];

impl Target {
    /// Finds it among the calls of one audience.
    pub fn of(
        audience: Audience,
        protocol: Protocol,
        method: &http::Method,
        path: &str,
        headers: &http::HeaderMap,
    ) -> Self {
        let found = match protocol {
            Protocol::Grpc if foreign_format(headers).is_some() => {
                return Self::Foreign(foreign_format(headers).unwrap_or_default().into());
            }
            Protocol::Grpc if COMMON_SERVICES.iter().any(|common| path.starts_with(common)) => return Self::Common,
            Protocol::Grpc => match rpc_by_path(path).filter(|rpc| rpc.audience == audience) {
                Some(rpc) => return Self::Grpc(rpc),
                None => Err(RouteError::NotFound),
            },
            Protocol::Http if path == OPENAPI_PATH => match *method {
                http::Method::GET => return Self::Common,
                _ => Err(RouteError::MethodNotAllowed { allow: String::new() }),
            },
            Protocol::Http => match_route(audience, method, path),
        };
        match found {
            Ok(route) => Self::Http(route),
            Err(RouteError::MethodNotAllowed { allow }) => {
                Self::Nowhere(RouteError::MethodNotAllowed { allow: browsers::allow(audience, path).unwrap_or(allow) })
            }
            Err(error) => Self::Nowhere(error),
        }
    }

    /// The RPC, if it is one of ours.
    pub fn rpc(&self) -> Option<&'static Rpc> {
        match self {
            Self::Grpc(rpc) => Some(rpc),
            Self::Http(route) => Some(route.rpc),
            Self::Common | Self::Nowhere(_) | Self::Foreign(_) => None,
        }
    }

    /// Whether the caller sends a stream of messages, as long as it likes.
    pub fn is_request_stream(&self) -> bool {
        self.rpc().is_some_and(|rpc| rpc.client_streaming)
    }

    /// Whether it may go on for long because nothing happens: streams of answers. Questions that wait for records are too, which
    /// their handlers tell: see `DataCall::waits`.
    pub fn is_long(&self) -> bool {
        self.rpc().is_some_and(|rpc| rpc.server_streaming)
    }

    /// Whether it gives records: looking at it as `HEAD` does would begin a stream, or read and charge what nobody gets.
    pub fn gives_records(&self) -> bool {
        self.rpc().is_some_and(|rpc| rpc.gives_records)
    }

    /// Whether it manages or looks, and carries no records. Such calls have limits of their own, so that neither data keeps
    /// them away nor they data.
    pub fn is_admin(&self) -> bool {
        self.rpc().is_some_and(|rpc| ADMIN.iter().any(|package| rpc.service.starts_with(package)))
    }

    /// Bytes of its body at most.
    pub fn body_bytes_max(&self, configured: u64) -> u64 {
        if self.is_admin() { configured.min(ADMIN_BODY_BYTES_MAX as u64) } else { configured }
    }

    /// A word for logs and metrics, from a fixed set.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Grpc(rpc) => rpc.method,
            Self::Http(route) => route.rpc.method,
            Self::Common => "open",
            Self::Nowhere(_) | Self::Foreign(_) => "nowhere",
        }
    }
}

/// The format of the messages of a gRPC call, if it is not protobuf: `json` of `application/grpc+json`.
fn foreign_format(headers: &http::HeaderMap) -> Option<&str> {
    let content_type = headers.get(http::header::CONTENT_TYPE)?.to_str().unwrap_or("+unknown");
    let format = content_type.split(';').next()?.trim().strip_prefix("application/grpc")?.strip_prefix('+')?;
    (format != "proto").then_some(format)
}

/// The error for messages in another format.
pub fn foreign(format: &str) -> Error {
    Error::new(
        ErrorKind::Unimplemented,
        Reason::MalformedBody,
        format!(
            "messages in the format `{format}` are not understood; send protobuf as `application/grpc`, or JSON over HTTP"
        ),
    )
}

/// The metadata key under which a 405 carries its `Allow`.
pub(crate) const ALLOW: &str = "allow";

/// The error for a call to a path that goes nowhere.
pub fn nowhere(protocol: Protocol, error: &RouteError) -> Error {
    let what = "this service has no such method or path; the API reference lists them";
    match (error, protocol) {
        (RouteError::NotFound, Protocol::Grpc) => Error::new(ErrorKind::Unimplemented, Reason::RouteNotFound, what),
        (RouteError::NotFound, Protocol::Http) => Error::new(ErrorKind::NotFound, Reason::RouteNotFound, what),
        (RouteError::MethodNotAllowed { allow }, _) => {
            Error::new(ErrorKind::Unimplemented, Reason::RouteNotFound, format!("this path takes {allow}"))
                .with_metadata(ALLOW, allow)
        }
        (RouteError::Malformed { field }, _) => Error::invalid(*field, "in the path is not well percent-encoded UTF-8"),
    }
}

/// One call; in the request's extensions as `Arc<Call>`.
#[derive(Debug)]
pub struct Call {
    /// `x-request-id`.
    pub request_id: Arc<str>,
    /// How the caller speaks.
    pub protocol: Protocol,
    /// Where it goes.
    pub target: Target,
    /// W3C trace context, if the caller sent a valid one.
    pub traceparent: Option<Arc<str>>,
    /// The peer's address.
    pub peer: IpAddr,
    /// When it came.
    pub started: Instant,
    /// Added on the way.
    pub facts: Mutex<Facts>,
}

/// What inner layers tell outer ones.
#[derive(Debug, Default, Clone)]
pub struct Facts {
    /// The tenant, once the credential is verified.
    pub tenant: Option<TenantUid>,
    /// The account, once the credential is verified.
    pub account: Option<AccountUid>,
    /// The revision that the answer is based on.
    pub revision: Option<Revision>,
    /// Where the tenant stands with its request rate.
    pub rate: Option<RateState>,
    /// Why the call failed.
    pub failure: Option<(ErrorKind, Reason)>,
}

/// Where a caller stands with its request rate, for `RateLimit-*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateState {
    /// Requests a second, in the long run.
    pub per_second: u64,
    /// Requests that could come at once after a pause.
    pub limit: u64,
    /// Requests that could follow at once now.
    pub remaining: u64,
    /// Until all of the burst is free again.
    pub reset: Duration,
}
