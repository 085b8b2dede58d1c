//! Topics: what a request makes of a row. Pure; times and versions come from the database.

use std::collections::BTreeMap;

use sluice_log::Placement;
use sluice_proto::admin::v1::Topic;
use sluice_proto::admin::v1::topic::{CleanupPolicy, TimestampPolicy};
use sluice_types::{Error, ErrorKind, LogUid, Reason, TopicId, TopicUid};

use crate::domain::fields;
use crate::store::Json;
use crate::store::namespace::NamespaceRow;
use crate::store::topic::{TopicRow, TopicState, Used};

/// What an update may change.
pub(crate) const MUTABLE: &[&str] = &["display_name", "labels", "partition_count", "retention", "deletion_protection"];

/// What a topic gets that does not say.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Defaults {
    pub(crate) partitions: i32,
    pub(crate) retention_ms: i64,
}

/// Checks all fields a client may set.
pub(crate) fn validate(topic: &Topic) -> Result<(), Error> {
    fields::display_name("topic.display_name", &topic.display_name)?;
    fields::labels("topic.labels", &topic.labels)?;
    if let Some(count) = topic.partition_count {
        fields::partition_count("topic.partition_count", count)?;
    }
    if let Some(retention) = &topic.retention {
        fields::retention_ms("topic.retention", retention)?;
    }
    if CleanupPolicy::try_from(topic.cleanup_policy).is_err() {
        return Err(Error::invalid("topic.cleanup_policy", "must be CLEANUP_POLICY_DELETE or CLEANUP_POLICY_COMPACT"));
    }
    if TimestampPolicy::try_from(topic.timestamp_policy).is_err() {
        return Err(Error::invalid(
            "topic.timestamp_policy",
            "must be TIMESTAMP_POLICY_CREATE_TIME or TIMESTAMP_POLICY_LOG_APPEND_TIME",
        ));
    }
    Ok(())
}

/// A validated topic as a new row, on the cluster of its namespace.
pub(crate) fn create(
    topic: &Topic,
    id: &TopicId,
    namespace: &NamespaceRow,
    defaults: Defaults,
) -> Result<TopicRow, Error> {
    let retention_ms = topic.retention.as_ref().map(|r| fields::retention_ms("topic.retention", r)).transpose()?;
    Ok(TopicRow {
        uid: TopicUid::random().as_i64(),
        tenant_uid: 0,
        namespace_uid: namespace.uid,
        namespace_id: namespace.id.clone(),
        cluster_uid: namespace.cluster_uid,
        id: id.to_string(),
        display_name: topic.display_name.clone(),
        labels: Json(topic.labels.clone()),
        deletion_protection: topic.deletion_protection,
        partition_count: topic.partition_count,
        retention_ms,
        cleanup_policy: topic.cleanup_policy,
        timestamp_policy: topic.timestamp_policy,
        effective_partitions: topic.partition_count.unwrap_or(defaults.partitions),
        effective_retention_ms: retention_ms.unwrap_or(defaults.retention_ms),
        generation: 1,
        state: TopicState::Creating,
        observed_generation: 0,
        observed_partitions: 0,
        observed_retention_ms: 0,
        kafka_topic_id: None,
        create_attempted: false,
        final_end_offsets: Vec::new(),
        conditions: Json(Vec::new()),
        attempts: 0,
        version: 1,
        create_us: 0,
        update_us: 0,
    })
}

/// Where its records lie: no topic moves yet.
pub(crate) fn placement(row: &TopicRow) -> Placement {
    Placement::unmoved(row.cluster_uid(), LogUid::first_of(row.uid()))
}

/// Which fields a body without a mask means.
pub(crate) fn is_present(topic: &Topic, path: &str) -> bool {
    match path {
        "display_name" => !topic.display_name.is_empty(),
        "labels" => !topic.labels.is_empty(),
        "partition_count" => topic.partition_count.is_some(),
        "retention" => topic.retention.is_some(),
        "deletion_protection" => topic.deletion_protection,
        _ => false,
    }
}

/// Whether the last change of the physical topic was refused: the topic serves as it was before it.
fn is_refused(row: &TopicRow) -> bool {
    row.state == TopicState::Active && row.observed_generation < row.generation
}

