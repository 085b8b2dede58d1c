//! What of a record is the client's, and how large that is.
//!
//! Billing counts logical bytes: key + value + names and values of the client's headers, uncompressed. Headers that begin
//! with `sluice-` are ours: refused from clients, never counted, never returned. A `traceparent` that the gateway added is
//! marked by [`TRACE_ADDED_HEADER`] and is ours too; one that the client sent as a record header is the client's.

/// What our own headers begin with.
pub const RESERVED_HEADER_PREFIX: &str = "sluice-";
/// Present when `traceparent` was added by the gateway.
pub const TRACE_ADDED_HEADER: &str = "sluice-tp";
/// The time that the producer gave, ms since 1970 as text, where the record's own is that of appending.
pub const TIME_HEADER: &str = "sluice-time";
/// W3C trace context.
pub const TRACEPARENT_HEADER: &str = "traceparent";

/// Whether a header name is reserved for us; ASCII case does not matter.
pub fn is_reserved_header(name: &[u8]) -> bool {
    let prefix = RESERVED_HEADER_PREFIX.as_bytes();
    name.len() >= prefix.len() && name[..prefix.len()].eq_ignore_ascii_case(prefix)
}

/// Logical bytes of a record from its parts; the iterator yields the client's headers only.
pub fn logical_bytes<'a>(
    key: Option<&[u8]>,
    value: Option<&[u8]>,
    headers: impl IntoIterator<Item = (&'a [u8], Option<&'a [u8]>)>,
) -> u64 {
    let headers: usize = headers.into_iter().map(|(name, value)| name.len() + value.map_or(0, <[u8]>::len)).sum();
    (key.map_or(0, <[u8]>::len) + value.map_or(0, <[u8]>::len) + headers) as u64
}

/// The time that the record's producer gave, if it is kept in a header. Of two the last one is ours: clients cannot write such
/// headers, but other tools might.
pub fn producers_time_ms<N: AsRef<[u8]>, V: AsRef<[u8]>>(headers: &[(N, Option<V>)]) -> Option<i64> {
    let (_, value) = headers.iter().rfind(|(name, _)| name.as_ref() == TIME_HEADER.as_bytes())?;
    std::str::from_utf8(value.as_ref()?.as_ref()).ok()?.parse().ok()
}

/// Keeps the client's headers of a record read from Kafka, in order.
pub fn client_headers<N: AsRef<[u8]>, V>(headers: Vec<(N, V)>) -> Vec<(N, V)> {
    let trace_added = headers.iter().any(|(name, _)| name.as_ref() == TRACE_ADDED_HEADER.as_bytes());
    // The gateway appends its own behind the client's, so of two the last one is ours.
    let ours = if trace_added {
        headers.iter().rposition(|(name, _)| name.as_ref() == TRACEPARENT_HEADER.as_bytes())
    } else {
        None
    };
    headers
        .into_iter()
        .enumerate()
        .filter(|(i, (name, _))| Some(*i) != ours && !is_reserved_header(name.as_ref()))
        .map(|(_, header)| header)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_gateway_added_is_left_out() {
        let headers = vec![("traceparent", 1), ("a", 2), ("a", 3), ("traceparent", 4), ("sluice-tp", 5)];
        assert_eq!(client_headers(headers), vec![("traceparent", 1), ("a", 2), ("a", 3)]);
        assert_eq!(client_headers(vec![("traceparent", 1)]), vec![("traceparent", 1)]);
        assert!(is_reserved_header(b"Sluice-X"));
        assert!(!is_reserved_header(b"sluic"));
    }

    #[test]
    fn a_producers_time_is_read_or_nothing_is() {
        let read = |value: &'static str| producers_time_ms(&[("a", Some("1")), (TIME_HEADER, Some(value))]);
        assert_eq!((read("-5"), read("1764490000000")), (Some(-5), Some(1_764_490_000_000)));
        assert_eq!((read(""), read("soon"), producers_time_ms(&[("a", Some("1"))])), (None, None, None));
    }
}
