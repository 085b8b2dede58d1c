//! Finds the commit of a source tree. Part of the build script.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The environment variable in which a packager gives the commit.
pub(crate) const VARIABLE: &str = "SLUICE_BUILD_COMMIT";

/// What there is to be told where nobody knows.
const UNKNOWN: &str = "unknown";
/// Longest commit that is taken from the environment.
const GIVEN_BYTES_MAX: usize = 64;

/// A commit, and the files that change when it does.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) commit: String,
    pub(crate) watched: Vec<PathBuf>,
}

/// The commit of the source tree at `root`, unless `given` says it.
pub(crate) fn find(given: Option<&str>, root: &Path) -> Result<Found, String> {
    let given = given.map(str::trim).filter(|given| !given.is_empty());
    if let Some(given) = given {
        if given.len() > GIVEN_BYTES_MAX || !given.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(format!("{VARIABLE} must be 1..{GIVEN_BYTES_MAX} printable ASCII characters without spaces"));
        }
        return Ok(Found { commit: given.to_owned(), watched: Vec::new() });
    }
    Ok(of_git(root).unwrap_or_else(|| Found { commit: UNKNOWN.to_owned(), watched: Vec::new() }))
}

fn of_git(root: &Path) -> Option<Found> {
    // A source tree without git inside of somebody else's checkout is not of that commit.
    let top = PathBuf::from(git(root, &["rev-parse", "--show-toplevel"])?);
    if top.canonicalize().ok()? != root.canonicalize().ok()? {
        return None;
    }
    let commit = git(root, &["rev-parse", "--short=12", "HEAD"])?;
    let mut watched: Vec<PathBuf> = ["HEAD", "logs/HEAD", "packed-refs"]
        .iter()
        .filter_map(|file| path(root, file))
        .filter(|path| path.exists())
        .collect();
    if let Some(branch) = git(root, &["symbolic-ref", "--quiet", "HEAD"]) {
        let branch = path(root, &branch)?;
        // A packed branch has no file; the next commit makes it.
        watched.extend(branch.ancestors().find(|path| path.exists()).map(Path::to_path_buf));
    }
    Some(Found { commit, watched })
}

/// Where git keeps one of its files, also in a worktree.
fn path(root: &Path, file: &str) -> Option<PathBuf> {
    Some(root.join(git(root, &["rev-parse", "--git-path", file])?))
}

/// The one line that git answers.
fn git(root: &Path, args: &[&str]) -> Option<String> {
    let mut git = Command::new("git");
    // Set in hooks, where they name another repository.
    git.env_remove("GIT_DIR").env_remove("GIT_WORK_TREE").env_remove("GIT_INDEX_FILE");
    let output = git.arg("-C").arg(root).args(args).output().ok().filter(|output| output.status.success())?;
    let line = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (!line.is_empty()).then_some(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repository() -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("directory");
        git(dir.path(), &["init", "--quiet", "--initial-branch", "main"]);
        commit(dir.path());
        dir
    }

    fn commit(root: &Path) {
        let identity = ["-c", "user.name=test", "-c", "user.email=test@example.com", "-c", "commit.gpgsign=false"];
        git(root, &[&identity[..], &["commit", "--quiet", "--allow-empty", "--message", "one more"]].concat());
    }

    fn found(root: &Path) -> Found {
        find(None, root).expect("an answer")
    }

    #[test]
    fn a_checkout_tells_its_commit_and_something_that_is_watched_changes_with_each() {
        let dir = repository();
        let (root, head) = (dir.path(), || git(dir.path(), &["rev-parse", "HEAD"]).expect("a commit"));
        for pack in [false, true] {
            if pack {
                git(root, &["pack-refs", "--all"]);
            }
            let before = found(root);
            assert_eq!((before.commit.len(), head().starts_with(&before.commit)), (12, true), "{before:?}");
            let seen = |found: &Found| -> Vec<_> { found.watched.iter().map(|path| contents(path)).collect() };
            let contents_before = seen(&before);
            commit(root);
            assert_ne!(seen(&before), contents_before, "{before:?}");
            assert_ne!(found(root).commit, before.commit);
        }
    }

    /// What of a file or folder changes when git writes it.
    fn contents(path: &Path) -> Vec<u8> {
        match std::fs::read_dir(path) {
            Ok(entries) => entries.flat_map(|entry| entry.expect("entry").file_name().into_encoded_bytes()).collect(),
            Err(_) => std::fs::read(path).expect("a file"),
        }
    }

    #[test]
    fn what_the_environment_says_wins_and_must_be_a_word() {
        let dir = repository();
        let given = find(Some(" v1-5a96ded \n"), dir.path()).expect("a word");
        assert_eq!(given, Found { commit: "v1-5a96ded".into(), watched: Vec::new() });
        assert_eq!(find(Some(" "), dir.path()), Ok(found(dir.path())), "empty is not given");
        for wrong in ["two words", "a\nb", &"x".repeat(65)] {
            assert!(find(Some(wrong), dir.path()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn without_a_checkout_of_its_own_a_tree_has_no_known_commit() {
        let nowhere = tempfile::tempdir().expect("directory");
        assert_eq!(found(nowhere.path()).commit, "unknown");
        let dir = repository();
        let inside = dir.path().join("unpacked");
        std::fs::create_dir(&inside).expect("directory");
        assert_eq!(found(&inside).commit, "unknown");
        let empty = tempfile::tempdir().expect("directory");
        git(empty.path(), &["init", "--quiet"]);
        assert_eq!(found(empty.path()).commit, "unknown", "no commit yet");
    }
}
