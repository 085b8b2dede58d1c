//! What a whole log says, collected while it is read from its beginning.

use std::collections::HashMap;

use crate::change::{Carried, Change};

/// The state of each resource: the first with its highest version, as those hold it who followed the log from its beginning.
///
/// Memory: what is carried of every resource.
#[derive(Debug)]
pub struct WholeLog<T>(HashMap<String, Newest<T>>);

#[derive(Debug)]
struct Newest<T> {
    version: i64,
    state: T,
}

impl<T> Default for WholeLog<T> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<T: Carried> WholeLog<T> {
    /// A record was read. What cannot be decoded replaces what could: a newer control plane wrote it.
    pub fn see(&mut self, change: Change<T>) {
        let Some(now) = change.now else {
            self.0.remove(&change.uid);
            return;
        };
        let known = self.0.get(&change.uid).map(|known| known.version);
        if known.is_none() || change.version.is_none() || change.version > known {
            let version = change.version.or(known).unwrap_or_default();
            self.0.insert(change.uid, Newest { version, state: now.for_later() });
        }
    }

    /// Whether it holds the resource.
    pub fn contains(&self, uid: &str) -> bool {
        self.0.contains_key(uid)
    }

    /// All of it: uid, version and state.
    pub fn into_states(self) -> impl Iterator<Item = (String, i64, T)> {
        self.0.into_iter().map(|(uid, newest)| (uid, newest.version, newest.state))
    }
}
