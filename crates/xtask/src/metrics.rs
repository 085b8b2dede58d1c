//! The page of metrics and the code agree: every metric of ours stands there once, what stands there exists, and other pages
//! name none that does not.
//!
//! A metric is registered with its name and what it means, as two texts one after the other. Under which part's prefix a file's
//! metrics come stands here, because they are made known elsewhere than they are declared.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result};

const PAGE: &str = "docs/reference/metrics.md";
/// Files that declare metrics, and the parts that have them.
const SOURCES: [(&str, &[&str]); 10] = [
    ("crates/edge/src/metrics.rs", &["gateway", "operator"]),
    ("crates/kafka/src/metrics.rs", &["produce"]),
    ("crates/runtime/src/server/metrics.rs", &["gateway"]),
    ("gateway/src/groups/dispatch/metrics.rs", &["groups"]),
    ("gateway/src/groups/door/metrics.rs", &["door"]),
    ("gateway/src/metering.rs", &["usage"]),
    ("gateway/src/metrics.rs", &["gateway"]),
    ("services/billing/src/metrics.rs", &["billing"]),
    ("services/control-plane/src/metrics.rs", &["control"]),
    ("services/provisioning/src/metrics.rs", &["provisioning"]),
];
/// What a metric's name gets where it is shown.
const ENDINGS: [&str; 6] = ["", "_total", "_seconds", "_bucket", "_sum", "_count"];
/// Roles of the databases are named after a part, too.
const ROLES: [&str; 3] = ["_owner", "_app", "_system"];

pub(crate) fn faults(root: &Path) -> Result<Vec<String>> {
    let mut faults = Vec::new();
    let mut known = BTreeSet::new();
    for path in crate::files(root, &[".rs"])? {
        let shown = path.strip_prefix(root)?.display().to_string();
        if shown.starts_with("crates/xtask/") || shown.contains("/tests/") {
            continue;
        }
        let text = std::fs::read_to_string(&path)?;
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        match SOURCES.iter().find(|(file, _)| *file == shown) {
            Some((_, parts)) => {
                for (part, name) in parts.iter().flat_map(|part| declared(code).map(move |name| (part, name))) {
                    known.insert(format!("sluice_{part}_{name}"));
                }
            }
            None if registered(code) => {
                faults
                    .push(format!("{shown}: registers metrics, and is not among those of crates/xtask/src/metrics.rs"));
            }
            None => {}
        }
    }
    let page = std::fs::read_to_string(root.join(PAGE)).with_context(|| format!("read {PAGE}"))?;
    faults.extend(page_faults(&page, &known));
    for path in crate::files(root, &[".md"])? {
        let shown = path.strip_prefix(root)?.display().to_string();
        let text = std::fs::read_to_string(&path)?;
        let unknown = mentions(&text).filter(|word| !is_known(word, &known));
        faults.extend(unknown.map(|word| format!("{shown}: names the metric {word}, which no source has")));
    }
    Ok(faults)
}

/// Names that are followed by what they mean.
fn declared(code: &str) -> impl Iterator<Item = &str> {
    let begins = code.match_indices(['(', '\n']).map(|(at, _)| &code[at + 1..]);
    begins.filter_map(|text| name_at(text.trim_start_matches([' ', '\t'])))
}

/// The name with which a text begins, if its meaning follows.
fn name_at(text: &str) -> Option<&str> {
    let (name, rest) = text.strip_prefix('"')?.split_once('"')?;
    let meaning = rest.strip_prefix(',')?.trim_start().strip_prefix('"')?;
    let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    let is_meaning = meaning.starts_with(|c: char| c.is_ascii_uppercase() || c.is_ascii_digit());
    (is_name && is_meaning).then_some(name)
}

/// Whether something is registered under a name that stands there.
fn registered(code: &str) -> bool {
    code.split(".register(").skip(1).any(|call| name_at(call.trim_start()).is_some())
}

