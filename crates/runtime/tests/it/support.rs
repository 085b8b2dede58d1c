//! A certificate authority, a server with a service that shows what it got, and a bare HTTP/1.1 client.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, PKCS_ED25519, SanType};
use sluice_runtime::BoxBody;
use sluice_runtime::body::full;
use sluice_runtime::config::{InternalTlsConfig, TlsFiles};
use sluice_runtime::server::{
    BodyTimeout, ConnHandle, ConnInfo, ConnMetrics, Edge, RequestBody, ServeReport, bind, serve_counted,
};
use sluice_runtime::tls::{InternalTls, ReloadingTls};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Nothing in these tests takes longer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Pki {
    pub(crate) dir: tempfile::TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Pki {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().expect("directory");
        let key = KeyPair::generate_for(&PKCS_ED25519).expect("key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).expect("CA");
        std::fs::write(dir.path().join("ca.pem"), certificate.pem()).expect("write");
        Self { dir, issuer: Issuer::new(params, key) }
    }

    pub(crate) fn ca(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    pub(crate) fn issue(&self, stem: &str, uris: &[&str]) -> InternalTlsConfig {
        let key = KeyPair::generate_for(&PKCS_ED25519).expect("key");
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).expect("params");
        for uri in uris {
            params.subject_alt_names.push(SanType::URI((*uri).try_into().expect("URI")));
        }
        let certificate = params.signed_by(&key, &self.issuer).expect("certificate");
        let cert = self.dir.path().join(format!("{stem}.pem"));
        let key_file = self.dir.path().join(format!("{stem}.key"));
        std::fs::write(&cert, certificate.pem()).expect("write");
        write_private(&key_file, &key.serialize_pem());
        InternalTlsConfig { ca: self.ca(), cert, key: key_file }
    }

    pub(crate) fn process(&self, role: &str) -> InternalTls {
        let config = self.issue(role, &[&format!("spiffe://sluice/{role}/one")]);
        InternalTls::load(&config).expect("identity")
    }

    pub(crate) fn public(&self, stem: &str) -> TlsFiles {
        let files = self.issue(stem, &[]);
        TlsFiles { cert: files.cert, key: files.key, client_ca: None }
    }
}

pub(crate) fn write_private(path: &Path, content: &str) {
    std::fs::write(path, content).expect("write");
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).expect("chmod");
}

/// A server with the service below.
pub(crate) struct Server {
    pub(crate) addr: SocketAddr,
    pub(crate) shutdown: CancellationToken,
    /// `/hold` waits for one of these.
    pub(crate) gate: Arc<Semaphore>,
    /// Gets one for each `/hold` that waits.
    pub(crate) held: Arc<Semaphore>,
    pub(crate) metrics: ConnMetrics,
    done: JoinHandle<ServeReport>,
}

impl Server {
    pub(crate) async fn start(edge: Edge, tls: Option<ReloadingTls>, drain: Duration) -> Self {
        let listener = bind(([127, 0, 0, 1], 0).into()).await.expect("bind");
        Self::on(listener, edge, tls, drain, CancellationToken::new())
    }

    pub(crate) fn on(
        listener: tokio::net::TcpListener,
        edge: Edge,
        tls: Option<ReloadingTls>,
        drain: Duration,
        shutdown: CancellationToken,
    ) -> Self {
        let addr = listener.local_addr().expect("address");
        let (gate, held) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        let (inner_gate, inner_held) = (gate.clone(), held.clone());
        let make = move |_: &ConnInfo| {
            let (gate, held) = (inner_gate.clone(), inner_held.clone());
            tower::service_fn(move |request| answer(request, gate.clone(), held.clone()))
        };
        let metrics = ConnMetrics::default();
        let serving = serve_counted(listener, tls, edge, make, shutdown.clone(), drain, metrics.clone());
        Self { addr, shutdown, gate, held, metrics, done: tokio::spawn(serving) }
    }

    pub(crate) async fn connect(&self) -> tokio::net::TcpStream {
        tokio::net::TcpStream::connect(self.addr).await.expect("connect")
    }

    pub(crate) async fn until_held(&self) {
        self.held.acquire().await.expect("open").forget();
    }

    pub(crate) async fn stop(self) -> ServeReport {
        self.shutdown.cancel();
        tokio::time::timeout(PATIENCE, self.done).await.expect("drains in time").expect("does not panic")
    }
}

/// Bytes of `/large`: more than sockets buffer.
pub(crate) const LARGE: usize = 64 << 20;

