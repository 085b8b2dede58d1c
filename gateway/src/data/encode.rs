//! From records as read to records as answered: only what readers may see, in the encoding asked for, up to a bound.
//!
//! Readers see the client's headers, and of ours those that tell of a dead letter's history. Only the client's count.

use bytes::Bytes;
use prost::Message as _;
use serde::Serialize;

use sluice_proto::stream::v1::record::{KeyKind, ValueKind};
use sluice_proto::stream::v1::{Header, PayloadEncoding, Record, header};
use sluice_proto::wkt::{Timestamp, Value};
use sluice_types::record::{client_headers, logical_bytes, producers_time_ms};

use crate::data::json;

/// Headers of ours that readers see: why and from where a record is a dead letter, and by whom it was sent back.
const SHOWN_PREFIXES: [&[u8]; 2] = [b"sluice-dlq-", b"sluice-redrive-"];

/// Bytes of a message: what gRPC clients take unless they are told to take more, 4 MiB, and a margin.
pub(crate) const ANSWER_MESSAGE_BYTES_MAX: usize = (4 << 20) - (4 << 10);

/// How much of what was read goes into an answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Logical bytes; the first record always comes whole.
    pub(crate) bytes_max: u64,
    /// Records.
    pub(crate) records_max: usize,
    /// Bytes of their messages in protobuf; the first record always comes.
    pub(crate) message_bytes_max: usize,
}

/// What goes into an answer.
#[derive(Debug, Default)]
pub(crate) struct Encoded {
    pub(crate) records: Vec<Shown>,
    /// Their logical bytes.
    pub(crate) bytes: u64,
    /// No more than this are their messages in protobuf.
    pub(crate) message_bytes: usize,
    /// The offset of the first record that found no room.
    pub(crate) cut_at: Option<i64>,
}

/// A record as a reader sees it, in the encoding asked for and in no protocol's form yet.
#[derive(Debug)]
pub(crate) struct Shown {
    partition: i32,
    offset: i64,
    timestamp_ms: i64,
    /// When it was appended, if that is another time.
    append_ms: Option<i64>,
    key: Option<Payload>,
    value: Option<Payload>,
    headers: Vec<Header>,
}

#[derive(Debug)]
enum Payload {
    Bytes(Bytes),
    Text(String),
    /// JSON that was checked, as stored.
    Json(String),
}

/// Encodes records in order.
pub(crate) fn encode(
    read: Vec<sluice_wire::Record>,
    partition: i32,
    encoding: PayloadEncoding,
    bounds: Bounds,
) -> Encoded {
    let mut encoded = Encoded::default();
    let mut sizes = Vec::new();
    for record in read {
        let offset = record.offset;
        let (headers, size) = headers_and_size(&record);
        let full = encoded.records.len() >= bounds.records_max || encoded.bytes + size > bounds.bytes_max;
        if full && !encoded.records.is_empty() {
            encoded.cut_at = Some(offset);
            break;
        }
        encoded.bytes += size;
        sizes.push(size);
        let producers_ms = producers_time_ms(&record.headers);
        encoded.records.push(Shown {
            partition,
            offset,
            timestamp_ms: producers_ms.unwrap_or(record.timestamp_ms),
            append_ms: producers_ms.map(|_| record.timestamp_ms),
            key: record.key.map(|key| decode(key, encoding)),
            value: record.value.map(|value| decode(value, encoding)),
            headers: headers.into_iter().map(|(name, value)| answer_header(&name, value, encoding)).collect(),
        });
    }
    encoded.fit_in_message(&sizes, bounds.message_bytes_max);
    encoded
}

impl Encoded {
    /// Keeps what fits in one message, at least one record.
    fn fit_in_message(&mut self, sizes: &[u64], most: usize) {
        self.message_bytes = self.records.iter().map(Shown::message_bytes_max).sum();
        if self.message_bytes <= most {
            return;
        }
        let (mut fits, mut kept) = (0, 0);
        for record in &self.records {
            let bytes = record.message_bytes();
            if kept > 0 && fits + bytes > most {
                break;
            }
            (fits, kept) = (fits + bytes, kept + 1);
        }
        self.message_bytes = fits;
        self.cut_at = self.records.get(kept).map(|record| record.offset).or(self.cut_at);
        self.records.truncate(kept);
        self.bytes = sizes.iter().take(kept).sum();
    }
}

type Headers = Vec<(Bytes, Option<Bytes>)>;

