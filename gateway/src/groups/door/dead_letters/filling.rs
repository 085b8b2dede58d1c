//! The letters of one page: as many as an answer may hold.
//!
//! A letter counts with what it takes in the answer, in protobuf or in JSON, whichever is more: base64 takes a third more than the
//! bytes, and a control character in a JSON string takes six. So a page has the same letters in both.

use prost::Message as _;

use sluice_proto::stream::v1::DeadLetter;
use sluice_types::error::Error;

/// Bytes of an answer, save a single larger letter: 2 MiB, and a margin for what is around the letters.
const PAGE_BYTES_MAX: usize = (2 << 20) - (4 << 10);
/// What a letter has around it: in protobuf a tag and a length, in JSON a comma.
const AROUND_BYTES: usize = 6;

/// A page that is being filled.
#[derive(Debug, Default)]
pub(super) struct Filling {
    letters: Vec<DeadLetter>,
    bytes: usize,
}

impl Filling {
    /// Adds a letter; `false` if it found no room. The first one always does.
    pub(super) fn push(&mut self, letter: DeadLetter) -> Result<bool, Error> {
        let bytes = self.bytes + size(&letter)? + AROUND_BYTES;
        if bytes > PAGE_BYTES_MAX && !self.letters.is_empty() {
            return Ok(false);
        }
        self.bytes = bytes;
        self.letters.push(letter);
        Ok(true)
    }

    pub(super) fn len(&self) -> usize {
        self.letters.len()
    }

    pub(super) fn letters(self) -> Vec<DeadLetter> {
        self.letters
    }
}

fn size(letter: &DeadLetter) -> Result<usize, Error> {
    let mut json = Counted(0);
    serde_json::to_writer(&mut json, letter).map_err(Error::internal)?;
    Ok(json.0.max(letter.encoded_len()))
}

/// Counts what is written and keeps nothing.
struct Counted(usize);

impl std::io::Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use sluice_proto::stream::v1::record::ValueKind;
    use sluice_proto::stream::v1::{ListDeadLettersResponse, Record};

    use super::*;

    /// What the limits promise.
    const PROMISED: usize = 2 << 20;

    fn filled(count: usize, value: &ValueKind) -> Vec<DeadLetter> {
        let record = Record { value_kind: Some(value.clone()), ..Record::default() };
        let letter = DeadLetter { id: "0-1".into(), record: Some(record), ..DeadLetter::default() };
        let mut page = Filling::default();
        for _ in 0..count {
            if !page.push(letter.clone()).expect("JSON") {
                break;
            }
        }
        page.letters()
    }

    #[test]
    fn a_page_is_within_its_limit_in_each_form_whatever_the_letters_hold() {
        for (value, fits) in [
            (ValueKind::Value(Bytes::from(vec![7; 1_000_000])), 1),
            (ValueKind::Value(Bytes::from(vec![7; 300_000])), 5),
            (ValueKind::ValueText("\u{1}".repeat(100_000)), 3),
            (ValueKind::ValueJson(serde_json::from_str(&format!("[{}1]", "1,".repeat(50_000))).expect("JSON")), 3),
            (ValueKind::ValueText(String::new()), 1_000),
        ] {
            let letters = filled(1_000, &value);
            assert_eq!(letters.len(), fits);
            let answer = ListDeadLettersResponse {
                dead_letters: letters,
                next_page_token: "t".repeat(64),
                failures: Vec::new(),
            };
            let json = serde_json::to_vec(&answer).expect("JSON").len();
            assert!(answer.encoded_len() <= PROMISED && json <= PROMISED, "{} {json}", answer.encoded_len());
        }
    }

    #[test]
    fn a_letter_that_is_larger_than_a_page_comes_alone() {
        let letters = filled(3, &ValueKind::Value(Bytes::from(vec![7; 3 << 20])));
        assert_eq!(letters.len(), 1);
    }
}
