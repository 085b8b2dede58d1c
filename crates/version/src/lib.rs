//! Which commit the programs were built from.
//!
//! A crate of its own, because each commit compiles it and what depends on it again. So only the programs depend on it, and hand the
//! commit to whoever tells it.

#[cfg(test)]
mod commit;

/// The commit that is built: what the environment variable `SLUICE_BUILD_COMMIT` said, or else the first 12 digits of git's, or
/// `unknown` without git. Changes that are not committed are not told.
pub const COMMIT: &str = env!("SLUICE_COMMIT");
