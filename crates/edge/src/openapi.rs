//! `GET /openapi.json`: the OpenAPI document, which changes only with the build. Tools keep it and ask whether it is still the
//! same (RFC 9110 section 13.1.2).

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body_util::Full;

use crate::{Body, Response};

/// A cache may answer for so long by itself: processes of two builds are side by side during a roll-out.
const PUBLIC: HeaderValue = HeaderValue::from_static("public, max-age=300");
/// Where it takes a credential, only the caller's own cache may keep it.
const PRIVATE: HeaderValue = HeaderValue::from_static("private, max-age=300");

/// A document with its tag.
#[derive(Clone)]
pub struct Document {
    text: Bytes,
    etag: HeaderValue,
    cache: HeaderValue,
}

impl Document {
    /// For everybody.
    pub fn public(text: &'static str) -> Self {
        Self::new(text, PUBLIC)
    }

    /// For those with a credential.
    pub fn private(text: &'static str) -> Self {
        Self::new(text, PRIVATE)
    }

    /// The tag is a hash of the text: processes of one build give the same one.
    fn new(text: &'static str, cache: HeaderValue) -> Self {
        let hash = blake3::hash(text.as_bytes()).to_hex();
        let etag = HeaderValue::try_from(format!("\"{}\"", &hash[..32])).expect("hexadecimal digits in quotes");
        Self { text: Bytes::from_static(text.as_bytes()), etag, cache }
    }

    /// The document, or 304 for who has it already.
    pub fn answer(&self, asked: &HeaderMap) -> Response {
        let has_it = self.is_known_to(asked);
        let body = if has_it { Body::empty() } else { Body::new(Full::new(self.text.clone())) };
        let mut response = http::Response::new(body);
        if has_it {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
        } else {
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        response.headers_mut().insert(header::ETAG, self.etag.clone());
        response.headers_mut().insert(header::CACHE_CONTROL, self.cache.clone());
        response
    }

    /// `If-None-Match`: `*`, or a list of tags that are compared weakly.
    fn is_known_to(&self, asked: &HeaderMap) -> bool {
        let lists = asked.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
        let mut tags = lists.flat_map(|list| list.split(',')).map(str::trim);
        tags.any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag).as_bytes() == self.etag.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_the_document_is_told_that_it_is_the_same() {
        let document = Document::public("{}");
        let ask = |tag: Option<&str>| {
            let mut headers = HeaderMap::new();
            if let Some(tag) = tag {
                headers.insert(header::IF_NONE_MATCH, tag.parse().expect("header"));
            }
            document.answer(&headers)
        };
        let first = ask(None);
        assert_eq!(first.status(), StatusCode::OK);
        let etag = first.headers()[header::ETAG].to_str().expect("text").to_owned();
        for same in [etag.clone(), format!("W/{etag}"), format!("\"other\", {etag}"), "*".into()] {
            let answer = ask(Some(&same));
            assert_eq!(answer.status(), StatusCode::NOT_MODIFIED, "{same}");
            assert_eq!(answer.headers()[header::ETAG], etag);
        }
        for other in ["\"other\"".to_owned(), etag.replace('"', "")] {
            assert_eq!(ask(Some(&other)).status(), StatusCode::OK, "{other}");
        }
        assert_ne!(Document::public("[]").etag, document.etag);
    }
}
