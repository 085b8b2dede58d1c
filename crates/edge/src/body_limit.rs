//! How large a body may be, before and after inflation. That of an admin call may be much smaller than one of records:
//! reading it must not cost what a batch does.
//!
//! A declared length over the limit is refused before anything is read. An undeclared one is counted as it comes. Over HTTP,
//! `content-encoding: gzip` is inflated by [`read_whole`] up to the same limit, so a small body cannot become a large one;
//! gRPC's own compression is bounded by the services' decode limit, and so is every message of a stream of requests.

use std::io::Read;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use flate2::read::MultiGzDecoder;
use http::{HeaderMap, header};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt;
use tonic::Status;

use sluice_runtime::statuses;
use sluice_types::error::Error;
use sluice_types::{ErrorKind, Reason};

use crate::{Answer, Body, Inner, Middleware, Next, Request, call_of};

/// Flag and length before a gRPC message.
const GRPC_FRAME_BYTES: u64 = 5;
/// Larger bodies are inflated off the runtime's workers.
const INFLATE_INLINE_MAX: usize = 64 << 10;
/// Memory taken for a body before its bytes come.
const RESERVE_MAX: u64 = 1 << 20;

/// The layer.
pub struct BodyLimit {
    /// Bytes of a body at most.
    pub max: u64,
}

impl Middleware for BodyLimit {
    const NAME: &'static str = "body_limit";

    async fn handle<S: Inner>(&self, request: Request, next: Next<'_, S>) -> Answer {
        let call = call_of(&request)?;
        // A stream of requests has no length; each of its messages is bounded by the service.
        if call.target.is_request_stream() {
            return next.run(request).await;
        }
        let max = call.target.body_bytes_max(self.max);
        if declared_length(request.headers())?.is_some_and(|length| length > max + GRPC_FRAME_BYTES) {
            return Err(too_large(max));
        }
        let request = request.map(|inner| match inner.is_end_stream() {
            true => inner,
            false => {
                Body::new(Bounded { inner, max, left: max + GRPC_FRAME_BYTES, request_id: call.request_id.clone() })
            }
        });
        next.run(request).await
    }
}

/// What `content-length` says.
pub fn declared_length(headers: &HeaderMap) -> Result<Option<u64>, Error> {
    let Some(value) = headers.get(header::CONTENT_LENGTH) else { return Ok(None) };
    let length = value.to_str().ok().and_then(|text| text.parse().ok());
    length.map(Some).ok_or_else(|| Error::invalid("content-length", "must be a number"))
}

/// The body of a call is over the limit.
pub fn too_large(max: u64) -> Error {
    Error::new(
        ErrorKind::InvalidArgument,
        Reason::TooLarge,
        format!("the body is larger than {max} bytes, the limit (body_bytes), before or after inflation; send less at a time"),
    )
    .with_metadata("limit", "body_bytes")
}

/// A body that fails when it becomes too large.
struct Bounded {
    inner: Body,
    max: u64,
    left: u64,
    request_id: std::sync::Arc<str>,
}

