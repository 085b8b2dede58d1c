//! What configuration says about files: secrets, certificates, and how to reach Kafka.
//!
//! Secrets are never in the configuration itself, only the path of a file that nobody else can read.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use super::{Faults, Validate};
use crate::tls::{self, TlsError};

/// Bytes of a secret at most.
const SECRET_BYTES_MAX: u64 = 64 << 10;
/// Different bytes that 32 random ones have at least: fewer come once in more than 10^14 keys.
const KEY_BYTES_DIFFERENT: usize = 16;

/// A file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// Reading failed.
    #[error("read {path}: {source}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Others could read it.
    #[error("{path} has mode {mode:04o}: others can read it; chmod 600 it", path = path.display())]
    TooOpen {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It is no key.
    #[error("{path} must hold 64 hexadecimal digits", path = path.display())]
    NotKey {
        /// The file.
        path: PathBuf,
    },
    /// It is a key that anybody can guess.
    #[error(
        "{path} holds a key that is not random; make one: openssl rand -hex 32",
        path = path.display()
    )]
    WeakKey {
        /// The file.
        path: PathBuf,
    },
    /// It holds nothing, or too much.
    #[error("{path} must hold 1..{SECRET_BYTES_MAX} bytes of text", path = path.display())]
    Size {
        /// The file.
        path: PathBuf,
    },
}

/// The path of a file that holds one secret, with mode 0600 or narrower.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(transparent)]
pub struct SecretFile(PathBuf);

impl SecretFile {
    /// Names a file.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Reads the secret, without white space around it.
    ///
    /// # Errors
    /// The file is absent, readable by others, empty, or larger than 64 KiB.
    pub fn read(&self) -> Result<SecretString, FileError> {
        let failed = |source| FileError::Read { path: self.0.clone(), source };
        let metadata = std::fs::metadata(&self.0).map_err(failed)?;
        refuse_wide_mode(&self.0, &metadata, 0o077)?;
        if metadata.len() > SECRET_BYTES_MAX {
            return Err(FileError::Size { path: self.0.clone() });
        }
        let text = std::fs::read_to_string(&self.0).map_err(failed)?;
        let secret = text.trim();
        if secret.is_empty() {
            return Err(FileError::Size { path: self.0.clone() });
        }
        Ok(SecretString::from(secret))
    }

    /// Reads a key of 32 bytes in hexadecimal.
    ///
    /// # Errors
    /// As [`SecretFile::read`], and for what is no key or nobody drew at random.
    pub fn read_key(&self) -> Result<[u8; 32], FileError> {
        let mut key = [0; 32];
        let text = self.read()?;
        hex::decode_to_slice(text.expose_secret(), &mut key).map_err(|_| FileError::NotKey { path: self.0.clone() })?;
        if is_weak_key(&key) { Err(FileError::WeakKey { path: self.0.clone() }) } else { Ok(key) }
    }
}

/// Whether a key is one that people write in examples: zeros, one byte, a short pattern.
pub fn is_weak_key(key: &[u8; 32]) -> bool {
    let mut seen = [false; 256];
    key.iter().for_each(|byte| seen[usize::from(*byte)] = true);
    seen.iter().filter(|seen| **seen).count() < KEY_BYTES_DIFFERENT
}

fn refuse_wide_mode(path: &Path, metadata: &std::fs::Metadata, refused: u32) -> Result<(), FileError> {
    let mode = metadata.permissions().mode() & 0o777;
    if mode & refused != 0 {
        return Err(FileError::TooOpen { path: path.to_owned(), mode });
    }
    Ok(())
}

/// Refuses a private key that everybody on the machine can read. A group may: orchestrators mount keys so.
pub(crate) fn refuse_world_readable(path: &Path) -> Result<(), FileError> {
    let metadata = std::fs::metadata(path).map_err(|source| FileError::Read { path: path.to_owned(), source })?;
    refuse_wide_mode(path, &metadata, 0o007)
}

/// A public listener's certificate, in PEM. Reloaded when the files change.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TlsFiles {
    /// Certificate chain, leaf first.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Who signs client certificates, if clients must have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_ca: Option<PathBuf>,
}

/// This process's identity towards the others, in PEM: both ways of mTLS, and the key that signs caller tokens (Ed25519).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct InternalTlsConfig {
    /// Who signs internal certificates.
    pub ca: PathBuf,
    /// Certificate chain with the SAN `spiffe://sluice/<role>/<instance>`, leaf first.
    pub cert: PathBuf,
    /// Its Ed25519 key in PKCS#8.
    pub key: PathBuf,
}

/// How to reach a Kafka cluster: SASL/SCRAM over TLS.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct KafkaConfig {
    /// `host:port` of brokers to begin with.
    pub bootstrap: Vec<String>,
    /// Who signs the brokers' certificates, in PEM.
    pub ca: PathBuf,
    /// Our principal.
    pub username: String,
    /// Its password.
    pub password_file: SecretFile,
}

impl KafkaConfig {
    /// TLS towards the brokers: their certificates by `ca`, their names checked.
    ///
    /// # Errors
    /// The CA file cannot be read or holds no certificate.
    pub fn rustls_client_config(&self) -> Result<Arc<rustls::ClientConfig>, TlsError> {
        tls::client_config_for_ca(&self.ca)
    }

    /// The password.
    ///
    /// # Errors
    /// As [`SecretFile::read`].
    pub fn password(&self) -> Result<SecretString, FileError> {
        self.password_file.read()
    }
}

impl Validate for KafkaConfig {
    fn faults(&self, faults: &mut Faults) {
        faults.require(!self.bootstrap.is_empty(), "bootstrap", "must name at least one broker as \"host:port\"");
        for broker in &self.bootstrap {
            let port = broker.rsplit_once(':').and_then(|(host, port)| (!host.is_empty()).then_some(port));
            faults.require(
                port.is_some_and(|port| port.parse::<u16>().is_ok()),
                "bootstrap",
                format_args!("`{broker}` is not \"host:port\""),
            );
        }
        faults.require(!self.username.is_empty(), "username", "must not be empty");
    }

    fn files(&self, faults: &mut Faults) {
        faults.file("ca", self.rustls_client_config());
        faults.file("password_file", self.password());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &Path, text: &str) -> SecretFile {
        std::fs::write(path, text).expect("write");
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).expect("chmod");
        SecretFile::new(path)
    }

    #[test]
    fn a_key_that_nobody_drew_at_random_is_refused() {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("key");
        for guessable in ["00".repeat(32), "ab".repeat(32), "0123456789abcdef".repeat(4)] {
            let error = file(&path, &guessable).read_key().expect_err("guessable").to_string();
            assert!(error.contains("not random") && !error.contains(&guessable), "{error}");
        }
        assert!(matches!(file(&path, "12").read_key(), Err(FileError::NotKey { .. })));
        let mut key = [0; 32];
        for _ in 0..1_000 {
            aws_lc_rs::rand::fill(&mut key).expect("random bytes");
            assert_eq!(file(&path, &hex::encode(key)).read_key().expect("a key"), key);
        }
    }

    #[test]
    fn a_secret_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("secret");
        std::fs::write(&path, "  hush\n").expect("write");
        for (mode, good) in [(0o600, true), (0o400, true), (0o640, false), (0o604, false)] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("chmod");
            assert_eq!(SecretFile::new(&path).read().is_ok(), good, "{mode:o}");
        }
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("chmod");
        let secret = SecretFile::new(&path).read().expect("secret");
        assert_eq!(secret.expose_secret(), "hush");
        assert!(!format!("{secret:?}").contains("hush"));
    }
}
