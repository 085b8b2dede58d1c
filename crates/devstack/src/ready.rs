//! Waiting for a condition, with a deadline and with the reason when it does not come.

use std::io::{Read, Seek, SeekFrom};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use crate::error::{Error, Result};
use crate::process::ProcessHandle;

const POLL_EVERY: Duration = Duration::from_millis(25);
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
const TAIL_BYTES: u64 = 4096;

/// What tells that a process is ready.
#[derive(Debug, Clone)]
pub enum Ready {
    /// The file exists and is not empty.
    File(PathBuf),
    /// Something accepts TCP connections there.
    Tcp(SocketAddr),
    /// `GET path` over plain HTTP/1.1 at the address answers 200.
    Http(SocketAddr, String),
}

impl Ready {
    /// Whether it holds now; asks once, for at most 2 s.
    pub async fn holds(&self) -> bool {
        holds(self).await
    }
}

impl ProcessHandle {
    /// Waits until the process is ready. Fails at once, with the end of its log, when it ends instead.
    pub async fn ready(&self, ready: &Ready, within: Duration) -> Result<()> {
        self.ready_when(&format!("{} getting ready", self.name()), within, async || holds(ready).await).await
    }

    /// As [`ready`](Self::ready), for any condition.
    pub(crate) async fn ready_when(
        &self,
        what: &str,
        within: Duration,
        mut condition: impl AsyncFnMut() -> bool,
    ) -> Result<()> {
        let outcome = poll_until(what, within, async || match self.exit_status() {
            Some(status) => Some(Err(status)),
            None => condition().await.then_some(Ok(())),
        });
        match outcome.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(status)) => Err(Error::Ended {
                name: self.name().to_owned(),
                status: status.to_string(),
                log: self.log_file().to_path_buf(),
                tail: tail(self.log_file()),
            }),
            Err(Error::Deadline { what, after, .. }) => {
                let detail = format!("the end of {}:\n{}", self.log_file().display(), tail(self.log_file()));
                Err(Error::Deadline { what, after, detail })
            }
            Err(other) => Err(other),
        }
    }
}

/// Asks every 25 ms until the answer is there.
pub(crate) async fn poll_until<T>(
    what: &str,
    within: Duration,
    mut condition: impl AsyncFnMut() -> Option<T>,
) -> Result<T> {
    let end = Instant::now() + within;
    loop {
        if let Some(answer) = condition().await {
            return Ok(answer);
        }
        if Instant::now() >= end {
            return Err(Error::Deadline { what: what.to_owned(), after: within, detail: String::new() });
        }
        sleep(POLL_EVERY).await;
    }
}

/// The last lines of a log, for error messages; empty when it cannot be read.
pub(crate) fn tail(path: &Path) -> String {
    let read = || -> std::io::Result<String> {
        let mut file = std::fs::File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    read().unwrap_or_default()
}

async fn holds(ready: &Ready) -> bool {
    match ready {
        Ready::File(path) => path.metadata().is_ok_and(|meta| meta.len() > 0),
        Ready::Tcp(address) => matches!(timeout(PROBE_TIMEOUT, TcpStream::connect(address)).await, Ok(Ok(_))),
        Ready::Http(address, path) => matches!(timeout(PROBE_TIMEOUT, http_ok(*address, path)).await, Ok(Ok(true))),
    }
}

async fn http_ok(address: SocketAddr, path: &str) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut status_line = [0_u8; 12];
    stream.read_exact(&mut status_line).await?;
    Ok(status_line.ends_with(b" 200"))
}
