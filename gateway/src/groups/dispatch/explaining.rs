//! From figures to plain words: what holds records back, and what to do.

use std::time::Duration;

use sluice_proto::stream::v1::{DeliveryState, Finding, GroupStatus, PartitionStatus};
use sluice_proto::wkt::Timestamp;

use crate::groups::dispatch::losing::CutOff;

/// Findings told at most; the rest repeats them.
const FINDINGS_MAX: usize = 50;

/// The lag of which nothing is known: 0 would say that all is done.
const LAG_UNKNOWN: i64 = -1;

/// What the status does not show by itself.
#[derive(Debug, Clone, Default)]
pub(super) struct Notes {
    pub(super) trouble: Option<String>,
    pub(super) dead_lettering: Option<String>,
    /// Dead records that went in a circle of groups.
    pub(super) circled: u64,
    pub(super) ack_deadline: Duration,
    pub(super) has_consumers: bool,
    pub(super) has_credit: bool,
    /// In the order of the status's partitions.
    pub(super) parts: Vec<PartNote>,
}

/// Of one partition.
#[derive(Debug, Clone, Default)]
pub(super) struct PartNote {
    pub(super) trouble: Option<String>,
    pub(super) dead: i64,
    pub(super) starved: bool,
    /// The first offset that is not done, of those that can be read; absent: not known.
    pub(super) from: Option<i64>,
    /// Nobody has told yet where the partition ends.
    pub(super) is_end_unknown: bool,
    /// How many are done from there on.
    pub(super) ahead: i64,
    pub(super) cut_off: Option<CutOff>,
}

impl PartNote {
    /// The log begins at an offset now. What was done ahead was counted from where it began before.
    pub(super) fn begin_at(&mut self, start: i64) {
        if self.from.is_some_and(|from| from < start) {
            self.from = Some(start);
            self.ahead = 0;
        }
    }
}

/// Fills in lags, states where nobody consumes, and findings.
pub(super) fn complete(status: &mut GroupStatus, notes: &Notes) {
    for (partition, note) in status.partitions.iter_mut().zip(&notes.parts) {
        partition.lag = match note.from {
            Some(from) if !note.is_end_unknown => lag_of(partition.end_offset, from, note.ahead),
            _ => LAG_UNKNOWN,
        };
    }
    let lags = status.partitions.iter().map(|partition| partition.lag);
    status.lag = lags.reduce(|sum, lag| if sum.min(lag) < 0 { LAG_UNKNOWN } else { sum + lag }).unwrap_or(0);
    if !notes.has_consumers {
        nobody_consumes(status);
    }
    let mut findings = of_group(status, notes);
    for (at, partition) in status.partitions.iter().enumerate() {
        let note = notes.parts.get(at).cloned().unwrap_or_default();
        findings.extend(of_partition(partition, &note, notes));
        if findings.len() >= FINDINGS_MAX {
            break;
        }
    }
    findings.sort_by_key(|finding| rank(finding.state()));
    findings.truncate(FINDINGS_MAX);
    status.findings = findings;
}

/// Records that are not done, if the end is known.
fn lag_of(end: i64, from: i64, ahead: i64) -> i64 {
    (end - from - ahead).max(0)
}

/// What waits, waits because nobody consumes.
fn nobody_consumes(status: &mut GroupStatus) {
    let is_quiet =
        |state| matches!(state, DeliveryState::Flowing | DeliveryState::CatchingUp | DeliveryState::NoRecords);
    let with = |lag: i64| match lag {
        ..0 => DeliveryState::ClusterUnavailable,
        0 => DeliveryState::NoRecords,
        1.. => DeliveryState::NoCredit,
    };
    for partition in &mut status.partitions {
        if is_quiet(partition.state()) {
            partition.state = with(partition.lag).into();
        }
    }
    if is_quiet(status.state()) {
        status.state = with(status.lag).into();
    }
}

fn rank(state: DeliveryState) -> u8 {
    match state {
        DeliveryState::ClusterUnavailable => 0,
        DeliveryState::NoTopics => 1,
        DeliveryState::Assigning => 2,
        DeliveryState::WindowFull => 3,
        DeliveryState::NoCredit => 4,
        DeliveryState::WaitingForAcks => 5,
        DeliveryState::CatchingUp => 6,
        _ => 7,
    }
}

