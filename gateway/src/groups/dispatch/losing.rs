//! Positions that the log does not hold: lost to retention at its beginning, or beyond its end.
//!
//! Behind the beginning: what lies between is lost, counted and told, and reading goes on at the first record that is still there,
//! whatever the group's start rule. What is out stays out. Beyond the end: the log is not what it was (an unclean election, a lost
//! disk), unless the leader merely lags; it is asked again, and only who hears the same for a while begins anew: at its first record that was not done, if the log reaches so far, or at the end. Records may
//! come again then, since the old offsets may be those of new records. A leader that holds other records below the position says so
//! at once, since reads name the leader epoch that they stand at.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use sluice_wire::Error;

use crate::groups::dispatch::action::Action;
use crate::groups::dispatch::group::Group;
use crate::groups::dispatch::part::PartKey;

const RETRY: Duration = Duration::from_millis(500);
/// A log that ends before the position for so long was cut off.
const BEYOND: Duration = Duration::from_secs(3);

/// Where the log of a partition begins and ends now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LogBounds {
    pub(super) start: i64,
    pub(super) end: i64,
}

/// A log ended before the position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CutOff {
    pub(super) position: i64,
    pub(super) end: i64,
    /// Where reading went on.
    pub(super) to: i64,
    pub(super) at_ms: i64,
}

/// Which read hit upon it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading {
    /// At the end of the window.
    On,
    /// Of records that are due again.
    Again,
}

impl Group {
    /// An offset is not in the log: asks where the log is.
    pub(super) fn find_bounds(&mut self, key: PartKey, term: u64, reading: Reading) {
        let Some(part) = self.part(key, term) else { return };
        match reading {
            Reading::On => part.reading = true,
            Reading::Again => part.rereading = true,
        }
        let place = part.place.clone();
        self.actions.push(Action::FindBounds { key, term, reading, place });
    }

    pub(super) fn bounds(
        &mut self,
        key: PartKey,
        term: u64,
        reading: Reading,
        outcome: Result<LogBounds, Error>,
        now: Instant,
    ) {
        let Some(part) = self.part(key, term) else { return };
        match reading {
            Reading::On => part.reading = false,
            Reading::Again => part.rereading = false,
        }
        let bounds = match outcome {
            Ok(bounds) => bounds,
            Err(error) => return self.read_failed(key, term, &error, now),
        };
        part.end = bounds.end;
        if part.window.next_read() > bounds.end {
            return self.beyond(key, term, bounds, now);
        }
        part.beyond_since = None;
        if self.lose_below(key, term, bounds.start, now) == 0
            && let Some(part) = self.part(key, term)
        {
            // The log is about to change, or the leader: not to be asked as fast as the network is.
            part.read_after = Some(now + RETRY);
        }
    }

    /// The log begins at this offset now; tells how many offsets were lost.
    pub(super) fn lose_below(&mut self, key: PartKey, term: u64, log_start: i64, now: Instant) -> u64 {
        let at_ms = self.setting.clock.ms(now);
        let (metrics, tenant, name) = (self.setting.metrics.clone(), self.config.tenant_uid, Arc::clone(&self.name));
        let Some(part) = self.part(key, term) else { return 0 };
        let lost = part.lose_below(log_start, at_ms);
        if lost == 0 {
            return 0;
        }
        metrics.skipped(tenant, lost);
        tracing::warn!(group = %name, %tenant, topic = %part.place.topic, partition = part.place.partition, log_start, lost, "records were lost to retention before the group had done them");
        part.changed = true;
        self.commits.soon(now);
        lost
    }

    /// The log ends before the position.
    fn beyond(&mut self, key: PartKey, term: u64, bounds: LogBounds, now: Instant) {
        let Some(part) = self.part(key, term) else { return };
        let since = *part.beyond_since.get_or_insert(now);
        if now < since + BEYOND {
            part.trouble = Some("the log ends before the position".to_owned());
            part.at_end = false;
            part.read_after = Some(now + RETRY);
            return;
        }
        self.cut_off(key, term, bounds.end, now);
    }

    /// From an offset on the log is not the one that was read: what was done above the first record that was not is not known any
    /// more, and what is out is stale.
    pub(super) fn cut_off(&mut self, key: PartKey, term: u64, end: i64, now: Instant) {
        let at_ms = self.setting.clock.ms(now);
        let Some(part) = self.part(key, term) else { return };
        let (position, to) = (part.window.next_read(), part.window.base().min(end));
        tracing::error!(topic = %part.place.topic, partition = part.place.partition, position, end, to, "the log was cut off below the position of a group");
        self.move_part(key, term, to);
        if let Some(part) = self.index.get(&key).map(|&at| &mut self.parts[at]) {
            part.epochs.cut_off(end);
            part.cut_off = Some(CutOff { position, end, to, at_ms });
        }
        self.commits.soon(now);
    }
}
