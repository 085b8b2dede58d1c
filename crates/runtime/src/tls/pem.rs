//! Certificates and keys from PEM files, with the file's name in every error.

use std::path::Path;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::TlsError;
use crate::config::refuse_world_readable;

fn fault(path: &Path, what: impl std::fmt::Display) -> TlsError {
    TlsError::Pem { path: path.to_owned(), what: what.to_string() }
}

/// A chain, leaf first; never empty.
pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| fault(path, error))?;
    if certificates.is_empty() {
        return Err(fault(path, "holds no certificate in PEM"));
    }
    Ok(certificates)
}

/// A private key; the file must not be readable by everybody.
pub(super) fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    refuse_world_readable(path)?;
    PrivateKeyDer::from_pem_file(path).map_err(|error| fault(path, error))
}

/// Trust anchors; never empty.
pub(super) fn roots(path: &Path) -> Result<Arc<RootCertStore>, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|error| fault(path, error))?;
    }
    Ok(Arc::new(roots))
}