fn of_group(status: &GroupStatus, notes: &Notes) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut tell = |state: DeliveryState, message: String| {
        findings.push(Finding { state: state.into(), message, ..Finding::default() });
    };
    if notes.trouble.is_some() {
        tell(
            DeliveryState::ClusterUnavailable,
            "the streaming cluster does not answer for this group at the moment; nothing to do: it goes on by itself"
                .into(),
        );
    }
    if !status.missing_topics.is_empty() {
        let missing = status.missing_topics.join(", ");
        tell(DeliveryState::NoTopics, format!("{missing}: no such topic; create it, or take it out of the group"));
    }
    if let Some(why) = &notes.dead_lettering {
        tell(DeliveryState::WaitingForAcks, format!("dead letters cannot be stored: {why}"));
    }
    if notes.circled > 0 {
        tell(
            DeliveryState::WaitingForAcks,
            format!(
                "{} records came back as dead letters of another group and failed again: they were given up without a further letter; take each group's dead-letter topic out of the other's topics",
                notes.circled
            ),
        );
    }
    match status.state() {
        DeliveryState::Assigning => {
            tell(DeliveryState::Assigning, "the group is taking its partitions; records follow in a moment".into());
        }
        _ if !notes.has_consumers && status.lag > 0 => {
            tell(
                DeliveryState::NoCredit,
                format!("nobody consumes, and {} records wait: start a consumer", status.lag),
            );
        }
        _ if !notes.has_credit && status.lag > 0 => {
            tell(
                DeliveryState::NoCredit,
                "all consumers are paused: none has credit left, or as many records out as it wants; acknowledge, or send credit".into(),
            );
        }
        DeliveryState::NoRecords if status.lag == 0 => {
            tell(DeliveryState::NoRecords, "everything is delivered and acknowledged; new records come at once".into());
        }
        _ => {}
    }
    findings
}

