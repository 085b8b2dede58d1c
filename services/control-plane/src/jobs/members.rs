//! The gateways, by their heartbeats in `sluice.members`: who is registered and what each has applied.
//!
//! Time is the log's own: the append times of heartbeats, carried on by our clock only while the log can be read, so that a
//! stopped Kafka does not make all gateways look dead, and the death of the last one is noticed.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prost::Message as _;
use sluice_proto::internal::control::v1::{MemberHeartbeat, MemberPhase};
use sluice_runtime::{ComponentStatus, Health};
use sluice_types::physical::MEMBERS_TOPIC;
use sluice_wire::{Client, Isolation, LogTail, OffsetAt, Record, TailOptions, TailState, TopicId};
use tokio_util::sync::CancellationToken;

use crate::plane::{SharedPlane, Wake};

/// Without a heartbeat for longer, a gateway is no longer registered.
const REGISTERED_MS: i64 = 600_000;
/// Without a heartbeat for longer, a gateway is not waited for, but counts as pending.
const LAPSED_MS: i64 = 10_000;
const POLL: Duration = Duration::from_millis(500);
const AGAIN: Duration = Duration::from_secs(1);
/// Gateways at most; more than any installation has.
const MEMBERS_MAX: usize = 10_000;

/// The gateways known.
pub(crate) struct Members {
    state: Mutex<State>,
    changed: Wake,
}

#[derive(Default)]
struct State {
    members: HashMap<String, Member>,
    /// The newest append time, and when we read it; `None` while the log cannot be read.
    newest_ms: i64,
    read_at: Option<Instant>,
}

struct Member {
    applied: i64,
    log_id: String,
    last_ms: i64,
}

/// How far a change has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Progress {
    /// Gateways that live and have not applied it.
    pub(crate) waiting: usize,
    /// Gateways that are registered, but have not been heard of for a while, and have not applied it.
    pub(crate) lapsed: usize,
}

impl Members {
    pub(crate) fn new() -> Self {
        Self { state: Mutex::default(), changed: Wake::new() }
    }

    /// How far the change at this offset has come.
    pub(crate) fn progress(&self, log: TopicId, offset: i64) -> Progress {
        let state = self.state.lock();
        let (now_ms, log_id) = (state.now_ms(), plain(&log.to_string()));
        let mut progress = Progress::default();
        for member in state.members.values() {
            let silent_ms = now_ms - member.last_ms;
            if silent_ms > REGISTERED_MS || (member.log_id == log_id && member.applied >= offset) {
                continue;
            }
            match silent_ms > LAPSED_MS {
                true => progress.lapsed += 1,
                false => progress.waiting += 1,
            }
        }
        progress
    }

    /// Waits until every live gateway has applied the change, or the time is over; returns how many registered ones have not.
    pub(crate) async fn applied(&self, log: TopicId, offset: i64, until: Instant) -> usize {
        let mut changed = self.changed.subscribe();
        loop {
            let progress = self.progress(log, offset);
            let left = until.saturating_duration_since(Instant::now());
            if progress.waiting == 0 || left.is_zero() {
                return progress.waiting + progress.lapsed;
            }
            changed.sleep(left.min(Duration::from_millis(250))).await;
        }
    }

    /// How many are registered.
    pub(crate) fn registered(&self) -> usize {
        let state = self.state.lock();
        let now_ms = state.now_ms();
        state.members.values().filter(|member| now_ms - member.last_ms <= REGISTERED_MS).count()
    }

    fn hear(&self, records: &[Record], reading: bool) {
        let mut state = self.state.lock();
        if !reading {
            // The clock stands still until the log can be read again.
            state.newest_ms = state.now_ms();
            state.read_at = None;
        } else if state.read_at.is_none() {
            state.read_at = Some(Instant::now());
        }
        for record in records {
            state.hear(record);
        }
        let now_ms = state.now_ms();
        state.members.retain(|_, member| now_ms - member.last_ms <= REGISTERED_MS);
        drop(state);
        if !records.is_empty() {
            self.changed.wake();
        }
    }
}

impl State {
    fn now_ms(&self) -> i64 {
        let since = self.read_at.map_or(0, |at| i64::try_from(at.elapsed().as_millis()).unwrap_or(i64::MAX));
        self.newest_ms.saturating_add(since)
    }

