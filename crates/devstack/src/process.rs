//! One supervised child process.
//!
//! Promises: the child is its own process group and runs its program only after the watchdog knows it; a signal never
//! reaches a stranger that was given a reused pid, because the child is waited for under the same lock that signals
//! take; dropping a handle does nothing (the stack's watchdog ends what is left).

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Weak};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::error::{Error, Result};
use crate::guard::Guard;
use crate::procfs;
use crate::ready::poll_until;

/// Waits for one line before it becomes the program; at end of file (we died in between) it never does.
const GATE: &str = r#"IFS= read -r _ || exit 125; exec "$@" </dev/null"#;

/// How long a stopped or continued process may take to be seen in its new state.
const SIGNAL_SEEN_WITHIN: Duration = Duration::from_secs(5);

/// Where a child's output goes.
#[derive(Debug, Clone)]
pub(crate) enum Output {
    Log(PathBuf),
    Inherit,
}

/// What to run. Build with [`ProcessSpec::new`]; everything else has a default.
#[derive(Debug, Clone)]
pub struct ProcessSpec {
    pub(crate) name: String,
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<String>,
    pub(crate) envs: Vec<(String, String)>,
    pub(crate) dir: Option<PathBuf>,
    pub(crate) output: Output,
    pub(crate) end_signal: Signal,
}

impl ProcessSpec {
    /// A process called `name` in logs and errors, whose output is appended to `log_file` (mode 0600).
    pub fn new(name: impl Into<String>, program: impl Into<PathBuf>, log_file: impl Into<PathBuf>) -> Self {
        ProcessSpec {
            name: name.into(),
            program: program.into(),
            args: Vec::new(),
            envs: Vec::new(),
            dir: None,
            output: Output::Log(log_file.into()),
            end_signal: Signal::SIGTERM,
        }
    }

    /// Adds arguments.
    pub fn args(mut self, args: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Adds an environment variable; the rest is inherited.
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.envs.push((name.into(), value.into()));
        self
    }

    /// Sets the working directory; inherited by default.
    pub fn current_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.dir = Some(dir.into());
        self
    }

    /// Output goes where ours goes, not to the log file.
    pub fn inherit_output(mut self) -> Self {
        self.output = Output::Inherit;
        self
    }

    /// The signal that the watchdog sends when this process (the parent) is gone; SIGTERM by default.
    pub fn end_signal(mut self, signal: Signal) -> Self {
        self.end_signal = signal;
        self
    }

    /// Where the output goes, if it goes to a file.
    pub(crate) fn log_file(&self) -> Option<&Path> {
        match &self.output {
            Output::Log(path) => Some(path),
            Output::Inherit => None,
        }
    }
}

/// A running (or ended) child. Clones are the same process.
#[derive(Clone)]
pub struct ProcessHandle {
    shared: Arc<Shared>,
}

struct Shared {
    name: String,
    log: PathBuf,
    pid: u32,
    start_time: u64,
    /// True once the child has been waited for: from then on its pid may belong to someone else.
    reaped: Mutex<bool>,
    exit: watch::Sender<Option<ExitStatus>>,
}

impl ProcessHandle {
    pub(crate) fn spawn(spec: &ProcessSpec, guard: &Arc<Guard>) -> Result<ProcessHandle> {
        let (mut child, start_time) = launch(spec).map_err(Error::io("start", &spec.program))?;
        let mut open_gate = || -> std::io::Result<()> {
            guard.watch(child.id(), start_time, spec.end_signal)?;
            child.stdin.take().map_or(Ok(()), |mut gate| gate.write_all(b"\n"))
        };
        open_gate().map_err(Error::io("register with the watchdog", &spec.program))?;
        let shared = Arc::new(Shared {
            name: spec.name.clone(),
            log: spec.log_file().map(Path::to_path_buf).unwrap_or_default(),
            pid: child.id(),
            start_time,
            reaped: Mutex::new(false),
            exit: watch::Sender::new(None),
        });
        let (reaped, guard) = (Arc::clone(&shared), Arc::downgrade(guard));
        std::thread::Builder::new()
            .name(format!("wait-{}", spec.name))
            .spawn(move || reap(child, &reaped, &guard))
            .map_err(Error::io("start a waiting thread for", &spec.program))?;
        tracing::debug!(name = %spec.name, pid = shared.pid, "started");
        Ok(ProcessHandle { shared })
    }

    /// The process id, which is also its group's.
    pub fn pid(&self) -> u32 {
        self.shared.pid
    }

