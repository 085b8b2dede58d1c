//! The gateways, by their heartbeats in `sluice.members`: who is registered and what each has applied.
//!
//! Time is the log's own: the append times of heartbeats, carried on by our clock only while the log can be read, so that a
//! stopped Kafka does not make all gateways look dead, and the death of the last one is noticed. Until the log was read to its
//! end nobody knows which gateways there are, and nothing is said to hold on all of them.
//!
//! A gateway's new start replaces the old one. If the old one goes on all the same, two run under one id: both are waited
//! for, and health says so.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prost::Message as _;
use sluice_proto::internal::control::v1::{MemberHeartbeat, MemberPhase};
use sluice_runtime::{ComponentStatus, Health};
use sluice_types::physical::MEMBERS_TOPIC;
use sluice_wire::{Client, Isolation, KafkaTopicId, LogTail, OffsetAt, Record, TailOptions, TailState};
use tokio_util::sync::CancellationToken;

use crate::plane::{SharedPlane, Wake};

/// Without a heartbeat for longer, a gateway is no longer registered.
const REGISTERED_MS: i64 = 600_000;
/// Without a heartbeat for longer, a gateway is not waited for, but counts as pending.
const LAPSED_MS: i64 = 10_000;
/// When the log is a new one, gateways that run have this long to be heard of in it; they beat every 500 ms.
const FIRST_BEATS: Duration = Duration::from_secs(2);
/// Heartbeats of an old start behind those of a new one that are not just late.
const LATE_BEATS_MAX: u32 = 1;
const POLL: Duration = Duration::from_millis(500);
const AGAIN: Duration = Duration::from_secs(1);
/// Gateways at most; more than any installation has.
const MEMBERS_MAX: usize = 10_000;
/// Characters of the id of a wait.
const WAIT_CHARS_MAX: usize = 64;

/// The gateways known.
pub(crate) struct Members {
    state: Mutex<State>,
    changed: Wake,
}

#[derive(Default)]
struct State {
    /// The starts of each gateway that were heard of.
    members: HashMap<String, Vec<Member>>,
    /// The newest append time, and when we read it; `None` while the log cannot be read.
    newest_ms: i64,
    read_at: Option<Instant>,
    /// The log was read to its end since reading began.
    caught_up: bool,
    /// The log is a new one: who runs may not have been heard of before this.
    complete_at: Option<Instant>,
}

/// One start of a gateway.
struct Member {
    boot_id: String,
    applied: i64,
    log_id: String,
    /// Its wait for the log to be complete again; empty if there is none.
    awaits_complete: String,
    last_ms: i64,
    /// A later start was heard of.
    replaced: bool,
    /// Heartbeats since it was replaced.
    late_beats: u32,
}

/// How far a change has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Progress {
    /// Gateways that live and have not applied it.
    pub(crate) waiting: usize,
    /// Gateways that are registered, but have not been heard of for a while, and have not applied it.
    pub(crate) lapsed: usize,
}

/// How far a change had come when the wait for it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Confirmed {
    /// All registered gateways have applied it.
    ByAll,
    /// These many have not.
    NotBy(usize),
    /// It is not known which gateways there are.
    Unknown,
}

impl Confirmed {
    /// As things stand.
    pub(crate) fn of(progress: Option<Progress>) -> Self {
        match progress.map(|progress| progress.waiting + progress.lapsed) {
            Some(0) => Self::ByAll,
            Some(count) => Self::NotBy(count),
            None => Self::Unknown,
        }
    }
}

impl Members {
    pub(crate) fn new() -> Self {
        Self { state: Mutex::default(), changed: Wake::new() }
    }

    /// How far the change at this offset has come; `None` while it is not known who there is.
    pub(crate) fn progress(&self, log: KafkaTopicId, offset: i64) -> Option<Progress> {
        let state = self.state.lock();
        if !state.is_complete() {
            return None;
        }
        let (now_ms, log_id) = (state.now_ms(), plain(&log.to_string()));
        let mut progress = Progress::default();
        for member in state.members.values().flatten().filter(|member| !member.replaced) {
            let silent_ms = now_ms - member.last_ms;
            if silent_ms > REGISTERED_MS || (member.log_id == log_id && member.applied >= offset) {
                continue;
            }
            match silent_ms > LAPSED_MS {
                true => progress.lapsed += 1,
                false => progress.waiting += 1,
            }
        }
        Some(progress)
    }

    /// Waits until every live gateway has applied the change, or the time is over.
    pub(crate) async fn applied(&self, log: KafkaTopicId, offset: i64, until: Instant) -> Confirmed {
        let mut changed = self.changed.subscribe();
        loop {
            let progress = self.progress(log, offset);
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || progress.is_some_and(|progress| progress.waiting == 0) {
                return Confirmed::of(progress);
            }
            changed.sleep(left.min(Duration::from_millis(250))).await;
        }
    }

    /// Waits until it is known which gateways there are.
    pub(crate) async fn known(&self) {
        let mut changed = self.changed.subscribe();
        while !self.state.lock().is_complete() {
            changed.sleep(POLL).await;
        }
    }