    fn hear(&mut self, record: &Record) {
        if record.timestamp_ms >= self.now_ms() {
            self.newest_ms = record.timestamp_ms;
            self.read_at = Some(Instant::now());
        }
        let id = record.key.as_ref().and_then(|key| std::str::from_utf8(key).ok()).unwrap_or_default().to_owned();
        let Some(heartbeat) = record.value.as_ref().and_then(|value| MemberHeartbeat::decode(value.clone()).ok())
        else {
            self.members.remove(&id);
            return;
        };
        if heartbeat.phase() == MemberPhase::Left {
            self.members.remove(&id);
        } else if self.members.len() < MEMBERS_MAX || self.members.contains_key(&id) {
            let member = Member {
                applied: heartbeat.applied_offset,
                log_id: plain(&heartbeat.control_topic_id),
                last_ms: record.timestamp_ms,
            };
            self.members.insert(id, member);
        }
    }
}

/// Topic ids are written with and without hyphens.
fn plain(id: &str) -> String {
    id.chars().filter(|c| *c != '-').map(|c| c.to_ascii_lowercase()).collect()
}

/// Follows the heartbeats until the shutdown.
pub(crate) async fn run(plane: SharedPlane, kafka: Client, health: Health, shutdown: CancellationToken) {
    let follow = async {
        loop {
            let options = TailOptions { isolation: Isolation::ReadUncommitted, ..TailOptions::default() };
            let mut tail = LogTail::new(kafka.clone(), MEMBERS_TOPIC, 0, OffsetAt::Earliest, options);
            let error = follow(&plane, &mut tail, &health).await;
            health.set_component("members", ComponentStatus::failing("the members log cannot be read"));
            tracing::debug!(%error, "reading the members log ended; beginning again");
            plane.members.hear(&[], false);
            tokio::time::sleep(AGAIN).await;
        }
    };
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = follow => {}
    }
}

async fn follow(plane: &SharedPlane, tail: &mut LogTail, health: &Health) -> sluice_wire::Error {
    loop {
        let batch = match tail.next(POLL).await {
            Ok(batch) => batch,
            Err(error) => return error,
        };
        let reading = matches!(batch.state, TailState::Reading);
        plane.members.hear(&batch.records, reading);
        let registered = plane.members.registered();
        plane.metrics.members.set(i64::try_from(registered).unwrap_or(i64::MAX));
        health.set_component(
            "members",
            match reading {
                true => ComponentStatus::ok(format!("{registered} gateways registered")),
                false => ComponentStatus::failing("the members log cannot be read"),
            },
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_wire::TimestampType;

    const LOG: TopicId = TopicId([7; 16]);

    fn beat(id: &str, applied: i64, at_ms: i64, phase: MemberPhase) -> Record {
        let heartbeat = MemberHeartbeat {
            gateway_id: id.into(),
            applied_offset: applied,
            control_topic_id: LOG.to_string(),
            phase: phase as i32,
            ..MemberHeartbeat::default()
        };
        Record {
            offset: 0,
            timestamp_ms: at_ms,
            timestamp_type: TimestampType::LogAppendTime,
            key: Some(id.to_owned().into()),
            value: Some(heartbeat.encode_to_vec().into()),
            headers: Vec::new(),
        }
    }

    #[test]
    fn only_live_gateways_are_waited_for_and_lapsed_ones_are_counted() {
        let members = Members::new();
        let serving = MemberPhase::Serving;
        members.hear(&[beat("a", 10, 1_000_000, serving), beat("b", 4, 1_000_000, serving)], true);
        assert_eq!(members.progress(LOG, 10), Progress { waiting: 1, lapsed: 0 });
        assert_eq!(members.progress(LOG, 4), Progress::default());
        assert_eq!(members.progress(TopicId([8; 16]), 4), Progress { waiting: 2, lapsed: 0 });
        members.hear(&[beat("a", 10, 1_000_000 + LAPSED_MS + 1, serving)], true);
        assert_eq!(members.progress(LOG, 10), Progress { waiting: 0, lapsed: 1 });
        members.hear(&[beat("a", 10, 1_000_000 + REGISTERED_MS + 1, serving)], true);
        assert_eq!(members.progress(LOG, 10), Progress::default());
        members.hear(&[beat("a", 10, 1_700_000, MemberPhase::Left)], true);
        assert_eq!(members.registered(), 0);
    }

    #[tokio::test]
    async fn the_wait_ends_with_the_last_confirmation() {
        let members = std::sync::Arc::new(Members::new());
        members.hear(&[beat("a", 3, 1_000_000, MemberPhase::Serving)], true);
        let waiting = members.clone();
        let until = Instant::now() + Duration::from_secs(30);
        let waiter = tokio::spawn(async move { waiting.applied(LOG, 5, until).await });
        members.hear(&[beat("a", 5, 1_000_500, MemberPhase::Serving)], true);
        assert_eq!(waiter.await.expect("waiter"), 0);
        assert_eq!(members.applied(LOG, 6, Instant::now()).await, 1);
    }
}
