//! Tells the compiler which commit is built, and cargo when that may have changed.

#[path = "src/commit.rs"]
mod commit;

use std::error::Error;
use std::path::PathBuf;

#[expect(clippy::disallowed_methods, reason = "cargo and packagers speak to build scripts in the environment")]
fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=src/commit.rs");
    println!("cargo::rerun-if-env-changed={}", commit::VARIABLE);
    let root = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?).join("../..");
    let found = commit::find(std::env::var(commit::VARIABLE).ok().as_deref(), &root)?;
    for path in found.watched {
        println!("cargo::rerun-if-changed={}", path.display());
    }
    println!("cargo::rustc-env=SLUICE_COMMIT={}", found.commit);
    Ok(())
}
