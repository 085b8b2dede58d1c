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

use sluice_proto::{Audience, RouteError, allowed_methods, match_route};
use sluice_runtime::body::{BoxBody, empty};

use crate::call::{OPENAPI_PATH, Protocol, Target};

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
pub(crate) struct Asked {
    head: bool,
    origin: Option<HeaderValue>,
    /// Answers differ by origin.
    vary: bool,
}

impl Asked {
    /// Looks at a request and finds where it goes; makes `HEAD` of what gives no records a `GET`.
    pub(crate) fn of<B>(origins: &Origins, audience: Audience, request: &mut http::Request<B>) -> (Self, Target) {
        let protocol = Protocol::of(request.headers());
        let find = |method: &Method| Target::of(audience, protocol, method, request.uri().path(), request.headers());
        let (head, target) = match *request.method() {
            Method::HEAD if protocol == Protocol::Http => match find(&Method::GET) {
                target @ Target::Nowhere(RouteError::NotFound) => (false, target),
                target if may_look(&target) => (true, target),
                _ => (false, find(&Method::HEAD)),
            },
            ref method => (false, find(method)),
        };
        if head {
            *request.method_mut() = Method::GET;
        }
        let asked = Self { head, origin: origins.allowed(request.headers()), vary: !origins.0.is_empty() };
        (asked, target)
    }

    /// The answer to `OPTIONS`; `None` for other methods and for paths that do not exist.
    pub(crate) fn options<B>(&self, audience: Audience, request: &http::Request<B>) -> Option<http::Response<BoxBody>> {
        if request.method() != Method::OPTIONS {
            return None;
        }
        let allow = HeaderValue::from_str(&allow(audience, request.uri().path())?).ok()?;
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
    pub(crate) fn finish(self, mut response: http::Response<BoxBody>) -> http::Response<BoxBody> {
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

/// The methods of a path, as `Allow` lists them; `None`: there is no such path.
pub(crate) fn allow(audience: Audience, path: &str) -> Option<String> {
    let mut methods = match path {
        OPENAPI_PATH => vec![Method::GET],
        path => allowed_methods(audience, path),
    };
    if methods.is_empty() {
        return None;
    }
    // Not by `Target::of`, which asks here.
    let got = match_route(audience, &Method::GET, path).map(Target::Http);
    if path == OPENAPI_PATH || got.is_ok_and(|target| may_look(&target)) {
        methods.push(Method::HEAD);
    }
    methods.push(Method::OPTIONS);
    Some(methods.iter().map(Method::as_str).collect::<Vec<_>>().join(", "))
}

/// Whether what `GET` finds may be asked for without its body.
fn may_look(target: &Target) -> bool {
    matches!(target, Target::Http(_) | Target::Common) && !target.gives_records()
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
