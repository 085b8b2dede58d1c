//! Tables for people, JSON for scripts.

use std::io::{IsTerminal, Write};

use anyhow::Result;
use comfy_table::{Attribute, Cell, ContentArrangement, Table, presets};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
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

/// A table without borders that fits the terminal.
pub(crate) fn table(columns: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    if !std::io::stdout().is_terminal() {
        table.set_content_arrangement(ContentArrangement::Disabled);
    }
    table.set_header(columns.iter().map(|column| Cell::new(column.to_uppercase()).add_attribute(Attribute::Bold)));
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt()
}

/// A note for the person, on standard error.
pub(crate) fn note(global: &Global, text: &str) {
    if !global.quiet {
        eprintln!("{text}");
    }
}

/// Progress of a stream whose length may be unknown; drawn only on a terminal.
pub(crate) fn progress(global: &Global, length: Option<u64>, what: &str) -> ProgressBar {
    let bar = match length {
        Some(length) => ProgressBar::new(length)
            .with_style(style("{msg} [{bar:30}] {human_pos}/{human_len} ({per_sec}, {eta} left)")),
        None => ProgressBar::new_spinner().with_style(style("{spinner} {msg} {human_pos} ({per_sec}, {elapsed})")),
    };
    if global.quiet || !std::io::stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    bar.set_message(what.to_owned());
    bar
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> ")
}

/// Bytes with a binary unit.
pub(crate) fn bytes(count: u64) -> String {
    indicatif::BinaryBytes(count).to_string()
}

/// An enum's name without its prefix.
pub(crate) fn word(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix).unwrap_or(name).to_owned()
}
