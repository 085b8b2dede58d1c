//! One broker: its files, its process, and when it serves.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use nix::sys::signal::Signal;
use parking_lot::Mutex;

use crate::error::{Error, Result};
use crate::files;
use crate::kafka::config::{Cluster, NODE_PRINCIPAL, text};
use crate::kafka::{Archive, Setup};
use crate::process::{ProcessHandle, ProcessSpec};
use crate::stack::Tuning;
use crate::supervisor::Supervisor;

const LOG4J: &str = include_str!("../../../../dev/kafka/log4j2.xml");

/// The line by which a broker says that it serves.
const STARTED: &str = "Kafka Server started";

const FORMAT_WITHIN: Duration = Duration::from_secs(60);

pub(super) struct Node {
    id: i32,
    spec: ProcessSpec,
    log_file: PathBuf,
    supervisor: Supervisor,
    process: Mutex<Option<Running>>,
}

#[derive(Clone)]
struct Running {
    handle: ProcessHandle,
    /// Length of the log before this process wrote to it.
    log_start: u64,
}

impl Node {
    /// Writes the node's files and formats its storage unless that was done before.
    pub(super) async fn prepare(setup: &Setup<'_>, cluster: &Cluster, id: u32) -> Result<Node> {
        let dir = setup.dir.join(format!("node-{id}"));
        files::create_dir(&dir)?;
        files::make_private(&dir, 0o700)?;
        let key_store = dir.join("node.pem");
        if !key_store.exists() {
            let issued = setup.ca.issue(NODE_PRINCIPAL, &["localhost"], &[])?;
            files::write_secret(&key_store, &format!("{}{}", issued.key_pem, issued.cert_pem))?;
        }
        let properties = dir.join("server.properties");
        files::write_secret(&properties, &cluster.properties(id, &dir)?)?;
        files::write_public(&dir.join("log4j2.xml"), LOG4J)?;
        if !dir.join("data/meta.properties").exists() {
            format_storage(setup, &dir, &properties).await?;
        }
        let log_file = dir.join("server.log");
        let mut args = jvm_args(setup, &dir, &log_file)?;
        if let Archive::Make(path) = &setup.archive {
            args.push(format!("-XX:ArchiveClassesAtExit={}", text(path)?));
        }
        args.extend(["kafka.Kafka".to_owned(), text(&properties)?.to_owned()]);
        let end = match setup.tuning {
            Tuning::Tests => Signal::SIGKILL,
            Tuning::Durable => Signal::SIGTERM,
        };
        let spec = ProcessSpec::new(format!("kafka-{id}"), &setup.java.program, dir.join("console.log"));
        let spec = spec.args(args).current_dir(&dir).end_signal(end);
        Ok(Node { id: id as i32, spec, log_file, supervisor: setup.supervisor.share(), process: Mutex::new(None) })
    }

    pub(super) fn id(&self) -> i32 {
        self.id
    }

    pub(super) fn log_file(&self) -> &Path {
        &self.log_file
    }

    pub(super) fn pid(&self) -> Option<u32> {
        self.running().map(|running| running.handle.pid())
    }

    /// Starts the process unless it runs.
    pub(super) fn launch(&self) -> Result<()> {
        if self.running().is_none() {
            let log_start = self.log_file.metadata().map_or(0, |meta| meta.len());
            let handle = self.supervisor.spawn(&self.spec)?;
            *self.process.lock() = Some(Running { handle, log_start });
        }
        Ok(())
    }

    pub(super) async fn ready(&self, within: Duration) -> Result<()> {
        let running = self.process.lock().clone();
        let Some(running) = running else { return Err(Error::Invalid(format!("{} was not started", self.spec.name))) };
        let what = format!("{} getting ready", self.spec.name);
        let ready = running.handle.ready_when(&what, within, async || self.logged(STARTED));
        ready.await.map_err(|error| self.explain(error))
    }

    pub(super) async fn pause(&self) -> Result<()> {
        match self.running() {
            Some(running) => running.handle.pause().await,
            None => Err(Error::Invalid(format!("{} does not run", self.spec.name))),
        }
    }

    pub(super) fn resume(&self) {
        if let Some(running) = self.running() {
            running.handle.resume();
        }
    }

