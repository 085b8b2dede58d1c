//! Where the time of the tests goes: the slowest of the last runs, from the reports that nextest writes.

use std::path::Path;

use anyhow::{Context, Result};

/// How many are printed.
const SHOWN: usize = 20;

/// A test that ran.
#[derive(Debug, Clone, PartialEq)]
struct Ran {
    name: String,
    seconds: f64,
}

/// Prints a table of the slowest tests, and what each run took in all.
///
/// # Errors
/// If there is no report, or one cannot be read.
pub(crate) fn print(root: &Path) -> Result<()> {
    let reports = reports(root)?;
    anyhow::ensure!(!reports.is_empty(), "no report of a test run in target/nextest; run `make test` first");
    let mut all = Vec::new();
    for (profile, text) in &reports {
        let ran = read(text).with_context(|| format!("the report of {profile}"))?;
        let seconds: f64 = ran.iter().map(|test| test.seconds).sum();
        eprintln!("{profile}: {} tests, {seconds:.0} s one after the other", ran.len());
        all.extend(ran);
    }
    eprintln!("\n{:>9}  the slowest {SHOWN}", "seconds");
    for test in slowest(all) {
        eprintln!("{:>9.1}  {}", test.seconds, test.name);
    }
    Ok(())
}

fn slowest(mut all: Vec<Ran>) -> Vec<Ran> {
    all.sort_by(|one, other| other.seconds.total_cmp(&one.seconds).then_with(|| one.name.cmp(&other.name)));
    all.truncate(SHOWN);
    all
}

/// Reports by profile (`.config/nextest.toml`).
fn reports(root: &Path) -> Result<Vec<(String, String)>> {
    let dir = root.join("target/nextest");
    let mut found = Vec::new();
    for entry in std::fs::read_dir(&dir).with_context(|| format!("read {}", dir.display()))? {
        let entry = entry?;
        let report = entry.path().join("junit.xml");
        if report.is_file() {
            let text = std::fs::read_to_string(&report).with_context(|| format!("read {}", report.display()))?;
            found.push((entry.file_name().to_string_lossy().into_owned(), text));
        }
    }
    found.sort();
    Ok(found)
}

/// Tests of a report in JUnit's format: `testcase` with `classname` (the binary), `name` and `time` in seconds.
fn read(report: &str) -> Result<Vec<Ran>> {
    let document = roxmltree::Document::parse(report)?;
    document
        .descendants()
        .filter(|node| node.has_tag_name("testcase"))
        .map(|case| {
            let value = |name| case.attribute(name).with_context(|| format!("a test case without {name}"));
            let name = format!("{} {}", value("classname")?, value("name")?);
            Ok(Ran { name, seconds: value("time")?.parse().context("the time of a test case")? })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{Ran, read, slowest};

    #[test]
    fn the_slowest_come_first() {
        let report = r#"<testsuites><testsuite name="a::it"><testcase name="quick" classname="a::it" time="0.5"/>
            <testcase name="slow" classname="a::it" time="12.25"><failure/></testcase></testsuite></testsuites>"#;
        let ran = read(report).expect("a report");
        let names: Vec<(String, f64)> = slowest(ran).into_iter().map(|Ran { name, seconds }| (name, seconds)).collect();
        assert_eq!(names, [("a::it slow".to_owned(), 12.25), ("a::it quick".to_owned(), 0.5)]);
    }
}