    /// The log was made just now.
    pub(crate) fn log_made(&self) {
        self.state.lock().complete_at = Some(Instant::now() + FIRST_BEATS);
    }

    /// The waits of gateways for this log to be complete again.
    pub(crate) fn awaiting_complete(&self, log: KafkaTopicId) -> BTreeSet<String> {
        let state = self.state.lock();
        if !state.is_complete() {
            return BTreeSet::new();
        }
        let log_id = plain(&log.to_string());
        let waits = state.members.values().flatten().filter(|member| !member.replaced && member.log_id == log_id);
        waits.map(|member| &member.awaits_complete).filter(|wait| !wait.is_empty()).cloned().collect()
    }

    /// How many are registered.
    pub(crate) fn registered(&self) -> usize {
        let state = self.state.lock();
        let now_ms = state.now_ms();
        let registered = |member: &&Member| !member.replaced && now_ms - member.last_ms <= REGISTERED_MS;
        state.members.values().flatten().filter(registered).count()
    }

    /// Ids under which two gateways run.
    pub(crate) fn shared_ids(&self) -> Vec<String> {
        let state = self.state.lock();
        let now_ms = state.now_ms();
        let lives = |member: &&Member| !member.replaced && now_ms - member.last_ms <= LAPSED_MS;
        let shared = state.members.iter().filter(|(_, starts)| starts.iter().filter(lives).count() > 1);
        shared.map(|(id, _)| id.clone()).collect()
    }

    /// Reading begins from the start of the log: until its end nothing is known.
    fn begin(&self) {
        let mut state = self.state.lock();
        state.members.clear();
        state.caught_up = false;
    }

    fn hear(&self, records: &[Record], reading: bool, caught_up: bool) {
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
        state.forget();
        let newly_known = caught_up && !state.caught_up;
        state.caught_up |= caught_up;
        drop(state);
        if newly_known || !records.is_empty() {
            self.changed.wake();
        }
    }
}

impl State {
    fn is_complete(&self) -> bool {
        self.caught_up && self.complete_at.is_none_or(|at| Instant::now() >= at)
    }

    fn now_ms(&self) -> i64 {
        let since = self.read_at.map_or(0, |at| i64::try_from(at.elapsed().as_millis()).unwrap_or(i64::MAX));
        self.newest_ms.saturating_add(since)
    }

    fn forget(&mut self) {
        let now_ms = self.now_ms();
        self.members.retain(|_, starts| {
            starts.retain(|member| now_ms - member.last_ms <= REGISTERED_MS);
            !starts.is_empty()
        });
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
        let left = heartbeat.phase() == MemberPhase::Left;
        if !left && self.members.len() >= MEMBERS_MAX && !self.members.contains_key(&id) {
            return;
        }
        let starts = self.members.entry(id).or_default();
        match starts.iter_mut().find(|start| start.boot_id == heartbeat.boot_id) {
            Some(start) => start.beat(&heartbeat, record.timestamp_ms),
            None => {
                starts.iter_mut().for_each(|start| (start.replaced, start.late_beats) = (true, 0));
                // A chain of restarts leaves no more than the last two.
                starts.truncate(1);
                starts.insert(0, Member::new(&heartbeat, record.timestamp_ms));
            }
        }
        if left {
            starts.retain(|start| start.boot_id != heartbeat.boot_id);
        }
    }
}

impl Member {
    fn new(heartbeat: &MemberHeartbeat, time_ms: i64) -> Self {
        let wait = Some(&heartbeat.awaits_complete).filter(|wait| wait.len() <= WAIT_CHARS_MAX);
        Self {
            boot_id: heartbeat.boot_id.clone(),
            applied: heartbeat.applied_offset,
            log_id: plain(&heartbeat.control_topic_id),
            awaits_complete: wait.cloned().unwrap_or_default(),
            last_ms: time_ms,
            replaced: false,
            late_beats: 0,
        }
    }

    fn beat(&mut self, heartbeat: &MemberHeartbeat, time_ms: i64) {
        if self.replaced {
            self.late_beats += 1;
        }
        let replaced = self.replaced && self.late_beats <= LATE_BEATS_MAX;
        *self = Self { replaced, late_beats: self.late_beats, ..Self::new(heartbeat, time_ms) };
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
            plane.members.begin();
            let options = TailOptions { isolation: Isolation::ReadUncommitted, ..TailOptions::default() };
            let mut tail = LogTail::new(kafka.clone(), MEMBERS_TOPIC, 0, OffsetAt::Earliest, options);
            let error = follow(&plane, &mut tail, &health).await;
            health.set_component("members", ComponentStatus::failing("the members log cannot be read"));
            tracing::debug!(%error, "reading the members log ended; beginning again");
            plane.members.hear(&[], false, false);
            if matches!(error, sluice_wire::Error::TopicReplaced { .. }) {
                plane.members.log_made();
            }
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
        plane.members.hear(&batch.records, reading, batch.is_caught_up());
        let registered = plane.members.registered();
        plane.metrics.members.set(i64::try_from(registered).unwrap_or(i64::MAX));
        health.set_component("members", status(reading, registered, &plane.members.shared_ids()));
    }
}

