//! CPU time and memory of a process, from `/proc` (man 5 proc).

use anyhow::{Context, Result};
use nix::unistd::{SysconfVar, sysconf};

/// A process on this machine.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Process {
    pid: u32,
}

impl Process {
    pub(crate) fn of(pid: u32) -> Self {
        Self { pid }
    }

    pub(crate) fn own() -> Self {
        Self { pid: std::process::id() }
    }

    /// CPU seconds used so far, user and system.
    pub(crate) fn cpu_seconds(&self) -> Result<f64> {
        let text = std::fs::read_to_string(format!("/proc/{}/stat", self.pid)).context("read /proc/…/stat")?;
        // The command's name may hold spaces; fields are counted behind its closing parenthesis.
        let rest = text.rsplit_once(')').context("a name in parentheses")?.1;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
        let per_second = sysconf(SysconfVar::CLK_TCK)?.context("clock ticks a second")?;
        Ok(ticks as f64 / per_second as f64)
    }

    pub(crate) fn rss_bytes(&self) -> Result<u64> {
        self.status("VmRSS:")
    }

    pub(crate) fn peak_rss_bytes(&self) -> Result<u64> {
        self.status("VmHWM:")
    }

    fn status(&self, name: &str) -> Result<u64> {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).context("read /proc/…/status")?;
        let line = text.lines().find_map(|line| line.strip_prefix(name)).context("a line of the status")?;
        let kib: u64 = line.trim().trim_end_matches(" kB").trim().parse()?;
        Ok(kib * 1024)
    }
}

impl Process {
    /// Threads it has now.
    pub(crate) fn threads(&self) -> Result<usize> {
        Ok(std::fs::read_dir(format!("/proc/{}/task", self.pid)).context("read /proc/…/task")?.count())
    }
}
