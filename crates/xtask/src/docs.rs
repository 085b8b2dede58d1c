//! Rules on the docs: links lead somewhere, to a file and to a heading in it, every error reason has its paragraph, and every
//! service says what it owns.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sluice_types::Reason;

const ERRORS_PAGE: &str = "docs/reference/errors.md";

/// Each has a README.md of so many lines at most: what it owns, what it never does, where is what.
const SERVICES: [&str; 4] = ["gateway", "services/control-plane", "services/provisioning", "services/billing"];
const README_LINES_MAX: usize = 60;

pub(crate) fn faults(root: &Path) -> Result<Vec<String>> {
    let mut faults = Vec::new();
    let mut headings = Headings::default();
    for path in crate::files(root, &[".md"])? {
        let text = std::fs::read_to_string(&path)?;
        let shown = path.strip_prefix(root)?.display();
        for link in links(&text) {
            if let Some(what) = headings.fault(&path, &link)? {
                faults.push(format!("{shown}: {what}"));
            }
        }
    }
    let errors = std::fs::read_to_string(root.join(ERRORS_PAGE)).with_context(|| format!("read {ERRORS_PAGE}"))?;
    for reason in Reason::ALL {
        if !errors.contains(&format!("### {reason}\n")) {
            faults.push(format!("{ERRORS_PAGE}: no paragraph headed \"### {reason}\""));
        }
    }
    for service in SERVICES {
        match std::fs::read_to_string(root.join(service).join("README.md")) {
            Err(_) => faults.push(format!("{service}: no README.md that says what it owns and what it never does")),
            Ok(text) if text.lines().count() > README_LINES_MAX => {
                faults.push(format!("{service}/README.md: has more than {README_LINES_MAX} lines"));
            }
            Ok(_) => {}
        }
    }
    Ok(faults)
}

/// The headings of the pages that links lead to, each page read once.
#[derive(Default)]
struct Headings(HashMap<PathBuf, BTreeSet<String>>);

impl Headings {
    /// What is wrong with a link on the page `from`.
    fn fault(&mut self, from: &Path, link: &str) -> Result<Option<String>> {
        if link.contains("://") || link.starts_with("mailto:") {
            return Ok(None);
        }
        let (file, heading) = link.split_once('#').map_or((link, None), |(file, heading)| (file, Some(heading)));
        let target = match file {
            "" => from.to_path_buf(),
            file => from.parent().context("a file lies in a folder")?.join(file),
        };
        if !target.exists() {
            return Ok(Some(format!("the link to {file} leads nowhere")));
        }
        let Some(heading) = heading.filter(|_| target.extension().is_some_and(|extension| extension == "md")) else {
            return Ok(None);
        };
        if !self.0.contains_key(&target) {
            let anchors = anchors(&std::fs::read_to_string(&target)?);
            self.0.insert(target.clone(), anchors);
        }
        let known = self.0.get(&target).is_some_and(|known| known.contains(heading));
        Ok((!known).then(|| format!("the link to {link} leads to no heading of that page")))
    }
}

/// The lines outside fenced code.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut fenced = false;
    text.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        !fenced && !fence
    })
}

/// What a page's headings are called in links, as GitHub and mdBook make it: lower case, hyphens for spaces, no punctuation, a
/// number behind what was there before.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut seen: HashMap<String, usize> = HashMap::new();
    let headings = prose(text).filter(|line| line.starts_with('#'));
    let titles = headings.map(|line| line.trim_start_matches('#').trim());
    let anchors = titles.map(|title| {
        let kept = title.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        let anchor: String = kept.map(|c| if c == ' ' { '-' } else { c }).collect::<String>().to_lowercase();
        let before = seen.entry(anchor.clone()).or_default();
        *before += 1;
        if *before == 1 { anchor } else { format!("{anchor}-{}", *before - 1) }
    });
    anchors.collect()
}

/// Targets of inline links outside code.
fn links(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in prose(text) {
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
    use super::*;

    #[test]
    fn links_in_code_do_not_count() {
        assert_eq!(links("[a](b.md) and `[x](y)` and [c](d)\n```\n[e](f)\n```\n"), vec!["b.md", "d"]);
    }

    #[test]
    fn headings_are_called_as_links_call_them() {
        let page = "# A page\n## `GET` of x_y, twice\n### Why?\n```\n# no heading\n```\n### Why?\n";
        let wanted = ["a-page", "get-of-x_y-twice", "why", "why-1"];
        assert_eq!(anchors(page).into_iter().collect::<Vec<_>>(), wanted);
    }

    #[test]
    fn a_link_to_a_heading_that_is_not_there_is_a_fault() {
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../README.md");
        let mut headings = Headings::default();
        let mut fault = |link: &str| headings.fault(&page, link).expect("readable");
        assert_eq!(fault("docs/glossary.md#usage"), None);
        assert_eq!(fault("https://example.org/#x"), None);
        assert!(fault("docs/glossary.md#no-such-heading").is_some());
        assert!(fault("#no-such-heading").is_some());
        assert!(fault("docs/no-such-page.md").is_some());
    }
}
