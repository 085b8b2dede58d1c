//! Which lines, in few words.

use std::fmt;

/// Spans that are told.
const TOLD: usize = 5;
/// Spans that are kept; lines of others are only counted.
const SPANS_MAX: usize = 1_000;

/// Lines by number, in any order, each once.
#[derive(Default)]
pub(super) struct Spans {
    spans: Vec<(u64, u64)>,
    more: u64,
}

impl Spans {
    pub(super) fn add(&mut self, line: u64) {
        self.put(line, line);
    }

    pub(super) fn append(&mut self, other: Self) {
        self.more += other.more;
        other.spans.into_iter().for_each(|(first, last)| self.put(first, last));
    }

    fn put(&mut self, first: u64, last: u64) {
        let is_room = self.spans.len() < SPANS_MAX;
        match self.spans.last_mut() {
            Some((_, end)) if *end + 1 == first => *end = last,
            _ if is_room => self.spans.push((first, last)),
            _ => self.more += last - first + 1,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }
}

impl fmt::Display for Spans {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut spans = self.spans.clone();
        spans.sort_unstable();
        let mut joined: Vec<(u64, u64)> = Vec::new();
        for (first, last) in spans {
            match joined.last_mut() {
                Some((_, end)) if *end + 1 == first => *end = last,
                _ => joined.push((first, last)),
            }
        }
        let rest = joined.split_off(TOLD.min(joined.len()));
        let more = self.more + rest.iter().map(|(first, last)| last - first + 1).sum::<u64>();
        let one = matches!(joined.as_slice(), [(first, last)] if first == last) && more == 0;
        f.write_str(if one { "line " } else { "lines " })?;
        for (i, (first, last)) in joined.iter().enumerate() {
            let comma = if i > 0 { ", " } else { "" };
            match first == last {
                true => write!(f, "{comma}{first}")?,
                false => write!(f, "{comma}{first}–{last}")?,
            }
        }
        if more > 0 { write!(f, " and {more} more") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(lines: impl IntoIterator<Item = u64>) -> Spans {
        let mut spans = Spans::default();
        lines.into_iter().for_each(|line| spans.add(line));
        spans
    }

    #[test]
    fn lines_are_told_as_spans_in_their_order() {
        assert_eq!(of([701]).to_string(), "line 701");
        let mut spans = of([1_001, 1_002]);
        spans.append(of([702, 703, 1_000]));
        assert_eq!(spans.to_string(), "lines 702–703, 1000–1002");
        assert_eq!(of((1..=14).step_by(2)).to_string(), "lines 1, 3, 5, 7, 9 and 2 more");
        let many = of((1..=4_000).step_by(2));
        assert_eq!((many.spans.len(), many.to_string()), (1_000, "lines 1, 3, 5, 7, 9 and 1995 more".to_owned()));
    }
}