/// The headers that a reader sees, ours behind the client's, and the record's logical bytes.
fn headers_and_size(record: &sluice_wire::Record) -> (Headers, u64) {
    if record.headers.is_empty() {
        return (Vec::new(), logical_bytes(record.key.as_deref(), record.value.as_deref(), []));
    }
    let mut headers = client_headers(record.headers.clone());
    let of_headers = headers.iter().map(|(name, value)| (&name[..], value.as_deref()));
    let size = logical_bytes(record.key.as_deref(), record.value.as_deref(), of_headers);
    let shown = |name: &Bytes| SHOWN_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
    headers.extend(record.headers.iter().filter(|(name, _)| shown(name)).cloned());
    (headers, size)
}

fn decode(bytes: Bytes, encoding: PayloadEncoding) -> Payload {
    if matches!(encoding, PayloadEncoding::Unspecified | PayloadEncoding::Bytes) {
        return Payload::Bytes(bytes);
    }
    match std::str::from_utf8(&bytes) {
        // A field that is null in JSON is one that is absent, as a tombstone's is.
        Ok(text) if text.trim_ascii() == "null" => Payload::Text(text.to_owned()),
        Ok(text) if encoding == PayloadEncoding::Json && json::check(text).is_ok() => Payload::Json(text.to_owned()),
        Ok(text) => Payload::Text(text.to_owned()),
        Err(_) => Payload::Bytes(bytes),
    }
}

fn answer_header(name: &[u8], value: Option<Bytes>, encoding: PayloadEncoding) -> Header {
    // Header values are never JSON in our API, only text.
    let encoding = if encoding == PayloadEncoding::Json { PayloadEncoding::Text } else { encoding };
    let value = value.map(|value| match decode(value, encoding) {
        Payload::Text(text) | Payload::Json(text) => header::Value::Text(text),
        Payload::Bytes(bytes) => header::Value::Bytes(bytes),
    });
    Header { name: String::from_utf8_lossy(name).into_owned(), value }
}

/// JSON that is larger than this as a message comes as text: as a message, `[1,1]` takes eleven bytes where two are stored.
const JSON_MESSAGE_BYTES_MAX: usize = 3 << 19;
/// So many times what is stored, at most, is JSON as a message.
const JSON_GROWTH_MAX: usize = 12;
/// What a record's message has beside its payloads and headers.
const OVERHEAD_BYTES_MAX: usize = 80;
/// The tag and the length of a field.
const FIELD_BYTES_MAX: usize = 6;

impl Payload {
    fn message_bytes_max(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Text(text) => text.len(),
            Self::Json(text) => (text.len() * JSON_GROWTH_MAX).min(text.len().max(JSON_MESSAGE_BYTES_MAX)),
        }
    }

    /// The same to the byte, for more work.
    fn message_bytes(&self) -> usize {
        match self {
            Self::Json(text) => as_value(text).map_or(text.len(), |value| value.encoded_len()),
            other => other.message_bytes_max(),
        }
    }
}

/// As a value, if it is one in protobuf, too: no number that a double changes, no member that a map drops, not too deep for
/// readers, and not much larger.
fn as_value(text: &str) -> Option<Value> {
    let value: Value = json::survives_doubles(text).then(|| serde_json::from_str(text).ok()).flatten()?;
    json::survives_messages(&value).then_some(())?;
    (text.len() * JSON_GROWTH_MAX <= JSON_MESSAGE_BYTES_MAX || value.encoded_len() <= JSON_MESSAGE_BYTES_MAX)
        .then_some(value)
}

impl Shown {
    /// No more than this is its message in protobuf.
    pub(crate) fn message_bytes_max(&self) -> usize {
        self.message_bytes_with(Payload::message_bytes_max)
    }

    /// The same nearly to the byte, for more work.
    pub(crate) fn message_bytes(&self) -> usize {
        self.message_bytes_with(Payload::message_bytes)
    }

    fn message_bytes_with(&self, of_payload: impl Fn(&Payload) -> usize) -> usize {
        let payloads = self.key.iter().chain(&self.value).map(of_payload);
        let headers = self.headers.iter().map(|header| header.encoded_len() + FIELD_BYTES_MAX);
        payloads.chain(headers).sum::<usize>() + OVERHEAD_BYTES_MAX
    }

