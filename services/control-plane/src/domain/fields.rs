//! The rules of single fields. Each error names the field, the limit and the remedy.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use sluice_proto::admin::v1::RoleGrant;
use sluice_proto::wkt::{Duration, Timestamp};
use sluice_types::limits::{PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX, TOPIC_PARTITIONS_MAX};
use sluice_types::{Error, Grant, GroupId, NamespaceId, Role, TopicId};
use uuid::Uuid;

const DISPLAY_NAME_CHARS_MAX: usize = 200;
const REASON_CHARS_MAX: usize = 500;
const LABELS_MAX: usize = 32;
const LABEL_CHARS_MAX: usize = 63;
const GRANTS_MAX: usize = 32;
const RETENTION_MS_MIN: i64 = 3 * 3_600 * 1_000;
const RETENTION_MS_MAX: i64 = 10 * 366 * 86_400 * 1_000;

/// A text for people: at most 200 characters, no control characters (logs and terminals show it).
pub(crate) fn display_name(field: &str, text: &str) -> Result<(), Error> {
    person_text(field, text, DISPLAY_NAME_CHARS_MAX)
}

/// The reason of a suspension.
pub(crate) fn reason(field: &str, text: &str) -> Result<(), Error> {
    person_text(field, text, REASON_CHARS_MAX)
}

fn person_text(field: &str, text: &str, chars_max: usize) -> Result<(), Error> {
    let chars = text.chars().count();
    if chars > chars_max {
        return Err(Error::invalid(
            field,
            format!("has {chars} characters; at most {chars_max} are allowed, shorten it"),
        ));
    }
    if text.chars().any(char::is_control) {
        return Err(Error::invalid(field, "must not have control characters; remove them"));
    }
    Ok(())
}

/// Labels.
pub(crate) fn labels(field: &str, labels: &BTreeMap<String, String>) -> Result<(), Error> {
    if labels.len() > LABELS_MAX {
        return Err(Error::invalid(field, format!("has {} entries; at most {LABELS_MAX} are allowed", labels.len())));
    }
    for (key, value) in labels {
        let key_chars = key.chars().count();
        if !(1..=LABEL_CHARS_MAX).contains(&key_chars) || key.chars().any(char::is_control) {
            return Err(Error::invalid(field, "a key must have 1..63 characters and no control characters"));
        }
        if value.chars().count() > LABEL_CHARS_MAX || value.chars().any(char::is_control) {
            return Err(Error::invalid(field, "a value must have 0..63 characters and no control characters"));
        }
    }
    Ok(())
}

/// Partitions a client asks for.
pub(crate) fn partition_count(field: &str, count: i32) -> Result<(), Error> {
    if (1..=TOPIC_PARTITIONS_MAX).contains(&count) {
        return Ok(());
    }
    Err(Error::invalid(field, format!("is {count}; it must be 1..{TOPIC_PARTITIONS_MAX}, or absent for the default")))
}

/// Retention in ms.
pub(crate) fn retention_ms(field: &str, retention: &Duration) -> Result<i64, Error> {
    millis(field, retention, RETENTION_MS_MIN..=RETENTION_MS_MAX, "3 h .. 10 years, or absent for the default")
}

/// A time span in ms within bounds, which `allowed` says in words. Whole milliseconds only, so that it comes back as it was
/// sent.
pub(crate) fn millis(field: &str, span: &Duration, bounds: RangeInclusive<i64>, allowed: &str) -> Result<i64, Error> {
    if span.nanos % 1_000_000 != 0 {
        return Err(Error::invalid(field, "must be whole milliseconds"));
    }
    let ms = span.as_millis();
    match bounds.contains(&ms) {
        true => Ok(ms),
        false => Err(Error::invalid(field, format!("is {span}; it must be {allowed}"))),
    }
}

