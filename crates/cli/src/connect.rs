//! Connections and calls: address, TLS, credential, deadline, revision.

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use sluice_types::api_key::ApiKey;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Request, Response, Status};

use crate::args::Global;
use crate::failure::{self, Usage};
use crate::revision::Revisions;

/// A connection with what every call carries.
pub(crate) struct Session {
    pub(crate) channel: Channel,
    url: String,
    authorization: MetadataValue<Ascii>,
    timeout: Duration,
    revisions: RefCell<Revisions>,
    /// Whether Sluice answered a call.
    was_answered: Cell<bool>,
}

impl Session {
    /// Whether there is a key to call the gateway with.
    pub(crate) fn is_configured(global: &Global) -> bool {
        let named = || ["SLUICE_API_KEY", "SLUICE_API_KEY_FILE"].into_iter().any(|name| variable(name).is_some());
        global.key_file.is_some() || named()
    }

    /// To the gateway, with the API key.
    pub(crate) fn tenant(global: &Global) -> Result<Self> {
        let key_file = global.key_file.clone().or_else(|| variable("SLUICE_API_KEY_FILE").map(Into::into));
        // A file that was asked for on the command line wins; the key itself wins over a file of the environment.
        let key = match (&global.key_file, variable("SLUICE_API_KEY"), &key_file) {
            (Some(path), _, _) | (None, None, Some(path)) => secret_file(path).context("the API key")?,
            (None, Some(key), _) => key.trim().to_owned(),
            (None, None, None) => {
                bail!(Usage("no API key: set SLUICE_API_KEY, or --key-file to a file that holds it".into()))
            }
        };
        if key.parse::<ApiKey>().is_err() {
            bail!(Usage(
                "the API key is not whole: it looks like sl_<env>_<id>_<secret>_<checksum>; copy it again".into()
            ));
        }
        let url = global.url.clone().or_else(|| variable("SLUICE_URL"));
        Self::open(&url.unwrap_or_else(|| "http://127.0.0.1:8080".into()), &key, global)
    }

    /// To the operator listener, with the operator's token.
    pub(crate) fn operator(global: &Global) -> Result<Self> {
        let file = global.operator_token_file.clone();
        let file = file.or_else(|| variable("SLUICE_OPERATOR_TOKEN_FILE").map(Into::into));
        let token = secret_file(&file.unwrap_or_else(|| ".sluice/operator.token".into()))
            .context("the operator's token; name its file with --operator-token-file")?;
        let url = global.operator_url.clone().or_else(|| variable("SLUICE_OPERATOR_URL"));
        Self::open(&url.unwrap_or_else(|| "http://127.0.0.1:8090".into()), &token, global)
    }

    fn open(url: &str, secret: &str, global: &Global) -> Result<Self> {
        let wrong = || Usage(format!("{url:?} is not an address such as https://host:443"));
        let address: http::Uri = url.parse().map_err(|_| wrong())?;
        if !matches!(address.scheme_str(), Some("http" | "https")) || address.host().is_none_or(str::is_empty) {
            bail!(wrong());
        }
        let mut endpoint = Endpoint::from(address)
            .connect_timeout(Duration::from_secs(5))
            // A gateway that has gone silent is noticed also by a stream on which nothing is to be said.
            .http2_keep_alive_interval(Duration::from_secs(10))
            .keep_alive_timeout(Duration::from_secs(5))
            .user_agent(concat!("sluice-cli/", env!("CARGO_PKG_VERSION")))?;
        if url.starts_with("https:") {
            let mut tls = ClientTlsConfig::new();
            let ca_file = global.ca_file.clone().or_else(|| variable("SLUICE_CA_FILE").map(Into::into));
            tls = match ca_file {
                Some(path) => tls.ca_certificate(Certificate::from_pem(
                    std::fs::read(&path).with_context(|| format!("the CA certificates: read {}", path.display()))?,
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
            url: url.to_owned(),
            authorization,
            timeout: global.timeout,
            revisions: RefCell::new(Revisions::load(url)),
            was_answered: Cell::new(false),
        })
    }

    /// A request with credential, deadline and the highest revision seen.
    pub(crate) fn request<T>(&self, message: T) -> Request<T> {
        self.request_within(message, self.timeout)
    }

    /// The same with a deadline of its own.
    pub(crate) fn request_within<T>(&self, message: T, timeout: Duration) -> Request<T> {
        let mut request = self.endless(message);
        request.set_timeout(timeout);
        request
    }

    /// The same without a deadline, for a stream.
    pub(crate) fn endless<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("authorization", self.authorization.clone());
        if let Some(Ok(revision)) = self.revisions.borrow().header().map(|text| text.parse()) {
            request.metadata_mut().insert("sluice-revision", revision);
        }
        request
    }

    /// The answer, after its revision is noted.
    pub(crate) fn take<T>(&self, answer: Result<Response<T>, Status>) -> Result<T> {
        let answer = answer.map_err(|status| self.error(status))?;
        self.observe(&answer);
        Ok(answer.into_inner())
    }

    /// Notes the revision of an answer.
    pub(crate) fn observe<T>(&self, answer: &Response<T>) {
        self.was_answered.set(true);
        if let Some(revision) = answer.metadata().get("sluice-revision").and_then(|text| text.to_str().ok()) {
            self.revisions.borrow_mut().observe(revision);
        }
    }

    /// Whether a call got no answer from Sluice itself.
    pub(crate) fn is_unanswered(&self, status: &Status) -> bool {
        failure::unanswered(status, &self.url, self.timeout, self.was_answered.get()).is_some()
    }

    /// Whether a call was never sent: there was no connection.
    pub(crate) fn is_unsent(&self, status: &Status) -> bool {
        failure::is_unsent(status)
    }

    /// The error of a call, with the address if Sluice itself did not answer.
    pub(crate) fn error(&self, status: Status) -> anyhow::Error {
        match failure::unanswered(&status, &self.url, self.timeout, self.was_answered.get()) {
            Some(text) => anyhow!(text),
            None => status.into(),
        }
    }
}

/// A variable of the environment; empty is absent.
#[allow(clippy::disallowed_methods, reason = "a key must not stand in an argument, and no value in a help text")]
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.trim().is_empty())
}

/// A new request id, which makes a retry of the same call harmless.
pub(crate) fn request_id() -> String {
    uuid::Uuid::new_v4().to_string()
}

fn secret_file(path: &Path) -> Result<String> {
    let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    Ok(text.trim().to_owned())
}