/// Bytes of a body that `/limited` takes, and what it says of more.
pub(crate) const REFUSED_AT: (usize, u16) = (8 << 20, 413);

/// `/refuse/{status}` answers at once; `/limited` when it has read enough; `/trust` vouches for who asks; `/` says who asks; `/hold` waits for the gate; `/large` is large; a POST says how long its body was, or 408.
async fn answer(
    request: Request<RequestBody>,
    gate: Arc<Semaphore>,
    held: Arc<Semaphore>,
) -> Result<Response<BoxBody>, Infallible> {
    let info = request.extensions().get::<ConnInfo>().expect("every request has one").clone();
    let path = request.uri().path().to_owned();
    if path == "/trust" {
        request.extensions().get::<ConnHandle>().expect("every request has one").trust();
    }
    if path == "/hold" {
        held.add_permits(1);
        gate.acquire().await.expect("open").forget();
    }
    if let Some(status) = path.strip_prefix("/refuse/") {
        return Ok(refusal(status.parse().expect("a status")));
    }
    if path == "/limited" {
        let mut body = http_body_util::Limited::new(request.into_body(), REFUSED_AT.0);
        while let Some(frame) = body.frame().await {
            if frame.is_err() {
                return Ok(refusal(REFUSED_AT.1));
            }
        }
        return Ok(Response::new(full("taken")));
    }
    if path == "/large" {
        return Ok(Response::new(full(vec![0u8; LARGE])));
    }
    let text = match request.into_body().collect().await {
        Ok(body) => {
            let role = info.client.as_ref().map_or("nobody", |peer| peer.role.as_str()).to_owned();
            format!("{role} sent {}", body.to_bytes().len())
        }
        Err(error) => {
            assert!(error.is::<BodyTimeout>(), "{error}");
            let mut response = Response::new(full("too slow"));
            *response.status_mut() = http::StatusCode::REQUEST_TIMEOUT;
            return Ok(response);
        }
    };
    Ok(Response::new(full(text)))
}

fn refusal(status: u16) -> Response<BoxBody> {
    let mut response = Response::new(full("refused"));
    *response.status_mut() = http::StatusCode::from_u16(status).expect("a status");
    response
}

/// Reads one HTTP/1.1 answer: head and body as text. `None` when the connection ended cleanly before its first byte.
pub(crate) async fn read_answer(stream: &mut (impl AsyncRead + Unpin)) -> std::io::Result<Option<String>> {
    let mut text = Vec::new();
    let mut buffer = [0u8; 1024];
    loop {
        if let Some(head) = find(&text, b"\r\n\r\n") {
            let head_text = String::from_utf8_lossy(&text[..head]).to_lowercase();
            let length = head_text
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "))
                .and_then(|length| length.parse::<usize>().ok())
                .unwrap_or_default();
            if text.len() >= head + 4 + length {
                return Ok(Some(String::from_utf8_lossy(&text).into_owned()));
            }
        }
        match tokio::time::timeout(PATIENCE, stream.read(&mut buffer)).await?? {
            0 if text.is_empty() => return Ok(None),
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            count => text.extend_from_slice(&buffer[..count]),
        }
    }
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|window| window == what)
}

/// Sends a request on a keep-alive connection and reads its answer.
pub(crate) async fn exchange(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    path: &str,
) -> std::io::Result<Option<String>> {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n").as_bytes()).await?;
    stream.flush().await?;
    read_answer(stream).await
}

/// Waits for the end of a connection, and says whether it was clean.
pub(crate) async fn until_closed(stream: &mut (impl AsyncRead + Unpin)) -> std::io::Result<()> {
    let mut rest = Vec::new();
    tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await?.map(|_| ())
}

/// An HTTP/2 client on a stream.
pub(crate) async fn h2_client(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> (hyper::client::conn::http2::SendRequest<http_body_util::Full<Bytes>>, JoinHandle<hyper::Result<()>>) {
    let io = hyper_util::rt::TokioIo::new(stream);
    let executor = hyper_util::rt::TokioExecutor::new();
    let (client, connection) = hyper::client::conn::http2::handshake(executor, io).await.expect("handshake");
    (client, tokio::spawn(connection))
}

pub(crate) fn get(path: &str) -> Request<http_body_util::Full<Bytes>> {
    Request::get(format!("http://a{path}")).body(http_body_util::Full::default()).expect("request")
}

pub(crate) async fn text_of(response: Response<hyper::body::Incoming>) -> String {
    let bytes = response.into_body().collect().await.expect("body").to_bytes();
    String::from_utf8_lossy(&bytes).into_owned()
}
