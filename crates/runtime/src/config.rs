//! Configuration: one TOML file, read once into a complete and valid type, or refused with all its faults.
//!
//! A configuration type derives `Deserialize` with `deny_unknown_fields` and implements [`Validate`] for what serde cannot
//! say. Every fault names the key, what is wrong, and an example taken from [`Validate::EXAMPLE`]. A `main` prints the
//! error and exits with [`ConfigError::EXIT_CODE`].

mod database;
mod files;
mod values;

use std::fmt;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

pub use database::DatabaseConfig;
pub(crate) use files::refuse_world_readable;
pub use files::{FileError, InternalTlsConfig, KafkaConfig, SecretFile, TlsFiles, is_weak_key};
pub use values::{ByteSize, HumanDuration, ListenAddr};

/// Bytes of a configuration file at most.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Faults reported at most.
const FAULTS_MAX: usize = 50;

/// What serde cannot check.
pub trait Validate {
    /// A complete example in TOML; faults quote the line of their key.
    const EXAMPLE: &'static str = "";

    /// Reports what is wrong with values that parsed.
    fn faults(&self, faults: &mut Faults) {
        let _ = faults;
    }

    /// Reports what is wrong with the files that the values name. Asked by [`load`] only: text alone names no files.
    fn files(&self, faults: &mut Faults) {
        let _ = faults;
    }
}

/// What is wrong with one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The key, dotted; empty for the file as a whole.
    pub at: String,
    /// What is wrong with it.
    pub what: String,
    /// A line that would be right.
    pub example: Option<String>,
}

/// Faults being collected, with the prefix of the section being looked at.
#[derive(Debug, Default)]
pub struct Faults {
    prefix: String,
    found: Vec<Fault>,
}

impl Faults {
    /// Adds a fault of a key in the current section.
    pub fn add(&mut self, key: &str, what: impl fmt::Display) {
        self.push(key, what, None);
    }

    fn push(&mut self, key: &str, what: impl fmt::Display, example: Option<String>) {
        if self.found.len() < FAULTS_MAX {
            self.found.push(Fault { at: self.path(key), what: what.to_string(), example });
        }
    }

    /// Adds a fault unless a condition holds.
    pub fn require(&mut self, holds: bool, key: &str, what: impl fmt::Display) {
        if !holds {
            self.add(key, what);
        }
    }

    /// Checks a section under its key.
    pub fn section(&mut self, key: &str, section: &impl Validate) {
        self.below(key, |faults| section.faults(faults));
    }

    /// Checks the files of a section under its key.
    pub fn section_files(&mut self, key: &str, section: &impl Validate) {
        self.below(key, |faults| section.files(faults));
    }

    /// Adds the fault of a file that could not be read or used.
    pub fn file<T, E: fmt::Display>(&mut self, key: &str, read: Result<T, E>) {
        if let Err(error) = read {
            self.add(key, error);
        }
    }

    /// Adds a fault if a listener that protects nobody can be reached from other machines, unless the key `allowed_by` says
    /// that this is meant. `because` says what is at stake.
    pub fn reachable(&mut self, key: &str, addr: ListenAddr, allowed: bool, allowed_by: &str, because: &str) {
        let what = format_args!(
            "is {addr}, which other machines can reach: {because}; listen on 127.0.0.1, or set `{allowed_by} = true` if something \
             else keeps strangers away"
        );
        if !allowed && !addr.is_loopback() {
            // The example of the whole may be just such a listener.
            let example = format!("{key} = \"127.0.0.1:{}\"", addr.addr().port());
            self.push(key, what, Some(example));
        }
    }

    fn below(&mut self, key: &str, check: impl FnOnce(&mut Self)) {
        let outer = std::mem::take(&mut self.prefix);
        self.prefix = if outer.is_empty() { key.to_owned() } else { format!("{outer}.{key}") };
        check(self);
        self.prefix = outer;
    }

    fn path(&self, key: &str) -> String {
        match (self.prefix.is_empty(), key.is_empty()) {
            (true, _) => key.to_owned(),
            (false, true) => self.prefix.clone(),
            (false, false) => format!("{}.{key}", self.prefix),
        }
    }
}

/// A configuration that cannot be used, with everything wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    /// The file.
    pub path: PathBuf,
    /// All that was found.
    pub faults: Vec<Fault>,
}

