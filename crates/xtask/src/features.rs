//! One feature set: what `make up` builds is compiled with the features that the whole workspace has, so that tests reuse it.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// What the doors build without the tests.
const PROGRAMS: [&str; 6] = ["-p", "sluiced", "-p", "sluice", "-p", "sluice-features"];

pub(crate) fn faults(root: &Path) -> Result<Vec<String>> {
    // What runs while compiling (build scripts, macros) has features of its own, so it must not hide what programs lack.
    let mut faults = BTreeSet::new();
    for (of_tests, of_programs) in
        [("normal,dev,no-proc-macro", "normal,no-proc-macro"), ("normal,build,dev", "normal,build")]
    {
        let known = tree(root, &["--workspace"], of_tests)?;
        faults.extend(tree(root, &PROGRAMS, of_programs)?.difference(&known).cloned());
    }
    Ok(faults
        .into_iter()
        .map(|line| format!("{line}: tests compile it with other features; add them to crates/features/Cargo.toml"))
        .collect())
}

/// Packages with their features, one a line.
fn tree(root: &Path, packages: &[&str], edges: &str) -> Result<BTreeSet<String>> {
    let output = Command::new("cargo")
        .args(["tree", "--locked", "--prefix", "none", "--no-dedupe", "--format", "{p} {f}", "--edges", edges])
        .args(packages)
        .current_dir(root)
        .output()
        .context("cargo tree")?;
    ensure!(output.status.success(), "cargo tree: {}", String::from_utf8_lossy(&output.stderr).trim());
    // Paths are those of this workspace; its own packages have no features to compare.
    Ok(String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(|line| line.trim_end_matches(" (*)").to_owned())
        .filter(|line| !line.is_empty() && !line.contains("(/"))
        .collect())
}
