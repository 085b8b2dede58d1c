//! Small files of a stack: whole or not at all, secrets with mode 0600.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use crate::error::{Error, Result};

pub(crate) fn create_dir(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).map_err(Error::io("make the directory", dir))
}

pub(crate) fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(Error::io("read", path))
}

/// Mode 0644 less the umask.
pub(crate) fn write_public(path: &Path, content: &str) -> Result<()> {
    write(path, content, 0o644).map_err(Error::io("write", path))
}

pub(crate) fn write_secret(path: &Path, content: &str) -> Result<()> {
    write(path, content, 0o600).map_err(Error::io("write", path))
}

/// Makes an existing file or directory readable by its owner only.
pub(crate) fn make_private(path: &Path, mode: u32) -> Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(Error::io("set the mode of", path))
}

fn write(path: &Path, content: &str, mode: u32) -> std::io::Result<()> {
    let draft = path.with_added_extension("draft");
    // A draft left by a crash could have another mode: start from none.
    let _ = fs::remove_file(&draft);
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&draft)?;
    file.write_all(content.as_bytes())?;
    fs::rename(&draft, path)
}