    /// As a message. Its JSON has doubles for numbers and maps for objects: payloads with a number that a double changes or with
    /// a repeated member come as text, as do those that are too deep for readers or would be much larger as a message.
    pub(crate) fn into_message(self) -> Record {
        Record {
            partition: self.partition,
            offset: self.offset,
            timestamp: Some(Timestamp::from_millis(self.timestamp_ms)),
            append_time: self.append_ms.map(Timestamp::from_millis),
            key_kind: self.key.map(|key| match key {
                Payload::Bytes(bytes) => KeyKind::Key(bytes),
                Payload::Text(text) => KeyKind::KeyText(text),
                Payload::Json(text) => match as_value(&text) {
                    Some(json) => KeyKind::KeyJson(json),
                    None => KeyKind::KeyText(text),
                },
            }),
            value_kind: self.value.map(|value| match value {
                Payload::Bytes(bytes) => ValueKind::Value(bytes),
                Payload::Text(text) => ValueKind::ValueText(text),
                Payload::Json(text) => match as_value(&text) {
                    Some(json) => ValueKind::ValueJson(json),
                    None => ValueKind::ValueText(text),
                },
            }),
            headers: self.headers,
        }
    }
}

impl IntoJson for Shown {
    fn into_json(mut self) -> serde_json::Result<Vec<u8>> {
        let (key, value) = (lift(&mut self.key), lift(&mut self.value));
        let mut payloads: Vec<(&str, &[u8])> = Vec::new();
        payloads.extend(key.as_ref().map(|key| ("keyJson", key.as_bytes())));
        payloads.extend(value.as_ref().map(|value| ("valueJson", value.as_bytes())));
        json::splice(&self.into_message(), &payloads)
    }
}

fn lift(payload: &mut Option<Payload>) -> Option<String> {
    match payload.take() {
        Some(Payload::Json(text)) => Some(text),
        other => {
            *payload = other;
            None
        }
    }
}

/// What an answer has a list of.
pub(crate) trait IntoJson {
    /// As JSON, whose JSON payloads are as stored, digit for digit.
    fn into_json(self) -> serde_json::Result<Vec<u8>>;
}

/// A message as JSON, with a record in it; `rest` is the message without.
pub(crate) fn around(rest: &impl Serialize, record: Shown) -> serde_json::Result<Vec<u8>> {
    json::splice(rest, &[("record", &record.into_json()?)])
}

/// An answer as JSON: `rest` is the answer without its records, which are its first field.
pub(crate) fn answer_json<T: IntoJson>(records: Vec<T>, rest: &impl Serialize) -> serde_json::Result<Vec<u8>> {
    const EMPTY: &[u8] = b"{\"records\":[";
    let rest = serde_json::to_vec(rest)?;
    let mut text = EMPTY.to_vec();
    for (number, record) in records.into_iter().enumerate() {
        if number > 0 {
            text.push(b',');
        }
        text.extend(record.into_json()?);
    }
    let rest = rest.strip_prefix(EMPTY).ok_or_else(|| serde::de::Error::custom("records come first in an answer"))?;
    text.extend_from_slice(rest);
    Ok(text)
}

#[cfg(test)]
mod tests {
    use sluice_proto::stream::v1::FetchResponse;

    use super::*;

    const ALL: Bounds = Bounds { bytes_max: 1 << 20, records_max: 100, message_bytes_max: usize::MAX };

    fn header(name: &'static [u8], value: &'static [u8]) -> (Bytes, Option<Bytes>) {
        (Bytes::from_static(name), Some(Bytes::from_static(value)))
    }

    fn read(offset: i64, value: &'static [u8]) -> sluice_wire::Record {
        sluice_wire::Record {
            offset,
            timestamp_ms: 5,
            timestamp_type: sluice_wire::TimestampType::CreateTime,
            key: None,
            value: Some(Bytes::from_static(value)),
            headers: vec![header(b"h", b"\xff"), header(b"traceparent", b"t"), header(b"sluice-tp", b"1")],
        }
    }

