//! What a caller of GetUsage asks for, checked: names of the right form, hours, page.

use sluice_proto::billing::v1::GetUsageRequest;
use sluice_proto::wkt::Timestamp;
use sluice_types::limits::{PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX};
use sluice_types::role::{allows, sees};
use sluice_types::{Error, ErrorKind, Grant, NamespaceId, Reason, ResourceName, TopicId, TopicUid};

/// The permission it takes.
pub const PERMISSION: &str = "usage.get";
const HOUR_MS: i64 = 3_600_000;

/// A checked request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// Only this name.
    pub topic: Option<(NamespaceId, TopicId)>,
    /// Only this life.
    pub topic_uid: Option<TopicUid>,
    /// From this hour since the epoch.
    pub from_hour: i64,
    /// Up to, without, this one.
    pub to_hour: i64,
    /// Topics a page.
    pub page_size: i32,
}

impl Query {
    /// Checks a request; `now_ms` is the end when none is given.
    pub fn parse(request: &GetUsageRequest, now_ms: i64) -> Result<Self, Error> {
        let topic = match request.topic.as_str() {
            "" => None,
            name => Some(ResourceName::parse_topic(name).map_err(|error| Error::invalid("topic", error))?),
        };
        let topic_uid = match request.topic_uid.as_str() {
            "" => None,
            uid => Some(uid.parse().map_err(|_| {
                Error::invalid("topic_uid", "must be a uid of 13 characters, as in an answer's topic_uid")
            })?),
        };
        let from_hour = time_ms(request.start_time, "start_time")?.map_or(0, |ms| ms.div_euclid(HOUR_MS));
        let to_ms = time_ms(request.end_time, "end_time")?.unwrap_or(now_ms);
        // Rounded up; "now" too, so that the hour under way is in.
        let to_hour = to_ms.div_euclid(HOUR_MS) + i64::from(to_ms.rem_euclid(HOUR_MS) > 0);
        if request.end_time.is_some() && to_hour <= from_hour {
            return Err(Error::invalid("end_time", "must be after start_time"));
        }
        let page_size = match request.page_size {
            0 => PAGE_SIZE_DEFAULT,
            size if size > 0 => size.min(PAGE_SIZE_MAX),
            _ => return Err(Error::invalid("page_size", format_args!("must be 0 (the default) to {PAGE_SIZE_MAX}"))),
        };
        Ok(Self { topic, topic_uid, from_hour, to_hour, page_size })
    }
}

/// Decides by the caller's grants, on the topic asked for or on the whole tenant. Who may not see a topic is told that it
/// does not exist.
pub fn authorize(grants: &[Grant], topic: &str) -> Result<(), Error> {
    if allows(grants, PERMISSION, topic) {
        return Ok(());
    }
    if !topic.is_empty() && !sees(grants, topic) {
        return Err(Error::not_found(topic));
    }
    let on = if topic.is_empty() { "the whole tenant; name a topic to ask for less" } else { topic };
    Err(Error::new(
        ErrorKind::PermissionDenied,
        Reason::PermissionMissing,
        format!("the caller lacks the permission {PERMISSION} on {on}"),
    ))
}

fn time_ms(time: Option<Timestamp>, field: &str) -> Result<Option<i64>, Error> {
    match time {
        None => Ok(None),
        Some(time) if time.is_valid() && time.seconds >= 0 => Ok(Some(time.as_millis())),
        Some(_) => Err(Error::invalid(field, "must be a time from 1970 to 9999, such as 2026-11-21T10:00:00Z")),
    }
}

#[cfg(test)]
mod tests {
    use sluice_types::Role;

    use super::*;

    const NOW_MS: i64 = 10 * HOUR_MS + 1;

    fn parse(request: GetUsageRequest) -> Result<Query, Error> {
        Query::parse(&request, NOW_MS)
    }

    fn at(ms: i64) -> Option<Timestamp> {
        Some(Timestamp::from_millis(ms))
    }

    #[test]
    fn hours_are_rounded_outwards_and_end_now() {
        let all = parse(GetUsageRequest::default()).expect("empty request");
        assert_eq!((all.from_hour, all.to_hour, all.page_size), (0, 11, 100));
        let some = GetUsageRequest { start_time: at(HOUR_MS + 5), end_time: at(3 * HOUR_MS), ..Default::default() };
        let some = parse(some).expect("two hours");
        assert_eq!((some.from_hour, some.to_hour), (1, 3));
    }

    #[test]
    fn what_is_wrong_is_named_by_field() {
        let base = GetUsageRequest::default;
        for (field, request) in [
            ("topic", GetUsageRequest { topic: "orders".into(), ..base() }),
            ("topic_uid", GetUsageRequest { topic_uid: "x".into(), ..base() }),
            ("page_size", GetUsageRequest { page_size: -1, ..base() }),
            ("start_time", GetUsageRequest { start_time: at(-1), ..base() }),
            ("end_time", GetUsageRequest { start_time: at(5 * HOUR_MS), end_time: at(4 * HOUR_MS), ..base() }),
        ] {
            assert_eq!(parse(request).expect_err(field).field.as_deref(), Some(field));
        }
    }

    #[test]
    fn a_topic_out_of_sight_does_not_exist() {
        let grants = [Grant { role: Role::Viewer, resource: "namespaces/a".into() }];
        let seen = "namespaces/a/topics/x";
        assert!(authorize(&grants, seen).is_ok());
        assert_eq!(authorize(&grants, "").expect_err("tenant").kind, ErrorKind::PermissionDenied);
        assert_eq!(authorize(&grants, "namespaces/b/topics/x").expect_err("other").kind, ErrorKind::NotFound);
        let producer = [Grant { role: Role::Producer, resource: "*".into() }];
        assert_eq!(authorize(&producer, seen).expect_err("producer").kind, ErrorKind::PermissionDenied);
    }
}
