//! From records as read to records as answered: only the client's parts, in the encoding asked for, up to a bound.

use bytes::Bytes;

use sluice_proto::stream::v1::record::{KeyKind, ValueKind};
use sluice_proto::stream::v1::{Header, PayloadEncoding, Record, header};
use sluice_proto::wkt::{Timestamp, Value};
use sluice_types::record::{client_headers, logical_bytes};

/// How much of what was read goes into an answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Logical bytes; the first record always comes whole.
    pub(crate) bytes_max: u64,
    /// Records.
    pub(crate) records_max: usize,
}

/// What goes into an answer.
#[derive(Debug, Default)]
pub(crate) struct Encoded {
    pub(crate) records: Vec<Record>,
    /// Their logical bytes.
    pub(crate) bytes: u64,
    /// The offset of the first record that found no room.
    pub(crate) cut_at: Option<i64>,
}

/// Encodes records in order.
pub(crate) fn encode(
    read: Vec<sluice_wire::Record>,
    partition: i32,
    encoding: PayloadEncoding,
    bounds: Bounds,
) -> Encoded {
    let mut encoded = Encoded::default();
    for record in read {
        let headers = client_headers(record.headers);
        let of_headers = headers.iter().map(|(name, value)| (&name[..], value.as_deref()));
        let size = logical_bytes(record.key.as_deref(), record.value.as_deref(), of_headers);
        let full = encoded.records.len() >= bounds.records_max || encoded.bytes + size > bounds.bytes_max;
        if full && !encoded.records.is_empty() {
            encoded.cut_at = Some(record.offset);
            break;
        }
        encoded.bytes += size;
        encoded.records.push(Record {
            partition,
            offset: record.offset,
            timestamp: Some(Timestamp::from_millis(record.timestamp_ms)),
            key_kind: record.key.map(|key| match decode(key, encoding) {
                Payload::Bytes(bytes) => KeyKind::Key(bytes),
                Payload::Text(text) => KeyKind::KeyText(text),
                Payload::Json(json) => KeyKind::KeyJson(json),
            }),
            value_kind: record.value.map(|value| match decode(value, encoding) {
                Payload::Bytes(bytes) => ValueKind::Value(bytes),
                Payload::Text(text) => ValueKind::ValueText(text),
                Payload::Json(json) => ValueKind::ValueJson(json),
            }),
            headers: headers.into_iter().map(|(name, value)| answer_header(&name, value, encoding)).collect(),
        });
    }
    encoded
}

enum Payload {
    Bytes(Bytes),
    Text(String),
    Json(Value),
}

fn decode(bytes: Bytes, encoding: PayloadEncoding) -> Payload {
    if encoding == PayloadEncoding::Json
        && let Ok(json) = serde_json::from_slice(&bytes)
    {
        return Payload::Json(json);
    }
    match encoding {
        PayloadEncoding::Json | PayloadEncoding::Text => match std::str::from_utf8(&bytes) {
            Ok(text) => Payload::Text(text.to_owned()),
            Err(_) => Payload::Bytes(bytes),
        },
        PayloadEncoding::Unspecified | PayloadEncoding::Bytes => Payload::Bytes(bytes),
    }
}

fn answer_header(name: &[u8], value: Option<Bytes>, encoding: PayloadEncoding) -> Header {
    // Header values are never JSON in our API, only text.
    let encoding = if encoding == PayloadEncoding::Json { PayloadEncoding::Text } else { encoding };
    let value = value.map(|value| match decode(value, encoding) {
        Payload::Text(text) => header::Value::Text(text),
        Payload::Bytes(bytes) => header::Value::Bytes(bytes),
        Payload::Json(_) => header::Value::Bytes(Bytes::new()),
    });
    Header { name: String::from_utf8_lossy(name).into_owned(), value }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(offset: i64, value: &'static [u8]) -> sluice_wire::Record {
        let header =
            |name: &'static [u8], value: &'static [u8]| (Bytes::from_static(name), Some(Bytes::from_static(value)));
        sluice_wire::Record {
            offset,
            timestamp_ms: 5,
            timestamp_type: sluice_wire::TimestampType::CreateTime,
            key: None,
            value: Some(Bytes::from_static(value)),
            headers: vec![header(b"h", b"\xff"), header(b"traceparent", b"t"), header(b"sluice-tp", b"1")],
        }
    }

    const ALL: Bounds = Bounds { bytes_max: 1 << 20, records_max: 100 };

    #[test]
    fn only_the_clients_parts_come_back_and_count() {
        let encoded = encode(vec![read(3, b"abc")], 1, PayloadEncoding::Bytes, ALL);
        let record = &encoded.records[0];
        assert_eq!(record.headers.len(), 1);
        assert_eq!(record.headers[0].value, Some(header::Value::Bytes(Bytes::from_static(b"\xff"))));
        assert_eq!((encoded.bytes, record.key_kind.clone(), record.offset), (5, None, 3));
    }

    #[test]
    fn payloads_come_as_asked_or_in_the_next_best_form() {
        let kind = |value: &'static [u8], encoding| {
            encode(vec![read(0, value)], 0, encoding, ALL).records[0].value_kind.clone()
        };
        let text = |text: &str| Some(ValueKind::ValueText(text.into()));
        assert!(matches!(kind(b"{\"a\":1}", PayloadEncoding::Json), Some(ValueKind::ValueJson(_))));
        assert_eq!(kind(b"not json", PayloadEncoding::Json), text("not json"));
        assert_eq!(kind(b"9007199254740993", PayloadEncoding::Json), text("9007199254740993"));
        assert_eq!(kind(b"\xff", PayloadEncoding::Json), Some(ValueKind::Value(Bytes::from_static(b"\xff"))));
        assert_eq!(kind(b"{\"a\":1}", PayloadEncoding::Text), text("{\"a\":1}"));
        assert_eq!(kind(b"x", PayloadEncoding::Unspecified), Some(ValueKind::Value(Bytes::from_static(b"x"))));
    }

    #[test]
    fn an_answer_is_cut_at_its_bounds_but_never_empty() {
        let three = || vec![read(0, b"aaaa"), read(1, b"bbbb"), read(2, b"cccc")];
        let cut = |bounds| {
            let encoded = encode(three(), 0, PayloadEncoding::Bytes, bounds);
            (encoded.records.len(), encoded.cut_at)
        };
        assert_eq!(cut(Bounds { bytes_max: 12, ..ALL }), (2, Some(2)));
        assert_eq!(cut(Bounds { bytes_max: 1, ..ALL }), (1, Some(1)));
        assert_eq!(cut(Bounds { records_max: 2, ..ALL }), (2, Some(2)));
        assert_eq!(cut(ALL), (3, None));
    }
}
