//! Which protocol a connection speaks, by its first bytes.
//!
//! HTTP/2 begins with a fixed preface (with prior knowledge and after ALPN alike); everything else is HTTP/1.1 and its parser's
//! business.

use std::io;

use bytes::Bytes;
use tokio::io::AsyncReadExt;
use tokio::time::timeout;

use super::edge::Edge;
use super::io::Stream;

const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    Http1,
    H2,
}

/// The version and the bytes read so far; `None` when the peer left without a word, as probes do.
pub(super) async fn sniff(stream: &mut Stream, edge: &Edge) -> io::Result<Option<(Version, Bytes)>> {
    let mut buffer = [0u8; H2_PREFACE.len()];
    let mut filled = timeout(edge.first_byte_timeout, stream.read(&mut buffer)).await??;
    if filled == 0 {
        return Ok(None);
    }
    let rest = async {
        while filled < H2_PREFACE.len() && H2_PREFACE.starts_with(&buffer[..filled]) {
            match stream.read(&mut buffer[filled..]).await? {
                0 => break,
                count => filled += count,
            }
        }
        Ok::<_, io::Error>(())
    };
    timeout(edge.header_timeout, rest).await??;
    let version = if buffer[..filled] == *H2_PREFACE { Version::H2 } else { Version::Http1 };
    Ok(Some((version, Bytes::copy_from_slice(&buffer[..filled]))))
}
