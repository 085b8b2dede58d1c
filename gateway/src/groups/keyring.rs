//! The keys that sign ack ids: a file that all gateways share, followed while it changes.
//!
//! A line is `{id} {key}`: a number 0..255 and 64 hexadecimal digits; empty lines and lines that begin with `#` do not count.
//! The first line signs, all verify. To rotate: add the new key at the end everywhere, move it to the top everywhere, and drop
//! the old one when the longest lease is over. A file that does not parse changes nothing and is logged.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use secrecy::ExposeSecret;
use tokio_util::sync::CancellationToken;

use sluice_runtime::config::{FileError, SecretFile, is_weak_key};

const ACK_CONTEXT: &str = "sluice ack id v1";
const PAGE_CONTEXT: &str = "sluice dead letter page token v1";

/// Why a key file cannot be used. Holds no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyRingError {
    /// It cannot be read.
    #[error("read the keys of ack ids")]
    File(#[from] FileError),
    /// A line is not `{id} {key}`.
    #[error("ack_keys_file line {0}: must be a number 0..255 and 64 hexadecimal digits")]
    Line(usize),
    /// Two lines with one id.
    #[error("ack_keys_file has the id {0} twice")]
    Twice(u8),
    /// A key that nobody drew at random.
    #[error("ack_keys_file: the key {0} is not random; make one: openssl rand -hex 32")]
    Weak(u8),
    /// No line.
    #[error("ack_keys_file holds no key")]
    Empty,
}

/// One key, as its uses take it.
#[derive(Clone)]
pub(crate) struct RingKey {
    /// Its number.
    pub(crate) id: u8,
    /// For ack ids.
    pub(crate) ack: [u8; 32],
    /// For page tokens.
    pub(crate) page: [u8; 32],
    /// Whether anybody can guess it.
    weak: bool,
}

/// Keys at one moment: at least one.
pub struct KeyRing(Vec<RingKey>);

impl std::fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|key| key.id)).finish()
    }
}

impl KeyRing {
    /// Reads the lines of a file.
    ///
    /// # Errors
    /// A line that is none, an id twice, no line at all.
    pub fn parse(text: &str) -> Result<Self, KeyRingError> {
        let mut keys: Vec<RingKey> = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (id, key) = read_line(line).ok_or(KeyRingError::Line(number + 1))?;
            if keys.iter().any(|known| known.id == id) {
                return Err(KeyRingError::Twice(id));
            }
            keys.push(RingKey {
                id,
                ack: blake3::derive_key(ACK_CONTEXT, &key),
                page: blake3::derive_key(PAGE_CONTEXT, &key),
                weak: is_weak_key(&key),
            });
        }
        if keys.is_empty() { Err(KeyRingError::Empty) } else { Ok(Self(keys)) }
    }

    /// The key that signs.
    pub(crate) fn signing(&self) -> &RingKey {
        &self.0[0]
    }

    /// The key with this number.
    pub(crate) fn get(&self, id: u8) -> Option<&RingKey> {
        self.0.iter().find(|key| key.id == id)
    }
}

fn read_line(line: &str) -> Option<(u8, [u8; 32])> {
    let (id, digits) = line.split_once(char::is_whitespace)?;
    let mut key = [0; 32];
    hex::decode_to_slice(digits.trim(), &mut key).ok()?;
    Some((id.parse().ok()?, key))
}

/// The keys now; clones are the same.
#[derive(Clone, Debug)]
pub struct Keys(Arc<Followed>);

#[derive(Debug)]
struct Followed {
    ring: ArcSwap<KeyRing>,
    file: Option<SecretFile>,
    /// The file as it was before it was read.
    seen: Mutex<Stamp>,
}

/// Time and size of a file: what changes when it is replaced.
type Stamp = Option<(SystemTime, u64)>;

impl Keys {
    /// Reads a file.
    ///
    /// # Errors
    /// It is unreadable, readable by others, or not a key ring.
    pub fn load(file: SecretFile) -> Result<Self, KeyRingError> {
        let seen = Mutex::new(stamp(&file));
        let ring = ArcSwap::from_pointee(read(&file)?);
        Ok(Self(Arc::new(Followed { ring, file: Some(file), seen })))
    }

