//! This process's identity towards the others: server and client side of mutual TLS 1.3, and the key for caller tokens.
//!
//! Both sides always present a certificate of our CA. Sessions are not resumed: every connection proves itself.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use rustls::client::Resumption;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::identity::PeerIdentity;
use super::reloading::ReloadingTls;
use super::verifier::RoleVerifier;
use super::{TlsError, crypto_provider, pem};
use crate::config::InternalTlsConfig;

const VERSIONS: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS13];
const ALPN_H2: &[u8] = b"h2";

/// A process's internal identity; clones share it.
#[derive(Clone)]
pub struct InternalTls(Arc<Inner>);

struct Inner {
    roots: Arc<RootCertStore>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    signing: Arc<Ed25519KeyPair>,
    identity: PeerIdentity,
}

impl fmt::Debug for InternalTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InternalTls").field("identity", &self.0.identity).finish_non_exhaustive()
    }
}

impl InternalTls {
    /// Reads and checks the files.
    ///
    /// # Errors
    /// A file is unreadable, too open, or not what it should be; key and certificate do not belong together.
    pub fn load(config: &InternalTlsConfig) -> Result<Self, TlsError> {
        let roots = pem::roots(&config.ca)?;
        let chain = pem::certificates(&config.cert)?;
        let key = pem::private_key(&config.key)?;
        let identity = PeerIdentity::from_certificate(&chain[0])
            .map_err(|source| TlsError::Identity { path: config.cert.clone(), source })?;
        let not_the_key = || TlsError::Key { path: config.key.clone() };
        let signing = Ed25519KeyPair::from_pkcs8(key.secret_der()).map_err(|_| not_the_key())?;
        if identity.public_key.as_ref().map(<[u8; 32]>::as_slice) != Some(signing.public_key().as_ref()) {
            return Err(not_the_key());
        }
        let tls = Self(Arc::new(Inner { roots, chain, key, signing: Arc::new(signing), identity }));
        // Both are built once here so that a wrong file is found at start.
        tls.server_config()?;
        tls.client_config("any")?;
        Ok(tls)
    }

    /// Who we are to others.
    pub fn identity(&self) -> &PeerIdentity {
        &self.0.identity
    }

    /// For a listener that only our own processes may reach; HTTP/2 only.
    ///
    /// # Errors
    /// rustls refuses the files.
    pub fn server_config(&self) -> Result<Arc<ServerConfig>, TlsError> {
        let provider = crypto_provider();
        let verifier = WebPkiClientVerifier::builder_with_provider(self.0.roots.clone(), provider.clone()).build()?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(VERSIONS)?
            .with_client_cert_verifier(verifier)
            .with_single_cert(self.0.chain.clone(), self.0.key.clone_key())?;
        config.alpn_protocols = vec![ALPN_H2.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Arc::new(config))
    }

    /// The same as [`crate::tls::ReloadingTls`] for the accept loop; connections without a SPIFFE identity are refused.
    ///
    /// # Errors
    /// rustls refuses the files.
    pub fn server_tls(&self) -> Result<ReloadingTls, TlsError> {
        Ok(ReloadingTls::fixed(self.server_config()?, true))
    }

    /// For calling a server of this role; HTTP/2 only.
    ///
    /// # Errors
    /// rustls refuses the files.
    pub fn client_config(&self, expect_role: &str) -> Result<Arc<ClientConfig>, TlsError> {
        let provider = crypto_provider();
        let verifier = RoleVerifier::new(self.0.roots.clone(), provider.clone(), expect_role);
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(VERSIONS)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_auth_cert(self.0.chain.clone(), self.0.key.clone_key())?;
        config.alpn_protocols = vec![ALPN_H2.to_vec()];
        config.resumption = Resumption::disabled();
        Ok(Arc::new(config))
    }

    pub(crate) fn signing_key(&self) -> Arc<Ed25519KeyPair> {
        self.0.signing.clone()
    }
}
