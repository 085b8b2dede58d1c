//! What of a record is the client's, and how large that is.
//!
//! Billing counts logical bytes: key + value + names and values of the client's headers, uncompressed. Headers that begin
//! with `sluice-` are ours: refused from clients, never counted, never returned. A `traceparent` that the gateway added is
//! marked by [`TRACE_ADDED_HEADER`] and is ours too; one that the client sent as a record header is the client's.

/// What our own headers begin with.
pub const RESERVED_HEADER_PREFIX: &str = "sluice-";
/// Present when `traceparent` was added by the gateway.
pub const TRACE_ADDED_HEADER: &str = "sluice-tp";
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
}