impl http_body::Body for Bounded {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        if let Some(Ok(frame)) = &frame {
            let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
            match self.left.checked_sub(bytes) {
                Some(left) => self.left = left,
                None => return Poll::Ready(Some(Err(statuses::to_tonic(&too_large(self.max), &self.request_id)))),
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// Reads an HTTP body whole and inflates it. `max` bounds it once more after inflation; `take` is told every byte that is
/// going to be held and may refuse.
pub async fn read_whole(
    headers: &HeaderMap,
    body: Body,
    max: u64,
    mut take: impl FnMut(u64) -> Result<(), Error>,
) -> Result<Bytes, Error> {
    let gzip = is_gzip(headers)?;
    let raw = collect(body).await?;
    if raw.len() as u64 > max {
        return Err(too_large(max));
    }
    if !gzip {
        return Ok(raw);
    }
    let inflated = if raw.len() > INFLATE_INLINE_MAX {
        let work = tokio::task::spawn_blocking(move || inflate(&raw, max));
        work.await.map_err(Error::internal)??
    } else {
        inflate(&raw, max)?
    };
    take(inflated.len() as u64)?;
    Ok(inflated)
}

fn is_gzip(headers: &HeaderMap) -> Result<bool, Error> {
    let mut values = headers.get_all(header::CONTENT_ENCODING).iter();
    let first = values.next();
    let text = first.map(|value| value.to_str().unwrap_or_default().trim().to_ascii_lowercase());
    match text.as_deref() {
        _ if values.next().is_some() => Err(Error::invalid("content-encoding", "must be given once")),
        None | Some("identity") => Ok(false),
        Some("gzip") => Ok(true),
        Some(_) => Err(Error::invalid("content-encoding", "must be gzip or identity")),
    }
}

async fn collect(mut body: Body) -> Result<Bytes, Error> {
    let expected = body.size_hint().lower().min(RESERVE_MAX) as usize;
    let mut first: Option<Bytes> = None;
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|status| body_error(&status))?;
        let Ok(data) = frame.into_data() else { continue };
        match &first {
            // Most bodies are one frame, which is not copied.
            None if whole.is_empty() => first = Some(data),
            _ => {
                if let Some(first) = first.take() {
                    whole.reserve(expected.max(first.len() + data.len()));
                    whole.extend_from_slice(&first);
                }
                whole.extend_from_slice(&data);
            }
        }
    }
    Ok(first.unwrap_or_else(|| whole.freeze()))
}

/// A body that could not be read: our own refusal, or a caller that stopped sending.
fn body_error(status: &Status) -> Error {
    if status.details().is_empty() {
        Error::new(ErrorKind::InvalidArgument, Reason::MalformedBody, "the body ended early")
    } else {
        statuses::from_tonic(status)
    }
}

fn inflate(raw: &[u8], max: u64) -> Result<Bytes, Error> {
    let mut inflated = Vec::new();
    let read = MultiGzDecoder::new(raw).take(max + 1).read_to_end(&mut inflated);
    if inflated.len() as u64 > max {
        return Err(too_large(max));
    }
    match read {
        Ok(_) => Ok(inflated.into()),
        Err(cause) => Err(Error::new(
            ErrorKind::InvalidArgument,
            Reason::MalformedBody,
            "content-encoding says gzip, but the body is not a whole gzip stream; send all of it, or leave the header out",
        )
        .with_source(cause)),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes).expect("memory");
        encoder.finish().expect("memory")
    }

    async fn read(encoding: Option<&str>, body: Vec<u8>, max: u64) -> Result<Bytes, Error> {
        let mut headers = HeaderMap::new();
        if let Some(encoding) = encoding {
            headers.insert(header::CONTENT_ENCODING, encoding.parse().expect("header"));
        }
        read_whole(&headers, Body::new(http_body_util::Full::from(body)), max, |_| Ok(())).await
    }

    #[tokio::test]
    async fn a_body_is_inflated_up_to_the_limit_and_no_further() {
        let text = b"hello ".repeat(10);
        assert_eq!(read(None, text.clone(), 60).await.expect("fits"), text);
        assert_eq!(read(Some("gzip"), gzip(&text), 60).await.expect("fits"), text);
        assert_eq!(read(Some("GZIP"), gzip(&text), 59).await.expect_err("one too many").reason, Reason::TooLarge);
        let bomb = gzip(&vec![0; 64 << 20]);
        assert!(bomb.len() > INFLATE_INLINE_MAX / 2);
        assert_eq!(read(Some("gzip"), bomb, 8 << 20).await.expect_err("a bomb").reason, Reason::TooLarge);
    }

    #[tokio::test]
    async fn a_truncated_or_unknown_encoding_is_said_so() {
        let mut short = gzip(b"hello hello hello");
        short.truncate(short.len() - 6);
        assert_eq!(read(Some("gzip"), short, 1000).await.expect_err("short").reason, Reason::MalformedBody);
        assert_eq!(read(Some("gzip"), b"plain".to_vec(), 1000).await.expect_err("plain").reason, Reason::MalformedBody);
        let error = read(Some("br"), b"x".to_vec(), 1000).await.expect_err("unknown");
        assert_eq!(error.field.as_deref(), Some("content-encoding"));
    }

    #[tokio::test]
    async fn many_frames_come_out_as_one_body() {
        let frames =
            futures::stream::iter(["a", "bc", "", "d"].map(|part| Ok::<_, Status>(Frame::data(Bytes::from(part)))));
        let body = Body::new(http_body_util::StreamBody::new(frames));
        assert_eq!(collect(body).await.expect("whole"), "abcd");
    }

    #[tokio::test]
    async fn an_undeclared_length_is_counted() {
        let inner = Body::new(http_body_util::Full::from(vec![0u8; 100]));
        let body = Bounded { inner, max: 50, left: 55, request_id: "id".into() };
        assert_eq!(collect(Body::new(body)).await.expect_err("too large").reason, Reason::TooLarge);
    }
}