fn page_faults(page: &str, known: &BTreeSet<String>) -> Vec<String> {
    let mut faults = Vec::new();
    let mut times: BTreeMap<&str, usize> = BTreeMap::new();
    for line in page.lines().filter(|line| line.starts_with("| `sluice_")) {
        let mut cells = line.split('|').map(str::trim).skip(1);
        let shown = cells.next().unwrap_or_default().trim_matches('`');
        let kind = cells.next().unwrap_or_default();
        let Some(metric) = ENDINGS.iter().find_map(|ending| known.get(shown.strip_suffix(ending)?)) else {
            faults.push(format!("{PAGE}: {shown} is in no source"));
            continue;
        };
        *times.entry(metric).or_default() += 1;
        if (kind == "counter") != shown.ends_with("_total") {
            faults.push(format!(
                "{PAGE}: {shown} is a {kind}: counters end with _total where they are shown, and only they"
            ));
        }
    }
    faults.extend(
        known
            .iter()
            .filter(|metric| !times.contains_key(metric.as_str()))
            .map(|metric| format!("{PAGE}: {metric} is missing")),
    );
    let twice = times.iter().filter(|(_, times)| **times > 1);
    faults.extend(twice.map(|(metric, _)| format!("{PAGE}: {metric} stands there more than once")));
    faults
}

/// Words that look like metrics of a part; with an underscore at the end, like the beginning of some.
fn mentions(text: &str) -> impl Iterator<Item = &str> {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    text.match_indices("sluice_").filter(move |(at, _)| !text[..*at].ends_with(inner)).filter_map(move |(at, _)| {
        let word = &text[at..];
        let word = &word[..word.find(|c| !inner(c)).unwrap_or(word.len())];
        let part = word.split('_').nth(1)?;
        let is_ours = SOURCES.iter().any(|(_, parts)| parts.contains(&part)) && word.matches('_').count() > 1;
        (is_ours && !ROLES.iter().any(|role| word.ends_with(role))).then_some(word)
    })
}

fn is_known(word: &str, known: &BTreeSet<String>) -> bool {
    if word.ends_with('_') {
        return known.iter().any(|metric| metric.starts_with(word));
    }
    ENDINGS.iter().any(|ending| word.strip_suffix(ending).is_some_and(|metric| known.contains(metric)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CODE: &str = r#"
        registry.register("streams", "Streams that are open", metrics.streams.clone());
        registry.register_with_unit(
            "barrier",
            "Time until gateways had applied a change",
            Unit::Seconds,
        );
        open: counter("1", "no"), gauge("groups_lag", "Records behind", lag)?;
        tracing::warn!(kind = "a kind", "not a metric");
    "#;

    fn known() -> BTreeSet<String> {
        declared(CODE).map(|name| format!("sluice_door_{name}")).collect()
    }

    #[test]
    fn names_are_found_by_what_they_mean() {
        let wanted = ["sluice_door_barrier", "sluice_door_groups_lag", "sluice_door_streams"];
        assert_eq!(known(), wanted.map(str::to_owned).into());
        assert!(registered(CODE));
        assert!(!registered("metrics.register(\"usage\", |registry| {});\n check(\"one\", \"Two\");"));
    }

    #[test]
    fn a_page_has_each_metric_once_under_its_name() {
        let row = |name: &str, kind: &str| format!("| `{name}` | {kind} | What it is |\n");
        let good = [
            row("sluice_door_barrier_seconds", "histogram"),
            row("sluice_door_groups_lag", "gauge"),
            row("sluice_door_streams_total", "counter"),
        ];
        assert!(page_faults(&good.concat(), &known()).is_empty());
        let faults =
            page_faults(&[&good[0][..], &good[0], &row("sluice_door_groups_lag_total", "gauge")].concat(), &known());
        assert_eq!(faults.len(), 3, "one ending, one missing, one twice: {faults:?}");
        assert_eq!(page_faults(&[good.concat(), row("sluice_door_closed", "gauge")].concat(), &known()).len(), 1);
    }

    #[test]
    fn other_pages_name_what_exists() {
        let text = "`sluice_door_streams_total`, all of `sluice_door_`, the role sluice_control_app, a sluice_thing";
        assert!(mentions(text).all(|word| is_known(word, &known())), "{:?}", mentions(text).collect::<Vec<_>>());
        assert_eq!(mentions("see sluice_door_closed.").filter(|word| !is_known(word, &known())).count(), 1);
        assert!(mentions("my_sluice_door_closed").next().is_none());
    }
}
