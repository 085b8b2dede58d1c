//! The programs of this build, run as a person runs them.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, ensure};

/// A program of the same build as this test.
pub(crate) fn binary(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let folder = own.parent().and_then(Path::parent).context("a test binary lies in target/…/deps")?;
    let program = folder.join(name);
    ensure!(program.exists(), "{} is missing: build it first (make build)", program.display());
    Ok(program)
}

/// `sluice` with an environment of its own, in a folder of its own.
#[derive(Clone)]
pub(crate) struct Sluice {
    program: PathBuf,
    dir: PathBuf,
    env: Vec<(String, String)>,
}

impl Sluice {
    pub(crate) fn new(dir: &Path) -> Result<Self> {
        let state = dir.join("state").to_string_lossy().into_owned();
        Ok(Self { program: binary("sluice")?, dir: dir.to_path_buf(), env: vec![("XDG_STATE_HOME".into(), state)] })
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.env.retain(|(known, _)| known != name);
        self.env.push((name.into(), value.into()));
        self
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(args).current_dir(&self.dir).env_clear().envs(self.env.iter().cloned());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Result<Output> {
        Ok(self.command(args).output()?)
    }

    pub(crate) fn with_input(&self, input: &[u8], args: &[&str]) -> Result<Output> {
        let mut child = self.command(args).stdin(Stdio::piped()).spawn()?;
        // It may end before it has read everything.
        let _ = child.stdin.take().context("its input")?.write_all(input);
        Ok(child.wait_with_output()?)
    }

    /// The standard output of a command that succeeds.
    pub(crate) fn done(&self, args: &[&str]) -> Result<String> {
        let output = self.run(args)?;
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "sluice {args:?}: {}: {errors}", output.status);
        Ok(String::from_utf8(output.stdout)?)
    }

    pub(crate) fn json(&self, args: &[&str]) -> Result<serde_json::Value> {
        let text = self.done(&[args, &["--output", "json"]].concat())?;
        serde_json::from_str(&text).with_context(|| format!("sluice {args:?}: {text}"))
    }

    /// The standard error of a command that must end with this code.
    pub(crate) fn refused(&self, code: i32, args: &[&str]) -> Result<String> {
        let output = self.run(args)?;
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.code() == Some(code), "sluice {args:?}: {}: {errors}", output.status);
        ensure!(output.stdout.is_empty(), "sluice {args:?}: a refusal goes to standard error");
        Ok(errors)
    }
}
