//! Logs of `up`: into a file, because the terminal is for the person.

use std::path::Path;

use anyhow::{Context, Result};
use tracing_subscriber::EnvFilter;

/// Sends this process's logs to `sluiced.log` in a folder.
pub(super) fn to_file(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    let path = folder.join("sluiced.log");
    let file = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path)
        .with_context(|| format!("open {}", path.display()))?;
    tracing_subscriber::fmt()
        .json()
        .with_writer(std::sync::Mutex::new(file))
        .with_env_filter(EnvFilter::new("info"))
        .try_init()
        .map_err(|error| anyhow::anyhow!("set up logging: {error}"))
}
