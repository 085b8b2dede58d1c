//! Who a peer is, by its certificate: role and instance from the SPIFFE SAN, and its public key.
//!
//! The chain has been verified by rustls before this looks at the leaf.

use rustls_pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;

/// Before role and instance in the SAN.
const PREFIX: &str = "spiffe://sluice/";
/// Characters of a role or an instance at most.
const PART_LEN_MAX: usize = 128;
/// RFC 8410.
const ED25519_OID: &str = "1.3.101.112";

/// Who is at the other end of a mutual TLS connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerIdentity {
    /// `gateway`, `control-plane`, …
    pub role: String,
    /// Which of them.
    pub instance: String,
    /// Its raw Ed25519 public key; `None` when the certificate has another kind of key.
    pub public_key: Option<[u8; 32]>,
}

/// A certificate that names no Sluice process.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// Not a certificate.
    #[error("parse certificate")]
    Malformed,
    /// No such SAN, or several.
    #[error("certificate must have exactly one SAN of the form spiffe://sluice/<role>/<instance>")]
    Spiffe,
    /// It is another role than the one expected.
    #[error("peer is a {found}, expected a {expected}")]
    Role {
        /// The role wanted.
        expected: String,
        /// The role found.
        found: String,
    },
}

impl PeerIdentity {
    /// Reads a leaf certificate.
    ///
    /// # Errors
    /// It is none, or has not exactly one `spiffe:` SAN in our form.
    pub fn from_certificate(leaf: &CertificateDer<'_>) -> Result<Self, IdentityError> {
        let (_, certificate) =
            x509_parser::parse_x509_certificate(leaf.as_ref()).map_err(|_| IdentityError::Malformed)?;
        let names = certificate
            .subject_alternative_name()
            .map_err(|_| IdentityError::Malformed)?
            .ok_or(IdentityError::Spiffe)?;
        let mut uris = names.value.general_names.iter().filter_map(|name| match name {
            GeneralName::URI(uri) if uri.starts_with("spiffe:") => Some(*uri),
            _ => None,
        });
        let (Some(uri), None) = (uris.next(), uris.next()) else { return Err(IdentityError::Spiffe) };
        let (role, instance) =
            uri.strip_prefix(PREFIX).and_then(|rest| rest.split_once('/')).ok_or(IdentityError::Spiffe)?;
        if !is_part(role) || !is_part(instance) {
            return Err(IdentityError::Spiffe);
        }
        let key = certificate.public_key();
        let public_key = (key.algorithm.algorithm.to_id_string() == ED25519_OID)
            .then(|| key.subject_public_key.data.as_ref().try_into().ok())
            .flatten();
        Ok(Self { role: role.to_owned(), instance: instance.to_owned(), public_key })
    }
}

fn is_part(text: &str) -> bool {
    (1..=PART_LEN_MAX).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}
