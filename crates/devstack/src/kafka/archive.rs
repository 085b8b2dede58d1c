//! The JVM's archive of Kafka's classes, kept in the cache beside the jars: with it a broker starts in two thirds of the
//! time and CPU.
//!
//! It is made once per jars and JVM, by a throwaway broker that writes it when it ends; one process makes it while
//! others start without. It is only ever an optimization: when it cannot be made or does not fit, Kafka starts as usual.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::kafka::{Kafka, Setup};
use crate::preflight::Java;

/// The exit code of a JVM that ended in order after SIGTERM, thus with its archive written.
const EXIT_AFTER_TERM: i32 = 143;

/// What a broker's JVM does about the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Archive {
    Absent,
    Use(PathBuf),
    /// Write it at the end.
    Make(PathBuf),
}

/// The archive for these jars and this JVM. Makes it first when there is none; `throwaway` describes a broker for that,
/// in a directory of its own that is removed.
pub(crate) async fn find_or_make(throwaway: Setup<'_>) -> Archive {
    let path = path(&throwaway.jars, &throwaway.java);
    if path.exists() {
        return Archive::Use(path);
    }
    match make(&path, throwaway).await {
        Ok(true) => Archive::Use(path),
        Ok(false) => Archive::Absent,
        Err(error) => {
            tracing::warn!(%error, "no class archive could be made: Kafka starts slower");
            Archive::Absent
        }
    }
}

/// False when another process is at it, or the JVM did not finish.
async fn make(path: &Path, mut throwaway: Setup<'_>) -> Result<bool> {
    let lock_file = with_ending(path, ".lock");
    let lock = File::create(&lock_file).map_err(Error::io("open the lock", &lock_file))?;
    if lock.try_lock().is_err() {
        return Ok(false);
    }
    tracing::info!("making an archive of Kafka's classes (10 s, once)");
    let (dir, draft) = (throwaway.dir.clone(), with_ending(path, ".draft"));
    throwaway.archive = Archive::Make(draft.clone());
    let kafka = Kafka::start(throwaway).await?;
    let complete = kafka.stop_one(1).await?.and_then(|status| status.code()) == Some(EXIT_AFTER_TERM);
    fs::remove_dir_all(&dir).map_err(Error::io("remove", &dir))?;
    if complete && draft.exists() {
        fs::rename(&draft, path).map_err(Error::io("complete", path))?;
        return Ok(true);
    }
    Ok(false)
}

fn path(jars: &Path, java: &Java) -> PathBuf {
    let jvm = blake3::hash(java.version.as_bytes()).to_hex();
    with_ending(jars, &format!("-{}.jsa", &jvm[..8]))
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(ending);
    name.into()
}
