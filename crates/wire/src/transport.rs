//! TCP and TLS: opens a byte stream to a broker within a deadline.

use std::io;
use std::sync::Arc;

use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::config::Security;
use crate::error::{Error, Result};

/// A stream to a broker, plain or TLS.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Where a broker listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Address {
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl Address {
    /// Parses `host:port`; an IPv6 host stands in brackets.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let invalid = || Error::InvalidRequest(format!("broker address {text:?} is not host:port"));
        let (host, port) = text.rsplit_once(':').ok_or_else(invalid)?;
        let port = port.parse().map_err(|_| invalid())?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() {
            return Err(invalid());
        }
        Ok(Self { host: host.to_owned(), port })
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// Connects; the caller bounds it by its deadline.
pub(crate) async fn open(address: &Address, security: &Security) -> Result<Box<dyn Stream>> {
    let connect_error = |error: io::Error| Error::Connect { address: address.to_string(), source: Arc::new(error) };
    let tcp = TcpStream::connect((address.host.as_str(), address.port)).await.map_err(connect_error)?;
    tcp.set_nodelay(true).map_err(connect_error)?;
    // Closing means resetting: what the broker has not received is not delivered afterwards. An offset commit that was given
    // up as unanswered and sent again elsewhere must not arrive later and undo the ones after it.
    tcp.set_zero_linger().map_err(connect_error)?;
    let Some(tls) = &security.tls else { return Ok(Box::new(tcp)) };
    let tls_error = |error: io::Error| match error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()) {
        true => Error::Tls { address: address.to_string(), source: Arc::new(error) },
        // Cut off within the handshake, as by a broker that goes down: says nothing about trust.
        false => connect_error(error),
    };
    let name = ServerName::try_from(address.host.clone()).map_err(|error| {
        let source = io::Error::new(io::ErrorKind::InvalidInput, error);
        Error::Tls { address: address.to_string(), source: Arc::new(source) }
    })?;
    let stream = TlsConnector::from(Arc::clone(tls)).connect(name, tcp).await.map_err(tls_error)?;
    Ok(Box::new(stream))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn what_a_broker_did_not_take_is_dropped_with_the_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = Address { host: "127.0.0.1".to_owned(), port: listener.local_addr().unwrap().port() };
        let mut ours = open(&address, &Security::default()).await.unwrap();
        let (mut brokers, _) = listener.accept().await.unwrap();
        // More than the buffers of both sides: some of it waits at ours.
        let written = tokio::time::timeout(std::time::Duration::from_millis(500), async {
            ours.write_all(&vec![1; 64 << 20]).await.unwrap();
        });
        assert!(written.await.is_err(), "the broker does not read");
        drop(ours);
        let mut received = Vec::new();
        let end = brokers.read_to_end(&mut received).await;
        assert_eq!(end.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }

    #[test]
    fn addresses_need_host_and_port() {
        let v6 = Address::parse("[::1]:9092").unwrap();
        assert_eq!((v6.host.as_str(), v6.port), ("::1", 9092));
        for text in ["", "host", ":9092", "host:", "host:99999"] {
            assert!(Address::parse(text).is_err(), "{text}");
        }
    }
}