impl ConfigError {
    /// `EX_USAGE` of sysexits: the process was started wrongly.
    pub const EXIT_CODE: u8 = 64;

    /// The code a `main` exits with.
    pub fn exit_code(&self) -> std::process::ExitCode {
        std::process::ExitCode::from(Self::EXIT_CODE)
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let many = if self.faults.len() == 1 { "1 fault".to_owned() } else { format!("{} faults", self.faults.len()) };
        write!(f, "configuration {} has {many}", self.path.display())?;
        for fault in &self.faults {
            f.write_str("\n  - ")?;
            if !fault.at.is_empty() {
                write!(f, "{}: ", fault.at)?;
            }
            f.write_str(fault.what.trim_end())?;
            if let Some(example) = &fault.example {
                write!(f, "; for example: {example}")?;
            }
        }
        Ok(())
    }
}

/// Reads a configuration file.
///
/// # Errors
/// All faults together: unreadable file, TOML syntax, unknown keys, wrong types, missing keys, broken rules.
pub fn load<T: DeserializeOwned + Validate>(path: &Path) -> Result<T, ConfigError> {
    let whole = |what: String| ConfigError {
        path: path.to_owned(),
        faults: vec![Fault { at: String::new(), what, example: None }],
    };
    let size = std::fs::metadata(path).map_err(|error| whole(format!("cannot be read: {error}")))?.len();
    if size > FILE_BYTES_MAX {
        return Err(whole(format!("is {size} bytes long; at most {FILE_BYTES_MAX} are read")));
    }
    let text = std::fs::read_to_string(path).map_err(|error| whole(format!("cannot be read: {error}")))?;
    judge(&text, path, T::files)
}

/// The same from text; `path` is for messages only.
///
/// # Errors
/// As [`load`].
pub fn parse<T: DeserializeOwned + Validate>(text: &str, path: &Path) -> Result<T, ConfigError> {
    judge(text, path, |_, _| {})
}

fn judge<T: DeserializeOwned + Validate>(
    text: &str,
    path: &Path,
    files: impl FnOnce(&T, &mut Faults),
) -> Result<T, ConfigError> {
    let mut faults = Faults::default();
    let examples = T::EXAMPLE.parse::<toml::Table>().unwrap_or_default();
    let value = match text.parse::<toml::Table>() {
        Ok(table) => deserialize::<T>(table, &examples, &mut faults),
        Err(error) => {
            faults.add("", error);
            None
        }
    };
    if let Some(value) = &value {
        value.faults(&mut faults);
        files(value, &mut faults);
    }
    match value {
        Some(value) if faults.found.is_empty() => Ok(value),
        _ => {
            for fault in &mut faults.found {
                let elsewhere = || example(&examples, &fault.at);
                fault.example = fault.example.take().or_else(elsewhere);
            }
            Err(ConfigError { path: path.to_owned(), faults: faults.found })
        }
    }
}

/// Serde stops at the first fault. So the key at fault gets the value of the example, or is taken out where the example
/// has none, and all is read again, until nothing is left to find. What comes out of such mending is never used.
fn deserialize<T: DeserializeOwned>(mut table: toml::Table, examples: &toml::Table, faults: &mut Faults) -> Option<T> {
    loop {
        let error = match serde_path_to_error::deserialize::<_, T>(toml::Value::Table(table.clone())) {
            Ok(value) => return Some(value),
            Err(error) => error,
        };
        let text = error.inner().to_string();
        let path = error.path().to_string();
        let path = if path == "." { String::new() } else { path };
        let (at, what) = match (quoted(&text, "missing field `"), quoted(&text, "unknown field `")) {
            (Some(key), _) => (join(&path, key), "is missing"),
            (_, Some(key)) if path != key && !path.ends_with(&format!(".{key}")) => (join(&path, key), text.as_str()),
            _ => (path, text.as_str()),
        };
        if faults.found.iter().any(|fault| fault.at == at) {
            return None;
        }
        faults.add(&at, what.lines().next().unwrap_or_default());
        if faults.found.len() >= FAULTS_MAX || !mend(&mut table, examples, &at) {
            return None;
        }
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

fn quoted<'a>(text: &'a str, before: &str) -> Option<&'a str> {
    let rest = &text[text.find(before)? + before.len()..];
    rest.find('`').map(|end| &rest[..end])
}

