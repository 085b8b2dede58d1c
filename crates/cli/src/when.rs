//! Times as people give them and read them.

use jiff::Timestamp as Instant;
use sluice_proto::wkt::Timestamp;

/// RFC 3339, or an age such as `-1h`.
pub(crate) fn parse(text: &str) -> Result<Timestamp, String> {
    let wrong = || "give a time such as 2026-01-31T12:00:00Z, or an age such as -1h".to_owned();
    // Without a unit it could be meant as an offset from the end.
    if let Some(age) = text.strip_prefix('-').filter(|age| age.ends_with(|c: char| c.is_ascii_alphabetic())) {
        let age = crate::args::parse_duration(age).map_err(|_| wrong())?;
        let age_ms = i64::try_from(age.as_millis()).map_err(|_| wrong())?;
        return Ok(Timestamp::from_millis(Instant::now().as_millisecond().saturating_sub(age_ms).max(0)));
    }
    let time: Instant = text.parse().map_err(|_| wrong())?;
    Ok(Timestamp::from_millis(time.as_millisecond()))
}

/// RFC 3339 to the millisecond; `-` if absent.
pub(crate) fn shown(time: Option<&Timestamp>) -> String {
    time.and_then(|time| Instant::from_millisecond(time.as_millis()).ok())
        .map_or_else(|| "-".into(), |time| format!("{time:.3}"))
}
