//! How to reach a cluster. Parsed and validated by whoever owns the configuration file.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;

/// Everything a [`crate::Client`] needs to know.
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// `host:port` of brokers to start from, tried in turn. IPv6 hosts in brackets.
    pub bootstrap: Vec<String>,
    /// TLS and SASL; the default is plain text without authentication.
    pub security: Security,
    /// Name sent in every request; shows up in broker logs and quotas.
    pub client_id: String,
    /// Bound of TCP connect, TLS handshake and authentication together.
    pub connect_timeout: Duration,
    /// How long a broker may leave a request without an answer, beyond the wait the request itself asks for, before
    /// the connection counts as dead. Callers' deadlines are separate and may be shorter or longer.
    pub request_timeout: Duration,
}

impl ClientConfig {
    /// Plain-text configuration with default timeouts (connect 3 s, request 5 s).
    pub fn new(bootstrap: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            bootstrap: bootstrap.into_iter().map(Into::into).collect(),
            security: Security::default(),
            client_id: "sluice".to_owned(),
            connect_timeout: Duration::from_secs(3),
            request_timeout: Duration::from_secs(5),
        }
    }

    /// The same with another security setting.
    #[must_use]
    pub fn with_security(mut self, security: Security) -> Self {
        self.security = security;
        self
    }

    /// The same with another client id.
    #[must_use]
    pub fn with_client_id(mut self, client_id: impl Into<String>) -> Self {
        self.client_id = client_id.into();
        self
    }
}

/// Transport security of a cluster.
#[derive(Clone, Default)]
pub struct Security {
    /// TLS settings (roots, client certificate); `None` means plain text.
    pub tls: Option<Arc<rustls::ClientConfig>>,
    /// SCRAM credentials; `None` means no SASL.
    pub sasl: Option<ScramSha512>,
}

impl fmt::Debug for Security {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Security").field("tls", &self.tls.is_some()).field("sasl", &self.sasl).finish()
    }
}

/// SASL SCRAM-SHA-512 credentials. The server must prove that it knows them too.
#[derive(Debug, Clone)]
pub struct ScramSha512 {
    /// Kafka user name.
    pub user: String,
    /// Its password; never printed.
    pub password: SecretString,
}
