//! The metadata of a commit: what is known of offsets above the committed one.
//!
//! Text of at most 4,096 characters (Kafka's limit), empty if there is nothing to tell, otherwise base64 (URL alphabet, no
//! padding) of
//!
//! ```text
//! version     1 byte, 1 or 2
//! checksum    4 bytes, CRC-32 of the committed offset (8 bytes, big endian) and of all that follows
//! bitmap      varint length, then bytes: bit i (low bit first) says that offset + 1 + i is done
//! skipped     version 2: varint offsets lost in all; if not 0, of the last loss: varints first, count of offsets from there, time
//! clock       version 2: varint time from which waits are counted
//! failures    varints: distance from the one before (the first: from the offset), failures (not 0), and in version 2 the wait:
//!             0 none, otherwise 1 + its end after the clock
//! ```
//!
//! Version 1 is written as long as it can tell all, so that a gateway of an older build reads what most commits say.
//!
//! The checksum binds the text to its offset, so that a position that somebody else set (a reset, a tool) never inherits acks. A
//! bitmap of [`SPAN_MAX`] always fits; of the failures the lowest offsets are kept, as many as fit.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::{Millis, Skipped};

/// Offsets above the committed one that a commit can tell of.
pub(super) const SPAN_MAX: u32 = 24_000;
/// Characters of a commit's metadata.
const TEXT_MAX: usize = 4_096;
/// Bytes that fit into them.
const BYTES_MAX: usize = TEXT_MAX / 4 * 3;
/// Of acks and failures alone.
const PLAIN: u8 = 1;
/// With waits and losses, too.
const FULL: u8 = 2;
const HEAD: usize = 5;

/// What the metadata tells.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Contents {
    /// Bit i: offset + 1 + i is done. No zero byte at the end.
    bitmap: Vec<u8>,
    /// Ascending.
    pub(super) failures: Vec<Failed>,
    /// What retention took.
    pub(super) skipped: Option<Skipped>,
}

/// A record that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Failed {
    /// How far it is from the offset.
    pub(super) distance: u32,
    /// How often; not 0.
    pub(super) failures: u32,
    /// When its next delivery is due, if it waits.
    pub(super) waits: Option<Millis>,
}

impl Contents {
    /// Nothing but what was lost.
    pub(super) fn of(skipped: Option<Skipped>) -> Self {
        Self { skipped, ..Self::default() }
    }

    /// Says that the record at this distance (from 1) from the offset is done. Distances out of range are not told.
    pub(super) fn set_done(&mut self, distance: u32) {
        if distance == 0 || distance > SPAN_MAX {
            return;
        }
        let (byte, bit) = ((distance - 1) as usize / 8, (distance - 1) % 8);
        if self.bitmap.len() <= byte {
            self.bitmap.resize(byte + 1, 0);
        }
        self.bitmap[byte] |= 1 << bit;
    }

    /// The distances of what is done, ascending.
    pub(super) fn done(&self) -> impl Iterator<Item = u32> + '_ {
        (1u32..)
            .zip(self.bitmap.iter().flat_map(|byte| (0..8).map(move |bit| byte >> bit & 1 == 1)))
            .filter_map(|(distance, done)| done.then_some(distance))
    }
}

/// The text for a commit of this offset.
pub(super) fn encode(offset: i64, contents: &Contents) -> String {
    if contents.bitmap.is_empty() && contents.failures.is_empty() && contents.skipped.is_none() {
        return String::new();
    }
    let clock = contents.failures.iter().filter_map(|failed| failed.waits).min();
    let version = if clock.is_some() || contents.skipped.is_some() { FULL } else { PLAIN };
    let clock = clock.unwrap_or(0).max(0);
    let mut bytes = Vec::new();
    put(&mut bytes, contents.bitmap.len() as u64);
    bytes.extend_from_slice(&contents.bitmap);
    if version == FULL {
        put_skipped(&mut bytes, contents.skipped);
        put(&mut bytes, clock.unsigned_abs());
    }
    let mut before = 0;
    for &Failed { distance, failures, waits } in &contents.failures {
        let end = bytes.len();
        put(&mut bytes, u64::from(distance - before));
        put(&mut bytes, u64::from(failures));
        if version == FULL {
            put(&mut bytes, waits.map_or(0, |at| 1 + at.saturating_sub(clock).max(0).unsigned_abs()));
        }
        if bytes.len() > BYTES_MAX - HEAD {
            bytes.truncate(end);
            break;
        }
        before = distance;
    }
    seal(version, offset, &bytes)
}

fn put_skipped(bytes: &mut Vec<u8>, skipped: Option<Skipped>) {
    let Some(Skipped { total, from, to, at }) = skipped else { return put(bytes, 0) };
    put(bytes, total);
    put(bytes, from.max(0).unsigned_abs());
    put(bytes, to.abs_diff(from));
    put(bytes, at.max(0).unsigned_abs());
}

/// The text of a body.
pub(super) fn seal(version: u8, offset: i64, body: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode([&[version], &checksum(offset, body)[..], body].concat())
}

/// What a text committed with this offset tells; none if it is not such a text.
pub(super) fn decode(offset: i64, text: &str) -> Option<Contents> {
    if text.is_empty() {
        return Some(Contents::default());
    }
    if text.len() > TEXT_MAX {
        return None;
    }
    let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
    let (head, body) = bytes.split_at_checked(HEAD)?;
    if !matches!(head[0], PLAIN | FULL) || head[1..] != checksum(offset, body) {
        return None;
    }
    decode_body(head[0], body)
}

