//! What is known of a call outside of its authentication: ids, protocol, route, and facts that inner layers add for the
//! answer's headers and the access log.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

use sluice_proto::{Audience, RouteError, RouteMatch, Rpc, match_route, rpc_by_path};
use sluice_types::error::Error;
use sluice_types::limits::ADMIN_BODY_BYTES_MAX;
use sluice_types::{AccountUid, ErrorKind, Reason, Revision, TenantUid};

use crate::layers::browsers;
use crate::quota::RateState;

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
    /// An RPC for tenants, by gRPC.
    Grpc(&'static Rpc),
    /// An RPC for tenants, by HTTP.
    Http(RouteMatch),
    /// gRPC health, reflection or the OpenAPI document, which need no credential.
    Open,
    /// Nowhere.
    Nowhere(RouteError),
    /// A gRPC call whose messages are in another format than protobuf.
    Foreign(Box<str>),
}

/// Services that need no credential.
const OPEN_SERVICES: &[&str] =
    &["/grpc.health.v1.Health/", "/grpc.reflection.v1.ServerReflection/", "/grpc.reflection.v1alpha.ServerReflection/"];

/// The path of the OpenAPI document.
pub(crate) const OPENAPI_PATH: &str = "/openapi.json";

/// Packages whose calls go to other processes.
const FORWARDED: &[&str] = &["sluice.admin.", "sluice.billing."];

impl Target {
    /// Finds it.
    pub fn of(protocol: Protocol, method: &http::Method, path: &str, headers: &http::HeaderMap) -> Self {
        match protocol {
            Protocol::Grpc if foreign_format(headers).is_some() => {
                Self::Foreign(foreign_format(headers).unwrap_or_default().into())
            }
            Protocol::Grpc if OPEN_SERVICES.iter().any(|open| path.starts_with(open)) => Self::Open,
            Protocol::Grpc => match rpc_by_path(path).filter(|rpc| rpc.audience == Audience::Tenant) {
                Some(rpc) => Self::Grpc(rpc),
                None => Self::Nowhere(RouteError::NotFound),
            },
            Protocol::Http if path == OPENAPI_PATH => match *method {
                http::Method::GET => Self::Open,
                _ => Self::Nowhere(RouteError::MethodNotAllowed { allow: http::Method::GET.to_string() }),
            },
            Protocol::Http => match match_route(Audience::Tenant, method, path) {
                Ok(route) => Self::Http(route),
                Err(error) => Self::Nowhere(error),
            },
        }
    }

    /// The RPC, if it is one of ours.
    pub fn rpc(&self) -> Option<&'static Rpc> {
        match self {
            Self::Grpc(rpc) => Some(rpc),
            Self::Http(route) => Some(route.rpc),
            Self::Open | Self::Nowhere(_) | Self::Foreign(_) => None,
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

    /// Whether another process answers it, as it does admin and usage calls. They have limits of their own, so that neither
    /// data keeps them away nor they data.
    pub fn is_forwarded(&self) -> bool {
        self.rpc().is_some_and(|rpc| FORWARDED.iter().any(|package| rpc.service.starts_with(package)))
    }

    /// Bytes of its body at most.
    pub fn body_bytes_max(&self, configured: u64) -> u64 {
        if self.is_forwarded() { configured.min(ADMIN_BODY_BYTES_MAX as u64) } else { configured }
    }

    /// A word for logs and metrics, from a fixed set.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Grpc(rpc) => rpc.method,
            Self::Http(route) => route.rpc.method,
            Self::Open => "open",
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
pub(crate) fn foreign(format: &str) -> Error {
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
pub(crate) fn nowhere(protocol: Protocol, error: &RouteError, path: &str) -> Error {
    let what = "this service has no such method or path; the API reference lists them";
    match (error, protocol) {
        (RouteError::NotFound, Protocol::Grpc) => Error::new(ErrorKind::Unimplemented, Reason::RouteNotFound, what),
        (RouteError::NotFound, Protocol::Http) => Error::new(ErrorKind::NotFound, Reason::RouteNotFound, what),
        (RouteError::MethodNotAllowed { allow }, _) => {
            Error::new(ErrorKind::Unimplemented, Reason::RouteNotFound, format!("this path takes {allow}"))
                .with_metadata(ALLOW, browsers::allow(path).unwrap_or_else(|| allow.clone()))
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
