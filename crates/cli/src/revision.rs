//! The highest revision this user has seen, so that the next command never reads older state from another gateway.
//!
//! Kept per address in `$XDG_STATE_HOME/sluice/revisions.json` (or `~/.local/state`). Losing the file loses nothing but that
//! guarantee for one command, so faults in it are ignored.

use std::collections::BTreeMap;
use std::path::PathBuf;

use sluice_types::Revision;

/// The revisions by address.
pub(crate) struct Revisions {
    path: Option<PathBuf>,
    address: String,
    seen: Option<Revision>,
}

impl Revisions {
    pub(crate) fn load(address: &str) -> Self {
        let path = state_dir().map(|dir| dir.join("sluice/revisions.json"));
        let seen = path.as_ref().and_then(|path| {
            let all: BTreeMap<String, String> = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
            all.get(address)?.parse().ok()
        });
        Self { path, address: address.into(), seen }
    }

    /// What to send as `sluice-revision`.
    pub(crate) fn header(&self) -> Option<String> {
        self.seen.map(|revision| revision.to_string())
    }

    /// Takes in what an answer carried.
    pub(crate) fn observe(&mut self, text: &str) {
        let Ok(new) = text.parse::<Revision>() else { return };
        let older = self.seen.is_some_and(|seen| seen.topic_id == new.topic_id && seen.offset >= new.offset);
        if older {
            return;
        }
        self.seen = Some(new);
        let Some(path) = &self.path else { return };
        let mut all: BTreeMap<String, String> =
            std::fs::read(path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        all.insert(self.address.clone(), new.to_string());
        if let (Some(dir), Ok(bytes)) = (path.parent(), serde_json::to_vec(&all)) {
            let whole = path.with_extension(format!("{}.tmp", std::process::id()));
            let _ = std::fs::create_dir_all(dir)
                .and_then(|()| std::fs::write(&whole, bytes))
                .and_then(|()| std::fs::rename(&whole, path));
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "the user's state folder is named by the environment only")]
fn state_dir() -> Option<PathBuf> {
    std::env::var_os("XDG_STATE_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".local/state")))
}
