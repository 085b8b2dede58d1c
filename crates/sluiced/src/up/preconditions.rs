//! What must hold before `up` starts anything: nobody else works on the data, and the ports are free. Each refusal names who
//! or what is in the way and the flag that goes around it.

use std::fs::{File, TryLockError};
use std::io::ErrorKind;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail};

use super::Args;

/// After a kill -9 the watchdog ends what is left within 10 s.
const LEFTOVERS_END_WITHIN: Duration = Duration::from_secs(12);
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Who holds the data directory.
enum Holder {
    Nobody,
    Process(u32),
    /// What a killed process left, until its watchdog has ended it.
    Leftovers,
}

/// Refuses to start where it could not work.
pub(super) async fn check(args: &Args, dir: &Path) -> Result<()> {
    if args.port == args.operator_port {
        bail!("--port and --operator-port are both {}; they are two listeners", args.port);
    }
    let wait_for_leftovers = async {
        loop {
            match holder(dir) {
                Holder::Leftovers => tokio::time::sleep(LOOK_EVERY).await,
                other => return other,
            }
        }
    };
    if let Ok(Holder::Process(pid)) = tokio::time::timeout(LEFTOVERS_END_WITHIN, wait_for_leftovers).await {
        bail!(
            "process {pid} ({}) works on the data in {}; stop it, or start this one beside it with other --data-dir, --port and \
             --operator-port",
            command_line(pid),
            dir.display()
        );
    }
    for (port, flag) in [(args.port, "--port"), (args.operator_port, "--operator-port")] {
        if let Err(error) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            match error.kind() {
                ErrorKind::AddrInUse => bail!(
                    "port {port} on 127.0.0.1 is taken; choose another with {flag} (`ss -ltnp 'sport = :{port}'` shows who has it)"
                ),
                _ => bail!("port {port} on 127.0.0.1 cannot be used: {error}; choose another with {flag}"),
            }
        }
    }
    Ok(())
}

fn holder(dir: &Path) -> Holder {
    let path = dir.join("stack/lock");
    let Ok(file) = File::open(&path) else { return Holder::Nobody };
    // Given back at once: the stack takes it for good.
    if !matches!(file.try_lock(), Err(TryLockError::WouldBlock)) {
        return Holder::Nobody;
    }
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    let pid = text.split(' ').next().and_then(|pid| pid.parse().ok());
    match pid {
        Some(pid) if !command_line(pid).is_empty() => Holder::Process(pid),
        _ => Holder::Leftovers,
    }
}

/// Empty if there is no such process, or only its remains.
fn command_line(pid: u32) -> String {
    let bytes = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).split('\0').collect::<Vec<_>>().join(" ").trim().to_owned()
}
