//! Kafka's jars: fetched once by Maven as `dev/kafka/pom.xml` pins them, then taken from the cache.
//!
//! A cache entry is keyed by the content of that file and appears by one rename, so it is complete or absent. A file
//! lock keeps two processes from fetching at once.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::files;
use crate::paths;
use crate::process::ProcessSpec;
use crate::ready::poll_until;
use crate::supervisor::Supervisor;

const POM: &str = include_str!("../../../dev/kafka/pom.xml");
const FETCH_WITHIN: Duration = Duration::from_secs(600);

/// Whether the jars are in the cache, so that Maven is not needed.
pub(crate) fn cached() -> bool {
    entry().is_dir()
}

/// The directory with the jars; fetches them first when they are not cached.
pub(crate) async fn resolve(mvn: Option<&Path>, supervisor: &Supervisor) -> Result<PathBuf> {
    let entry = entry();
    if entry.is_dir() {
        return Ok(entry);
    }
    files::create_dir(&paths::cache_dir())?;
    let _lock = lock(&entry.with_added_extension("lock")).await?;
    if !entry.is_dir() {
        let mvn = mvn.ok_or_else(|| Error::Invalid("Kafka's jars vanished from the cache; try again".to_owned()))?;
        fetch(mvn, &entry, supervisor).await?;
    }
    Ok(entry)
}

async fn lock(path: &Path) -> Result<File> {
    let file = File::create(path).map_err(Error::io("open the lock", path))?;
    let locked = poll_until("another process fetching Kafka's jars", FETCH_WITHIN, async || match file.try_lock() {
        Ok(()) => Some(Ok(())),
        Err(TryLockError::WouldBlock) => None,
        Err(TryLockError::Error(error)) => Some(Err(error)),
    });
    locked.await?.map_err(Error::io("lock", path))?;
    Ok(file)
}

fn entry() -> PathBuf {
    let hash = blake3::hash(POM.as_bytes()).to_hex();
    paths::cache_dir().join(format!("kafka-{}", &hash[..16]))
}

async fn fetch(mvn: &Path, entry: &Path, supervisor: &Supervisor) -> Result<()> {
    tracing::info!("fetching Apache Kafka's jars with Maven (44 MB, once)");
    let draft = entry.with_added_extension("draft");
    if draft.exists() {
        fs::remove_dir_all(&draft).map_err(Error::io("remove what an interrupted run left in", &draft))?;
    }
    files::create_dir(&draft)?;
    let pom = draft.join("pom.xml");
    files::write_public(&pom, POM)?;
    let spec = ProcessSpec::new("fetching Kafka's jars with Maven", mvn, draft.join("maven.out"))
        .args(["-q", "-B", "-f"])
        .args([pom.to_string_lossy()])
        .args(["dependency:copy-dependencies", "-DincludeScope=runtime"])
        .args([format!("-DoutputDirectory={}", draft.display())]);
    supervisor.run(&spec, FETCH_WITHIN).await?;
    fs::rename(&draft, entry).map_err(Error::io("complete the cache entry", entry))
}
