//! Checks that a compiler does not make: who may depend on whom, where a library may be used, and whether the docs hold.
//!
//! `cargo xtask layers|dependencies|features|sources|docs`, or `cargo xtask check` for all; `cargo xtask slowest` shows where the
//! tests' time goes. Each rule stands here with its reason; a rule that we would not enforce is
//! not written.

mod dependencies;
mod docs;
mod features;
mod glossary;
mod layers;
mod metrics;
mod slowest;
mod sources;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

/// Checks of the repository.
#[derive(Parser)]
enum Command {
    /// Arrows between crates go strictly down.
    Layers,
    /// What a manifest names, the code uses.
    Dependencies,
    /// Programs and tests compile libraries with the same features.
    Features,
    /// Libraries and functions are used only where they may be.
    Sources,
    /// Links resolve, every error reason and metric is documented, every service has its README, the glossary names what exists.
    Docs,
    /// All of them.
    Check,
    /// Prints the slowest tests of the last runs; checks nothing.
    Slowest,
}

fn main() -> Result<ExitCode> {
    let command = Command::parse();
    let root = root();
    if matches!(command, Command::Slowest) {
        slowest::print(&root)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut faults = Vec::new();
    if matches!(command, Command::Layers | Command::Check) {
        faults.extend(layers::faults(&root)?);
    }
    if matches!(command, Command::Dependencies | Command::Check) {
        faults.extend(dependencies::faults(&root)?);
    }
    if matches!(command, Command::Features | Command::Check) {
        faults.extend(features::faults(&root)?);
    }
    if matches!(command, Command::Sources | Command::Check) {
        faults.extend(sources::faults(&root)?);
    }
    if matches!(command, Command::Docs | Command::Check) {
        faults.extend(docs::faults(&root)?);
        faults.extend(glossary::faults(&root)?);
        faults.extend(metrics::faults(&root)?);
    }
    for fault in &faults {
        eprintln!("xtask: {fault}");
    }
    eprintln!("xtask: {} faults", faults.len());
    Ok(if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .expect("xtask lies two folders below the root")
        .to_path_buf()
}

/// All files below `dir` that git would keep and whose name ends with one of `endings`.
pub(crate) fn files(dir: &Path, endings: &[&str]) -> Result<Vec<PathBuf>> {
    const SKIPPED: [&str; 7] = ["target", ".git", ".sluice", ".cache", "node_modules", "third_party", "generated"];
    let mut found = Vec::new();
    let mut open = vec![dir.to_path_buf()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir)? {
            let entry = entry?;
            let path = entry.path();
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if entry.file_type()?.is_dir() {
                if !SKIPPED.contains(&name.as_ref()) {
                    open.push(path);
                }
            } else if endings.iter().any(|ending| name.ends_with(ending)) {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}