/// An update applied; the generation grows when the physical topic must change. A failed topic is tried again, and so is a
/// change that was refused, when it is asked for again.
pub(crate) fn update(old: &TopicRow, topic: &Topic, paths: &[&str], defaults: Defaults) -> Result<TopicRow, Error> {
    let compacts = |policy: i32| policy == CleanupPolicy::Compact as i32;
    if topic.cleanup_policy != 0 && compacts(topic.cleanup_policy) != compacts(old.cleanup_policy) {
        return Err(Error::invalid("topic.cleanup_policy", "cannot be changed; create another topic"));
    }
    if topic.timestamp_policy != 0 && by_append_time(topic.timestamp_policy) != by_append_time(old.timestamp_policy) {
        return Err(Error::invalid("topic.timestamp_policy", "cannot be changed; create another topic"));
    }
    let mut row = old.clone();
    for path in paths {
        match *path {
            "display_name" => row.display_name.clone_from(&topic.display_name),
            "labels" => row.labels = Json(topic.labels.clone()),
            "deletion_protection" => row.deletion_protection = topic.deletion_protection,
            "partition_count" => set_partitions(&mut row, topic.partition_count)?,
            "retention" => {
                let sent = topic.retention.as_ref().map(|r| fields::retention_ms("topic.retention", r)).transpose()?;
                row.retention_ms = sent;
                row.effective_retention_ms = sent.unwrap_or(defaults.retention_ms);
            }
            _ => {}
        }
    }
    let moved = row.effective_partitions != old.effective_partitions
        || row.effective_retention_ms != old.effective_retention_ms
        || old.state == TopicState::Failed
        || (is_refused(old) && paths.iter().any(|path| matches!(*path, "partition_count" | "retention")));
    if moved {
        row.generation += 1;
        row.attempts = 0;
        row.state = match old.state {
            TopicState::Creating | TopicState::Failed => TopicState::Creating,
            _ => TopicState::Updating,
        };
    }
    Ok(row)
}

/// Partitions go up only, from those that there are or that are being made. Absent leaves as many.
fn set_partitions(row: &mut TopicRow, sent: Option<i32>) -> Result<(), Error> {
    let there = match row.state {
        // An increase that was refused made none.
        TopicState::Active | TopicState::Failed => row.observed_partitions,
        _ => row.effective_partitions,
    };
    let unsaid = if there > 0 { there } else { row.effective_partitions };
    let count = sent.unwrap_or(unsaid);
    if count < there {
        return Err(Error::invalid(
            "topic.partition_count",
            format!(
                "is {count}, fewer than the {there} there are; partitions only go up: leave it out, or create another topic"
            ),
        ));
    }
    row.partition_count = sent;
    row.effective_partitions = count;
    Ok(())
}

/// Whether anything differs that a version stands for.
pub(crate) fn differs(a: &TopicRow, b: &TopicRow) -> bool {
    let plain = |row: &TopicRow| TopicRow { version: 0, create_us: 0, update_us: 0, ..row.clone() };
    plain(a) != plain(b)
}

/// Refuses to delete what is protected.
pub(crate) fn check_deletable(protected: bool, name: &str) -> Result<(), Error> {
    if !protected {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::FailedPrecondition,
        Reason::DeletionProtected,
        format!("{name} is protected; set deletion_protection to false first"),
    ))
}

/// A count of what may be in service. Deleted things that are still to be removed count beyond as many again, so that one
/// can be replaced at once and a loop of creating and deleting is still bounded.
pub(crate) fn check_room(what: &'static str, used: Used, more: i64, max: i64) -> Result<(), Error> {
    check_quota(what, used.serving, more, max)?;
    let all = used.serving.saturating_add(used.leaving);
    if more <= 0 || all.saturating_add(more) <= max.saturating_mul(2) {
        return Ok(());
    }
    let Used { leaving, .. } = used;
    Err(quota_exceeded(
        what,
        max,
        format!("{leaving} deleted {what} of the tenant are still being removed; wait for that"),
    ))
}

/// A count that would go over its limit.
pub(crate) fn check_quota(what: &'static str, used: i64, more: i64, max: i64) -> Result<(), Error> {
    if used.saturating_add(more) <= max {
        return Ok(());
    }
    let message = format!("the tenant has {used} {what} and may have {max}; delete some, or ask the operator for more");
    Err(quota_exceeded(what, max, message))
}

fn quota_exceeded(what: &'static str, max: i64, message: String) -> Error {
    Error::new(ErrorKind::ResourceExhausted, Reason::QuotaExceeded, message)
        .with_metadata("limit", what)
        .with_metadata("max", max.to_string())
}

/// Whether records of a key replace each other.
pub(crate) fn is_compacted(row: &TopicRow) -> bool {
    row.cleanup_policy == CleanupPolicy::Compact as i32
}

fn by_append_time(policy: i32) -> bool {
    policy == TimestampPolicy::LogAppendTime as i32
}

/// Whether a record is kept from the time at which it was appended.
pub(crate) fn keeps_append_time(row: &TopicRow) -> bool {
    by_append_time(row.timestamp_policy)
}

