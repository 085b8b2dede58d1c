//! The folder with an installation's secrets: what each file is called, and how it is made. `up` and `install` share it.
//!
//! A file that is there is kept: it may have been given. A new one holds 32 random bytes in hexadecimal and has mode 0600.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use secrecy::SecretString;
use sluice_runtime::config::{FileError, SecretFile};

use crate::local::files;

/// The folder.
#[derive(Debug, Clone)]
pub(crate) struct Secrets {
    dir: PathBuf,
}

impl Secrets {
    pub(crate) fn in_dir(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// Makes the folder, for us alone.
    pub(crate) fn make_dir(&self) -> Result<()> {
        files::folder(&self.dir)
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The password of a role's Kafka principal.
    pub(crate) fn kafka_password(&self, role: &str) -> PathBuf {
        self.file(&format!("kafka-{role}"))
    }

    /// The password of the PostgreSQL role that plays a part for a service.
    pub(crate) fn database_password(&self, service: &str, part: &str) -> PathBuf {
        self.file(&format!("{service}-{part}-password"))
    }

    /// The URL with which it logs in.
    pub(crate) fn database_url(&self, service: &str, part: &str) -> PathBuf {
        self.file(&format!("{service}-{part}-url"))
    }
}

/// What the file holds, if it is there.
pub(crate) fn given(path: &Path) -> Result<Option<SecretString>> {
    match SecretFile::new(path).read() {
        Ok(secret) => Ok(Some(secret)),
        Err(FileError::Read { source, .. }) if source.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).context("read a secret"),
    }
}

/// What the file holds; random if it was not there.
pub(crate) fn given_or_made(path: &Path) -> Result<SecretString> {
    match given(path)? {
        Some(secret) => Ok(secret),
        None => files::secret(path).map(SecretString::from),
    }
}
