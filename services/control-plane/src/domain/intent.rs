//! What provisioning is asked for, and what its reports make of a topic. One pure function decides; a report may come
//! twice, late, or about an older generation, and never does harm.

use std::time::Duration;

use sluice_proto::internal::control::v1::report_topic_request::Observed;
use sluice_proto::internal::control::v1::topic_intent::Want;
use sluice_proto::internal::control::v1::{ReportTopicRequest, TopicIntent};
use sluice_types::{Error, ErrorKind, Reason, TenantUid};

use crate::domain::topic::{configs, placement};
use crate::store::topic::{StoredCondition, TopicRow, TopicState};

const BACKOFF_MIN: Duration = Duration::from_millis(250);
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// Characters kept of a report's reason and message.
const REASON_CHARS_MAX: usize = 64;
const MESSAGE_CHARS_MAX: usize = 500;

/// What a report leads to.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Step {
    /// The row as it should be.
    pub(crate) row: TopicRow,
    /// It differs from the one before.
    pub(crate) changed: bool,
    /// Gateways must know.
    pub(crate) publish: bool,
    /// Operations end.
    pub(crate) end: Option<End>,
    /// When the item is due again.
    pub(crate) delay: Duration,
}

/// How running operations of the topic end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// Those up to this generation, well.
    Succeeded { generation: i64 },
    /// All, with a reason and a sentence.
    Failed { reason: String, message: String },
}

/// What should be true of a topic in Kafka.
pub(crate) fn intent(row: &TopicRow, max_message_bytes: u64) -> TopicIntent {
    let absent = matches!(row.state, TopicState::Deleting | TopicState::Deleted);
    let (cluster, log) = placement(row).appends();
    TopicIntent {
        tenant_uid: TenantUid::from_i64(row.tenant_uid).to_string(),
        namespace_uid: row.namespace_uid().to_string(),
        topic_uid: row.uid().to_string(),
        generation: row.generation,
        want: if absent { Want::Absent } else { Want::Present } as i32,
        partitions: row.effective_partitions,
        configs: configs(row, max_message_bytes),
        create_attempted: row.create_attempted,
        kafka_topic_id: row.kafka_topic_id.clone().unwrap_or_default(),
        observed_generation: row.observed_generation,
        final_end_offsets: row.final_end_offsets.clone(),
        cluster_uid: cluster.to_string(),
        log_uid: log.to_string(),
    }
}

/// Whether a create may be attempted now.
pub(crate) fn check_attempt(row: &TopicRow) -> Result<(), Error> {
    match row.state {
        TopicState::Creating | TopicState::Updating | TopicState::Active => Ok(()),
        TopicState::Deleting | TopicState::Deleted | TopicState::Failed => Err(wrong_state("a create may not begin")),
    }
}