/// A time in µs since 1970. Whole microseconds only, so that it comes back as it was sent.
pub(crate) fn micros(field: &str, time: &Timestamp) -> Result<i64, Error> {
    if !time.is_valid() {
        return Err(Error::invalid(field, "is not a time in the years 1 to 9999"));
    }
    if time.nanos % 1_000 != 0 {
        return Err(Error::invalid(field, "must be whole microseconds"));
    }
    Ok(time.seconds * 1_000_000 + i64::from(time.nanos / 1_000))
}

/// When a key stops: in the future.
pub(crate) fn expire_micros(field: &str, time: &Timestamp, now_us: i64) -> Result<i64, Error> {
    let us = micros(field, time)?;
    if us <= now_us {
        return Err(Error::invalid(field, "is in the past; name a later time, or none for a key that does not expire"));
    }
    Ok(us)
}

/// Grants as the client sent them; see [`grant`] for what they mean.
pub(crate) fn grants(field: &str, grants: &[RoleGrant]) -> Result<Vec<Grant>, Error> {
    if grants.len() > GRANTS_MAX {
        return Err(Error::invalid(field, format!("has {} entries; at most {GRANTS_MAX} are allowed", grants.len())));
    }
    grants.iter().enumerate().map(|(i, sent)| grant(&format!("{field}[{i}]"), sent)).collect()
}

fn grant(field: &str, sent: &RoleGrant) -> Result<Grant, Error> {
    use sluice_proto::admin::v1::Role as Sent;
    let role = match Sent::try_from(sent.role) {
        Ok(Sent::Owner) => Role::Owner,
        Ok(Sent::Developer) => Role::Developer,
        Ok(Sent::Producer) => Role::Producer,
        Ok(Sent::Consumer) => Role::Consumer,
        Ok(Sent::Viewer) => Role::Viewer,
        Ok(Sent::Unspecified) | Err(_) => {
            let field = format!("{field}.role");
            return Err(Error::invalid(field, "must be one of the roles owner, developer, producer, consumer, viewer"));
        }
    };
    if !is_pattern(&sent.resource) {
        return Err(Error::invalid(
            format!("{field}.resource"),
            "must be '*', namespaces/{namespace}, namespaces/{namespace}/topics/{topic} or \
             namespaces/{namespace}/groups/{group}; '*' may end the last part",
        ));
    }
    Ok(Grant { role, resource: sent.resource.clone() })
}

/// `*`, empty, or a namespace's, topic's or group's name whose last part may end in `*`.
fn is_pattern(text: &str) -> bool {
    if text.is_empty() || text == "*" {
        return true;
    }
    let parts: Vec<&str> = text.split('/').collect();
    match parts.as_slice() {
        ["namespaces", last] => fits_as_prefix::<NamespaceId>(last, "a"),
        ["namespaces", namespace, "topics", last] => {
            namespace.parse::<NamespaceId>().is_ok() && fits_as_prefix::<TopicId>(last, "a")
        }
        ["namespaces", namespace, "groups", last] => {
            namespace.parse::<NamespaceId>().is_ok() && fits_as_prefix::<GroupId>(last, "a")
        }
        _ => false,
    }
}

/// Whether an id, or with a trailing `*` the beginning of one, follows the grammar.
fn fits_as_prefix<T: std::str::FromStr>(text: &str, filler: &str) -> bool {
    match text.strip_suffix('*') {
        None => text.parse::<T>().is_ok(),
        Some(prefix) => format!("{prefix}{filler}").parse::<T>().is_ok(),
    }
}

/// A request id; empty: none.
pub(crate) fn request_id(text: &str) -> Result<Option<Uuid>, Error> {
    if text.is_empty() {
        return Ok(None);
    }
    match Uuid::try_parse(text) {
        Ok(id) if text.len() == 36 => Ok(Some(id)),
        _ => Err(Error::invalid("request_id", "must be a UUID such as 6f1c1f9e-5c0e-4b3e-9a43-0d6c7c1f2b11, or empty")),
    }
}