fn decode_body(version: u8, mut body: &[u8]) -> Option<Contents> {
    let length = usize::try_from(take(&mut body)?).ok()?;
    if length > SPAN_MAX as usize / 8 {
        return None;
    }
    let (bitmap, mut body) = body.split_at_checked(length)?;
    let mut contents = Contents { bitmap: bitmap.to_vec(), ..Contents::default() };
    let mut clock = 0;
    if version == FULL {
        contents.skipped = take_skipped(&mut body)?;
        clock = take_signed(&mut body)?;
    }
    let mut distance = 0u32;
    while !body.is_empty() {
        let step = take_small(&mut body)?;
        let failures = take_small(&mut body)?;
        let waits = if version == FULL { take_signed(&mut body)? } else { 0 };
        let waits = if waits == 0 { None } else { Some(clock.checked_add(waits - 1)?) };
        distance = distance.checked_add(step)?;
        if failures == 0 || distance > SPAN_MAX || (step == 0 && !contents.failures.is_empty()) {
            return None;
        }
        contents.failures.push(Failed { distance, failures, waits });
    }
    Some(contents)
}

fn take_skipped(body: &mut &[u8]) -> Option<Option<Skipped>> {
    let total = take(body)?;
    if total == 0 {
        return Some(None);
    }
    let (from, count, at) = (take_signed(body)?, take_signed(body)?, take_signed(body)?);
    Some(Some(Skipped { total, from, to: from.checked_add(count)?, at }))
}

fn checksum(offset: i64, body: &[u8]) -> [u8; 4] {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&offset.to_be_bytes());
    hasher.update(body);
    hasher.finalize().to_be_bytes()
}

fn put(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

fn take(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let part = u64::from(byte & 0x7f);
        if part << shift >> shift != part {
            return None;
        }
        value |= part << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn take_small(bytes: &mut &[u8]) -> Option<u32> {
    u32::try_from(take(bytes)?).ok()
}

fn take_signed(bytes: &mut &[u8]) -> Option<i64> {
    i64::try_from(take(bytes)?).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn full(span: u32) -> Contents {
        let mut contents = Contents::default();
        contents.set_done(span);
        for distance in 1..span {
            contents.set_done(distance);
        }
        contents
    }

    #[test]
    fn nothing_to_tell_is_the_empty_text() {
        assert_eq!(encode(7, &Contents::default()), "");
        assert_eq!(decode(7, ""), Some(Contents::default()));
    }

    #[test]
    fn the_acks_of_the_widest_window_fit_beside_failures_that_do_not() {
        for span in [9_999, SPAN_MAX] {
            let mut contents = full(span);
            let failed = |distance| Failed { distance, failures: 1_000_000, waits: Some(i64::MAX) };
            contents.failures = (0..SPAN_MAX).map(failed).collect();
            contents.skipped = Some(Skipped { total: u64::MAX, from: i64::MAX - 1, to: i64::MAX, at: i64::MAX });
            let text = encode(3, &contents);
            assert!(text.len() <= TEXT_MAX, "{}", text.len());
            let read = decode(3, &text).expect("readable");
            assert_eq!(read.done().count(), span as usize);
            assert_eq!(read.failures, contents.failures[..read.failures.len()], "the lowest are kept");
            assert_eq!(read.skipped, contents.skipped);
            assert!(!read.failures.is_empty());
        }
    }

    #[test]
    fn a_text_of_another_offset_tells_nothing() {
        let text = encode(3, &full(10));
        assert_eq!(decode(3, &text), Some(full(10)));
        assert_eq!(decode(4, &text), None);
    }

    #[test]
    fn a_text_of_another_version_tells_nothing() {
        let mut bytes = URL_SAFE_NO_PAD.decode(encode(3, &full(10))).expect("base64");
        bytes[0] = 3;
        assert_eq!(decode(3, &URL_SAFE_NO_PAD.encode(bytes)), None);
    }

    fn contents() -> impl Strategy<Value = Contents> {
        let done = proptest::collection::btree_set(1..=SPAN_MAX, 0..200);
        let waits = proptest::option::weighted(0.3, 0..i64::MAX);
        let failures = proptest::collection::btree_map(0..=SPAN_MAX, (1..=u32::MAX, waits), 0..200);
        let skipped = (1..=u64::MAX, 0..1_000_000i64, 0..1_000_000i64, 0..i64::MAX);
        let skipped = proptest::option::weighted(0.3, skipped)
            .prop_map(|skipped| skipped.map(|(total, from, count, at)| Skipped { total, from, to: from + count, at }));
        (done, failures, skipped).prop_map(|(done, failures, skipped)| {
            let failed = |(distance, (failures, waits))| Failed { distance, failures, waits };
            let failures = failures.into_iter().map(failed).collect();
            let mut contents = Contents { failures, skipped, ..Contents::default() };
            done.into_iter().for_each(|distance| contents.set_done(distance));
            contents
        })
    }

    proptest! {
        #[test]
        fn what_is_told_is_read(offset: i64, contents in contents()) {
            let text = encode(offset, &contents);
            prop_assert!(text.len() <= TEXT_MAX);
            let read = decode(offset, &text).expect("readable");
            prop_assert_eq!(&read.bitmap, &contents.bitmap);
            prop_assert_eq!(&read.failures[..], &contents.failures[..read.failures.len()]);
            prop_assert_eq!(read.skipped, contents.skipped);
            prop_assert!(read.failures.len() == contents.failures.len() || text.len() > TEXT_MAX - 32);
        }

        #[test]
        fn any_text_and_any_body_can_be_read(offset: i64, text: String, body: Vec<u8>) {
            let _ = decode(offset, &text);
            let _ = (decode_body(PLAIN, &body), decode_body(FULL, &body));
        }
    }
}
