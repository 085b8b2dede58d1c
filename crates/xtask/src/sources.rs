//! Rules on source text: where a library may be used, and what a file must begin with.

use std::path::Path;

use anyhow::Result;

/// A text that may stand only in files whose path contains one of the parts.
struct Rule {
    text: &'static str,
    allowed: &'static [&'static str],
    reason: &'static str,
}

const RULES: [Rule; 2] = [
    Rule {
        text: "sqlx::query",
        allowed: &[
            "crates/db/",
            "crates/installation/src/postgres",
            "/store/",
            "/store.rs",
            "/tests/",
            "crates/e2e/",
            "crates/xtask/",
        ],
        reason: "SQL lives in db and in store/, a file per aggregate",
    },
    Rule {
        text: "std::env::",
        allowed: &[
            "/main.rs",
            "/examples/",
            "build.rs",
            "/tests/",
            "crates/e2e/",
            "crates/devstack/",
            "crates/xtask/",
            "crates/runtime/",
            "crates/sluiced/",
            "loadtest/",
            "crates/cli/",
        ],
        reason: "only configuration and mains read the environment",
    },
];

pub(crate) fn faults(root: &Path) -> Result<Vec<String>> {
    let mut faults = Vec::new();
    for path in crate::files(root, &[".rs"])? {
        let text = std::fs::read_to_string(&path)?;
        let shown = path.strip_prefix(root)?.display().to_string();
        let slashed = format!("/{shown}");
        if !text.starts_with("//!") {
            faults.push(format!("{shown}: begins without //! saying what it is for"));
        }
        if shown.ends_with("mod.rs") {
            faults.push(format!("{shown}: name the file after the module, not mod.rs"));
        }
        for rule in &RULES {
            let free = rule.allowed.iter().any(|part| slashed.contains(part));
            if !free && text.contains(rule.text) {
                faults.push(format!("{shown}: {} ({})", rule.text, rule.reason));
            }
        }
    }
    Ok(faults)
}
