//! TLS: one crypto provider, public certificates that reload, and the mutual TLS between our own processes.
//!
//! Internal identity is the certificate's SAN `spiffe://sluice/<role>/<instance>`, on both sides of a connection; host
//! names play no part there.

mod identity;
mod internal;
mod pem;
mod reloading;
mod verifier;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::CryptoProvider;

pub use identity::{IdentityError, PeerIdentity};
pub use internal::InternalTls;
pub use reloading::{RELOAD_INTERVAL, ReloadingTls};

/// Keys or certificates that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or others can read it.
    #[error(transparent)]
    File(#[from] crate::config::FileError),
    /// A file holds no usable PEM.
    #[error("{path}: {what}", path = path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The certificate says nothing of who we are, or something else than SPIFFE.
    #[error("{path}: {source}", path = path.display())]
    Identity {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: IdentityError,
    },
    /// The key is no Ed25519 key in PKCS#8, or not the certificate's.
    #[error("{path}: not the Ed25519 key (PKCS#8) of the certificate", path = path.display())]
    Key {
        /// The file.
        path: PathBuf,
    },
    /// rustls refuses the combination.
    #[error("TLS configuration: {0}")]
    Rustls(#[from] rustls::Error),
    /// The client CA cannot be used.
    #[error("client CA: {0}")]
    ClientCa(#[from] rustls::server::VerifierBuilderError),
    /// An address that is not `host:port`.
    #[error("`{0}` is not \"host:port\"")]
    Address(String),
}

/// The one crypto provider.
pub fn crypto_provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// Makes it the default of libraries that ask for none. May be called any number of times.
pub fn install_crypto_provider() {
    // An error means that a default is there already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

/// Client TLS for servers whose certificates `ca` signed, with their host names checked.
///
/// # Errors
/// The file cannot be read or holds no certificate.
pub fn client_config_for_ca(ca: &Path) -> Result<Arc<rustls::ClientConfig>, TlsError> {
    let config = rustls::ClientConfig::builder_with_provider(crypto_provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(pem::roots(ca)?)
        .with_no_client_auth();
    Ok(Arc::new(config))
}
