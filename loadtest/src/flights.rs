//! The input: every flight out of New York in 2013, one JSON event each, keyed by tail number.

use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use serde_json::{Map, Number, Value};

/// One event.
#[derive(Clone)]
pub(crate) struct Event {
    /// The tail number; a cancelled flight may have none.
    pub(crate) key: Option<Bytes>,
    /// Compact JSON; its field `seq` counts the events of the file.
    pub(crate) value: Bytes,
}

/// Reads the events of a file.
///
/// # Errors
/// If it is not the file that `dev/flights.sh` makes.
pub(crate) fn read(path: &Path, limit: usize) -> Result<Vec<Event>> {
    let file = File::open(path).with_context(|| format!("open {}; make it with dev/flights.sh", path.display()))?;
    let mut csv = csv::Reader::from_reader(file);
    let columns: Vec<String> = csv.headers()?.iter().map(str::to_owned).collect();
    let Some(tail) = columns.iter().position(|column| column == "tailnum") else {
        bail!("{}: no column tailnum", path.display());
    };
    let mut events = Vec::new();
    for (seq, row) in csv.records().take(limit).enumerate() {
        let row = row?;
        let mut object = Map::with_capacity(columns.len() + 1);
        object.insert("seq".into(), Value::from(seq));
        for (column, text) in columns.iter().zip(&row) {
            object.insert(column.clone(), field(text));
        }
        let key = row
            .get(tail)
            .filter(|text| !matches!(*text, "" | "NA"))
            .map(|text| Bytes::copy_from_slice(text.as_bytes()));
        events.push(Event { key, value: serde_json::to_vec(&object)?.into() });
    }
    Ok(events)
}

/// The number that an event carries.
pub(crate) fn seq(value: &[u8]) -> Option<u64> {
    let rest = value.strip_prefix(b"{\"seq\":")?;
    let end = rest.iter().position(|byte| !byte.is_ascii_digit())?;
    std::str::from_utf8(&rest[..end]).ok()?.parse().ok()
}

fn field(text: &str) -> Value {
    match text {
        "" | "NA" => Value::Null,
        text => text.parse::<Number>().map_or_else(|_| Value::from(text), Value::Number),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_events_number_is_read_back() {
        assert_eq!(seq(br#"{"seq":42,"year":2013}"#), Some(42));
        assert_eq!(seq(b"{}"), None);
    }
}