/// How many entries a page has at most. More than the limit is cut to it: a client must go by the token anyway.
pub(crate) fn page_size(size: i32) -> Result<i64, Error> {
    match size {
        0 => Ok(i64::from(PAGE_SIZE_DEFAULT)),
        1.. => Ok(i64::from(size.min(PAGE_SIZE_MAX))),
        _ => Err(Error::invalid(
            "page_size",
            format!("is {size}; it must be 1..{PAGE_SIZE_MAX}, or 0 for {PAGE_SIZE_DEFAULT}"),
        )),
    }
}

/// A limit of a tenant; 0 is the default.
pub(crate) fn limit(field: &str, value: i64) -> Result<(), Error> {
    if value >= 0 {
        return Ok(());
    }
    Err(Error::invalid(field, format!("is {value}; it must be 0 (the default) or more")))
}

/// A tenant's own limit, or the installation's.
pub(crate) fn or_default(own: i64, default: i64) -> i64 {
    if own > 0 { own } else { default }
}

/// A field that must be there.
pub(crate) fn required<T>(field: &str, value: Option<T>) -> Result<T, Error> {
    value.ok_or_else(|| Error::invalid(field, "is required"))
}

/// An id or a name, parsed; empty ones are called missing.
pub(crate) fn parsed<T: std::str::FromStr<Err = sluice_types::name::NameError>>(
    field: &str,
    text: &str,
) -> Result<T, Error> {
    if text.is_empty() {
        return Err(Error::invalid(field, "is required"));
    }
    text.parse().map_err(|error| Error::invalid(field, error))
}

/// A name parsed by one of `ResourceName`'s functions.
pub(crate) fn named<T>(
    field: &str,
    text: &str,
    parse: impl Fn(&str) -> Result<T, sluice_types::name::NameError>,
) -> Result<T, Error> {
    if text.is_empty() {
        return Err(Error::invalid(field, "is required"));
    }
    parse(text).map_err(|error| Error::invalid(field, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_names_or_beginnings_of_names() {
        for good in [
            "",
            "*",
            "namespaces/prod",
            "namespaces/pro*",
            "namespaces/*",
            "namespaces/a/topics/*",
            "namespaces/prod-*",
            "namespaces/a/topics/pay-*",
            "namespaces/a/topics/A.b_c",
            "namespaces/a/groups/*",
            "namespaces/a/groups/bill-*",
            "namespaces/a/groups/A.b_c",
        ] {
            assert!(is_pattern(good), "{good}");
        }
        for bad in [
            "namespaces",
            "namespaces/",
            "namespaces/*/topics/a",
            "namespaces/a*/topics/b",
            "serviceAccounts/a",
            "**",
            "namespaces/a/topics/b/c",
            "namespaces/A*",
            "namespaces/a/topics/..",
            "namespaces/a/groups/..",
            "namespaces/a*/groups/b",
            "namespaces/a/groups/b/c",
            "tenants/a",
        ] {
            assert!(!is_pattern(bad), "{bad}");
        }
    }

    #[test]
    fn every_bound_names_field_limit_and_remedy() {
        let error = display_name("topic.display_name", &"x".repeat(201)).expect_err("too long");
        assert_eq!(error.message, "topic.display_name: has 201 characters; at most 200 are allowed, shorten it");
        assert_eq!(error.field.as_deref(), Some("topic.display_name"));
        assert!(partition_count("p", 0).is_err() && partition_count("p", 1_001).is_err());
        assert!(partition_count("p", 1).is_ok() && partition_count("p", 1_000).is_ok());
        assert!(retention_ms("r", &Duration::from_millis(RETENTION_MS_MIN - 1)).is_err());
        assert_eq!(retention_ms("r", &Duration::from_millis(RETENTION_MS_MIN)).ok(), Some(RETENTION_MS_MIN));
        assert!(request_id("x").is_err());
        assert!(page_size(-1).is_err());
        assert_eq!((page_size(0).ok(), page_size(7).ok(), page_size(1_001).ok()), (Some(100), Some(7), Some(1_000)));
    }
}