/// How old a record may be when it is taken; `None`: as old as it likes, because its age removes nothing. A retention that
/// was raised counts once Kafka has it.
pub(crate) fn record_age_ms_max(row: &TopicRow) -> Option<i64> {
    let seen = if row.observed_retention_ms > 0 { row.observed_retention_ms } else { i64::MAX };
    (!is_compacted(row) && !keeps_append_time(row)).then_some(row.effective_retention_ms.min(seen))
}

/// What Kafka is to be told of a topic.
pub(crate) fn configs(row: &TopicRow, max_message_bytes: u64) -> BTreeMap<String, String> {
    /// So long a record stays that was acknowledged, however old it was then; the counting of usage needs it.
    const KEPT_MS_MIN: i64 = 3 * 3_600 * 1_000;
    /// A record may come from an hour ahead of a gateway's clock, which may be ahead of the broker's by as much. Beyond it
    /// Kafka refuses a record together with all that were sent beside it.
    const AHEAD_MS_MAX: i64 = 2 * 3_600 * 1_000;
    let compact = is_compacted(row);
    // Kafka counts from the record's time; the oldest that is taken has all of the retention behind it.
    let old = if record_age_ms_max(row).is_some() { KEPT_MS_MIN } else { 0 };
    let timestamps = if keeps_append_time(row) { "LogAppendTime" } else { "CreateTime" };
    let mut configs = BTreeMap::from([
        ("cleanup.policy".to_owned(), if compact { "compact" } else { "delete" }.to_owned()),
        ("max.message.bytes".to_owned(), max_message_bytes.to_string()),
        ("message.timestamp.after.max.ms".to_owned(), AHEAD_MS_MAX.to_string()),
        ("message.timestamp.type".to_owned(), timestamps.to_owned()),
        ("retention.ms".to_owned(), row.effective_retention_ms.saturating_add(old).to_string()),
    ]);
    if compact {
        configs.insert("min.compaction.lag.ms".to_owned(), KEPT_MS_MIN.to_string());
    }
    configs
}

#[cfg(test)]
pub(crate) mod tests {
    use sluice_types::{ClusterUid, NamespaceUid};

    use super::*;
    use crate::store::namespace::NamespaceState;

    const DEFAULTS: Defaults = Defaults { partitions: 3, retention_ms: 7 * 86_400_000 };

    fn namespace() -> NamespaceRow {
        NamespaceRow {
            uid: NamespaceUid::random().as_i64(),
            id: "prod".to_owned(),
            display_name: String::new(),
            labels: Json(BTreeMap::new()),
            deletion_protection: false,
            state: NamespaceState::Active,
            cluster_uid: ClusterUid::FIRST.as_i64(),
            version: 1,
            create_us: 0,
            update_us: 0,
        }
    }

    pub(crate) fn row(topic: &Topic) -> TopicRow {
        create(topic, &"orders".parse().expect("id"), &namespace(), DEFAULTS).expect("row")
    }

    #[test]
    fn what_the_client_did_not_say_is_resolved_beside_it() {
        let row = row(&Topic::default());
        assert_eq!((row.partition_count, row.effective_partitions), (None, 3));
        assert_eq!((row.retention_ms, row.effective_retention_ms), (None, 7 * 86_400_000));
    }

    fn in_service() -> TopicRow {
        TopicRow { state: TopicState::Active, observed_generation: 1, observed_partitions: 3, ..row(&Topic::default()) }
    }

    #[test]
    fn what_is_still_to_be_removed_counts_when_it_piles_up() {
        let room = |serving, leaving, more| check_room("topics", Used { serving, leaving }, more, 10);
        assert!(room(9, 1, 1).is_ok() && room(9, 10, 1).is_ok(), "at the limit one can be replaced");
        assert!(room(10, 0, 1).is_err());
        let piled = room(0, 20, 1).expect_err("made and deleted in a loop");
        assert!(piled.reason == Reason::QuotaExceeded && piled.message.contains("still being removed"), "{piled:?}");
        assert!(room(10, 50, 0).is_ok(), "what asks for nothing is given nothing");
    }

    #[test]
    fn a_change_that_was_refused_can_be_asked_for_again_or_taken_back() {
        let six = Topic { partition_count: Some(6), display_name: "x".into(), ..Topic::default() };
        let growing = update(&in_service(), &six, &["partition_count"], DEFAULTS).expect("grow");
        let four = Topic { partition_count: Some(4), ..Topic::default() };
        assert!(update(&growing, &four, &["partition_count"], DEFAULTS).is_err(), "six may be there already");
        let refused = TopicRow { state: TopicState::Active, ..growing };
        let again = update(&refused, &six, &["partition_count"], DEFAULTS).expect("again");
        assert_eq!((again.generation, again.state), (3, TopicState::Updating));
        for (sent, then) in [(Some(4), 4), (Some(3), 3), (None, 3)] {
            let sent = Topic { partition_count: sent, ..Topic::default() };
            let lowered = update(&refused, &sent, &["partition_count"], DEFAULTS).expect("lower");
            assert_eq!((lowered.generation, lowered.effective_partitions), (3, then));
        }
        let two = Topic { partition_count: Some(2), ..Topic::default() };
        assert!(update(&refused, &two, &["partition_count"], DEFAULTS).is_err());
        let named = update(&refused, &six, &["display_name"], DEFAULTS).expect("name");
        assert_eq!((named.generation, named.state), (2, TopicState::Active), "a name is no reason to try again");
        let unmade = TopicRow { state: TopicState::Failed, ..row(&six) };
        let fewer = update(&unmade, &two, &["partition_count"], DEFAULTS).expect("none were made");
        assert_eq!((fewer.effective_partitions, fewer.state), (2, TopicState::Creating));
    }

