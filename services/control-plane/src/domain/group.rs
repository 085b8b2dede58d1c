//! Consumer groups: what a request makes of a row, and what a row means with its defaults. Pure; times and versions come
//! from the database.

use std::collections::BTreeSet;

use sluice_proto::admin::v1::group::{Ordering, Start, StartPosition};
use sluice_proto::admin::v1::{Group, RetryPolicy};
use sluice_proto::wkt::{Duration, Timestamp};
use sluice_types::limits::{
    ACK_DEADLINE_MS, ACK_DEADLINE_MS_DEFAULT, BACKOFF_MS_DEFAULT, BACKOFF_MS_MAX, GROUP_TOPICS_MAX,
    MAX_ATTEMPTS_DEFAULT, MAX_ATTEMPTS_MAX,
};
use sluice_types::{Error, GroupId, GroupUid, NamespaceId, ResourceName};

use crate::domain::fields;
use crate::store::Json;
use crate::store::group::{GroupRow, GroupState, StoredRetry};

/// What an update may change.
pub(crate) const MUTABLE: &[&str] =
    &["topics", "ack_deadline", "retry_policy", "dead_letter_topic", "labels", "display_name", "deletion_protection"];

/// A group with its defaults: what gateways are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Effective {
    pub(crate) start: Beginning,
    pub(crate) key_ordered: bool,
    pub(crate) ack_deadline_ms: i64,
    /// 0: no end.
    pub(crate) max_attempts: i32,
    pub(crate) minimum_backoff_ms: i64,
    pub(crate) maximum_backoff_ms: i64,
}

/// Where partitions without a position begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Beginning {
    Earliest,
    Latest,
    /// The first record at or after this time, in µs since 1970.
    Time(i64),
}

/// A group as it is sent, each field checked for itself; a new row, whose namespace has no uid yet.
pub(crate) fn read(sent: &Group, id: &GroupId, namespace: &NamespaceId) -> Result<GroupRow, Error> {
    fields::display_name("group.display_name", &sent.display_name)?;
    fields::labels("group.labels", &sent.labels)?;
    let (start_position, start_time_us) = match &sent.start {
        None => (None, None),
        Some(Start::StartPosition(position)) => (Some(start_position(*position)?), None),
        Some(Start::StartTime(time)) => (None, Some(start_time_us(time)?)),
    };
    if Ordering::try_from(sent.ordering).is_err() {
        return Err(Error::invalid("group.ordering", "must be ORDERING_KEY or ORDERING_NONE"));
    }
    let dead_letter_topic_id = match sent.dead_letter_topic.as_str() {
        "" => None,
        name => Some(topic_id("group.dead_letter_topic", name, namespace)?),
    };
    Ok(GroupRow {
        uid: GroupUid::random().as_i64(),
        namespace_uid: 0,
        namespace_id: namespace.to_string(),
        id: id.to_string(),
        display_name: sent.display_name.clone(),
        labels: Json(sent.labels.clone()),
        deletion_protection: sent.deletion_protection,
        topic_ids: topic_ids(&sent.topics, namespace)?,
        start_position,
        start_time_us,
        ordering: sent.ordering,
        ack_deadline_ms: sent.ack_deadline.as_ref().map(ack_deadline_ms).transpose()?,
        retry_policy: sent.retry_policy.as_ref().map(retry_policy).transpose()?.map(Json),
        dead_letter_topic_id,
        state: GroupState::Active,
        version: 1,
        create_us: 0,
        update_us: 0,
    })
}

fn topic_ids(names: &[String], namespace: &NamespaceId) -> Result<Vec<String>, Error> {
    if names.len() > GROUP_TOPICS_MAX {
        let what = format!("has {} entries; at most {GROUP_TOPICS_MAX} are allowed, make another group", names.len());
        return Err(Error::invalid("group.topics", what));
    }
    let mut seen = BTreeSet::new();
    let mut ids = Vec::with_capacity(names.len());
    for (i, name) in names.iter().enumerate() {
        let field = format!("group.topics[{i}]");
        if !seen.insert(name) {
            return Err(Error::invalid(field, "is there twice; name each topic once"));
        }
        ids.push(topic_id(&field, name, namespace)?);
    }
    Ok(ids)
}

/// The id of a topic that must be of the group's own namespace.
fn topic_id(field: &str, name: &str, namespace: &NamespaceId) -> Result<String, Error> {
    let (its_own, id) = fields::named(field, name, ResourceName::parse_topic)?;
    if its_own == *namespace {
        return Ok(id.to_string());
    }
    Err(Error::invalid(field, format!("is of another namespace; name a topic of namespaces/{namespace}")))
}

fn start_position(sent: i32) -> Result<i32, Error> {
    match StartPosition::try_from(sent) {
        Ok(_) => Ok(sent),
        Err(_) => {
            Err(Error::invalid("group.start_position", "must be START_POSITION_EARLIEST or START_POSITION_LATEST"))
        }
    }
}

/// To the microsecond, and not before 1970: Kafka gives negative times another meaning.
fn start_time_us(time: &Timestamp) -> Result<i64, Error> {
    let us = fields::micros("group.start_time", time)?;
    if us < 0 {
        return Err(Error::invalid("group.start_time", "is before 1970; use START_POSITION_EARLIEST"));
    }
    Ok(us)
}

fn ack_deadline_ms(sent: &Duration) -> Result<i64, Error> {
    fields::millis("group.ack_deadline", sent, ACK_DEADLINE_MS, "10 s .. 10 min, or absent for 30 s")
}