/// Puts the example's value at the key, or takes the key out; for an element of a list, the list.
fn mend(table: &mut toml::Table, examples: &toml::Table, path: &str) -> bool {
    let (section, key) = path.rsplit_once('.').unwrap_or(("", path));
    let mut table = table;
    let mut examples = Some(examples);
    for part in section.split('.').filter(|part| !part.is_empty()) {
        examples = examples.and_then(|examples| examples.get(part)).and_then(toml::Value::as_table);
        let Some(inner) = table.get_mut(part).and_then(toml::Value::as_table_mut) else { return false };
        table = inner;
    }
    let key = key.split('[').next().unwrap_or(key);
    match examples.and_then(|examples| examples.get(key)) {
        Some(value) => {
            table.insert(key.to_owned(), value.clone());
            true
        }
        None => table.remove(key).is_some(),
    }
}

fn example(examples: &toml::Table, path: &str) -> Option<String> {
    let (section, key) = path.rsplit_once('.').unwrap_or(("", path));
    let mut table = examples;
    for part in section.split('.').filter(|part| !part.is_empty()) {
        table = table.get(part)?.as_table()?;
    }
    let key = key.split('[').next().unwrap_or(key);
    let value = table.get(key)?;
    (!value.is_table()).then(|| format!("{key} = {value}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Config {
        listen: ListenAddr,
        limits: Limits,
    }

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Limits {
        body: ByteSize,
        wait: HumanDuration,
        #[serde(default)]
        streams: u32,
    }

    impl Validate for Limits {
        fn faults(&self, faults: &mut Faults) {
            faults.require(self.streams <= 100, "streams", "must be at most 100");
        }
    }

    impl Validate for Config {
        const EXAMPLE: &'static str = "listen = \"127.0.0.1:8080\"\n[limits]\nbody = \"4MiB\"\nwait = \"1s 500ms\"\n";
        fn faults(&self, faults: &mut Faults) {
            faults.section("limits", &self.limits);
            faults.reachable("listen", self.listen, false, "open", "it says all");
        }
    }

    fn read(text: &str) -> Result<Config, ConfigError> {
        parse(text, Path::new("a.toml"))
    }

    #[test]
    fn the_example_is_right() {
        let config = read(Config::EXAMPLE).expect("example");
        assert_eq!(config.limits.body.bytes(), 4 << 20);
        assert_eq!(config.limits.wait.get(), std::time::Duration::from_millis(1500));
        assert_eq!(config.listen.addr().port(), 8080);
    }

    #[test]
    fn all_faults_come_together_with_key_and_example() {
        let error = read("listen = \"here\"\nlisten2 = 1\n[limits]\nbody = 4.5\nwait = \"soon\"\nstreems = 4\n")
            .expect_err("five faults");
        let at: Vec<&str> = error.faults.iter().map(|fault| fault.at.as_str()).collect();
        for key in ["listen", "listen2", "limits.body", "limits.wait", "limits.streems"] {
            assert!(at.contains(&key), "{key} in {error}");
        }
        assert_eq!(at.len(), 5, "{error}");
        let text = error.to_string();
        assert!(text.contains("a.toml has 5 faults"), "{text}");
        assert!(text.contains("for example: body = \"4MiB\""), "{text}");
    }

    #[test]
    fn the_example_of_a_listener_that_is_too_open_is_one_that_is_not() {
        let text = "listen = \"0.0.0.0:7\"\n[limits]\nbody = \"1KiB\"\nwait = \"1s\"\n";
        let error = read(text).expect_err("open").to_string();
        assert!(
            error.contains("listen on 127.0.0.1") && error.ends_with("example: listen = \"127.0.0.1:7\""),
            "{error}"
        );
    }

    #[test]
    fn missing_keys_broken_rules_and_syntax_are_named() {
        let missing = read("listen = \"127.0.0.1:1\"\n[limits]\nbody = \"1KiB\"\n").expect_err("wait").to_string();
        assert!(missing.contains("limits.wait: is missing; for example: wait = \"1s 500ms\""), "{missing}");
        let rule =
            read("listen = \"127.0.0.1:1\"\n[limits]\nbody = 1\nwait = \"1s\"\nstreams = 101\n").expect_err("rule");
        assert_eq!(rule.faults[0].at, "limits.streams");
        assert!(read("listen = ").expect_err("syntax").to_string().contains("line 1"));
        assert!(
            load::<Config>(Path::new("/absent/a.toml")).expect_err("absent").to_string().contains("cannot be read")
        );
    }
}