fn status(reading: bool, registered: usize, shared_ids: &[String]) -> ComponentStatus {
    match shared_ids {
        _ if !reading => ComponentStatus::failing("the members log cannot be read"),
        [] => ComponentStatus::ok(format!("{registered} gateways registered")),
        ids => ComponentStatus::failing(format!("two gateways run with one id; give each its own: {}", ids.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_wire::TimestampType;

    const LOG: KafkaTopicId = KafkaTopicId([7; 16]);

    fn beat(id: &str, applied: i64, at_ms: i64, phase: MemberPhase) -> Record {
        beat_of(id, "", applied, at_ms, phase)
    }

    fn beat_of(id: &str, boot: &str, applied: i64, at_ms: i64, phase: MemberPhase) -> Record {
        let heartbeat = MemberHeartbeat {
            gateway_id: id.into(),
            boot_id: boot.into(),
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

    fn progress(waiting: usize, lapsed: usize) -> Option<Progress> {
        Some(Progress { waiting, lapsed })
    }

    #[test]
    fn only_live_gateways_are_waited_for_and_lapsed_ones_are_counted() {
        let members = Members::new();
        let serving = MemberPhase::Serving;
        members.hear(&[beat("a", 10, 1_000_000, serving), beat("b", 4, 1_000_000, serving)], true, true);
        assert_eq!(members.progress(LOG, 10), progress(1, 0));
        assert_eq!(members.progress(LOG, 4), progress(0, 0));
        assert_eq!(members.progress(KafkaTopicId([8; 16]), 4), progress(2, 0));
        members.hear(&[beat("a", 10, 1_000_000 + LAPSED_MS + 1, serving)], true, true);
        assert_eq!(members.progress(LOG, 10), progress(0, 1));
        members.hear(&[beat("a", 10, 1_000_000 + REGISTERED_MS + 1, serving)], true, true);
        assert_eq!(members.progress(LOG, 10), progress(0, 0));
        members.hear(&[beat("a", 10, 1_700_000, MemberPhase::Left)], true, true);
        assert_eq!(members.registered(), 0);
    }

    #[tokio::test]
    async fn the_wait_ends_with_the_last_confirmation() {
        let members = std::sync::Arc::new(Members::new());
        members.hear(&[beat("a", 3, 1_000_000, MemberPhase::Serving)], true, true);
        let waiting = members.clone();
        let until = Instant::now() + Duration::from_secs(30);
        let waiter = tokio::spawn(async move { waiting.applied(LOG, 5, until).await });
        members.hear(&[beat("a", 5, 1_000_500, MemberPhase::Serving)], true, true);
        assert_eq!(waiter.await.expect("waiter"), Confirmed::ByAll);
        assert_eq!(members.applied(LOG, 6, Instant::now()).await, Confirmed::NotBy(1));
    }

    #[tokio::test]
    async fn nothing_holds_everywhere_before_the_log_was_read_to_its_end() {
        let members = Members::new();
        assert_eq!(members.applied(LOG, 0, Instant::now()).await, Confirmed::Unknown);
        members.hear(&[beat("a", 5, 1_000_000, MemberPhase::Serving)], true, false);
        assert_eq!(members.applied(LOG, 5, Instant::now()).await, Confirmed::Unknown, "there may be others");
        members.hear(&[beat("b", 4, 1_000_000, MemberPhase::Serving)], true, true);
        assert_eq!(members.applied(LOG, 5, Instant::now()).await, Confirmed::NotBy(1));
        members.begin();
        assert_eq!(members.applied(LOG, 0, Instant::now()).await, Confirmed::Unknown, "it is read anew");
        members.hear(&[], true, true);
        members.log_made();
        assert_eq!(members.applied(LOG, 0, Instant::now()).await, Confirmed::Unknown, "nobody had time to beat");
    }

    #[test]
    fn a_new_start_replaces_the_old_one_and_two_under_one_id_are_both_waited_for() {
        let members = Members::new();
        let serving = MemberPhase::Serving;
        let hear = |boot: &str, applied, at_ms| {
            members.hear(&[beat_of("a", boot, applied, at_ms, serving)], true, true);
        };
        hear("1", 5, 1_000_000);
        hear("2", 9, 1_000_100);
        assert_eq!((members.progress(LOG, 9), members.registered()), (progress(0, 0), 1));
        hear("1", 5, 1_000_200);
        assert_eq!(members.progress(LOG, 9), progress(0, 0), "it was on its way when the new one began");
        assert!(members.shared_ids().is_empty());
        hear("1", 5, 1_000_700);
        hear("2", 9, 1_000_800);
        assert_eq!(members.progress(LOG, 9), progress(1, 0), "the old one goes on beside the new one");
        assert_eq!(members.shared_ids(), ["a"]);
        members.hear(&[beat_of("a", "1", 5, 1_000_900, MemberPhase::Left)], true, true);
        assert_eq!((members.progress(LOG, 9), members.registered()), (progress(0, 0), 1));
        assert!(members.shared_ids().is_empty());
    }
}
