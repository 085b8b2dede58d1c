//! Calls without a typed client: the exact bytes that go out and come back, for tests that compare or break them.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use bytes::{BufMut, Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::transport::Channel;
use tower::ServiceExt;

/// Header or trailer names with their values in order.
pub type Fields = BTreeMap<String, Vec<Vec<u8>>>;

/// A whole answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawAnswer {
    /// The HTTP status.
    pub status: u16,
    /// The headers; over gRPC the trailers, too. Values of names that end in `-bin` are decoded.
    pub headers: Fields,
    /// The body; over gRPC the message without its frame.
    pub body: Vec<u8>,
}

impl RawAnswer {
    /// The first value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        std::str::from_utf8(self.headers.get(name)?.first()?).ok()
    }

    /// The gRPC code: 0 is OK.
    pub fn grpc_code(&self) -> Option<i32> {
        self.header("grpc-status")?.parse().ok()
    }

    /// Every byte of it, to look for what must not be there.
    pub fn all_bytes(&self) -> Vec<u8> {
        let mut bytes = self.body.clone();
        for (name, values) in &self.headers {
            bytes.extend_from_slice(name.as_bytes());
            values.iter().for_each(|value| bytes.extend_from_slice(value));
        }
        bytes
    }

    /// For reading in a failure.
    pub fn shown(&self) -> String {
        let headers: Vec<String> = self
            .headers
            .iter()
            .flat_map(|(name, values)| values.iter().map(move |value| (name, value)))
            .map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value).escape_debug()))
            .collect();
        format!("{} [{}] {}", self.status, headers.join("; "), String::from_utf8_lossy(&self.body).escape_debug())
    }
}

/// A unary gRPC call of any method with any message; `gzip`: the message is compressed already, and said to be.
///
/// # Errors
/// If the connection fails, or the answer is not framed as gRPC.
pub async fn grpc(
    channel: &Channel,
    path: &str,
    metadata: &[(&str, &str)],
    message: &[u8],
    gzip: bool,
) -> Result<RawAnswer> {
    let mut frame = BytesMut::with_capacity(message.len() + 5);
    frame.put_u8(u8::from(gzip));
    frame.put_u32(u32::try_from(message.len())?);
    frame.put_slice(message);
    let mut request = http::Request::post(path).header("content-type", "application/grpc").header("te", "trailers");
    if gzip {
        request = request.header("grpc-encoding", "gzip");
    }
    for (name, value) in metadata {
        request = request.header(*name, *value);
    }
    let request = request.body(tonic::body::Body::new(Full::new(frame.freeze())))?;
    let response = channel.clone().oneshot(request).await?;
    let (head, body) = response.into_parts();
    let collected = body.collect().await.map_err(|status| anyhow::anyhow!("the body broke off: {status}"))?;
    let mut headers = fields(&head.headers)?;
    if let Some(trailers) = collected.trailers() {
        headers.extend(fields(trailers)?);
    }
    let bytes = collected.to_bytes();
    let body = match bytes.split_at_checked(5) {
        _ if bytes.is_empty() => Vec::new(),
        Some((frame, message)) => {
            ensure!(frame[0] == 0, "a compressed answer to a caller that takes none");
            message.to_vec()
        }
        None => bail!("an answer of {} bytes is no gRPC frame", bytes.len()),
    };
    Ok(RawAnswer { status: head.status.as_u16(), headers, body })
}

/// An HTTP call with exactly this path; nothing is normalized.
///
/// # Errors
/// If the connection fails or the answer does not come in time.
pub async fn http(
    address: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
    within: Duration,
) -> Result<RawAnswer> {
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {address}\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    let length_given = headers.iter().any(|(name, _)| matches!(*name, "content-length" | "transfer-encoding"));
    if !body.is_empty() && !length_given {
        head.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    head.push_str("\r\n");
    let mut bytes = head.into_bytes();
    bytes.extend_from_slice(body);
    let call = async {
        let mut stream = TcpStream::connect(address).await.context("connect")?;
        // A server that has refused already may close while we still send: its answer counts.
        let _ = stream.write_all(&bytes).await;
        read_answer(&mut stream).await
    };
    tokio::time::timeout(within, call).await.with_context(|| format!("{method} {path}: no answer within {within:?}"))?
}

async fn read_answer(stream: &mut TcpStream) -> Result<RawAnswer> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
        ensure!(stream.read_buf(&mut bytes).await? > 0, "closed before the end of the headers");
    };
    let head = String::from_utf8(bytes[..end].to_vec())?;
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).context("no status line")?.parse()?;
    let mut headers = Fields::new();
    for line in lines {
        let (name, value) = line.split_once(':').context("a header without a colon")?;
        headers.entry(name.to_ascii_lowercase()).or_default().push(value.trim().as_bytes().to_vec());
    }
    let mut body = bytes[end + 4..].to_vec();
    let length: usize = match headers.get("content-length").and_then(|values| values.first()) {
        Some(value) => String::from_utf8_lossy(value).parse()?,
        None => bail!("an answer without content-length: {head}"),
    };
    while body.len() < length {
        ensure!(stream.read_buf(&mut body).await? > 0, "closed within the body");
    }
    body.truncate(length);
    Ok(RawAnswer { status, headers, body })
}

fn fields(map: &http::HeaderMap) -> Result<Fields> {
    let mut fields = Fields::new();
    for (name, value) in map {
        let value = match name.as_str().ends_with("-bin") {
            true => STANDARD_NO_PAD.decode(value.to_str()?.trim_end_matches('=')).context("a binary header")?,
            false => value.as_bytes().to_vec(),
        };
        fields.entry(name.as_str().to_owned()).or_default().push(value);
    }
    Ok(fields)
}

/// A gzip stream of these bytes.
///
/// # Errors
/// Never: memory takes all.
pub fn gzip(bytes: &[u8]) -> Result<Vec<u8>> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes)?;
    Ok(encoder.finish()?)
}

/// A body for HTTP/1.1 whose length is not declared: one chunk per slice.
pub fn chunked(parts: &[Bytes]) -> Vec<u8> {
    let mut body = Vec::new();
    for part in parts {
        body.extend_from_slice(format!("{:x}\r\n", part.len()).as_bytes());
        body.extend_from_slice(part);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"0\r\n\r\n");
    body
}
