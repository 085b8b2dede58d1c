//! The view on disk: so that a gateway that starts while Kafka is away can serve, and so that a start need not read it all.
//!
//! The file is a magic word, a header, the held records with their keys and a BLAKE3 hash of all before it. Records stand in it
//! byte for byte as in the log, also those that the build that wrote it could not read: the build that reads it may know more,
//! and nothing that came before the offset is read again.
//! It is written beside and renamed, so a crash leaves the old one. A file that is damaged, of another format, or older than
//! 30 days is refused: deletions are kept in the log for 30 days, and an older view could bring something back.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use prost::Message;

const MAGIC: &[u8; 8] = b"sluicev2";
const HASH_BYTES: usize = 32;
/// Bytes of a snapshot at most; more is refused unread.
const FILE_BYTES_MAX: u64 = 4 << 30;
/// Older ones are refused.
pub const AGE_MAX: Duration = Duration::from_secs(30 * 24 * 3600);
/// Name of the file within the data directory.
pub const FILE_NAME: &str = "view.snapshot";

/// A view as it was.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    /// Kafka's id of `sluice.control`.
    pub topic_id: [u8; 16],
    /// All up to and including this offset is in it.
    pub offset: i64,
    /// Leader epoch of the record there, if known: whether the log still is the one that was read.
    pub epoch: Option<i32>,
    /// When the log was known to hold no more than this.
    pub time: SystemTime,
    /// The latest record of every resource, by key.
    pub records: Vec<(String, Bytes)>,
}

#[derive(Clone, PartialEq, Message)]
struct Header {
    #[prost(bytes = "vec", tag = "1")]
    topic_id: Vec<u8>,
    #[prost(int64, tag = "2")]
    offset: i64,
    #[prost(int64, tag = "3")]
    time_ms: i64,
    #[prost(uint64, tag = "4")]
    records: u64,
    #[prost(int32, optional, tag = "5")]
    epoch: Option<i32>,
}

#[derive(Clone, PartialEq, Message)]
struct Entry {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(bytes = "bytes", tag = "2")]
    value: Bytes,
}

/// Why a snapshot cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// Reading or writing failed.
    #[error("access snapshot {path}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is not a whole snapshot of this format.
    #[error("snapshot is damaged: {0}")]
    Damaged(&'static str),
    /// It is older than 30 days, or from the future.
    #[error("snapshot is from {age_days} days ago; at most 30 are accepted")]
    TooOld {
        /// Its age.
        age_days: u64,
    },
}

/// Writes a snapshot into `dir`, replacing the last one. Blocks on the disk.
pub fn write(dir: &Path, snapshot: &Snapshot) -> Result<(), SnapshotError> {
    let path = dir.join(FILE_NAME);
    let beside = dir.join(format!("{FILE_NAME}.new"));
    let io = |source| SnapshotError::Io { path: path.clone(), source };
    let bytes = encode(snapshot);
    // Others must not read the hashes of keys.
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside).map_err(io)?;
    file.write_all(&bytes).and_then(|()| file.sync_all()).map_err(io)?;
    fs::rename(&beside, &path).map_err(io)?;
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(io)
}

/// Reads the snapshot in `dir`; `None` if there is none. Blocks on the disk.
pub fn read(dir: &Path, now: SystemTime) -> Result<Option<Snapshot>, SnapshotError> {
    let path = dir.join(FILE_NAME);
    let io = |source| SnapshotError::Io { path: path.clone(), source };
    match fs::metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io(error)),
        Ok(metadata) if metadata.len() > FILE_BYTES_MAX => return Err(SnapshotError::Damaged("too large")),
        Ok(_) => {}
    }
    let snapshot = decode(&fs::read(&path).map_err(io)?)?;
    // One minute of leeway for clocks that were set back.
    let age = match now.duration_since(snapshot.time) {
        Ok(age) => age,
        Err(ahead) if ahead.duration() < Duration::from_secs(60) => Duration::ZERO,
        Err(_) => return Err(SnapshotError::Damaged("it is from the future")),
    };
    if age > AGE_MAX {
        return Err(SnapshotError::TooOld { age_days: age.as_secs() / 86_400 });
    }
    Ok(Some(snapshot))
}

