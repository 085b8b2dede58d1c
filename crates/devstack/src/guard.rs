//! The watchdog of a stack: a tiny shell process that outlives us just long enough to clean up.
//!
//! Promise: whatever was registered here is gone within 10 s of the end of this process or of the drop of the [`Guard`],
//! be it a normal return, a panic, or `kill -9`; temporary directories too. It rests on one fact: the write end of the
//! guard's standard input exists only in this process (it is close-on-exec), so the kernel closes it for us. A
//! parent-death signal would not do: it is tied to the thread that forked.
//!
//! A process is registered before it runs its program (see `process.rs`), so there is no moment in which a kill leaks it.

use std::fs::File;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

use nix::sys::signal::Signal;
use parking_lot::Mutex;

use crate::error::{Error, Result};

/// The file that marks a directory as ours to remove.
const MARKER: &str = ".sluice-temporary";

pub(crate) struct Guard {
    child: Mutex<Child>,
    orders: Mutex<Option<ChildStdin>>,
}

impl Guard {
    /// Starts the watchdog. `lock`, when given, stays locked until the watchdog is done, so that the next stack in the
    /// same directory waits for the cleaning up.
    pub(crate) fn start(lock: Option<&File>) -> Result<Guard> {
        let shell = Path::new("/bin/sh");
        let start = || -> std::io::Result<Guard> {
            let stdout = match lock {
                Some(file) => Stdio::from(file.try_clone()?),
                None => Stdio::null(),
            };
            let mut child = Command::new(shell)
                .args(["-c", include_str!("guard.sh"), "sluice-guard"])
                .current_dir("/")
                .process_group(0)
                .stdin(Stdio::piped())
                .stdout(stdout)
                .stderr(Stdio::null())
                .spawn()?;
            let orders = child.stdin.take();
            Ok(Guard { child: Mutex::new(child), orders: Mutex::new(orders) })
        };
        start().map_err(Error::io("start the watchdog with", shell))
    }

    pub(crate) fn watch(&self, pid: u32, start_time: u64, signal: Signal) -> std::io::Result<()> {
        let name = signal.as_str().trim_start_matches("SIG");
        self.order(&format!("watch {pid} {start_time} {name}\n"))
    }

    pub(crate) fn forget(&self, pid: u32) {
        // The watchdog being gone already is no reason to fail: there is nothing left to forget then.
        let _ = self.order(&format!("forget {pid}\n"));
    }

    /// Marks `dir` as temporary and has it removed at the end.
    pub(crate) fn remove_at_end(&self, dir: &Path) -> Result<()> {
        let text = dir.to_str().filter(|text| text.starts_with('/') && !text.contains('\n')).ok_or_else(|| {
            Error::Invalid(format!("the temporary directory {dir:?} must be absolute, UTF-8 and on one line"))
        })?;
        std::fs::write(dir.join(MARKER), "").map_err(Error::io("mark as temporary", dir))?;
        self.order(&format!("remove {text}\n")).map_err(Error::io("register", dir))
    }

    fn order(&self, line: &str) -> std::io::Result<()> {
        match self.orders.lock().as_mut() {
            Some(pipe) => pipe.write_all(line.as_bytes()),
            None => Err(std::io::ErrorKind::BrokenPipe.into()),
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.orders.lock().take();
        let _ = self.child.lock().wait();
    }
}