    /// The name given in the spec.
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// The log file given in the spec; empty when the output is inherited.
    pub fn log_file(&self) -> &Path {
        &self.shared.log
    }

    /// Clock ticks between boot and start: together with the pid this names the process for good.
    pub fn start_time(&self) -> u64 {
        self.shared.start_time
    }

    /// How it ended, or `None` while it runs.
    pub fn exit_status(&self) -> Option<ExitStatus> {
        *self.shared.exit.borrow()
    }

    /// Waits for the end. Safe to cancel.
    pub async fn wait(&self) -> ExitStatus {
        let mut exit = self.shared.exit.subscribe();
        let status = exit.wait_for(Option::is_some).await.map(|status| *status);
        status.ok().flatten().expect("the sender lives in self, and the condition asks for Some")
    }

    /// What to say of an end that nobody wanted.
    pub(crate) fn died(&self, status: ExitStatus) -> Error {
        Error::Died { name: self.name().to_owned(), status: status.to_string(), log: self.log_file().to_path_buf() }
    }

    /// Sends a signal to the process group; does nothing when the process has ended.
    pub fn signal(&self, signal: Signal) {
        self.signal_pids(signal, &[-(self.shared.pid as i32)]);
    }

    /// SIGTERM, then after `grace` SIGKILL. Returns how it ended.
    pub async fn stop(&self, grace: Duration) -> ExitStatus {
        self.end(Signal::SIGTERM, grace).await
    }

    pub(crate) async fn end(&self, signal: Signal, grace: Duration) -> ExitStatus {
        self.signal(signal);
        self.signal_tree(Signal::SIGCONT);
        match tokio::time::timeout(grace, self.wait()).await {
            Ok(status) => status,
            Err(_) => self.kill9().await,
        }
    }

    /// SIGKILL to the process, its group and its direct children. Returns when the process has been waited for.
    pub async fn kill9(&self) -> ExitStatus {
        self.signal_tree(Signal::SIGKILL);
        self.wait().await
    }

    /// SIGSTOP to the process, its group and its direct children. Returns when all of them stand still.
    pub async fn pause(&self) -> Result<()> {
        poll_until(&format!("pausing {}", self.name()), SIGNAL_SEEN_WITHIN, async || {
            self.signal_tree(Signal::SIGSTOP);
            procfs::stands_still(&self.tree()).then_some(())
        })
        .await
    }

    /// SIGCONT to all that [`pause`](Self::pause) stopped.
    pub fn resume(&self) {
        self.signal_tree(Signal::SIGCONT);
    }

    fn signal_tree(&self, signal: Signal) {
        let pids: Vec<i32> = self.tree().iter().map(|process| process.pid as i32).collect();
        self.signal_pids(signal, &pids);
    }

    fn tree(&self) -> Vec<procfs::ProcStat> {
        if self.exit_status().is_some() { Vec::new() } else { procfs::tree(self.shared.pid) }
    }

    fn signal_pids(&self, signal: Signal, pids: &[i32]) {
        let reaped = self.shared.reaped.lock();
        if !*reaped {
            for pid in pids {
                // A process that ended in between needs no signal.
                let _ = kill(Pid::from_raw(*pid), signal);
            }
        }
    }
}

fn launch(spec: &ProcessSpec) -> std::io::Result<(Child, u64)> {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", GATE, &spec.name]).arg(&spec.program).args(&spec.args);
    command.envs(spec.envs.iter().map(|(name, value)| (name, value)));
    command.process_group(0).stdin(Stdio::piped());
    if let Some(dir) = &spec.dir {
        command.current_dir(dir);
    }
    if let Output::Log(path) = &spec.output {
        let log = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
        command.stdout(log.try_clone()?).stderr(log);
    }
    let child = command.spawn()?;
    // The child cannot be gone: it stands at its gate, or at worst is a zombie that nobody has waited for.
    let start_time = procfs::stat(child.id()).map(|stat| stat.start_time).ok_or(std::io::ErrorKind::NotFound)?;
    Ok((child, start_time))
}

fn reap(mut child: Child, shared: &Shared, guard: &Weak<Guard>) {
    let pid = Pid::from_raw(child.id() as i32);
    while waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT) == Err(nix::errno::Errno::EINTR) {}
    let status = {
        let mut reaped = shared.reaped.lock();
        *reaped = true;
        child.wait()
    };
    if let Some(guard) = guard.upgrade() {
        guard.forget(child.id());
    }
    tracing::debug!(name = %shared.name, pid = shared.pid, ?status, "ended");
    shared.exit.send_replace(Some(status.unwrap_or_default()));
}
