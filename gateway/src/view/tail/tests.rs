//! Snapshots as the reading meets them: a slow disk, and files of other builds.

use std::fs;
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;

use bytes::Bytes;
use prost::Message as _;
use tempfile::TempDir;

use sluice_control_log::Change as LogChange;
use sluice_proto::internal::control::v1::control_record::Resource;
use sluice_proto::internal::control::v1::{ControlRecord, Life, TenantState};
use sluice_types::TenantUid;
use sluice_wire::ClientConfig;

use super::*;

const LOG: [u8; 16] = [3; 16];
const READ_TO: i64 = 41;
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// A feed whose Kafka nobody asks.
fn feed(dir: &TempDir) -> Feed {
    let client = Client::new(ClientConfig::new(["127.0.0.1:1"])).expect("client");
    Feed {
        view: Arc::default(),
        applied: Applied::default(),
        freshness: Freshness::default(),
        clusters: Clusters::without_producers(&client),
        client,
        health: Health::new(),
        data_dir: dir.path().to_owned(),
        defaults: TenantLimits::default(),
    }
}

fn tenant(uid: TenantUid) -> (String, Bytes) {
    let state =
        TenantState { uid: uid.to_string(), id: "acme".into(), life: Life::Active.into(), ..TenantState::default() };
    let record = ControlRecord {
        version: 1,
        tenant_uid: uid.to_string(),
        resource: Some(Resource::Tenant(state)),
        ..ControlRecord::default()
    };
    (uid.to_string(), record.encode_to_vec().into())
}

fn write_snapshot(dir: &Path, records: Vec<(String, Bytes)>) {
    let snapshot = Snapshot { topic_id: LOG, offset: READ_TO, epoch: None, time: SystemTime::now(), records };
    snapshot::write(dir, &snapshot).expect("write");
}

/// What the reading gives when the last record of the log makes this tenant.
fn step_to(uid: TenantUid, offset: i64) -> Step<Value> {
    let (uid, value) = tenant(uid);
    let batch = TailBatch {
        records: Vec::new(),
        position: offset + 1,
        end_offset: offset + 1,
        log_start_offset: 0,
        as_of: Some(Instant::now()),
        state: TailState::Reading,
    };
    let change = LogChange::of(&uid, offset, Some(&value)).expect("a use for it");
    Step { new_log: None, changes: vec![change], whole: None, batch }
}

/// Lets who writes to the FIFO go on, now and for as long as the answer is kept.
fn release(fifo: &Path) -> fs::File {
    fs::OpenOptions::new().read(true).write(true).open(fifo).expect("open the FIFO")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_are_applied_while_a_snapshot_is_being_written() {
    let dir = tempfile::tempdir().expect("directory");
    write_snapshot(dir.path(), Vec::new());
    // Who opens a FIFO to write waits for a reader: a disk that takes nothing.
    let fifo = dir.path().join(format!("{}.new", snapshot::FILE_NAME));
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().expect("mkfifo").success());
    assert!(fs::metadata(&fifo).expect("there").file_type().is_fifo());
    let feed = feed(&dir);
    let (view, applied) = (Arc::clone(&feed.view), feed.applied.clone());
    let (first, second) = (TenantUid::random(), TenantUid::random());

    let reading = tokio::spawn(async move {
        let mut reading = feed.start().await;
        reading.saved.at = Instant::now() - SNAPSHOT_EVERY;
        feed.step(&mut reading, step_to(first, READ_TO + 1));
        assert!(reading.saving.is_some(), "a snapshot is due");
        feed.step(&mut reading, step_to(second, READ_TO + 2));
        reading
    });
    let went_on = tokio::time::timeout(PATIENCE, reading).await;
    let served = view.tenant(first).is_some() && view.tenant(second).is_some();
    let revision = applied.revision().map(|revision| revision.offset);
    let is_writing = went_on.as_ref().is_ok_and(|reading| {
        reading.as_ref().is_ok_and(|reading| reading.saving.as_ref().is_some_and(|saving| !saving.is_finished()))
    });
    let _reader = release(&fifo);

    let reading = went_on.expect("the reading does not wait for the disk").expect("no panic");
    assert!(served, "both are served");
    assert_eq!(revision, Some(READ_TO + 2), "and count as applied");
    assert!(is_writing, "while the disk takes nothing");
    let saving = reading.saving.expect("begun");
    tokio::time::timeout(PATIENCE, saving).await.expect("it ends when the disk lets it").expect("no panic");
}

#[tokio::test]
async fn a_snapshot_of_another_format_is_not_used_and_the_log_is_read_from_its_beginning() {
    const HASH_BYTES: usize = 32;
    let dir = tempfile::tempdir().expect("directory");
    let uid = TenantUid::random();
    write_snapshot(dir.path(), vec![tenant(uid)]);
    let of_this_format = feed(&dir);
    let reading = of_this_format.start().await;
    assert_eq!((reading.reader.position(), reading.index.len()), (Some(READ_TO + 1), 1));
    assert!(of_this_format.view.tenant(uid).is_some());

    let path = dir.path().join(snapshot::FILE_NAME);
    let mut bytes = fs::read(&path).expect("read");
    for magic in [b"sluicev1", b"sluicev3"] {
        // Whole in every other way.
        bytes.truncate(bytes.len() - HASH_BYTES);
        bytes[..magic.len()].copy_from_slice(magic);
        bytes.extend_from_slice(blake3::hash(&bytes).as_bytes());
        fs::write(&path, &bytes).expect("write");

        let of_another = feed(&dir);
        let reading = of_another.start().await;

        assert_eq!(reading.reader.position(), None, "from wherever the log begins");
        assert!(reading.index.is_empty() && !reading.whole && reading.from_snapshot.is_none());
        assert_eq!(of_another.applied.revision(), None);
    }
}
