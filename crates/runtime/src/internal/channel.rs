//! A gRPC channel to another of our processes: mutual TLS, lazily connected, given up quickly, connected anew.
//!
//! A call while the server is away fails within a second with UNAVAILABLE; a connection that went silent (a stopped process,
//! a cut network) is found by pings within eight seconds, also while idle. Per-call deadlines are the caller's, with
//! [`CALL_MAX`] behind them.

use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};

use crate::tls::{InternalTls, TlsError};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const PING_INTERVAL: Duration = Duration::from_secs(5);
const PING_TIMEOUT: Duration = Duration::from_secs(3);
/// No call waits longer for its response headers.
pub const CALL_MAX: Duration = Duration::from_secs(120);
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;

/// A channel to `host:port`, where a process of role `expect_role` must answer.
///
/// # Errors
/// The address is not `host:port`, or our own certificate cannot be used. Nothing is connected yet.
pub fn internal_channel(addr: &str, tls: &InternalTls, expect_role: &str) -> Result<Channel, TlsError> {
    let not_an_address = || TlsError::Address(addr.to_owned());
    let (host, port) = addr.rsplit_once(':').ok_or_else(not_an_address)?;
    if host.is_empty() || port.parse::<u16>().is_err() {
        return Err(not_an_address());
    }
    // The connection is TLS all the same: the scheme only keeps tonic from adding its own.
    let endpoint = Endpoint::from_shared(format!("http://{addr}"))
        .map_err(|_| not_an_address())?
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(CALL_MAX)
        .http2_keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
    let connector = TlsConnector::from(tls.client_config(expect_role)?);
    let name = ServerName::try_from(format!("{expect_role}.sluice.internal")).map_err(|_| not_an_address())?;
    let target: Arc<(String, TlsConnector, ServerName<'static>)> = Arc::new((addr.to_owned(), connector, name));
    let connect = tower::service_fn(move |_: http::Uri| {
        let target = target.clone();
        async move {
            let (addr, connector, name) = &*target;
            let connected = timeout(CONNECT_TIMEOUT, async {
                let tcp = TcpStream::connect(addr.as_str()).await?;
                tcp.set_nodelay(true)?;
                connector.connect(name.clone(), tcp).await
            });
            connected.await.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into())).map(TokioIo::new)
        }
    });
    Ok(endpoint.connect_with_connector_lazy(connect))
}