fn encode(snapshot: &Snapshot) -> Vec<u8> {
    let time_ms =
        snapshot.time.duration_since(UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX));
    let header = Header {
        topic_id: snapshot.topic_id.to_vec(),
        offset: snapshot.offset,
        time_ms,
        records: snapshot.records.len() as u64,
        epoch: snapshot.epoch,
    };
    let mut bytes = MAGIC.to_vec();
    bytes.extend(header.encode_length_delimited_to_vec());
    for (key, value) in &snapshot.records {
        let entry = Entry { key: key.clone(), value: value.clone() };
        bytes.extend(entry.encode_length_delimited_to_vec());
    }
    let hash = blake3::hash(&bytes);
    bytes.extend(hash.as_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Result<Snapshot, SnapshotError> {
    let cut = bytes.len().checked_sub(HASH_BYTES).ok_or(SnapshotError::Damaged("too short"))?;
    let (body, hash) = bytes.split_at(cut);
    if blake3::hash(body).as_bytes() != hash {
        return Err(SnapshotError::Damaged("the hash does not match"));
    }
    let mut rest = body.strip_prefix(MAGIC).ok_or(SnapshotError::Damaged("another format"))?;
    let header = Header::decode_length_delimited(&mut rest).map_err(|_| SnapshotError::Damaged("header"))?;
    let mut records = Vec::new();
    while !rest.is_empty() {
        let entry = Entry::decode_length_delimited(&mut rest).map_err(|_| SnapshotError::Damaged("record"))?;
        records.push((entry.key, entry.value));
    }
    if records.len() as u64 != header.records {
        return Err(SnapshotError::Damaged("records are missing"));
    }
    Ok(Snapshot {
        topic_id: header.topic_id.try_into().map_err(|_| SnapshotError::Damaged("topic id"))?,
        offset: header.offset,
        epoch: header.epoch,
        time: UNIX_EPOCH + Duration::from_millis(u64::try_from(header.time_ms).unwrap_or(0)),
        records,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(time: SystemTime) -> Snapshot {
        let record = |key: &str| (key.to_owned(), Bytes::from_static(b"\xff whatever it is"));
        Snapshot { topic_id: [3; 16], offset: 41, epoch: Some(7), time, records: vec![record("a"), record("b")] }
    }

    fn whole_ms() -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(1_800_000_000_123)
    }

    #[test]
    fn a_snapshot_is_read_back_and_replaced() {
        let dir = tempfile::tempdir().expect("directory");
        let now = whole_ms();
        assert!(read(dir.path(), now).expect("no file").is_none());
        write(dir.path(), &Snapshot { offset: 1, ..snapshot(now) }).expect("write");
        write(dir.path(), &snapshot(now)).expect("write again");
        assert_eq!(read(dir.path(), now).expect("read"), Some(snapshot(now)));
    }

    #[test]
    fn a_damaged_or_old_snapshot_is_refused() {
        let dir = tempfile::tempdir().expect("directory");
        let now = whole_ms();
        let good = encode(&snapshot(now));
        for at in [0, 9, good.len() / 2, good.len() - 1] {
            let mut bad = good.clone();
            bad[at] ^= 1;
            fs::write(dir.path().join(FILE_NAME), &bad).expect("write");
            assert!(matches!(read(dir.path(), now), Err(SnapshotError::Damaged(_))), "byte {at}");
        }
        fs::write(dir.path().join(FILE_NAME), &good[..20]).expect("write");
        assert!(matches!(read(dir.path(), now), Err(SnapshotError::Damaged(_))));
        fs::write(dir.path().join(FILE_NAME), &good).expect("write");
        let later = now + AGE_MAX + Duration::from_secs(1);
        assert!(matches!(read(dir.path(), later), Err(SnapshotError::TooOld { age_days: 30 })));
        assert!(read(dir.path(), now + AGE_MAX).expect("just in time").is_some());
        assert!(read(dir.path(), now - Duration::from_secs(3600)).is_err(), "from the future");
    }
}
