//! Rules on the docs: relative links lead somewhere, and every error reason has its paragraph.

use std::path::Path;

use anyhow::{Context, Result};
use sluice_types::Reason;

const ERRORS_PAGE: &str = "docs/reference/errors.md";

pub(crate) fn faults(root: &Path) -> Result<Vec<String>> {
    let mut faults = Vec::new();
    for path in crate::files(root, &[".md"])? {
        let text = std::fs::read_to_string(&path)?;
        let folder = path.parent().context("a file lies in a folder")?;
        let shown = path.strip_prefix(root)?.display();
        for link in links(&text) {
            let target = link.split('#').next().unwrap_or_default();
            if target.is_empty() || target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            if !folder.join(target).exists() {
                faults.push(format!("{shown}: the link to {target} leads nowhere"));
            }
        }
    }
    let errors = std::fs::read_to_string(root.join(ERRORS_PAGE)).with_context(|| format!("read {ERRORS_PAGE}"))?;
    for reason in Reason::ALL {
        if !errors.contains(&format!("### {reason}\n")) {
            faults.push(format!("{ERRORS_PAGE}: no paragraph headed \"### {reason}\""));
        }
    }
    Ok(faults)
}

/// Targets of inline links outside code.
fn links(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut fenced = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        if fenced {
            continue;
        }
        // Every second piece is code.
        let prose: String = line.split('`').step_by(2).collect();
        let mut rest = prose.as_str();
        while let Some(start) = rest.find("](") {
            rest = &rest[start + 2..];
            let Some(end) = rest.find(')') else { break };
            found.push(rest[..end].to_owned());
            rest = &rest[end..];
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::links;

    #[test]
    fn links_in_code_do_not_count() {
        assert_eq!(links("[a](b.md) and `[x](y)` and [c](d)\n```\n[e](f)\n```\n"), vec!["b.md", "d"]);
    }
}