fn of_partition(partition: &PartitionStatus, note: &PartNote, notes: &Notes) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut tell = |state: DeliveryState, message: String| {
        let (topic, partition) = (partition.topic.clone(), partition.partition);
        findings.push(Finding { state: state.into(), topic, partition, message });
    };
    if note.trouble.is_some() {
        tell(
            DeliveryState::ClusterUnavailable,
            "cannot be read at the moment (no leader, or its broker is away); nothing to do: it goes on by itself"
                .into(),
        );
    }
    let oldest = partition.oldest_unacked_offset;
    if partition.state() == DeliveryState::WindowFull {
        let oldest = oldest.map_or_else(String::new, |offset| format!("; the oldest is at offset {offset}"));
        tell(
            DeliveryState::WindowFull,
            format!(
                "paused: {} offsets lie between the oldest record that is not acknowledged and the next to be read{oldest}: acknowledge it, refuse it, or set a dead-letter topic",
                partition.window_offsets
            ),
        );
    } else if partition.outstanding_records > 0 {
        let oldest = oldest.map_or_else(String::new, |offset| format!(", the oldest at offset {offset}"));
        tell(
            DeliveryState::WaitingForAcks,
            format!(
                "{} records are out and not acknowledged{oldest}; each comes again {} s after its delivery",
                partition.outstanding_records,
                notes.ack_deadline.as_secs()
            ),
        );
    }
    if partition.blocked_records > 0 {
        tell(
            DeliveryState::WaitingForAcks,
            format!(
                "{} records wait for an earlier record of their key that is not acknowledged",
                partition.blocked_records
            ),
        );
    }
    if partition.delayed_records > 0 {
        tell(
            DeliveryState::WaitingForAcks,
            format!("{} records were refused or timed out, and wait for their backoff", partition.delayed_records),
        );
    }
    if note.dead > 0 {
        tell(DeliveryState::WaitingForAcks, format!("{} records are on their way to the dead-letter topic", note.dead));
    }
    if note.starved {
        tell(
            DeliveryState::CatchingUp,
            "waits for memory: many groups read a backlog at this gateway, and take turns; nothing to do: it goes on by itself"
                .into(),
        );
    } else if partition.state() == DeliveryState::CatchingUp {
        let behind = match partition.lag {
            ..0 => String::new(),
            lag => format!("; {lag} records behind the end"),
        };
        tell(DeliveryState::CatchingUp, format!("reading a backlog{behind}"));
    }
    if let Some(skipped) = &partition.skipped {
        tell(
            DeliveryState::Flowing,
            format!(
                "retention took {} offsets before the group had done them, the last of them within {}..{}{}; raise the topic's retention, or consume faster",
                skipped.total_offsets,
                skipped.from_offset,
                skipped.to_offset,
                skipped.time.map_or_else(String::new, |time| format!(" at {time}")),
            ),
        );
    }
    if let Some(cut) = note.cut_off {
        let CutOff { position, end, to, at_ms } = cut;
        let time = Timestamp::from_millis(at_ms);
        tell(
            DeliveryState::Flowing,
            format!(
                "at {time} the log ended at offset {end}, before the group's position {position}: the cluster has lost records; reading goes on at {to}, and records from there on may come again"
            ),
        );
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition(state: DeliveryState) -> PartitionStatus {
        PartitionStatus {
            topic: "namespaces/a/topics/b".into(),
            committed_offset: Some(10),
            end_offset: 30,
            acked_ahead_records: 5,
            state: state.into(),
            ..Default::default()
        }
    }

    #[test]
    fn lag_leaves_out_what_is_done_ahead_and_the_gravest_finding_comes_first() {
        let full = PartitionStatus {
            window_offsets: 10_000,
            oldest_unacked_offset: Some(10),
            blocked_records: 3,
            ..partition(DeliveryState::WindowFull)
        };
        let mut status = GroupStatus {
            partitions: vec![partition(DeliveryState::NoRecords), full],
            missing_topics: vec!["namespaces/a/topics/c".into()],
            ..Default::default()
        };
        let note = PartNote { from: Some(10), ahead: 5, ..PartNote::default() };
        let parts = vec![note.clone(), note];
        complete(&mut status, &Notes { has_consumers: true, has_credit: true, parts, ..Notes::default() });
        assert_eq!((status.lag, status.partitions[0].lag), (30, 15));
        let states: Vec<_> = status.findings.iter().map(Finding::state).collect();
        use DeliveryState::{NoTopics, WaitingForAcks, WindowFull};
        assert_eq!(states, [NoTopics, WindowFull, WaitingForAcks]);
        assert!(status.findings[1].message.contains("offset 10"), "{}", status.findings[1].message);
    }

    #[test]
    fn what_was_done_below_the_beginning_of_the_log_is_not_taken_off_the_lag_of_the_rest() {
        let mut note = PartNote { from: Some(10), ahead: 5, ..PartNote::default() };
        note.begin_at(8);
        assert_eq!((note.from, note.ahead), (Some(10), 5), "nothing was lost");
        note.begin_at(20);
        assert_eq!((note.from, note.ahead), (Some(20), 0));
        let mut closed = PartNote::default();
        closed.begin_at(20);
        assert_eq!(closed.from, None, "where its group stands is not known");
    }

    #[test]
    fn a_lag_that_is_not_known_is_not_told_as_zero() {
        let known = PartNote { from: Some(10), ..PartNote::default() };
        let endless = PartNote { is_end_unknown: true, ..known.clone() };
        for (unknown, consumers) in [(PartNote::default(), true), (endless, false)] {
            let mut status = GroupStatus {
                state: DeliveryState::NoRecords.into(),
                partitions: vec![partition(DeliveryState::NoRecords), partition(DeliveryState::CatchingUp)],
                ..Default::default()
            };
            let parts = vec![known.clone(), unknown];
            complete(&mut status, &Notes { has_consumers: consumers, has_credit: true, parts, ..Notes::default() });
            assert_eq!((status.lag, status.partitions[0].lag, status.partitions[1].lag), (-1, 20, -1));
            let told: Vec<&str> = status.findings.iter().map(|finding| finding.message.as_str()).collect();
            assert!(!told.iter().any(|told| told.contains("everything") || told.contains("-1")), "{told:?}");
            assert!(consumers || status.state() == DeliveryState::ClusterUnavailable);
        }
    }

    #[test]
    fn nothing_flows_where_nobody_consumes() {
        let note = |from| PartNote { from: Some(from), ..PartNote::default() };
        let mut status = GroupStatus {
            state: DeliveryState::Flowing.into(),
            partitions: vec![partition(DeliveryState::Flowing), partition(DeliveryState::CatchingUp)],
            ..Default::default()
        };
        let notes = Notes { has_credit: true, parts: vec![note(10), note(30)], ..Notes::default() };
        complete(&mut status, &notes);
        let states: Vec<_> = status.partitions.iter().map(PartitionStatus::state).collect();
        assert_eq!(states, [DeliveryState::NoCredit, DeliveryState::NoRecords]);
        assert_eq!(status.state(), DeliveryState::NoCredit);
        assert!(status.findings[0].message.contains("nobody consumes, and 20 records wait"));
    }
}