    #[test]
    fn the_size_of_a_message_is_known_before_it_is_made() {
        let texts = ["1", "[1,1]", "[[[[[]]]]]", "{\"\":{\"\":1}}", "[\"\",\"\",true,null]", "12345678901234567890"];
        let long = format!("[{}1]", "1,".repeat(200_000));
        for text in texts.into_iter().chain([long.as_str()]) {
            let record = sluice_wire::Record { value: Some(Bytes::copy_from_slice(text.as_bytes())), ..read(3, b"") };
            for encoding in [PayloadEncoding::Json, PayloadEncoding::Text, PayloadEncoding::Bytes] {
                let mut shown = encode(vec![record.clone()], 1, encoding, ALL).records.remove(0);
                let (most, about) = (shown.message_bytes_max(), shown.message_bytes());
                shown.key = None;
                let message = shown.into_message();
                let bytes = message.encoded_len();
                assert!(bytes <= about && about <= most, "{bytes} {about} {most}: {:.30}", text);
                assert!(about <= bytes + 2 * OVERHEAD_BYTES_MAX, "{bytes} {about}: {:.30}", text);
                let is_text = matches!(message.value_kind, Some(ValueKind::ValueText(_)));
                let grows = encoding == PayloadEncoding::Json && text.len() > 100_000;
                assert!(!grows || is_text, "JSON that is much larger as a message comes as text");
            }
        }
    }

    #[test]
    fn only_the_clients_parts_come_back_and_count() {
        let mut encoded = encode(vec![read(3, b"abc")], 1, PayloadEncoding::Bytes, ALL);
        let record = encoded.records.remove(0).into_message();
        assert_eq!(record.headers.len(), 1);
        assert_eq!(record.headers[0].value, Some(header::Value::Bytes(Bytes::from_static(b"\xff"))));
        assert_eq!((encoded.bytes, record.key_kind.clone(), record.offset), (5, None, 3));
    }

    #[test]
    fn a_dead_letters_history_is_shown_and_does_not_count() {
        let mut letter = read(0, b"abc");
        letter.headers.insert(1, header(b"sluice-dlq-offset", b"17"));
        letter.headers.push(header(b"sluice-redrive-group", b"g"));
        letter.headers.push(header(b"sluice-other", b"x"));
        let mut encoded = encode(vec![letter], 0, PayloadEncoding::Text, ALL);
        let record = encoded.records.remove(0).into_message();
        let names: Vec<&str> = record.headers.iter().map(|header| header.name.as_str()).collect();
        assert_eq!(names, ["h", "sluice-dlq-offset", "sluice-redrive-group"]);
        assert_eq!(record.headers[1].value, Some(header::Value::Text("17".into())));
        assert_eq!(encoded.bytes, 5, "as without the history");
    }

    #[test]
    fn a_producers_time_comes_back_beside_the_time_of_appending() {
        let mut record = read(0, b"abc");
        record.headers.push(header(b"sluice-time", b"-2"));
        let mut encoded = encode(vec![record], 0, PayloadEncoding::Bytes, ALL);
        let record = encoded.records.remove(0).into_message();
        assert_eq!(record.timestamp, Some(Timestamp::from_millis(-2)));
        assert_eq!((record.append_time, record.headers.len()), (Some(Timestamp::from_millis(5)), 1));
        assert_eq!(encoded.bytes, 5, "as without it");
        let plain = encode(vec![read(0, b"abc")], 0, PayloadEncoding::Bytes, ALL).records.remove(0).into_message();
        assert_eq!((plain.timestamp, plain.append_time), (Some(Timestamp::from_millis(5)), None));
    }

