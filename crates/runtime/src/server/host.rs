//! Which host a request is for: named once, and the same in every place that names it (RFC 9112 section 3.2, RFC 9113 section
//! 8.3.1). Two names are how a request is smuggled past a proxy that reads the other one.

use http::uri::Authority;
use http::{HeaderMap, Request, Version, header};
use sluice_types::Error;

use crate::body::BoxBody;
use crate::statuses::{request_id, to_grpc_response, to_http};

/// Refuses a request that names no host, two, or one that is no host.
pub(super) fn check<B>(request: &Request<B>) -> Result<(), Error> {
    let mut values = request.headers().get_all(header::HOST).iter();
    let host = match (values.next(), values.next()) {
        (Some(_), Some(_)) => return Err(Error::invalid("host", "is there twice; send it once")),
        (Some(value), None) => Some(value.to_str().map_err(|_| malformed())?),
        (None, _) => None,
    };
    // An empty one is what a client sends that has no host to name.
    let host = host.map(|host| if host.is_empty() { Ok(None) } else { authority(host).map(Some) }).transpose()?;
    match (request.version(), host) {
        (Version::HTTP_11, None) => Err(Error::invalid("host", "is missing; HTTP/1.1 asks for it")),
        // The target's own name goes before the header's (RFC 9112 section 3.2.2).
        (Version::HTTP_09 | Version::HTTP_10 | Version::HTTP_11, _) => Ok(()),
        (_, Some(host)) if !same(request.uri().authority(), host.as_ref()) => {
            Err(Error::invalid("host", "and :authority name different hosts; send one of them, or both alike"))
        }
        _ => Ok(()),
    }
}

/// The refusal in the caller's protocol. No layer comes after it, so it has a request id of its own.
pub(super) fn refuse(headers: &HeaderMap, error: &Error) -> http::Response<BoxBody> {
    let request_id = request_id(headers);
    let content_type = headers.get(header::CONTENT_TYPE).map(http::HeaderValue::as_bytes);
    match content_type.is_some_and(|value| value.starts_with(b"application/grpc")) {
        true => to_grpc_response(error, &request_id),
        false => to_http(error, &request_id),
    }
}

fn malformed() -> Error {
    Error::invalid("host", "must be a host and, if need be, a port: `example.com:8080`")
}

fn authority(text: &str) -> Result<Authority, Error> {
    let authority = text.parse::<Authority>().map_err(|_| malformed())?;
    if authority.as_str().contains('@') { Err(malformed()) } else { Ok(authority) }
}

/// Names are alike in any case; a port that the scheme implies need not be said.
fn same(authority: Option<&Authority>, host: Option<&Authority>) -> bool {
    let (Some(authority), Some(host)) = (authority, host) else { return true };
    let implied = |port: Option<u16>| port.filter(|port| !matches!(port, 80 | 443));
    authority.host().eq_ignore_ascii_case(host.host()) && implied(authority.port_u16()) == implied(host.port_u16())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statuses::REQUEST_ID;

    fn request(version: Version, uri: &str, hosts: &[&str]) -> Request<()> {
        let mut request = Request::get(uri).version(version).body(()).expect("request");
        for host in hosts {
            request.headers_mut().append(header::HOST, host.parse().expect("header"));
        }
        request
    }

    #[test]
    fn a_refusal_has_a_request_id_in_either_protocol() {
        let id = |response: http::Response<BoxBody>| {
            let ids: Vec<_> = response.headers().get_all(REQUEST_ID).iter().cloned().collect();
            assert_eq!(ids.len(), 1, "{ids:?}");
            ids[0].clone()
        };
        let of = |sent: Option<&str>, content_type: Option<&str>| {
            let mut headers = HeaderMap::new();
            sent.map(|sent| headers.insert(REQUEST_ID, sent.parse().expect("header")));
            content_type.map(|text| headers.insert(header::CONTENT_TYPE, text.parse().expect("header")));
            id(refuse(&headers, &malformed()))
        };
        for content_type in [None, Some("application/grpc")] {
            assert_eq!(of(Some("mine-1"), content_type), "mine-1");
            assert!(!of(None, content_type).is_empty() && of(Some("not mine"), content_type) != "not mine");
        }
    }

    #[test]
    fn a_request_names_its_host_once_and_alike() {
        let h1 = |hosts: &[&str]| check(&request(Version::HTTP_11, "/x", hosts)).is_ok();
        assert!(h1(&["a.example"]) && h1(&["[::1]:80"]) && h1(&[""]));
        assert!(!h1(&[]) && !h1(&["a", "a"]) && !h1(&["a b"]) && !h1(&["user@a"]) && !h1(&["a/b"]));
        assert!(check(&request(Version::HTTP_10, "/x", &[])).is_ok(), "HTTP/1.0 does not know the header");
        let h2 = |hosts: &[&str]| check(&request(Version::HTTP_2, "http://a.example:80/x", hosts)).is_ok();
        assert!(h2(&[]) && h2(&["A.example"]) && h2(&["a.example:80"]));
        assert!(!h2(&["b.example"]) && !h2(&["a.example:81"]) && !h2(&["a.example", "a.example"]));
    }
}
