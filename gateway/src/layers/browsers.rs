//! What browsers and caches ask of HTTP beside the calls themselves: `HEAD`, `OPTIONS`, and CORS.
//!
//! `HEAD` is `GET` without its body, except for what gives records: it would begin a stream, or read and charge what nobody gets. `OPTIONS` says which methods a path takes. A
//! page of another origin may call the gateway if the configuration names its origin: its preflight is answered without a
//! credential, because browsers send none, and its answers say that it may read them. No cookies are involved, so a page can do
//! no more than who gave it a key.

use std::sync::Arc;

use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, ALLOW, CONTENT_LENGTH, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use http_body::Body as _;

use sluice_proto::{Audience, Rpc, allowed_methods, match_route};
use sluice_runtime::body::{BoxBody, empty};

use crate::layers::call::OPENAPI_PATH;

/// How long a browser may remember what a preflight said: as long as browsers do.
const MAX_AGE: HeaderValue = HeaderValue::from_static("7200");
/// What a page may read of an answer beside its body.
const EXPOSED: HeaderValue = HeaderValue::from_static(
    "x-request-id, sluice-revision, ratelimit-limit, ratelimit-remaining, ratelimit-reset, ratelimit-policy, retry-after, \
     retry-after-ms, allow, etag",
);
const VARY_PREFLIGHT: HeaderValue =
    HeaderValue::from_static("origin, access-control-request-method, access-control-request-headers");
/// Any origin.
pub const ANY: &str = "*";

/// The origins whose pages may call.
#[derive(Debug, Clone, Default)]
pub struct Origins(Arc<[String]>);

impl Origins {
    /// `https://console.example.com`, or `*` for all.
    pub fn new(origins: &[String]) -> Self {
        Self(origins.iter().map(|origin| origin.to_ascii_lowercase()).collect())
    }

    /// What to answer a page of the request's origin.
    fn allowed(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let origin = headers.get(ORIGIN)?;
        let text = origin.to_str().ok()?.to_ascii_lowercase();
        self.0.iter().find(|known| *known == ANY || **known == text).map(|known| match known.as_str() {
            ANY => HeaderValue::from_static(ANY),
            _ => origin.clone(),
        })
    }
}

/// What is asked beside the call.
pub(super) struct Asked {
    head: bool,
    origin: Option<HeaderValue>,
    /// Answers differ by origin.
    vary: bool,
}

impl Asked {
    /// Looks at a request, and makes `HEAD` of what gives no records a `GET`.
    pub(super) fn of<B>(origins: &Origins, request: &mut http::Request<B>) -> Self {
        let head = request.method() == Method::HEAD && has_head(request.uri().path());
        if head {
            *request.method_mut() = Method::GET;
        }
        Self { head, origin: origins.allowed(request.headers()), vary: !origins.0.is_empty() }
    }

    /// The answer to `OPTIONS`; `None` for other methods and for paths that do not exist.
    pub(super) fn options<B>(&self, request: &http::Request<B>) -> Option<http::Response<BoxBody>> {
        if request.method() != Method::OPTIONS {
            return None;
        }
        let allow = HeaderValue::from_str(&allow(request.uri().path())?).ok()?;
        let mut response = http::Response::new(empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        let headers = response.headers_mut();
        if request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD)
            && let Some(origin) = &self.origin
        {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            headers.insert(ACCESS_CONTROL_ALLOW_METHODS, allow.clone());
            // Whatever it is: record headers have names of the caller's choice.
            if let Some(asked) = request.headers().get(ACCESS_CONTROL_REQUEST_HEADERS) {
                headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, asked.clone());
            }
            headers.insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE);
        }
        headers.insert(ALLOW, allow);
        headers.insert(VARY, VARY_PREFLIGHT);
        Some(response)
    }

    /// The answer to the call, as it was asked for.
    pub(super) fn finish(self, mut response: http::Response<BoxBody>) -> http::Response<BoxBody> {
        if self.vary {
            response.headers_mut().append(VARY, HeaderValue::from_static("origin"));
        }
        if let Some(origin) = self.origin {
            response.headers_mut().insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            response.headers_mut().insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
        }
        if !self.head {
            return response;
        }
        if let Some(length) = response.body().size_hint().exact() {
            response.headers_mut().entry(CONTENT_LENGTH).or_insert_with(|| length.into());
        }
        response.map(|_| empty())
    }
}

/// The methods of a path, as `Allow` lists them.
pub(super) fn allow(path: &str) -> Option<String> {
    let mut methods = match path {
        OPENAPI_PATH => vec![Method::GET],
        path => allowed_methods(Audience::Tenant, path),
    };
    if methods.is_empty() {
        return None;
    }
    if has_head(path) {
        methods.push(Method::HEAD);
    }
    methods.push(Method::OPTIONS);
    Some(methods.iter().map(Method::as_str).collect::<Vec<_>>().join(", "))
}

fn has_head(path: &str) -> bool {
    path == OPENAPI_PATH
        || match_route(Audience::Tenant, &Method::GET, path).is_ok_and(|route| !gives_records(route.rpc))
}

fn gives_records(rpc: &Rpc) -> bool {
    rpc.server_streaming || matches!(rpc.method, "Fetch" | "Pull")
}

/// Whether a text is an origin as browsers send it, or `*`.
pub fn is_origin(text: &str) -> bool {
    let plain = |uri: http::Uri| {
        let scheme = matches!(uri.scheme_str(), Some("http" | "https"));
        scheme && uri.authority().is_some_and(|authority| text.ends_with(authority.as_str()))
    };
    text == ANY || text.parse().is_ok_and(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_scheme_host_and_port_and_nothing_else() {
        for good in ["*", "https://console.example.com", "http://localhost:3000"] {
            assert!(is_origin(good), "{good}");
        }
        for bad in ["", "example.com", "https://a.example/", "https://a.example/x", "ftp://a", "null"] {
            assert!(!is_origin(bad), "{bad}");
        }
    }
}
