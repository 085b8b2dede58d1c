//! Finds the programs that the stack runs, and names everything that is missing in one go.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::paths;

const JAVA_MAJOR_MIN: u32 = 17;
const POSTGRES_MAJOR_MIN: u32 = 15;
const POSTGRES_ROOT: &str = "/usr/lib/postgresql";

/// Which programs are needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Needs {
    /// Kafka is to be started here.
    pub kafka: bool,
    /// PostgreSQL is to be started here.
    pub postgres: bool,
}

/// The programs found.
#[derive(Debug, Clone)]
pub struct Tools {
    /// A Java runtime of at least version 17.
    pub java: Option<Java>,
    /// Maven; only needed, and only looked for, while Kafka's jars are not in the cache.
    pub mvn: Option<PathBuf>,
    /// PostgreSQL of at least version 15.
    pub postgres: Option<PostgresTools>,
}

/// One Java runtime.
#[derive(Debug, Clone)]
pub struct Java {
    /// `java`.
    pub program: PathBuf,
    /// All that it says about its version.
    pub version: String,
}

/// One PostgreSQL installation.
#[derive(Debug, Clone)]
pub struct PostgresTools {
    /// Major version.
    pub major: u32,
    /// `initdb`.
    pub initdb: PathBuf,
    /// `postgres`.
    pub postgres: PathBuf,
    /// `psql`.
    pub psql: PathBuf,
}

/// What is not installed. Its text is meant for the person at the terminal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// Each missing thing and what it is for.
    pub things: Vec<String>,
    /// The Debian packages that bring them.
    pub packages: Vec<&'static str>,
}

impl std::error::Error for Missing {}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "the local stack needs programs that are not installed:")?;
        for thing in &self.things {
            writeln!(f, "  - {thing}")?;
        }
        let sudo = if nix::unistd::geteuid().is_root() { "" } else { "sudo " };
        write!(f, "on Debian or Ubuntu: {sudo}apt-get install -y {}", self.packages.join(" "))
    }
}

/// Looks for everything in `needs`.
pub fn check(needs: Needs) -> Result<Tools, Missing> {
    let mut missing = Missing { things: Vec::new(), packages: Vec::new() };
    let mut lack = |thing: String, package| {
        missing.things.push(thing);
        missing.packages.push(package);
    };
    let mut tools = Tools { java: None, mvn: None, postgres: None };
    if needs.kafka {
        tools.java = java();
        if tools.java.is_none() {
            lack(format!("java, version {JAVA_MAJOR_MIN} or later (runs Apache Kafka)"), "default-jre-headless");
        }
        if !crate::jars::cached() {
            tools.mvn = paths::find_program("mvn", &[]);
            if tools.mvn.is_none() {
                lack("mvn (fetches Apache Kafka's jars, once)".to_owned(), "maven");
            }
        }
    }
    if needs.postgres {
        tools.postgres = postgres();
        if tools.postgres.is_none() {
            let thing = format!("initdb, postgres and psql, version {POSTGRES_MAJOR_MIN} or later (the database)");
            lack(thing, "postgresql");
        }
        if nix::unistd::geteuid().is_root() && paths::find_program("setpriv", &[]).is_none() {
            lack("setpriv (PostgreSQL refuses to run as root)".to_owned(), "util-linux");
        }
    }
    if missing.things.is_empty() { Ok(tools) } else { Err(missing) }
}

fn java() -> Option<Java> {
    let program = paths::find_program("java", &[])?;
    let output = Command::new(&program).arg("-version").output().ok()?;
    let version = String::from_utf8_lossy(&output.stderr).into_owned();
    (java_major(&version)? >= JAVA_MAJOR_MIN).then_some(Java { program, version })
}

/// From `openjdk version "17.0.15" 2025-04-15` or `"1.8.0_402"`; other lines may precede it.
fn java_major(text: &str) -> Option<u32> {
    let version = text.split_once("version \"")?.1;
    let version = version.strip_prefix("1.").unwrap_or(version);
    version.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// The newest complete installation: Debian's versioned directories first, then the search path.
fn postgres() -> Option<PostgresTools> {
    let mut dirs: Vec<(u32, PathBuf)> = std::fs::read_dir(POSTGRES_ROOT)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .collect();
    if let Some(dir) = paths::find_program("initdb", &[]).as_deref().and_then(Path::parent) {
        dirs.extend(postgres_major(&dir.join("postgres")).map(|major| (major, dir.to_path_buf())));
    }
    dirs.retain(|(major, _)| *major >= POSTGRES_MAJOR_MIN);
    dirs.sort();
    dirs.into_iter().rev().find_map(|(major, dir)| {
        let (initdb, postgres) = (dir.join("initdb"), dir.join("postgres"));
        let complete = paths::is_executable(&initdb) && paths::is_executable(&postgres);
        let psql = Some(dir.join("psql")).filter(|path| paths::is_executable(path));
        let psql = psql.or_else(|| paths::find_program("psql", &[]))?;
        complete.then_some(PostgresTools { major, initdb, postgres, psql })
    })
}

/// The installation of one major version, for a data directory that was made by it.
pub(crate) fn postgres_of_major(major: u32) -> Option<PostgresTools> {
    let dir = Path::new(POSTGRES_ROOT).join(major.to_string()).join("bin");
    let (initdb, postgres) = (dir.join("initdb"), dir.join("postgres"));
    let psql = Some(dir.join("psql")).filter(|path| paths::is_executable(path));
    let psql = psql.or_else(|| paths::find_program("psql", &[]))?;
    paths::is_executable(&postgres).then_some(PostgresTools { major, initdb, postgres, psql })
}

fn postgres_major(postgres: &Path) -> Option<u32> {
    let output = Command::new(postgres).arg("--version").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let version = text.split_ascii_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
    version.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn java_versions_old_and_new_are_understood() {
        assert_eq!(java_major("openjdk version \"17.0.15\" 2025-04-15\nOpenJDK Runtime"), Some(17));
        assert_eq!(java_major("Picked up JAVA_TOOL_OPTIONS: -X\njava version \"1.8.0_402\""), Some(8));
        assert_eq!(java_major("openjdk version \"21\" 2023-09-19"), Some(21));
        assert_eq!(java_major("command not found"), None);
    }

    #[test]
    fn all_that_is_missing_is_named_with_one_command() {
        let missing =
            Missing { things: vec!["java".into(), "mvn".into()], packages: vec!["default-jre-headless", "maven"] };
        let text = missing.to_string();
        assert!(text.contains("- java\n"), "{text}");
        assert!(text.ends_with("apt-get install -y default-jre-headless maven"), "{text}");
    }
}
