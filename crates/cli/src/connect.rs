//! Connections and calls: address, TLS, credential, deadline, revision.

use std::cell::RefCell;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use sluice_types::api_key::ApiKey;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Request, Response, Status};

use crate::args::Global;
use crate::revision::Revisions;

/// A connection with what every call carries.
pub(crate) struct Session {
    pub(crate) channel: Channel,
    authorization: MetadataValue<Ascii>,
    timeout: Duration,
    revisions: RefCell<Revisions>,
}

impl Session {
    /// To the gateway, with the API key.
    pub(crate) fn tenant(global: &Global) -> Result<Self> {
        let key = match (&global.key_file, &global.api_key) {
            (Some(path), _) => secret_file(path)?,
            (None, Some(key)) => key.trim().to_owned(),
            (None, None) => bail!("no API key: set SLUICE_API_KEY, or --key-file to a file that holds it"),
        };
        if key.parse::<ApiKey>().is_err() {
            bail!("the API key is not complete: it looks like sl_<env>_<id>_<secret>_<checksum>; copy it again");
        }
        Self::open(&global.url, &key, global)
    }

    /// To the operator listener, with the operator's token.
    pub(crate) fn operator(global: &Global) -> Result<Self> {
        let token = secret_file(&global.operator_token_file)
            .context("the operator's token; name its file with --operator-token-file")?;
        Self::open(&global.operator_url, &token, global)
    }

    fn open(url: &str, secret: &str, global: &Global) -> Result<Self> {
        let mut endpoint = Endpoint::from_shared(url.to_owned())
            .with_context(|| format!("{url:?} is not an address such as https://host:443"))?
            .connect_timeout(Duration::from_secs(5))
            .user_agent(concat!("sluice-cli/", env!("CARGO_PKG_VERSION")))?;
        if url.starts_with("https:") {
            let mut tls = ClientTlsConfig::new();
            tls = match &global.ca_file {
                Some(path) => tls.ca_certificate(Certificate::from_pem(
                    std::fs::read(path).with_context(|| format!("read {}", path.display()))?,
                )),
                None => tls.with_native_roots(),
            };
            endpoint = endpoint.tls_config(tls)?;
        }
        let mut authorization: MetadataValue<Ascii> =
            format!("Bearer {secret}").parse().context("the credential has characters that no header can carry")?;
        authorization.set_sensitive(true);
        Ok(Self {
            channel: endpoint.connect_lazy(),
            authorization,
            timeout: global.timeout,
            revisions: RefCell::new(Revisions::load(url)),
        })
    }

    /// A request with credential, deadline and the highest revision seen.
    pub(crate) fn request<T>(&self, message: T) -> Request<T> {
        self.request_within(message, self.timeout)
    }

    /// The same with a deadline of its own.
    pub(crate) fn request_within<T>(&self, message: T, timeout: Duration) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(timeout);
        request.metadata_mut().insert("authorization", self.authorization.clone());
        if let Some(Ok(revision)) = self.revisions.borrow().header().map(|text| text.parse()) {
            request.metadata_mut().insert("sluice-revision", revision);
        }
        request
    }

    /// The answer, after its revision is noted.
    pub(crate) fn take<T>(&self, answer: Result<Response<T>, Status>) -> Result<T> {
        let answer = answer?;
        if let Some(revision) = answer.metadata().get("sluice-revision").and_then(|text| text.to_str().ok()) {
            self.revisions.borrow_mut().observe(revision);
        }
        Ok(answer.into_inner())
    }
}

/// A new request id, which makes a retry of the same call harmless.
pub(crate) fn request_id() -> String {
    uuid::Uuid::new_v4().to_string()
}

fn secret_file(path: &Path) -> Result<String> {
    let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    Ok(text.trim().to_owned())
}
