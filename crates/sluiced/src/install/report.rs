//! What `install` prints: a table that fits a terminal, or JSON.

use comfy_table::{ContentArrangement, Table, presets};
use serde::{Serialize, Serializer};
use sluice_installation::{Difference, Remedy};

use super::Mode;

/// Everything there is to say.
#[derive(Debug, Default, Serialize)]
pub(super) struct Report {
    /// What was done, in order.
    pub(super) done: Vec<String>,
    /// What is not as it must be; after `--apply`: what is left.
    #[serde(rename = "differences")]
    pub(super) rows: Vec<Row>,
    /// What ended it early; then nothing is known of the rest.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "text")]
    pub(super) failed: Option<anyhow::Error>,
}

/// One thing that is not as it must be.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    pub(super) kind: &'static str,
    pub(super) name: String,
    /// Empty for the thing as a whole.
    pub(super) item: String,
    /// `missing`, `differs`, `unwanted`, `hidden`.
    pub(super) state: &'static str,
    pub(super) is: Option<String>,
    pub(super) must: String,
    /// Who mends it: `apply` or `person`.
    pub(super) by: &'static str,
    /// How it is mended.
    pub(super) how: String,
}

fn text<S: Serializer>(error: &Option<anyhow::Error>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&error.as_ref().map_or_else(String::new, |error| format!("{error:#}")))
}

impl Row {
    pub(super) fn of<A: std::fmt::Display>(difference: &Difference<A>) -> Self {
        let (by, how) = match &difference.remedy {
            Remedy::Apply(action) => ("apply", action.to_string()),
            Remedy::Person(how) => ("person", how.clone()),
        };
        Self {
            kind: difference.kind,
            name: difference.name.clone(),
            item: difference.item.clone(),
            state: difference.state.as_str(),
            is: difference.is.clone(),
            must: difference.must.clone(),
            by,
            how,
        }
    }

    fn what(&self) -> String {
        format!("{} {} {}", self.kind, self.name, self.item).trim_end().to_owned()
    }
}

impl Report {
    #[allow(clippy::print_stdout, reason = "it is the answer")]
    pub(super) fn print_json(&self) {
        println!("{}", serde_json::to_string_pretty(self).expect("strings always serialize"));
    }

    #[allow(clippy::print_stdout, reason = "it is the answer")]
    pub(super) fn print_table(&self, mode: Mode) {
        for done in &self.done {
            println!("done: {done}");
        }
        if self.failed.is_some() {
            return;
        }
        if self.rows.is_empty() {
            println!("nothing to do: everything is as it must be");
            return;
        }
        println!("{}", self.table(mode));
        println!("{}", self.summary(mode));
    }

    fn table(&self, mode: Mode) -> Table {
        let mut table = Table::new();
        table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
        match mode {
            Mode::Check => {
                table.set_header(["WHAT", "STATE", "IS", "MUST BE"]);
                for row in &self.rows {
                    table.add_row([&row.what(), row.state, row.is.as_deref().unwrap_or("-"), &row.must]);
                }
            }
            Mode::Plan | Mode::Apply => {
                table.set_header(["WHAT", "STATE", "BY", "HOW"]);
                for row in &self.rows {
                    table.add_row([&row.what(), row.state, row.by, &row.how]);
                }
            }
        }
        table
    }

    fn summary(&self, mode: Mode) -> String {
        let all = self.rows.len();
        let things = if all == 1 { "1 difference".to_owned() } else { format!("{all} differences") };
        let by_apply = self.rows.iter().filter(|row| row.by == "apply").count();
        match mode {
            Mode::Apply => format!("{things} left, for a person"),
            _ => format!("{things}; --apply mends {by_apply}, a person {}", all - by_apply),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_in_the_json_so_that_no_differences_does_not_mean_that_all_is_well() {
        let failed = Some(anyhow::anyhow!("why").context("make the topic"));
        let report = Report { done: vec!["one".to_owned()], failed, ..Report::default() };
        let json = serde_json::to_value(&report).expect("JSON");
        let expected = serde_json::json!({"done": ["one"], "differences": [], "failed": "make the topic: why"});
        assert_eq!(json, expected);
    }

    #[test]
    fn a_table_fits_a_terminal_of_eighty_columns() {
        let row = |how: &str| Row {
            kind: "database",
            name: "sluice_control".to_owned(),
            item: "schema public".to_owned(),
            state: "unwanted",
            is: None,
            must: "nothing for everybody".to_owned(),
            by: "person",
            how: how.to_owned(),
        };
        let report = Report { rows: vec![row(&"words that go on ".repeat(12))], ..Report::default() };
        for mode in [Mode::Check, Mode::Plan] {
            let mut table = report.table(mode);
            table.set_width(80);
            assert!(table.lines().all(|line| line.chars().count() <= 80), "{table}");
        }
    }
}