fn retry_policy(sent: &RetryPolicy) -> Result<StoredRetry, Error> {
    if !(0..=MAX_ATTEMPTS_MAX).contains(&sent.max_attempts) {
        let what = format!(
            "is {}; it must be 1..{MAX_ATTEMPTS_MAX}, or 0 for {MAX_ATTEMPTS_DEFAULT} with a dead-letter topic",
            sent.max_attempts
        );
        return Err(Error::invalid("group.retry_policy.max_attempts", what));
    }
    let backoff = |field, sent: &Option<Duration>, default| {
        let allowed = format!("0 s .. 60 s, or absent for {default}");
        sent.as_ref().map(|sent| fields::millis(field, sent, 0..=BACKOFF_MS_MAX, &allowed)).transpose()
    };
    Ok(StoredRetry {
        max_attempts: sent.max_attempts,
        minimum_backoff_ms: backoff("group.retry_policy.minimum_backoff", &sent.minimum_backoff, "2 s")?,
        maximum_backoff_ms: backoff("group.retry_policy.maximum_backoff", &sent.maximum_backoff, "60 s")?,
    })
}

/// Checks what fields say together.
pub(crate) fn check(row: &GroupRow) -> Result<(), Error> {
    if row.topic_ids.is_empty() {
        return Err(Error::invalid("group.topics", format!("is required; name 1..{GROUP_TOPICS_MAX} topics")));
    }
    match &row.dead_letter_topic_id {
        Some(dead) if row.topic_ids.contains(dead) => {
            return Err(Error::invalid(
                "group.dead_letter_topic",
                "is one of the group's topics, which would read its own dead letters; name another one",
            ));
        }
        None if row.retry_policy.is_some_and(|policy| policy.max_attempts > 0) => {
            return Err(Error::invalid(
                "group.retry_policy.max_attempts",
                "needs a dead_letter_topic; name one, or leave it 0: then a record is retried until it succeeds",
            ));
        }
        Some(_) | None => {}
    }
    let Effective { minimum_backoff_ms, maximum_backoff_ms, .. } = effective(row);
    if maximum_backoff_ms < minimum_backoff_ms {
        return Err(Error::invalid(
            "group.retry_policy.maximum_backoff",
            format!(
                "is {}, less than minimum_backoff with {}; raise it, or lower minimum_backoff",
                Duration::from_millis(maximum_backoff_ms),
                Duration::from_millis(minimum_backoff_ms)
            ),
        ));
    }
    Ok(())
}

/// Which fields a body without a mask means.
pub(crate) fn is_present(group: &Group, path: &str) -> bool {
    match path {
        "topics" => !group.topics.is_empty(),
        "ack_deadline" => group.ack_deadline.is_some(),
        "retry_policy" => group.retry_policy.is_some(),
        "dead_letter_topic" => !group.dead_letter_topic.is_empty(),
        "labels" => !group.labels.is_empty(),
        "display_name" => !group.display_name.is_empty(),
        "deletion_protection" => group.deletion_protection,
        _ => false,
    }
}

/// An update applied to what there is. `sent` is the body as [`read`] made it.
pub(crate) fn update(old: &GroupRow, sent: &GroupRow, paths: &[&str]) -> Result<GroupRow, Error> {
    if sent.ordering != 0 && effective(sent).key_ordered != effective(old).key_ordered {
        return Err(Error::invalid("group.ordering", "cannot be changed; create another group"));
    }
    let named = match (sent.start_position, sent.start_time_us) {
        (None, None) => None,
        (Some(_), _) => Some("group.start_position"),
        (None, Some(_)) => Some("group.start_time"),
    };
    if let Some(field) = named.filter(|_| effective(sent).start != effective(old).start) {
        return Err(Error::invalid(field, "cannot be changed; reset the group's offsets, or create another group"));
    }
    let mut row = old.clone();
    for path in paths {
        match *path {
            "topics" => row.topic_ids.clone_from(&sent.topic_ids),
            "ack_deadline" => row.ack_deadline_ms = sent.ack_deadline_ms,
            "retry_policy" => row.retry_policy = sent.retry_policy,
            "dead_letter_topic" => row.dead_letter_topic_id.clone_from(&sent.dead_letter_topic_id),
            "labels" => row.labels = sent.labels.clone(),
            "display_name" => row.display_name.clone_from(&sent.display_name),
            "deletion_protection" => row.deletion_protection = sent.deletion_protection,
            _ => {}
        }
    }
    check(&row)?;
    Ok(row)
}

/// With the defaults.
pub(crate) fn effective(row: &GroupRow) -> Effective {
    let policy = row.retry_policy.map(|policy| policy.0).unwrap_or_default();
    let max_attempts = match (&row.dead_letter_topic_id, policy.max_attempts) {
        (None, _) => 0,
        (Some(_), 0) => MAX_ATTEMPTS_DEFAULT,
        (Some(_), attempts) => attempts,
    };
    let latest = row.start_position == Some(StartPosition::Latest as i32);
    Effective {
        start: match row.start_time_us {
            Some(us) => Beginning::Time(us),
            None if latest => Beginning::Latest,
            None => Beginning::Earliest,
        },
        key_ordered: row.ordering != Ordering::None as i32,
        ack_deadline_ms: row.ack_deadline_ms.unwrap_or(ACK_DEADLINE_MS_DEFAULT),
        max_attempts,
        minimum_backoff_ms: policy.minimum_backoff_ms.unwrap_or(BACKOFF_MS_DEFAULT),
        maximum_backoff_ms: policy.maximum_backoff_ms.unwrap_or(BACKOFF_MS_MAX),
    }
}

#[cfg(test)]
mod tests;
