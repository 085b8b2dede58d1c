//! `google.protobuf.Duration`: in JSON seconds with a fraction and `s`, e.g. `"1.500s"`.

use std::fmt;

use serde::de::Error as _;

/// The largest number of seconds: 10,000 years.
const MAX_SECONDS: i64 = 315_576_000_000;

/// A signed span of time with nanosecond resolution.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub struct Duration {
    /// Whole seconds.
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    /// The rest in ns, of the same sign as `seconds`.
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

impl Duration {
    /// From milliseconds.
    pub fn from_millis(millis: i64) -> Self {
        Self { seconds: millis / 1_000, nanos: (millis % 1_000) as i32 * 1_000_000 }
    }

    /// In milliseconds, towards zero; saturates.
    pub fn as_millis(&self) -> i64 {
        self.seconds.saturating_mul(1_000).saturating_add(i64::from(self.nanos) / 1_000_000)
    }

    fn valid(&self) -> bool {
        self.seconds.abs() <= MAX_SECONDS
            && self.nanos.abs() < 1_000_000_000
            && (self.seconds == 0 || self.nanos == 0 || (self.seconds < 0) == (self.nanos < 0))
    }

    fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_suffix('s')?;
        let (sign, digits) = match digits.strip_prefix('-') {
            Some(rest) => (-1, rest),
            None => (1, digits),
        };
        let (whole, fraction) = digits.split_once('.').map_or((digits, None), |(w, f)| (w, Some(f)));
        let seconds = number(whole, 12)?;
        let nanos = fraction.map_or(Some(0), super::timestamp::nanos)?;
        let duration = Self { seconds: sign * seconds, nanos: sign as i32 * nanos };
        duration.valid().then_some(duration)
    }
}

/// Up to `most` digits.
fn number(text: &str, most: usize) -> Option<i64> {
    ((1..=most).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())?
}

impl From<std::time::Duration> for Duration {
    fn from(d: std::time::Duration) -> Self {
        Self { seconds: i64::try_from(d.as_secs()).unwrap_or(i64::MAX), nanos: d.subsec_nanos() as i32 }
    }
}

impl TryFrom<Duration> for std::time::Duration {
    type Error = &'static str;

    /// Fails for negative and malformed values.
    fn try_from(d: Duration) -> Result<Self, &'static str> {
        if !d.valid() || d.seconds < 0 || d.nanos < 0 {
            return Err("must be a duration of 0 s or more");
        }
        Ok(Self::new(d.seconds as u64, d.nanos as u32))
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.seconds < 0 || self.nanos < 0 { "-" } else { "" };
        write!(f, "{sign}{}", self.seconds.unsigned_abs())?;
        super::timestamp::write_fraction(f, self.nanos.unsigned_abs())?;
        f.write_str("s")
    }
}

impl serde::Serialize for Duration {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if !self.valid() {
            return Err(serde::ser::Error::custom("duration out of range"));
        }
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Duration {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| D::Error::custom("must be a duration in seconds with `s`, such as \"1.5s\""))
    }
}
