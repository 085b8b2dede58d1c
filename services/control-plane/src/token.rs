//! The operator's token: a file of mode 0600, made at the first start.

use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use secrecy::SecretString;
use sluice_process::{Error, secret};
use sluice_runtime::config::SecretFile;

/// 256 random bits.
const TOKEN_BYTES: usize = 32;

/// Reads the token; makes it first when there is none.
pub(crate) fn load_or_create(path: &Path) -> Result<SecretString, Error> {
    match create(path) {
        Ok(()) => tracing::info!(path = %path.display(), "made the operator's token file"),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(Error::setup("prepare the operator's token file", error)),
    }
    secret("operator_token_file", &SecretFile::new(path))
}

/// Under its name only when it is complete: a crash leaves no empty token behind.
fn create(path: &Path) -> io::Result<()> {
    if path.exists() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    let mut bytes = [0; TOKEN_BYTES];
    getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
    let draft = path.with_extension(format!("{}.tmp", std::process::id()));
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
    writeln!(file, "{}", hex::encode(bytes))?;
    file.sync_all()?;
    // A link, not a rename: of two that start at once, the first one's token stays.
    let linked = std::fs::hard_link(&draft, path);
    std::fs::remove_file(&draft)?;
    linked
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use secrecy::ExposeSecret as _;

    use super::*;

    #[test]
    fn the_token_is_made_once_for_the_owner_alone() {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("operator.token");
        let first = load_or_create(&path).expect("made");
        assert_eq!(first.expose_secret().len(), 64);
        assert_eq!(load_or_create(&path).expect("read").expose_secret(), first.expose_secret());
        let mode = std::fs::metadata(&path).expect("metadata").permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
        assert_eq!(std::fs::read_dir(dir.path()).expect("list").count(), 1);
    }
}
