//! A listener's TLS that follows its files: a renewed certificate serves new connections without a restart.
//!
//! A pair of files that does not load (half written, key of another certificate) changes nothing and is logged; it is
//! tried again at the next look.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;
use tokio_util::sync::CancellationToken;

use super::{TlsError, crypto_provider, pem};
use crate::config::TlsFiles;

/// How often [`ReloadingTls::watch`] looks at the files.
pub const RELOAD_INTERVAL: Duration = Duration::from_secs(10);

/// TLS of a listener; clones are the same.
#[derive(Clone, Debug)]
pub struct ReloadingTls(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    config: ArcSwap<ServerConfig>,
    files: Option<TlsFiles>,
    require_identity: bool,
}

impl ReloadingTls {
    /// Reads the files of a public listener. HTTP/2 and HTTP/1.1 by ALPN.
    ///
    /// # Errors
    /// A file is unreadable, too open, or not what it should be.
    pub fn load(files: &TlsFiles) -> Result<Self, TlsError> {
        let config = ArcSwap::new(read(files)?);
        Ok(Self(Arc::new(Inner { config, files: Some(files.clone()), require_identity: false })))
    }

    pub(crate) fn fixed(config: Arc<ServerConfig>, require_identity: bool) -> Self {
        Self(Arc::new(Inner { config: ArcSwap::new(config), files: None, require_identity }))
    }

    /// What the next connection gets.
    pub fn current(&self) -> Arc<ServerConfig> {
        self.0.config.load_full()
    }

    /// Whether a connection without a SPIFFE identity is refused.
    pub(crate) fn requires_identity(&self) -> bool {
        self.0.require_identity
    }

    /// Reads the files again. On an error what was loaded stays.
    ///
    /// # Errors
    /// As [`ReloadingTls::load`].
    pub fn reload(&self) -> Result<(), TlsError> {
        if let Some(files) = &self.0.files {
            self.0.config.store(read(files)?);
        }
        Ok(())
    }

    /// Reloads when a file changes, looking every `interval`, until the token is cancelled.
    pub async fn watch(self, interval: Duration, shutdown: CancellationToken) {
        let Some(files) = self.0.files.clone() else { return };
        let mut seen = stamps(&files);
        while shutdown.run_until_cancelled(tokio::time::sleep(interval)).await.is_some() {
            let now = stamps(&files);
            if now == seen {
                continue;
            }
            match self.reload() {
                Ok(()) => {
                    seen = now;
                    tracing::info!(cert = %files.cert.display(), "certificate reloaded");
                }
                Err(error) => tracing::warn!(%error, "certificate not reloaded; the old one stays"),
            }
        }
    }
}

fn read(files: &TlsFiles) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = crypto_provider();
    let builder = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
    let builder = match &files.client_ca {
        None => builder.with_no_client_auth(),
        Some(ca) => builder
            .with_client_cert_verifier(WebPkiClientVerifier::builder_with_provider(pem::roots(ca)?, provider).build()?),
    };
    let mut config = builder.with_single_cert(pem::certificates(&files.cert)?, pem::private_key(&files.key)?)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Time and size of each file: what changes when one is replaced.
fn stamps(files: &TlsFiles) -> Vec<Option<(SystemTime, u64)>> {
    let stamp = |path: &Path| {
        let metadata = std::fs::metadata(path).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    };
    let mut stamps = vec![stamp(&files.cert), stamp(&files.key)];
    stamps.extend(files.client_ca.as_deref().map(stamp));
    stamps
}
