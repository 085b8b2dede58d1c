//! Times as people give them and read them.

use anyhow::{Context, Result};
use jiff::Timestamp as Instant;
use sluice_proto::wkt::Timestamp;

/// RFC 3339, or an age such as `-1h`.
pub(crate) fn parse(text: &str) -> Result<Timestamp> {
    if let Some(age) = text.strip_prefix('-') {
        let age = crate::args::parse_duration(age).map_err(anyhow::Error::msg)?;
        let age_ms = i64::try_from(age.as_millis()).context("an age of that size")?;
        return Ok(Timestamp::from_millis(Instant::now().as_millisecond().saturating_sub(age_ms)));
    }
    let time: Instant =
        text.parse().with_context(|| format!("{text:?} is not a time such as 2026-01-31T12:00:00Z or -1h"))?;
    Ok(Timestamp::from_millis(time.as_millisecond()))
}

/// RFC 3339 to the millisecond; `-` if absent.
pub(crate) fn shown(time: Option<&Timestamp>) -> String {
    time.and_then(|time| Instant::from_millisecond(time.as_millis()).ok())
        .map_or_else(|| "-".into(), |time| format!("{time:.3}"))
}
