//! Files of an installation: secrets are made once, of mode 0600, and kept.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use anyhow::{Context, Result};

/// 32 random bytes in hexadecimal, kept in a file.
pub(crate) fn secret(path: &Path) -> Result<String> {
    if let Ok(text) = fs::read_to_string(path) {
        return Ok(text);
    }
    let text = random()?;
    write_secret(path, &text)?;
    Ok(text)
}

fn random() -> Result<String> {
    let mut bytes = [0u8; 32];
    getrandom::fill(&mut bytes).map_err(|error| anyhow::anyhow!("the system gives no random bytes: {error}"))?;
    Ok(hex::encode(bytes))
}

/// A key ring with one random key, kept in a file.
pub(super) fn key_ring(path: &Path) -> Result<()> {
    if path.exists() {
        return Ok(());
    }
    write_secret(path, &format!("1 {}\n", random()?))
}

/// Writes a secret, replacing what is there in one step.
pub(crate) fn write_secret(path: &Path, text: &str) -> Result<()> {
    let part = path.with_extension("part");
    let write = || -> std::io::Result<()> {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&part)?;
        file.write_all(text.as_bytes())?;
        fs::rename(&part, path)
    };
    write().with_context(|| format!("write {}", path.display()))
}

/// Writes a configuration file.
pub(super) fn write_config(path: &Path, text: &str) -> Result<()> {
    write_secret(path, text)
}

/// Makes a folder that only we can enter.
pub(crate) fn folder(path: &Path) -> Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).with_context(|| format!("make {}", path.display()))
}
