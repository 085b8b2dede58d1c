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
    entry(&paths::cache_dir()).is_dir()
}

/// The directory with the jars; fetches them first when they are not cached.
pub(crate) async fn resolve(mvn: Option<&Path>, supervisor: &Supervisor) -> Result<PathBuf> {
    resolve_in(&paths::cache_dir(), mvn, supervisor).await
}

async fn resolve_in(cache: &Path, mvn: Option<&Path>, supervisor: &Supervisor) -> Result<PathBuf> {
    let entry = entry(cache);
    if entry.is_dir() {
        return Ok(entry);
    }
    files::create_dir(cache)?;
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

fn entry(cache: &Path) -> PathBuf {
    let hash = blake3::hash(POM.as_bytes()).to_hex();
    cache.join(format!("kafka-{}", &hash[..16]))
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// Stands in for Maven: counts its runs in `runs`, and puts one jar into the directory it is told.
    fn stand_in(dir: &Path, ending: &str) -> PathBuf {
        let script = dir.join("mvn");
        let text = format!(
            "#!/bin/sh\nfor arg; do case $arg in -DoutputDirectory=*) out=${{arg#*=}} ;; esac; done\n\
             echo run >>'{}'\necho jar >\"$out/a.jar\"\n{ending}\n",
            dir.join("runs").display()
        );
        fs::write(&script, text).unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        script
    }

    fn runs(dir: &Path) -> usize {
        fs::read_to_string(dir.join("runs")).unwrap_or_default().lines().count()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn many_at_once_fetch_once() {
        let dir = tempfile::tempdir().unwrap();
        let (mvn, cache) = (stand_in(dir.path(), ""), dir.path().join("cache"));
        let supervisor = Supervisor::new().unwrap();
        let one = || resolve_in(&cache, Some(&mvn), &supervisor);

        let (a, b, c) = tokio::join!(one(), one(), one());

        assert!(a.unwrap().join("a.jar").exists());
        assert!(b.is_ok() && c.is_ok());
        assert_eq!(runs(dir.path()), 1);
    }

    #[tokio::test]
    async fn a_failed_or_interrupted_fetch_leaves_no_entry_and_the_next_one_succeeds() {
        let dir = tempfile::tempdir().unwrap();
        let cache = dir.path().join("cache");
        let supervisor = Supervisor::new().unwrap();
        let failing = stand_in(dir.path(), "echo no network; exit 1");

        let error = resolve_in(&cache, Some(&failing), &supervisor).await.unwrap_err();

        assert!(error.to_string().contains("no network"), "{error}");
        assert!(!entry(&cache).exists(), "what is not complete must not look so");
        let resolved = resolve_in(&cache, Some(&stand_in(dir.path(), "")), &supervisor).await.unwrap();
        assert!(resolved.join("a.jar").exists());
    }
}