    #[test]
    fn payloads_come_as_asked_or_in_the_next_best_form() {
        let kind = |value: &'static [u8], encoding| {
            encode(vec![read(0, value)], 0, encoding, ALL).records.remove(0).into_message().value_kind
        };
        let text = |text: &str| Some(ValueKind::ValueText(text.into()));
        assert!(matches!(kind(b"{\"a\":1}", PayloadEncoding::Json), Some(ValueKind::ValueJson(_))));
        assert_eq!(kind(b"not json", PayloadEncoding::Json), text("not json"));
        for changed in [
            &b"9007199254740993"[..],
            b"1e5",
            b"0.1000",
            b"{\"a\":[1234567890.123456789]}",
            b"007",
            b" null ",
            b"{\"a\":1,\"a\":2}",
            b"[{\"a\":{\"b\":1,\"\\u0062\":1}}]",
        ] {
            let as_text = text(std::str::from_utf8(changed).expect("text"));
            assert_eq!(kind(changed, PayloadEncoding::Json), as_text);
        }
        assert_eq!(kind(b"\xff", PayloadEncoding::Json), Some(ValueKind::Value(Bytes::from_static(b"\xff"))));
        assert_eq!(kind(b"{\"a\":1}", PayloadEncoding::Text), text("{\"a\":1}"));
        assert_eq!(kind(b"x", PayloadEncoding::Unspecified), Some(ValueKind::Value(Bytes::from_static(b"x"))));
    }

    #[test]
    fn every_reader_of_protobuf_can_read_an_answer_however_deep_the_json_in_it_is() {
        use sluice_proto::stream::v1::{ConsumeResponse, ReceivedRecord, ReceivedRecords, consume_response};

        let nested = |open: &str, close: &str, levels: usize| open.repeat(levels) + "1" + &close.repeat(levels);
        for levels in [1, json::MESSAGE_LEVELS_MAX, json::MESSAGE_LEVELS_MAX + 1, 50, 99, 100, 101] {
            for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
                let json = nested(open, close, levels);
                let record = sluice_wire::Record { value: Some(json.clone().into()), ..read(3, b"") };
                let shown = || encode(vec![record.clone()], 1, PayloadEncoding::Json, ALL).records.remove(0);
                // The answer that has a record at the greatest depth. The decoder has the limit that most languages have.
                let received = ReceivedRecord { record: Some(shown().into_message()), ..Default::default() };
                let records = ReceivedRecords { records: vec![received] };
                let answer = ConsumeResponse { message: Some(consume_response::Message::Records(records)) };
                let answer = ConsumeResponse::decode(&answer.encode_to_vec()[..]).expect("readable");
                let Some(consume_response::Message::Records(records)) = answer.message else { panic!("{levels}") };
                match records.records[0].record.clone().and_then(|record| record.value_kind) {
                    Some(ValueKind::ValueJson(_)) => assert!(levels <= json::MESSAGE_LEVELS_MAX, "{levels}"),
                    Some(ValueKind::ValueText(text)) => {
                        assert!(levels > json::MESSAGE_LEVELS_MAX && text == json, "{levels}");
                    }
                    other => panic!("{levels}: {other:?}"),
                }
                let over_http = String::from_utf8(shown().into_json().expect("JSON")).expect("text");
                assert_eq!(over_http.contains(&format!("\"valueJson\":{json}")), levels <= 100, "{levels}");
            }
        }
    }

    #[test]
    fn json_comes_back_over_http_digit_for_digit() {
        let rest = FetchResponse { next_offset: 4, ..Default::default() };
        let values: [&[u8]; 5] =
            [b"12345678901234567890", b"{\"a\":0.1000,\"b\":1E+2}", b"1e400", b"[\"\\ud800\"]", b"null"];
        let read = (0..).zip(values).map(|(offset, value)| read(offset, value)).collect();
        let encoded = encode(read, 0, PayloadEncoding::Json, ALL);
        let text = String::from_utf8(answer_json(encoded.records, &rest).expect("JSON")).expect("text");
        assert!(text.contains(r#""valueJson":12345678901234567890}"#), "{text}");
        assert!(text.contains(r#""valueJson":{"a":0.1000,"b":1E+2}}"#), "{text}");
        let answer: serde_json::Value = serde_json::from_str(&text).expect("readable as a whole");
        assert_eq!((&answer["records"][2]["valueText"], &answer["nextOffset"]), (&"1e400".into(), &"4".into()));
        assert_eq!(answer["records"][3]["valueText"], "[\"\\ud800\"]");
        assert_eq!(answer["records"][4]["valueText"], "null", "a tombstone has no value at all");
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

    #[test]
    fn an_answer_is_cut_where_its_message_would_be_too_large() {
        let json = format!("[{}1]", "1,".repeat(100));
        let record = |offset| sluice_wire::Record { value: Some(json.clone().into()), ..read(offset, b"") };
        let three = |encoding, message_bytes_max| {
            encode((0..3).map(record).collect(), 0, encoding, Bounds { message_bytes_max, ..ALL })
        };
        let whole = three(PayloadEncoding::Json, usize::MAX);
        let one: usize = whole.records[0].message_bytes();
        assert_eq!((whole.records.len(), whole.bytes % 3), (3, 0));
        let cut = three(PayloadEncoding::Json, 2 * one);
        assert_eq!((cut.records.len(), cut.cut_at, cut.message_bytes), (2, Some(2), 2 * one));
        assert_eq!(cut.bytes, whole.bytes / 3 * 2, "only what is given counts");
        assert_eq!(three(PayloadEncoding::Json, 3 * one).records.len(), 3);
        assert_eq!(three(PayloadEncoding::Json, 1).cut_at, Some(1), "one record always comes");
        assert_eq!(three(PayloadEncoding::Bytes, 2 * one).records.len(), 3, "what does not grow is not cut");
    }
}
