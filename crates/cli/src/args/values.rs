//! How words of the command line become values.

use std::time::Duration;

use sluice_proto::admin::v1::{Role, RoleGrant};
use sluice_proto::stream::v1::Position;
use sluice_proto::stream::v1::fetch_request::Start;
use sluice_proto::stream::v1::list_offsets_request::At;

use crate::when;

/// `90s`, `5m`, `2h`, `7d`; a bare number is seconds.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let wrong = || format!("{text:?} is not a duration such as 30s, 5m, 2h or 7d");
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let seconds = match unit {
        "" | "s" => Some(number),
        "ms" => return Ok(Duration::from_millis(number)),
        "m" => number.checked_mul(60),
        "h" => number.checked_mul(3_600),
        "d" => number.checked_mul(86_400),
        _ => None,
    };
    // The proto's Duration ends at 10,000 years.
    seconds.filter(|seconds| *seconds <= 315_576_000_000).map(Duration::from_secs).ok_or_else(wrong)
}

pub(super) fn parse_timeout(text: &str) -> Result<Duration, String> {
    let timeout = parse_duration(text)?;
    if timeout.is_zero() { Err("give more than 0".into()) } else { Ok(timeout) }
}

/// `prod/orders` and the full name both mean `namespaces/prod/topics/orders`.
pub(super) fn topic_name(text: &str) -> Result<String, String> {
    match text.split('/').collect::<Vec<_>>()[..] {
        [namespace, topic] | ["namespaces", namespace, "topics", topic]
            if !namespace.is_empty() && !topic.is_empty() =>
        {
            Ok(format!("namespaces/{namespace}/topics/{topic}"))
        }
        _ => Err("name the topic as namespace/topic".into()),
    }
}

/// `acme/prod` and the full name both mean `tenants/acme/namespaces/prod`.
pub(super) fn tenant_namespace(text: &str) -> Result<String, String> {
    match text.split('/').collect::<Vec<_>>()[..] {
        [tenant, namespace] | ["tenants", tenant, "namespaces", namespace]
            if !tenant.is_empty() && !namespace.is_empty() =>
        {
            Ok(format!("tenants/{tenant}/namespaces/{namespace}"))
        }
        _ => Err("name the namespace as tenant/namespace".into()),
    }
}

/// `app/kemho3iwiends` and the full name both mean `serviceAccounts/app/apiKeys/kemho3iwiends`.
pub(super) fn key_name(text: &str) -> Result<String, String> {
    match text.split('/').collect::<Vec<_>>()[..] {
        [account, key] | ["serviceAccounts", account, "apiKeys", key] if !account.is_empty() && !key.is_empty() => {
            Ok(format!("serviceAccounts/{account}/apiKeys/{key}"))
        }
        // Not repeated: it may be the text of a key.
        _ => Err("name the key as account/key; `sluice keys list` shows the names".into()),
    }
}

pub(super) fn parse_start(text: &str) -> Result<Start, String> {
    Ok(match text {
        "earliest" => Start::Position(Position::Earliest.into()),
        "latest" => Start::Position(Position::Latest.into()),
        text if text.bytes().all(|byte| byte.is_ascii_digit()) => {
            Start::Offset(text.parse().map_err(|_| format!("{text:?} is no offset"))?)
        }
        text => Start::Time(
            when::parse(text).map_err(|error| format!("{error}, or earliest, latest, or an offset such as 42"))?,
        ),
    })
}

pub(super) fn parse_at(text: &str) -> Result<At, String> {
    Ok(match text {
        "earliest" => At::Position(Position::Earliest.into()),
        "latest" => At::Position(Position::Latest.into()),
        text => At::Time(when::parse(text).map_err(|error| format!("{error}, or earliest, or latest"))?),
    })
}

/// `role` or `role@resource`.
pub(super) fn parse_grant(text: &str) -> Result<RoleGrant, String> {
    let (role, resource) = text.split_once('@').unwrap_or((text, "*"));
    let known = Role::from_str_name(&format!("ROLE_{}", role.to_uppercase())).filter(|role| *role != Role::Unspecified);
    let role = known.ok_or_else(|| format!("{role:?} is no role: owner, developer, producer, consumer or viewer"))?;
    Ok(RoleGrant { role: role.into(), resource: resource.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_are_made_whole() {
        assert_eq!(topic_name("prod/orders").as_deref(), Ok("namespaces/prod/topics/orders"));
        assert_eq!(topic_name("namespaces/prod/topics/orders").as_deref(), Ok("namespaces/prod/topics/orders"));
        assert_eq!(topic_name("namespaces/orders").as_deref(), Ok("namespaces/namespaces/topics/orders"));
        for wrong in ["orders", "/orders", "prod/", "a/b/c", ""] {
            assert!(topic_name(wrong).is_err(), "{wrong}");
        }
        for good in ["acme/prod", "tenants/acme/namespaces/prod"] {
            assert_eq!(tenant_namespace(good).as_deref(), Ok("tenants/acme/namespaces/prod"));
        }
        assert!(tenant_namespace("prod").is_err());
        assert_eq!(key_name("app/k").as_deref(), Ok("serviceAccounts/app/apiKeys/k"));
    }

    #[test]
    fn a_start_is_a_position_an_offset_a_time_or_an_age_with_a_unit() {
        assert_eq!(parse_start("42"), Ok(Start::Offset(42)));
        assert!(matches!(parse_start("-1h"), Ok(Start::Time(_))));
        assert!(matches!(parse_start("2026-01-01T00:00:00Z"), Ok(Start::Time(_))));
        for wrong in ["-5", "yesterday", "", "99999999999999999999", "-1y"] {
            assert!(parse_start(wrong).is_err(), "{wrong}");
        }
    }
}