/// Applies a report.
pub(crate) fn apply(old: &TopicRow, report: &ReportTopicRequest, now_us: i64) -> Result<Step, Error> {
    if !report.cluster_uid.is_empty() && report.cluster_uid != old.cluster_uid().to_string() {
        return Err(wrong_state("the topic is to be on another cluster"));
    }
    let mut row = old.clone();
    let observed = Observed::try_from(report.observed).unwrap_or(Observed::Unspecified);
    let step = |end: Option<End>, publish: bool, delay: Duration, row: TopicRow| Step {
        changed: row != *old,
        publish: publish && row != *old,
        end,
        delay,
        row,
    };
    let none = Duration::ZERO;
    let leaving = matches!(old.state, TopicState::Deleting | TopicState::Deleted);
    // What went wrong with an earlier intent says nothing of the present one, which is tried for itself.
    let outdated = report.observed_generation < old.generation;
    match observed {
        Observed::Retrying | Observed::Failed | Observed::Foreign if outdated => Ok(step(None, false, none, row)),
        Observed::Unspecified => Err(Error::invalid("observed", "is required")),
        // Late: the topic is on its way out already.
        Observed::Ready if leaving => Ok(step(None, false, none, row)),
        Observed::Ready => {
            ready(&mut row, report, now_us)?;
            let end = End::Succeeded { generation: row.observed_generation };
            Ok(step(Some(end), true, none, row))
        }
        Observed::Closing if old.state == TopicState::Deleting => {
            row.final_end_offsets = merged(&old.final_end_offsets, &report.final_end_offsets)?;
            Ok(step(None, true, none, row))
        }
        Observed::Closing if old.state == TopicState::Deleted => Ok(step(None, false, none, row)),
        Observed::Closing => Err(wrong_state("the topic is not to be deleted")),
        Observed::Gone if leaving => {
            row.state = TopicState::Deleted;
            row.conditions.0.clear();
            Ok(step(None, true, none, row))
        }
        Observed::Gone => Err(wrong_state("the topic is not to be deleted")),
        Observed::Retrying => {
            row.attempts = old.attempts.saturating_add(1);
            set_ready(&mut row, false, &report.reason, &report.message, now_us);
            let delay = backoff(old.attempts);
            Ok(step(None, false, delay, row))
        }
        Observed::Failed | Observed::Foreign => {
            let reason = if observed == Observed::Foreign { "ForeignTopic" } else { &report.reason };
            set_ready(&mut row, false, reason, &report.message, now_us);
            let end = End::Failed {
                reason: bounded(reason, REASON_CHARS_MAX),
                message: bounded(&report.message, MESSAGE_CHARS_MAX),
            };
            match old.state {
                TopicState::Creating => row.state = TopicState::Failed,
                // In service as it was; the generation tells that the change is not made.
                TopicState::Updating => row.state = TopicState::Active,
                TopicState::Deleting => {
                    row.attempts = old.attempts.saturating_add(1);
                    let delay = backoff(old.attempts);
                    return Ok(step(None, false, delay, row));
                }
                TopicState::Active | TopicState::Failed | TopicState::Deleted => {}
            }
            Ok(step(Some(end), true, none, row))
        }
    }
}

fn ready(row: &mut TopicRow, report: &ReportTopicRequest, now_us: i64) -> Result<(), Error> {
    if report.kafka_topic_id.is_empty() {
        return Err(Error::invalid("kafka_topic_id", "is required with OBSERVED_READY"));
    }
    if report.partitions < 1 {
        return Err(Error::invalid("partitions", "is required with OBSERVED_READY"));
    }
    if row.kafka_topic_id.as_ref().is_some_and(|known| *known != report.kafka_topic_id) {
        return Err(wrong_state("another physical topic was made for this one"));
    }
    row.kafka_topic_id = Some(report.kafka_topic_id.clone());
    row.observed_partitions = row.observed_partitions.max(report.partitions);
    // What Kafka has cannot be taken back, whoever made it.
    row.effective_partitions = row.effective_partitions.max(row.observed_partitions);
    row.observed_generation = row.observed_generation.max(report.observed_generation.min(row.generation));
    if row.observed_generation == row.generation {
        row.state = TopicState::Active;
        row.observed_retention_ms = row.effective_retention_ms;
        row.attempts = 0;
        set_ready(row, true, "TopicReady", "The topic is in service.", now_us);
    } else if row.state == TopicState::Creating && row.observed_generation > 0 {
        row.state = TopicState::Updating;
    }
    Ok(())
}

/// End offsets only grow: a second look may find records that were in flight at the first.
fn merged(known: &[i64], seen: &[i64]) -> Result<Vec<i64>, Error> {
    if seen.iter().any(|offset| *offset < 0) || (!known.is_empty() && known.len() != seen.len()) {
        return Err(Error::invalid("final_end_offsets", "must hold an offset for each partition"));
    }
    Ok(seen.iter().enumerate().map(|(i, offset)| known.get(i).map_or(*offset, |known| *known.max(offset))).collect())
}

