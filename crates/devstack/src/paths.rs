//! Where things are on this machine: the only module of the crate that reads the environment.
//!
//! Everything else gets paths handed in, so a test can say what the machine looks like.

#![expect(clippy::disallowed_methods, reason = "this is the crate's one place that reads the environment")]

use std::path::{Path, PathBuf};

/// Names the file with the connection of the stack that a whole test run shares. Set by `devstack run`.
pub const STACK_VARIABLE: &str = "SLUICE_TEST_STACK";

/// Overrides where Kafka's jars are cached.
pub const CACHE_VARIABLE: &str = "SLUICE_CACHE_DIR";

/// The cache directory: `$SLUICE_CACHE_DIR`, else `$XDG_CACHE_HOME/sluice`, else `~/.cache/sluice`, else a per-user
/// directory under the system's temporary one.
pub fn cache_dir() -> PathBuf {
    if let Some(dir) = non_empty(CACHE_VARIABLE) {
        return dir;
    }
    if let Some(dir) = non_empty("XDG_CACHE_HOME") {
        return dir.join("sluice");
    }
    if let Some(home) = non_empty("HOME") {
        return home.join(".cache/sluice");
    }
    std::env::temp_dir().join(format!("sluice-cache-{}", nix::unistd::geteuid()))
}

/// The connection file of the run's shared stack, when there is one.
pub fn shared_stack_file() -> Option<PathBuf> {
    non_empty(STACK_VARIABLE)
}

/// Where temporary stacks live.
pub(crate) fn temp_dir() -> PathBuf {
    std::env::temp_dir()
}

/// The directories that may hold `program`: `$JAVA_HOME/bin` for java, then `$PATH`, then `extra`.
pub(crate) fn find_program(program: &str, extra: &[PathBuf]) -> Option<PathBuf> {
    let java_home = (program == "java").then(|| non_empty("JAVA_HOME")).flatten().map(|home| home.join("bin"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    java_home
        .into_iter()
        .chain(std::env::split_paths(&path))
        .chain(extra.iter().cloned())
        .map(|dir| dir.join(program))
        .find(|candidate| is_executable(candidate))
}

pub(crate) fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

fn non_empty(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from)
}
