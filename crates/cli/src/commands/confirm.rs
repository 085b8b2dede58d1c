//! The question before something is deleted for good.

use std::io::{BufRead, IsTerminal};

use anyhow::{Result, bail};

use super::last_part;
use crate::failure::Usage;
use crate::output::printable;

/// What is to be deleted.
pub(super) struct Deletion<'a> {
    /// `topic demo/orders`.
    pub(super) what: String,
    /// What goes with it: `all its records`.
    pub(super) with: &'a str,
    /// Its name, of which the last part must be typed.
    pub(super) name: &'a str,
}

impl Deletion<'_> {
    /// Refuses a deletion that nobody can be asked about, and that `--yes` does not allow; true if a person is to be asked.
    pub(super) fn must_ask(&self, yes: bool) -> Result<bool> {
        if !yes && !std::io::stdin().is_terminal() {
            let Self { what, with, .. } = self;
            bail!(Usage(format!("this deletes {what} with {with}, for good; give --yes")));
        }
        Ok(!yes)
    }

    /// Asks, with what else there is to know.
    pub(super) fn ask(&self, also: &[String]) -> Result<()> {
        let Self { what, with, name } = self;
        eprintln!("This deletes {what} with {with}, for good.");
        for line in also {
            eprintln!("{}", printable(line));
        }
        eprint!("Type its id to go on: ");
        let mut answer = String::new();
        std::io::stdin().lock().read_line(&mut answer)?;
        if answer.trim() != last_part(name) {
            bail!("not deleted");
        }
        Ok(())
    }

    /// Both.
    pub(super) fn confirm(&self, yes: bool) -> Result<()> {
        if self.must_ask(yes)? { self.ask(&[]) } else { Ok(()) }
    }
}