    #[test]
    fn only_what_kafka_must_know_raises_the_generation() {
        let old = in_service();
        let sent = Topic { display_name: "x".into(), partition_count: Some(6), ..Topic::default() };
        let named = update(&old, &sent, &["display_name"], DEFAULTS).expect("name");
        assert_eq!((named.generation, named.state), (1, TopicState::Active));
        let grown = update(&old, &sent, &["partition_count"], DEFAULTS).expect("grow");
        assert_eq!((grown.generation, grown.state, grown.effective_partitions), (2, TopicState::Updating, 6));
        let shrunk = Topic { partition_count: Some(2), ..Topic::default() };
        assert!(update(&old, &shrunk, &["partition_count"], DEFAULTS).is_err());
        let other = Topic { cleanup_policy: CleanupPolicy::Compact as i32, ..Topic::default() };
        assert!(update(&old, &other, &[], DEFAULTS).is_err());
        let same = Topic { cleanup_policy: CleanupPolicy::Delete as i32, ..Topic::default() };
        assert!(update(&old, &same, &[], DEFAULTS).is_ok());
        let unknown = Topic { cleanup_policy: 7, ..Topic::default() };
        assert_eq!(validate(&unknown).expect_err("unknown").field.as_deref(), Some("topic.cleanup_policy"));
        let other = Topic { timestamp_policy: TimestampPolicy::LogAppendTime as i32, ..Topic::default() };
        assert!(update(&old, &other, &[], DEFAULTS).is_err());
        let same = Topic { timestamp_policy: TimestampPolicy::CreateTime as i32, ..Topic::default() };
        assert!(update(&old, &same, &[], DEFAULTS).is_ok());
        let unknown = Topic { timestamp_policy: 7, ..Topic::default() };
        assert_eq!(validate(&unknown).expect_err("unknown").field.as_deref(), Some("topic.timestamp_policy"));
    }

    #[test]
    fn a_count_of_partitions_that_cannot_be_says_what_can() {
        let old = TopicRow { state: TopicState::Active, observed_partitions: 3, ..row(&Topic::default()) };
        let ask = |count| {
            let topic = Topic { partition_count: Some(count), ..Topic::default() };
            validate(&topic).and_then(|()| update(&old, &topic, &["partition_count"], DEFAULTS).map(|_| ()))
        };
        for (count, parts) in [
            (0, ["is 0", "1..1000, or absent"]),
            (-1, ["is -1", "1..1000, or absent"]),
            (1_001, ["is 1001", "1..1000, or absent"]),
            (2, ["is 2, fewer than the 3", "create another topic"]),
        ] {
            let error = ask(count).expect_err("it cannot be");
            assert_eq!(error.field.as_deref(), Some("topic.partition_count"));
            assert!(parts.iter().all(|part| error.message.contains(part)), "{}", error.message);
        }
        assert!(ask(3).is_ok() && ask(1_000).is_ok());
    }

    #[test]
    fn the_oldest_record_that_is_taken_stays_for_three_hours() {
        const HOUR: i64 = 3_600_000;
        let topic = Topic { retention: Some(sluice_proto::wkt::Duration::from_millis(3 * HOUR)), ..Topic::default() };
        let by_append = Topic { timestamp_policy: TimestampPolicy::LogAppendTime as i32, ..topic.clone() };
        let compacted = Topic { cleanup_policy: CleanupPolicy::Compact as i32, ..topic.clone() };
        let told = |topic: &Topic| {
            let row = row(topic);
            let configs = configs(&row, 1);
            (record_age_ms_max(&row), configs["retention.ms"].clone(), configs["message.timestamp.type"].clone())
        };
        assert_eq!(told(&topic), (Some(3 * HOUR), (6 * HOUR).to_string(), "CreateTime".into()));
        assert_eq!(told(&by_append), (None, (3 * HOUR).to_string(), "LogAppendTime".into()));
        assert_eq!(told(&compacted), (None, (3 * HOUR).to_string(), "CreateTime".into()));
    }
}
