//! Which windows of a source came: all up to the highest but those in holes.
//!
//! Windows are numbered 1, 2, 3, …, so a number that is jumped over is usage that is missing, and stays known as such. What
//! comes behind it is counted at once: produce is kept from being counted twice by its offsets, reading by these numbers. A
//! hole is filled whenever its window comes, however late.

use std::collections::BTreeMap;

/// How far a source got.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Source {
    /// The highest window that came, or is known to be missing; 0: none.
    pub highest_window: i64,
    /// Windows up to it that did not come: `[first, end)` by first, disjoint.
    pub holes: BTreeMap<i64, i64>,
    /// When the last record of it was appended to the usage log, ms since the epoch.
    pub last_seen_ms: i64,
    /// It said that it ends.
    pub ended: bool,
}

impl Source {
    /// Whether this window came before.
    pub fn has(&self, window: i64) -> bool {
        window <= self.highest_window && self.hole_of(window).is_none()
    }

    /// This window came; those that were jumped over are missing from now on.
    pub fn came(&mut self, window: i64) {
        self.missing_below(window);
        match self.hole_of(window) {
            Some((first, end)) => {
                self.holes.remove(&first);
                if first < window {
                    self.holes.insert(first, window);
                }
                if window + 1 < end {
                    self.holes.insert(window + 1, end);
                }
            }
            None => self.highest_window = self.highest_window.max(window),
        }
    }

    /// This window is known of, and cannot be counted.
    pub fn refused(&mut self, window: i64) {
        self.missing_below(window.saturating_add(1));
    }

    /// Windows that are missing.
    pub fn missing(&self) -> i64 {
        self.holes.iter().map(|(first, end)| end - first).sum()
    }

    fn hole_of(&self, window: i64) -> Option<(i64, i64)> {
        let (first, end) = self.holes.range(..=window).next_back()?;
        (window < *end).then_some((*first, *end))
    }

    fn missing_below(&mut self, window: i64) {
        let from = self.highest_window + 1;
        if from >= window {
            return;
        }
        // A hole of its own also where another one ends: each is as old as itself.
        self.holes.insert(from, window);
        self.highest_window = window - 1;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn holes(source: &Source) -> Vec<(i64, i64)> {
        source.holes.iter().map(|(first, end)| (*first, *end)).collect()
    }

    #[test]
    fn a_number_that_is_jumped_over_is_missing_until_it_comes() {
        let mut source = Source::default();
        source.came(1);
        source.came(6);
        assert_eq!((holes(&source), source.highest_window, source.missing()), (vec![(2, 6)], 6, 4));
        source.came(4);
        assert_eq!(holes(&source), [(2, 4), (5, 6)]);
        assert!(source.has(4) && source.has(1) && !source.has(5) && !source.has(7));
        for window in [2, 3, 5] {
            source.came(window);
        }
        assert_eq!((holes(&source), source.missing()), (vec![], 0));
    }

    #[test]
    fn a_refused_window_is_missing_and_what_follows_counts() {
        let mut source = Source::default();
        source.came(1);
        source.refused(2);
        source.refused(3);
        assert_eq!((holes(&source), source.highest_window), (vec![(2, 3), (3, 4)], 3));
        source.came(4);
        assert_eq!((source.missing(), source.highest_window), (2, 4));
        source.refused(3);
        assert_eq!(source.missing(), 2, "known already");
        source.came(3);
        assert_eq!(holes(&source), [(2, 3)]);
    }

    proptest! {
        #[test]
        fn what_came_and_what_is_missing_are_all_there_is(windows in prop::collection::vec(1i64..40, 0..60)) {
            let (mut source, mut came) = (Source::default(), BTreeSet::new());
            for window in windows {
                prop_assert_eq!(source.has(window), came.contains(&window));
                source.came(window);
                came.insert(window);
                let highest = came.last().copied().unwrap_or_default();
                prop_assert_eq!(source.highest_window, highest);
                prop_assert_eq!(source.missing(), highest - came.len() as i64);
                let apart: Vec<_> = source.holes.iter().collect();
                prop_assert!(apart.windows(2).all(|pair| pair[0].1 <= pair[1].0), "disjoint");
            }
        }
    }
}
