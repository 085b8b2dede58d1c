//! Which offsets of a partition of the dead-letter topic need no look any more: redriven, or never this group's.
//!
//! Kept as a committed offset, below which all is settled, with runs of settled offsets above it in the commit's metadata: base64
//! (URL alphabet, no padding) of version, CRC-32 of offset and runs, and the runs as pairs of varints (gap, length). Runs that do
//! not fit are refused, never forgotten: nothing is redriven that could not be remembered.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

const VERSION: u8 = 1;
const HEAD: usize = 5;
/// Characters of a commit's metadata.
const TEXT_MAX: usize = 4_096;

/// Settled offsets of one partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Redriven {
    /// All below it are settled.
    base: i64,
    /// Settled above it: from, to (exclusive), ascending, with gaps between.
    runs: Vec<(i64, i64)>,
}

impl Redriven {
    /// Nothing is settled.
    pub(super) fn none() -> Self {
        Self::default()
    }

    /// What was committed. Metadata that is not ours tells nothing: letters may be shown again.
    pub(super) fn read(offset: i64, metadata: &str) -> Self {
        let runs = decode(offset, metadata).unwrap_or_default();
        Self { base: offset, runs }
    }

    pub(super) fn base(&self) -> i64 {
        self.base
    }

    pub(super) fn contains(&self, offset: i64) -> bool {
        offset < self.base || self.runs.iter().any(|(from, to)| (*from..*to).contains(&offset))
    }

    /// Settles `from..to`.
    pub(super) fn settle(&mut self, from: i64, to: i64) {
        if to <= from {
            return;
        }
        let (mut from, mut to) = (from, to);
        self.runs.retain(|run| {
            let apart = run.1 < from || run.0 > to;
            if !apart {
                from = from.min(run.0);
                to = to.max(run.1);
            }
            apart
        });
        if from <= self.base {
            self.base = self.base.max(to);
        } else {
            let at = self.runs.partition_point(|run| run.0 < from);
            self.runs.insert(at, (from, to));
        }
        // The base may have reached the next run.
        while let Some(&(next, end)) = self.runs.first().filter(|(next, _)| *next <= self.base) {
            debug_assert!(next <= end);
            self.base = self.base.max(end);
            self.runs.remove(0);
        }
    }

    /// The offset and the metadata to commit; `None`: it does not fit.
    pub(super) fn commit(&self) -> Option<(i64, String)> {
        if self.runs.is_empty() {
            return Some((self.base, String::new()));
        }
        let mut body = Vec::new();
        let mut at = self.base;
        for &(from, to) in &self.runs {
            put(&mut body, from.abs_diff(at));
            put(&mut body, to.abs_diff(from));
            at = to;
        }
        let head = [&[VERSION], &checksum(self.base, &body)[..]].concat();
        let text = URL_SAFE_NO_PAD.encode([head, body].concat());
        (text.len() <= TEXT_MAX).then_some((self.base, text))
    }
}

fn decode(offset: i64, text: &str) -> Option<Vec<(i64, i64)>> {
    if text.is_empty() || text.len() > TEXT_MAX {
        return None;
    }
    let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
    let (head, mut body) = bytes.split_at_checked(HEAD)?;
    if head[0] != VERSION || head[1..] != checksum(offset, body) {
        return None;
    }
    let mut runs = Vec::new();
    let mut at = offset;
    while !body.is_empty() {
        let from = at.checked_add(i64::try_from(take(&mut body)?).ok()?)?;
        let to = from.checked_add(i64::try_from(take(&mut body)?).ok()?)?;
        if to <= from || from <= at {
            return None;
        }
        runs.push((from, to));
        at = to;
    }
    Some(runs)
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
    let mut value = 0;
    for shift in (0..63).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_agrees_with_a_set_and_survives_a_commit(runs in prop::collection::vec((0_i64..200, 0_i64..9), 0..40)) {
            let (mut redriven, mut naive) = (Redriven::none(), BTreeSet::new());
            for (from, length) in runs {
                redriven.settle(from, from + length);
                naive.extend(from..from + length);
                let (offset, metadata) = redriven.commit().expect("it fits");
                prop_assert_eq!(&Redriven::read(offset, &metadata), &redriven);
            }
            for offset in 0..220 {
                prop_assert_eq!(redriven.contains(offset), naive.contains(&offset), "{}", offset);
            }
        }

        #[test]
        fn any_metadata_is_taken(offset in any::<i64>(), text in ".{0,80}") {
            prop_assert_eq!(Redriven::read(offset, &text).base(), offset);
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let mut many = Redriven::none();
        for run in 0..3_000 {
            many.settle(run * 3 + 1, run * 3 + 2);
        }
        assert_eq!(many.commit(), None);
    }
}
