//! What several of these tests need.

use std::future::Future;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use sluice_wire::{Client, NewTopic, OutRecord};

/// Deadline of single Kafka calls.
pub(crate) const CALL: Duration = Duration::from_secs(10);

/// Deadline of a stack's start, on a busy machine.
pub(crate) const START_WITHIN: Duration = Duration::from_secs(60);

/// Runs `devstack` with its temporary directories below `temp`.
pub(crate) fn devstack(temp: &Path, args: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_devstack"))
        .args(args)
        .env("TMPDIR", temp)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// A directory that a server run as another user may enter too.
pub(crate) fn open_temp_dir() -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt;
    let permissions = std::fs::Permissions::from_mode(0o755);
    tempfile::Builder::new().prefix("sluice-test-").permissions(permissions).tempdir().unwrap()
}

/// Asks until it holds; fails the test after `within`.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, within: Duration, mut holds: impl FnMut() -> F) {
    let start = Instant::now();
    while !holds().await {
        assert!(start.elapsed() < within, "{what}: not within {within:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) fn topic(name: &str, replication: i16) -> NewTopic {
    NewTopic { name: name.to_owned(), partitions: 1, replication, configs: Default::default() }
}

pub(crate) fn record(value: &str) -> OutRecord {
    let value = Some(bytes::Bytes::copy_from_slice(value.as_bytes()));
    OutRecord { key: None, value, headers: Vec::new(), timestamp_ms: sluice_devstack::now_ms() }
}

/// Writes one record, repeating while the broker or its partition is on its way back; returns its offset.
pub(crate) async fn produce(client: &Client, topic: &str, value: &str, within: Duration) -> i64 {
    let start = Instant::now();
    loop {
        match client.produce_batch(topic, 0, &[record(value)], CALL).await {
            Ok(produced) => return produced.base_offset,
            Err(error) => assert!(start.elapsed() < within, "no write within {within:?}: {error:?}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Whether the process exists and is not merely waiting to be waited for.
pub(crate) fn alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

/// All live processes whose command line mentions the text, or that descend from `ancestor`.
pub(crate) fn processes_of(ancestor: u32, mention: &Path) -> Vec<u32> {
    let mention = mention.to_str().unwrap();
    let mut all: Vec<(u32, u32, bool)> = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let Some((_, rest)) = stat.rsplit_once(") ") else { continue };
        let parent = rest.split(' ').nth(1).and_then(|field| field.parse().ok()).unwrap_or(0);
        let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        all.push((pid, parent, String::from_utf8_lossy(&command).contains(mention)));
    }
    let mut found: Vec<u32> = all.iter().filter(|(_, _, mentions)| *mentions).map(|(pid, _, _)| *pid).collect();
    let mut known = vec![ancestor];
    while let Some(parent) = known.pop() {
        for (pid, _, _) in all.iter().filter(|(_, of, _)| *of == parent) {
            found.push(*pid);
            known.push(*pid);
        }
    }
    found.sort_unstable();
    found.dedup();
    found.retain(|pid| *pid != std::process::id() && alive(*pid));
    found
}
