//! The glossary and the code agree: each term stands there once, and what it says of the code exists.
//!
//! An entry is a list item `- **term**: definition. Code: names`, over one line or more.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use anyhow::{Context, Result};

const PAGE: &str = "docs/glossary.md";

pub(crate) fn faults(root: &Path) -> Result<Vec<String>> {
    let page = std::fs::read_to_string(root.join(PAGE)).with_context(|| format!("read {PAGE}"))?;
    let entries = entries(&page);
    let mut faults: Vec<String> = Vec::new();
    let mut terms = HashSet::new();
    let mut wanted: BTreeMap<&str, &str> = BTreeMap::new();
    for entry in &entries {
        if !terms.insert(entry.term.as_str()) {
            faults.push(format!("{PAGE}: {:?} stands there more than once", entry.term));
        }
        if entry.names.is_empty() {
            faults.push(format!("{PAGE}: {:?} names nothing of the code after \"Code:\"", entry.term));
        }
        wanted.extend(entry.names.iter().map(|name| (name.as_str(), entry.term.as_str())));
    }
    for path in crate::files(root, &[".rs", ".proto", ".sql"])? {
        // These checks name things that they look for.
        if path.starts_with(root.join("crates/xtask")) {
            continue;
        }
        let text = std::fs::read_to_string(&path)?;
        wanted.retain(|name, _| !has_word(&text, name));
    }
    faults.extend(wanted.iter().map(|(name, term)| format!("{PAGE}: {term:?} names {name}, which no source has")));
    Ok(faults)
}

/// A term with the names that it has in the code.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    term: String,
    names: Vec<String>,
}

fn entries(page: &str) -> Vec<Entry> {
    let mut items: Vec<String> = Vec::new();
    let mut open = false;
    for line in page.lines() {
        if line.starts_with("- **") {
            items.push(line.to_owned());
            open = true;
        } else if let (true, true, Some(item)) = (open, line.starts_with("  "), items.last_mut()) {
            item.push(' ');
            item.push_str(line.trim());
        } else {
            open = false;
        }
    }
    let read = |item: String| {
        let (term, rest) = item.strip_prefix("- **")?.split_once("**")?;
        let names = rest.rsplit_once("Code:").map(|(_, names)| names).unwrap_or_default();
        let names = names.split('`').skip(1).step_by(2).map(str::to_owned).collect();
        Some(Entry { term: term.to_owned(), names })
    };
    items.into_iter().filter_map(read).collect()
}

/// Whether `word` stands in `text` and is not a part of a longer word.
fn has_word(text: &str, word: &str) -> bool {
    let inner = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word).any(|(at, _)| !text[..at].ends_with(inner) && !text[at + word.len()..].starts_with(inner))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_ends_where_its_item_ends() {
        let page =
            "# Words\n- **work lease**: a `row`. Code: `Lease`,\n  `lease_epoch`.\n\n- **orphan**: none.\nCode: `X`.\n";
        let names = vec!["Lease".to_owned(), "lease_epoch".to_owned()];
        let wanted =
            [Entry { term: "work lease".to_owned(), names }, Entry { term: "orphan".to_owned(), names: Vec::new() }];
        assert_eq!(entries(page), wanted);
    }

    #[test]
    fn a_part_of_a_longer_word_is_not_the_word() {
        assert!(has_word("a Lease, b", "Lease"));
        assert!(!has_word("LeaseKey work_Lease Leased", "Lease"));
    }
}