    pub(super) async fn kill9(&self) {
        if let Some(running) = self.running() {
            running.handle.kill9().await;
        }
    }

    /// How it ended, if it ran.
    pub(super) async fn stop(&self, grace: Duration) -> Option<ExitStatus> {
        Some(self.running()?.handle.stop(grace).await)
    }

    /// Waits until the process that runs now ends; for ever if none does.
    pub(super) async fn ended(&self) -> Error {
        let Some(running) = self.running() else { return std::future::pending().await };
        let status = running.handle.wait().await;
        self.explain(running.handle.died(status))
    }

    fn running(&self) -> Option<Running> {
        self.process.lock().clone().filter(|running| running.handle.exit_status().is_none())
    }

    /// Whether the log holds the text, written since the last launch.
    pub(super) fn logged(&self, text: &str) -> bool {
        let log_start = self.process.lock().as_ref().map_or(0, |running| running.log_start);
        let read = || -> std::io::Result<Vec<u8>> {
            let mut file = File::open(&self.log_file)?;
            // Shorter than before: the file was rolled over meanwhile.
            let start = if file.metadata()?.len() < log_start { 0 } else { log_start };
            file.seek(SeekFrom::Start(start))?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes).map(|_| bytes)
        };
        read().is_ok_and(|log| log.windows(text.len()).any(|window| window == text.as_bytes()))
    }

    /// The process's own output is empty when Kafka fails: what it says is in the log.
    fn explain(&self, error: Error) -> Error {
        match error {
            Error::Ended { name, status, tail, .. } => {
                let tail = format!("{tail}{}", crate::ready::tail(&self.log_file));
                Error::Ended { name, status, log: self.log_file.clone(), tail }
            }
            Error::Died { name, status, .. } => Error::Died { name, status, log: self.log_file.clone() },
            Error::Deadline { what, after, .. } => {
                Error::Deadline { what, after, detail: crate::ready::tail(&self.log_file) }
            }
            other => other,
        }
    }
}

fn jvm_args(setup: &Setup<'_>, dir: &Path, log_file: &Path) -> Result<Vec<String>> {
    let mut args = vec!["-Xmx512m".to_owned(), "-XX:+UseSerialGC".to_owned()];
    if setup.tuning == Tuning::Tests {
        // The quick compiler only: half a second and a third of the CPU less at the start, slower later.
        args.push("-XX:TieredStopAtLevel=1".to_owned());
    }
    if let Archive::Use(path) = &setup.archive {
        args.push(format!("-XX:SharedArchiveFile={}", text(path)?));
    }
    args.push("-Djava.awt.headless=true".to_owned());
    args.push(format!("-Dlog4j2.configurationFile={}", text(&dir.join("log4j2.xml"))?));
    args.push(format!("-Dsluice.log.file={}", text(log_file)?));
    args.extend(["-cp".to_owned(), format!("{}/*", text(&setup.jars)?)]);
    Ok(args)
}

/// Makes the storage with all users in it. Passwords go by file: arguments can be read by everyone on the machine.
async fn format_storage(setup: &Setup<'_>, dir: &Path, properties: &Path) -> Result<()> {
    let mut lines = vec!["format".to_owned(), "-t".to_owned(), setup.secrets.cluster_id.clone()];
    lines.extend(["-c".to_owned(), text(properties)?.to_owned()]);
    for (user, password) in &setup.secrets.kafka_users {
        lines.extend(["--add-scram".to_owned(), format!("SCRAM-SHA-512=[name={user},password={password}]")]);
    }
    let args_file = dir.join("format.args");
    files::write_secret(&args_file, &lines.join("\n"))?;
    let mut args = jvm_args(setup, dir, &dir.join("format.log"))?;
    args.extend(["kafka.tools.StorageTool".to_owned(), format!("@{}", text(&args_file)?)]);
    let spec = ProcessSpec::new("kafka-format", &setup.java.program, dir.join("format.out")).args(args);
    let outcome = setup.supervisor.run(&spec, FORMAT_WITHIN).await;
    std::fs::remove_file(&args_file).map_err(Error::io("remove", &args_file))?;
    outcome
}