fn set_ready(row: &mut TopicRow, holds: bool, reason: &str, message: &str, now_us: i64) {
    let (reason, message) = (bounded(reason, REASON_CHARS_MAX), bounded(message, MESSAGE_CHARS_MAX));
    let before = row.conditions.0.iter().find(|condition| condition.kind == "Ready");
    let time_us = before.filter(|before| before.holds == holds).map_or(now_us, |before| before.time_us);
    let generation = row.observed_generation;
    row.conditions.0 = vec![StoredCondition { kind: "Ready".into(), holds, reason, message, generation, time_us }];
}

fn backoff(attempts: i32) -> Duration {
    BACKOFF_MIN.saturating_mul(1 << attempts.clamp(0, 10)).min(BACKOFF_MAX)
}

fn bounded(text: &str, chars_max: usize) -> String {
    text.chars().filter(|c| !c.is_control()).take(chars_max).collect()
}

fn wrong_state(what: &str) -> Error {
    Error::new(ErrorKind::FailedPrecondition, Reason::ResourceState, format!("{what}; read the intent again"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_proto::admin::v1::Topic;
    use sluice_types::{ClusterUid, LogUid};

    fn report(observed: Observed, generation: i64) -> ReportTopicRequest {
        ReportTopicRequest {
            observed: observed as i32,
            observed_generation: generation,
            partitions: 3,
            kafka_topic_id: "id".into(),
            ..Default::default()
        }
    }

    fn row(state: TopicState) -> TopicRow {
        TopicRow { state, ..crate::domain::topic::tests::row(&Topic::default()) }
    }

    #[test]
    fn a_created_topic_goes_into_service_once() {
        let step = apply(&row(TopicState::Creating), &report(Observed::Ready, 1), 5).expect("ready");
        assert_eq!(step.row.state, TopicState::Active);
        assert!(step.publish && step.end == Some(End::Succeeded { generation: 1 }));
        let again = apply(&step.row, &report(Observed::Ready, 1), 9).expect("again");
        assert!(!again.changed && !again.publish);
    }

    #[test]
    fn old_records_are_taken_once_kafka_keeps_them_and_refused_as_soon_as_it_need_not() {
        use crate::domain::topic::record_age_ms_max;
        let made = apply(&row(TopicState::Creating), &report(Observed::Ready, 1), 5).expect("ready").row;
        let before = record_age_ms_max(&made).expect("bounded");
        let changed = |retention| TopicRow {
            generation: 2,
            state: TopicState::Updating,
            effective_retention_ms: retention,
            ..made.clone()
        };
        assert_eq!(record_age_ms_max(&changed(before + 1)), Some(before), "not yet");
        assert_eq!(record_age_ms_max(&changed(before - 1)), Some(before - 1), "at once");
        let late = apply(&changed(before + 1), &report(Observed::Ready, 1), 5).expect("late").row;
        assert_eq!(record_age_ms_max(&late), Some(before), "a late report says nothing of it");
        let raised = apply(&changed(before + 1), &report(Observed::Ready, 2), 5).expect("ready").row;
        assert_eq!(record_age_ms_max(&raised), Some(before + 1));
    }

    #[test]
    fn a_report_of_an_older_generation_does_not_end_the_newer_change() {
        let newer = TopicRow { generation: 2, effective_partitions: 6, ..row(TopicState::Creating) };
        let step = apply(&newer, &report(Observed::Ready, 1), 5).expect("ready");
        assert_eq!((step.row.state, step.row.observed_partitions), (TopicState::Updating, 3));
        assert_eq!(step.end, Some(End::Succeeded { generation: 1 }));
    }

    #[test]
    fn a_late_failure_of_an_older_generation_neither_ends_nor_delays_the_newer_change() {
        for state in [TopicState::Creating, TopicState::Updating, TopicState::Deleting] {
            let newer = TopicRow { generation: 2, effective_partitions: 6, ..row(state) };
            for observed in [Observed::Failed, Observed::Foreign, Observed::Retrying] {
                let step = apply(&newer, &report(observed, 1), 5).expect("late");
                assert!(!step.changed && step.end.is_none(), "{state:?} {observed:?}");
                assert!(apply(&newer, &report(observed, 2), 5).expect("in time").changed, "{state:?} {observed:?}");
            }
        }
    }

    #[test]
    fn a_topic_is_wanted_on_its_cluster_and_a_report_about_another_one_is_refused() {
        let (cluster, other) = (ClusterUid::random(), ClusterUid::random());
        let placed = TopicRow { cluster_uid: cluster.as_i64(), ..row(TopicState::Creating) };
        let wanted = intent(&placed, 1 << 20);
        let log = LogUid::first_of(placed.uid()).to_string();
        assert_eq!((wanted.cluster_uid, wanted.log_uid), (cluster.to_string(), log));
        let seen_on = |cluster_uid: String| ReportTopicRequest { cluster_uid, ..report(Observed::Ready, 1) };
        let refused = apply(&placed, &seen_on(other.to_string()), 5).expect_err("seen elsewhere");
        assert_eq!(refused.kind, ErrorKind::FailedPrecondition);
        for good in [cluster.to_string(), String::new()] {
            assert!(apply(&placed, &seen_on(good), 5).expect("ready").changed);
        }
    }

    #[test]
    fn partitions_that_are_there_are_wanted_as_well() {
        let lowered = TopicRow { generation: 2, effective_partitions: 2, ..row(TopicState::Updating) };
        let step = apply(&lowered, &report(Observed::Ready, 2), 5).expect("ready");
        assert_eq!((step.row.observed_partitions, step.row.effective_partitions), (3, 3));
    }

    #[test]
    fn a_topic_on_its_way_out_never_comes_back() {
        for state in [TopicState::Deleting, TopicState::Deleted] {
            let step = apply(&row(state), &report(Observed::Ready, 1), 5).expect("late");
            assert!(!step.changed);
        }
        assert!(apply(&row(TopicState::Active), &report(Observed::Gone, 1), 5).is_err());
        assert!(apply(&row(TopicState::Active), &report(Observed::Closing, 1), 5).is_err());
        assert!(check_attempt(&row(TopicState::Deleting)).is_err());
    }

    #[test]
    fn final_offsets_are_kept_before_the_topic_is_gone() {
        let mut closing = report(Observed::Closing, 1);
        closing.final_end_offsets = vec![5, 0, 7];
        let step = apply(&row(TopicState::Deleting), &closing, 5).expect("closing");
        assert!(step.publish);
        closing.final_end_offsets = vec![4, 1, 7];
        let step = apply(&step.row, &closing, 5).expect("again");
        assert_eq!(step.row.final_end_offsets, vec![5, 1, 7]);
        let step = apply(&step.row, &report(Observed::Gone, 1), 5).expect("gone");
        assert_eq!(step.row.state, TopicState::Deleted);
        assert_eq!(step.row.final_end_offsets, vec![5, 1, 7]);
    }

    #[test]
    fn failures_say_why_and_wait_longer_each_time() {
        let mut failing = report(Observed::Retrying, 1);
        failing.reason = "BrokerDown".into();
        let first = apply(&row(TopicState::Creating), &failing, 5).expect("retry");
        assert_eq!((first.row.attempts, first.delay, first.publish), (1, BACKOFF_MIN, false));
        let second = apply(&first.row, &failing, 6).expect("retry");
        assert!(second.delay > first.delay);
        assert_eq!(second.row.conditions.0[0].time_us, 5);
        let foreign = apply(&second.row, &report(Observed::Foreign, 1), 7).expect("foreign");
        assert_eq!(foreign.row.state, TopicState::Failed);
        assert!(matches!(foreign.end, Some(End::Failed { ref reason, .. }) if reason == "ForeignTopic"));
        assert_eq!(backoff(1_000), BACKOFF_MAX);
    }

    #[test]
    fn another_physical_topic_is_not_taken_for_ours() {
        let known = TopicRow { kafka_topic_id: Some("other".into()), ..row(TopicState::Active) };
        assert!(apply(&known, &report(Observed::Ready, 1), 5).is_err());
    }
}
