//! Rules on source text: where a library may be used, and what a file must begin with.

use std::path::Path;

use anyhow::Result;

/// What may stand only in files whose path contains one of the parts.
struct Rule {
    what: What,
    /// Files that it is about: their path contains this.
    within: &'static str,
    allowed: &'static [&'static str],
    reason: &'static str,
}

enum What {
    /// This text.
    Text(&'static str),
    /// One of these names of a crate.
    Names(&'static str, &'static [&'static str]),
}

/// Where the gateway may speak of a cluster's own names, offsets and connections: the room of the clusters; what makes a topic's
/// record a topic in service; the dispatcher, which is a member of groups of one cluster. Tests look behind the door.
const CLUSTERS: &[&str] = &[
    "gateway/src/clusters",
    "gateway/src/view/index.rs",
    "gateway/src/view/topic.rs",
    "gateway/src/groups/dispatch/",
    "/tests.rs",
    "/tests/",
];

const RULES: [Rule; 7] = [
    Rule {
        what: What::Text("sqlx::query"),
        within: "",
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
        what: What::Text("std::env::"),
        within: "",
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
    Rule {
        what: What::Names("sluice_types::physical", &["PhysicalTopic"]),
        within: "gateway/src/",
        allowed: CLUSTERS,
        reason: "who serves a topic asks for its log, and knows no name of Kafka's",
    },
    Rule { what: What::Text(".physical"), within: "gateway/src/", allowed: CLUSTERS, reason: "the same" },
    Rule {
        what: What::Names("sluice_log", &["PhysicalOffset"]),
        within: "gateway/src/",
        allowed: &["gateway/src/clusters"],
        reason: "a log speaks of logical offsets",
    },
    Rule {
        what: What::Names("sluice_wire", &["Client", "Reader", "Groups"]),
        within: "gateway/src/",
        allowed: &[
            "gateway/src/clusters",
            "gateway/src/groups/dispatch/",
            // The internal topics, which are on the first cluster.
            "gateway/src/members",
            "gateway/src/metering",
            "gateway/src/view/tail.rs",
            "/tests.rs",
            "/tests/",
        ],
        reason: "clients belong to a cluster, and what they hold may be used up",
    },
    Rule {
        what: What::Names("sluice_kafka", &["ProduceSink", "KafkaSink"]),
        within: "gateway/src/",
        allowed: &["gateway/src/clusters"],
        reason: "producers belong to a cluster, and what they hold may be used up",
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
            if free || !slashed.contains(rule.within) {
                continue;
            }
            if let Some(found) = rule.what.found_in(&text) {
                faults.push(format!("{shown}: {found} ({})", rule.reason));
            }
        }
    }
    Ok(faults)
}

impl What {
    fn found_in(&self, text: &str) -> Option<String> {
        match self {
            Self::Text(wanted) => text.contains(wanted).then(|| (*wanted).to_owned()),
            Self::Names(from, names) => {
                let name = names.iter().find(|name| names_of(text, from).any(|found| found == **name))?;
                Some(format!("{from}::{name}"))
            }
        }
    }
}

/// The names behind `from::` in a text: of a path the next one, of an import in braces all.
fn names_of<'a>(text: &'a str, from: &str) -> impl Iterator<Item = &'a str> {
    let prefix = format!("{from}::");
    let starts: Vec<usize> = text.match_indices(&prefix).map(|(at, found)| at + found.len()).collect();
    starts.into_iter().flat_map(move |start| {
        let rest = &text[start..];
        let end = match rest.starts_with('{') {
            true => rest.find('}').unwrap_or(rest.len()),
            false => rest.find(|c: char| !is_of_a_name(c)).unwrap_or(rest.len()),
        };
        rest[..end].split(|c| !is_of_a_name(c)).filter(|name| !name.is_empty())
    })
}

fn is_of_a_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_in_imports_and_paths_and_only_whole() {
        let rule = What::Names("sluice_wire", &["Client"]);
        for text in
            ["use sluice_wire::Client;", "use sluice_wire::{\n    Client, Error,\n};", "a: &sluice_wire::Client)"]
        {
            assert_eq!(rule.found_in(text).as_deref(), Some("sluice_wire::Client"), "{text}");
        }
        for text in ["use sluice_wire::ClientConfig;", "use sluice_wire::{Error}; struct Client;", "other::Client"] {
            assert_eq!(rule.found_in(text), None, "{text}");
        }
    }
}
