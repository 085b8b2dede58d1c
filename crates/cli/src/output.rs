//! Tables for people, JSON for scripts.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};

use anyhow::Result;
use comfy_table::{Attribute, Cell, ContentArrangement, Table, presets};
use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use serde::Serialize;

use crate::args::{Global, Output};

/// Writes one value: as JSON, or as a table of `rows` under `columns`.
pub(crate) fn print<T: Serialize>(
    global: &Global,
    value: &T,
    columns: &[&str],
    rows: impl IntoIterator<Item = Vec<String>>,
) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match global.output {
        Output::Json => writeln!(out, "{}", serde_json::to_string_pretty(value)?)?,
        Output::Table => writeln!(out, "{}", table(columns, rows))?,
    }
    Ok(())
}

/// Writes a list: as an object with the list under `field`, as the HTTP API answers it, or as a table.
pub(crate) fn print_list<T: Serialize>(
    global: &Global,
    field: &str,
    found: &[T],
    columns: &[&str],
    rows: impl IntoIterator<Item = Vec<String>>,
) -> Result<()> {
    print(global, &BTreeMap::from([(field, found)]), columns, rows)
}

/// A table without borders. Names and ids are there to be copied, so no cell is ever broken: where the terminal is too
/// narrow, every row becomes a block of lines.
pub(crate) fn table(columns: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let rows: Vec<Vec<String>> = rows.into_iter().map(|row| row.iter().map(|cell| printable(cell)).collect()).collect();
    let terminal = std::io::stdout().is_terminal();
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    let widest =
        |i: usize| rows.iter().filter_map(|row| row.get(i)).map(|cell| cell.chars().count()).max().unwrap_or(0);
    let width: usize = columns.iter().enumerate().map(|(i, column)| widest(i).max(column.len()) + 2).sum();
    if terminal && !rows.is_empty() && table.width().is_some_and(|room| width > usize::from(room) + 2) {
        return blocks(columns, &rows);
    }
    table.set_header(columns.iter().map(|column| {
        let cell = Cell::new(column.to_uppercase());
        if terminal { cell.add_attribute(Attribute::Bold) } else { cell }
    }));
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt()
}

/// Names and values, one pair a line, in two columns.
pub(crate) fn pairs(pairs: &[(&str, String)]) -> String {
    let widest = pairs.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    pairs.iter().map(|(name, value)| format!("{name:<widest$}  {}\n", printable(value))).collect()
}

/// Columns of the terminal; 100 if standard output is none.
pub(crate) fn width() -> usize {
    let known = std::io::stdout().is_terminal().then(|| Table::new().width()).flatten();
    known.map_or(100, usize::from).clamp(40, 120)
}

/// Broken between words into lines of at most `width`; a longer word stays whole. Lines after the first are indented if the
/// text is an item of a list.
pub(crate) fn wrapped(text: &str, width: usize) -> String {
    let indent = if text.starts_with("- ") { "  " } else { "" };
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last_mut().map(|line| line.chars().count()).unwrap_or_default();
        if line > indent.len() && line + 1 + word.chars().count() > width {
            lines.push(format!("{indent}{word}"));
        } else if let Some(last) = lines.last_mut() {
            if !last.is_empty() {
                last.push(' ');
            }
            last.push_str(word);
        }
    }
    lines.join("\n")
}

fn blocks(columns: &[&str], rows: &[Vec<String>]) -> String {
    let widest = columns.iter().map(|column| column.len()).max().unwrap_or(0);
    let block = |row: &Vec<String>| {
        let lines = columns.iter().zip(row).map(|(column, cell)| format!("{:<widest$}  {cell}", column.to_uppercase()));
        lines.collect::<Vec<_>>().join("\n")
    };
    rows.iter().map(block).collect::<Vec<_>>().join("\n\n")
}

/// Text with control characters escaped: what others wrote must neither break lines nor steer the terminal.
pub(crate) fn printable(text: &str) -> String {
    text.chars()
        .flat_map(|c| {
            let escaped = c.is_control().then(|| c.escape_default());
            let plain = escaped.is_none().then_some(c);
            escaped.into_iter().flatten().chain(plain)
        })
        .collect()
}

/// `1 record`, `2 records`.
pub(crate) fn records(count: u64) -> String {
    format!("{count} record{}", if count == 1 { "" } else { "s" })
}

/// How many records are not done; below 0: not known.
pub(crate) fn lag(lag: i64) -> String {
    u64::try_from(lag).map_or_else(|_| "unknown at the moment".to_owned(), records)
}

/// A note for the person, on standard error.
pub(crate) fn note(global: &Global, text: &str) {
    if !global.quiet {
        eprintln!("{text}");
    }
}

/// Progress of a stream of unknown length; drawn only on a terminal.
pub(crate) fn progress(global: &Global, what: &str) -> ProgressBar {
    let style = ProgressStyle::with_template("{spinner} {msg} {human_pos} ({rate}/s, {elapsed})");
    let style = style.unwrap_or_else(|_| ProgressStyle::default_spinner()).with_key("rate", rate);
    let bar = ProgressBar::new_spinner().with_style(style);
    if global.quiet || !std::io::stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    bar.set_message(what.to_owned());
    bar
}

fn rate(state: &ProgressState, out: &mut dyn std::fmt::Write) {
    // A terminal that cannot be written to shows no rate.
    let _ = write!(out, "{}", HumanCount(state.per_sec() as u64));
}

/// Bytes with a binary unit.
pub(crate) fn bytes(count: u64) -> String {
    indicatif::BinaryBytes(count).to_string()
}

/// An enum's name without its prefix.
pub(crate) fn word(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix).unwrap_or(name).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_are_broken_between_words() {
        assert_eq!(wrapped("- one two three", 10), "- one two\n  three");
        assert_eq!(wrapped("short", 10), "short");
        assert_eq!(wrapped("averyveryverylongword x", 10), "averyveryverylongword\nx");
    }

    #[test]
    fn pairs_stand_in_columns() {
        assert_eq!(pairs(&[("a", "1".into()), ("long", "2\n".into())]), "a     1\nlong  2\\n\n");
    }
}
