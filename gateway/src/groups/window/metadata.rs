//! The metadata of a commit: what is known of offsets above the committed one.
//!
//! Text of at most 4,096 characters (Kafka's limit), empty if there is nothing to tell, otherwise base64 (URL alphabet, no
//! padding) of
//!
//! ```text
//! version     1 byte, 1
//! checksum    4 bytes, CRC-32 of the committed offset (8 bytes, big endian) and of all that follows
//! bitmap      varint length, then bytes: bit i (low bit first) says that offset + 1 + i is done
//! failures    pairs of varints: distance from the pair before (the first: from the offset), failures (not 0)
//! ```
//!
//! The checksum binds the text to its offset, so that a position that somebody else set (a reset, a tool) never inherits acks. A
//! bitmap of [`SPAN_MAX`] always fits; of the failures the lowest offsets are kept, as many as fit.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Offsets above the committed one that a commit can tell of.
pub(super) const SPAN_MAX: u32 = 24_000;
/// Characters of a commit's metadata.
const TEXT_MAX: usize = 4_096;
/// Bytes that fit into them.
const BYTES_MAX: usize = TEXT_MAX / 4 * 3;
const VERSION: u8 = 1;
const HEAD: usize = 5;

/// What the metadata tells.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Contents {
    /// Bit i: offset + 1 + i is done. No zero byte at the end.
    bitmap: Vec<u8>,
    /// Distance from the offset and failures, ascending.
    pub(super) failures: Vec<(u32, u32)>,
}

impl Contents {
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
    if contents.bitmap.is_empty() && contents.failures.is_empty() {
        return String::new();
    }
    let mut bytes = Vec::new();
    put(&mut bytes, u32::try_from(contents.bitmap.len()).unwrap_or(u32::MAX));
    bytes.extend_from_slice(&contents.bitmap);
    let mut before = 0;
    for &(distance, failures) in &contents.failures {
        let end = bytes.len();
        put(&mut bytes, distance - before);
        put(&mut bytes, failures);
        if bytes.len() > BYTES_MAX - HEAD {
            bytes.truncate(end);
            break;
        }
        before = distance;
    }
    seal(offset, &bytes)
}

/// The text of a body.
pub(super) fn seal(offset: i64, body: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode([&[VERSION], &checksum(offset, body)[..], body].concat())
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
    if head[0] != VERSION || head[1..] != checksum(offset, body) {
        return None;
    }
    decode_body(body)
}

fn decode_body(mut body: &[u8]) -> Option<Contents> {
    let length = usize::try_from(take(&mut body)?).ok()?;
    if length > SPAN_MAX as usize / 8 {
        return None;
    }
    let (bitmap, mut body) = body.split_at_checked(length)?;
    let mut contents = Contents { bitmap: bitmap.to_vec(), failures: Vec::new() };
    let mut distance = 0u32;
    while !body.is_empty() {
        let step = take(&mut body)?;
        let failures = take(&mut body)?;
        distance = distance.checked_add(step)?;
        if failures == 0 || distance > SPAN_MAX || (step == 0 && !contents.failures.is_empty()) {
            return None;
        }
        contents.failures.push((distance, failures));
    }
    Some(contents)
}

fn checksum(offset: i64, body: &[u8]) -> [u8; 4] {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&offset.to_be_bytes());
    hasher.update(body);
    hasher.finalize().to_be_bytes()
}

fn put(bytes: &mut Vec<u8>, mut value: u32) {
    while value >= 0x80 {
        bytes.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

fn take(bytes: &mut &[u8]) -> Option<u32> {
    let mut value = 0u64;
    for shift in (0..35).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return u32::try_from(value).ok();
        }
    }
    None
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
            contents.failures = (0..SPAN_MAX).map(|distance| (distance, 1_000_000)).collect();
            let text = encode(3, &contents);
            assert!(text.len() <= TEXT_MAX, "{}", text.len());
            let read = decode(3, &text).expect("readable");
            assert_eq!(read.done().count(), span as usize);
            assert_eq!(read.failures, contents.failures[..read.failures.len()], "the lowest are kept");
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
        bytes[0] = 2;
        assert_eq!(decode(3, &URL_SAFE_NO_PAD.encode(bytes)), None);
    }

    fn contents() -> impl Strategy<Value = Contents> {
        let done = proptest::collection::btree_set(1..=SPAN_MAX, 0..200);
        let failures = proptest::collection::btree_map(0..=SPAN_MAX, 1..=u32::MAX, 0..200);
        (done, failures).prop_map(|(done, failures)| {
            let mut contents = Contents { failures: failures.into_iter().collect(), ..Contents::default() };
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
            prop_assert!(read.failures.len() == contents.failures.len() || text.len() > TEXT_MAX - 16);
        }

        #[test]
        fn any_text_and_any_body_can_be_read(offset: i64, text: String, body: Vec<u8>) {
            let _ = decode(offset, &text);
            let _ = decode_body(&body);
        }
    }
}