    /// Keys that stay.
    pub fn fixed(ring: KeyRing) -> Self {
        Self(Arc::new(Followed { ring: ArcSwap::from_pointee(ring), file: None, seen: Mutex::default() }))
    }

    /// The ring now.
    pub(crate) fn ring(&self) -> arc_swap::Guard<Arc<KeyRing>> {
        self.0.ring.load()
    }

    /// Reads the file again; on an error what was loaded stays.
    ///
    /// # Errors
    /// As [`Keys::load`].
    pub fn reload(&self) -> Result<(), KeyRingError> {
        if let Some(file) = &self.0.file {
            let seen = stamp(file);
            self.0.ring.store(Arc::new(read(file)?));
            *self.0.seen.lock() = seen;
        }
        Ok(())
    }

    /// Reads the file again when it changes, looking every `interval`, until the token is cancelled.
    pub async fn watch(self, interval: Duration, shutdown: CancellationToken) {
        let Some(file) = self.0.file.clone() else { return };
        while shutdown.run_until_cancelled(tokio::time::sleep(interval)).await.is_some() {
            if stamp(&file) == *self.0.seen.lock() {
                continue;
            }
            match self.reload() {
                Ok(()) => tracing::info!(ids = ?self.ring(), "keys of ack ids reloaded"),
                Err(error) => tracing::warn!(%error, "keys of ack ids not reloaded; the old ones stay"),
            }
        }
    }
}

fn read(file: &SecretFile) -> Result<KeyRing, KeyRingError> {
    let ring = KeyRing::parse(file.read()?.expose_secret())?;
    match ring.0.iter().find(|key| key.weak) {
        Some(key) => Err(KeyRingError::Weak(key.id)),
        None => Ok(ring),
    }
}

fn stamp(file: &SecretFile) -> Stamp {
    let metadata = std::fs::metadata(file.path()).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn line(id: u8, digit: char) -> String {
        format!("{id} {}\n", digit.to_string().repeat(64))
    }

    #[test]
    fn the_first_line_signs_and_all_verify() {
        let text = format!("# keys\n\n{}{}", line(7, 'a'), line(255, 'b'));
        let ring = KeyRing::parse(&text).expect("two keys");
        assert_eq!(ring.signing().id, 7);
        assert!(ring.get(255).is_some() && ring.get(0).is_none());
        assert_ne!(ring.signing().ack, ring.signing().page, "a key serves each purpose in its own form");
        assert_eq!(format!("{ring:?}"), "[7, 255]", "no key is ever shown");
    }

    #[test]
    fn what_is_wrong_is_named_by_line() {
        for (text, wanted) in [
            (String::new(), "holds no key"),
            (line(1, 'a') + "2 short\n", "line 2"),
            (format!("256 {}", "a".repeat(64)), "line 1"),
            (line(1, 'a') + &line(1, 'b'), "id 1 twice"),
        ] {
            let error = KeyRing::parse(&text).expect_err(wanted).to_string();
            assert!(error.contains(wanted), "{error}");
            assert!(!error.contains("aaaa"));
        }
    }

    /// A line with a key that could be random.
    fn random_line(id: u8, first: u8) -> String {
        let key: Vec<u8> = (0..32).map(|i| first.wrapping_add(i * 7)).collect();
        format!("{id} {}\n", hex::encode(key))
    }

    #[tokio::test]
    async fn a_changed_file_is_followed_and_a_broken_or_weak_one_is_not() {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("keys");
        let write = |text: &str| {
            std::fs::write(&path, text).expect("write");
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("chmod");
        };
        write(&line(1, '0'));
        assert!(matches!(Keys::load(SecretFile::new(&path)), Err(KeyRingError::Weak(1))), "zeros");
        write(&random_line(1, 1));
        let keys = Keys::load(SecretFile::new(&path)).expect("loaded");
        let stop = CancellationToken::new();
        let watching = tokio::spawn(keys.clone().watch(Duration::from_millis(5), stop.clone()));
        write(&(random_line(2, 2) + &random_line(1, 1)));
        while keys.ring().signing().id != 2 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        write("broken");
        assert!(keys.reload().is_err());
        write(&line(3, '0'));
        assert!(keys.reload().is_err());
        assert_eq!(keys.ring().signing().id, 2);
        stop.cancel();
        watching.await.expect("ends");
    }
}
