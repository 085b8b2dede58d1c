//! A line of NDJSON as a record, digit for digit and byte for byte.
//!
//! A line has one of two forms:
//!
//! - as a person writes it: `{"key":…, "value":…, "headers":{…}, "partition":…, "timestamp":…}`. A string is its text, null
//!   is null, and anything else is the JSON that stands there.
//! - as `fetch` and `consume` print it with `--output json`, and as the HTTP API takes it: `key` and `value` are base64, and
//!   beside them there are `keyText`, `keyJson`, `valueText`, `valueJson`, and `headers` as a list. What says where the record
//!   was (`offset`, `topic`, …) is left out, and so are headers of ours, which only tell the record's history.
//!
//! The second form is known by any field, or a list of headers, that the first one does not have; every printed line has
//! one. So what was printed can be published again and is the same record.

use anyhow::{Context, Result, anyhow, bail, ensure};
use base64::Engine as _;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use sluice_proto::stream::v1::produce_record::{KeyKind, ValueKind};
use sluice_proto::stream::v1::{Header, ProduceRecord, header};
use sluice_proto::wkt::Timestamp;
use sluice_types::record::is_reserved_header;

use super::members::{Members, payload};
use crate::when;

/// Fields that only a printed line has.
const PRINTED_ONLY: [&str; 4] = ["keyText", "keyJson", "valueText", "valueJson"];
/// The same, of where the record was.
const PLACE: [&str; 6] = ["offset", "topic", "appendTime", "attempt", "ackId", "leaseEndTime"];

/// Reads a line.
pub(super) fn parse(line: &[u8]) -> Result<ProduceRecord> {
    let Members(fields) = serde_json::from_slice(line).map_err(|error| match error.is_data() {
        true => anyhow!("a line must be a JSON object with key, value, headers, partition, timestamp"),
        false => anyhow!("not JSON: {error}"),
    })?;
    let printed = fields.iter().any(|(name, value)| {
        let name = name.as_str();
        PRINTED_ONLY.contains(&name) || PLACE.contains(&name) || name == "headers" && value.get().starts_with('[')
    });
    let mut record = ProduceRecord::default();
    for (i, (name, value)) in fields.iter().enumerate() {
        ensure!(!fields[..i].iter().any(|(other, _)| other == name), "{name} is there twice");
        match name.as_str() {
            "partition" => record.partition = from(value).context("partition: give a number")?,
            "timestamp" => record.timestamp = timestamp(value)?,
            name if printed => printed_field(&mut record, name, value)?,
            name => written_field(&mut record, name, value)?,
        }
    }
    Ok(record)
}

fn written_field(record: &mut ProduceRecord, name: &str, value: &RawValue) -> Result<()> {
    match name {
        "key" => record.key_kind = text_of(name, value)?.map(|text| KeyKind::Key(text.into())),
        "value" => record.value_kind = text_of(name, value)?.map(|text| ValueKind::Value(text.into())),
        "headers" => {
            let headers: Option<Members> = from(value).context("headers: give an object of names and values")?;
            for (name, value) in headers.map_or_else(Vec::new, |Members(headers)| headers) {
                let value = text_of(&name, &value).context("headers")?.map(header::Value::Text);
                record.headers.push(Header { name, value });
            }
        }
        other => bail!("{other:?} is no field; there are key, value, headers, partition, timestamp"),
    }
    Ok(())
}

fn printed_field(record: &mut ProduceRecord, name: &str, value: &RawValue) -> Result<()> {
    let key = |record: &mut ProduceRecord, bytes: Option<Bytes>| set(&mut record.key_kind, bytes.map(KeyKind::Key));
    let payload =
        |record: &mut ProduceRecord, bytes: Option<Bytes>| set(&mut record.value_kind, bytes.map(ValueKind::Value));
    match name {
        "key" => key(record, base64(name, value)?).context("key: give it once"),
        "keyText" => key(record, text(name, value)?).context("keyText: the line has another key; give it once"),
        "keyJson" => key(record, Some(json(value))).context("keyJson: the line has another key; give it once"),
        "value" => payload(record, base64(name, value)?).context("value: give it once"),
        "valueText" => {
            payload(record, text(name, value)?).context("valueText: the line has another value; give it once")
        }
        "valueJson" => {
            payload(record, Some(json(value))).context("valueJson: the line has another value; give it once")
        }
        "headers" => {
            record.headers =
                printed_headers(value).context("headers: give a list of {\"name\", \"text\" or \"bytes\"}")?;
            Ok(())
        }
        name if PLACE.contains(&name) => Ok(()),
        other => bail!(
            "{other:?} is no field of a printed record; there are key, keyText, keyJson, value, valueText, valueJson, \
             headers, partition, timestamp"
        ),
    }
}

/// `None` if something is there already.
fn set<T>(place: &mut Option<T>, value: Option<T>) -> Option<()> {
    match (place.is_some(), value) {
        (_, None) => Some(()),
        (true, Some(_)) => None,
        (false, value) => {
            *place = value;
            Some(())
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PrintedHeader {
    name: String,
    text: Option<String>,
    bytes: Option<String>,
}

fn printed_headers(value: &RawValue) -> Result<Vec<Header>> {
    let headers: Option<Vec<PrintedHeader>> = from(value)?;
    let headers = headers.unwrap_or_default().into_iter().filter(|header| !is_reserved_header(header.name.as_bytes()));
    headers
        .map(|PrintedHeader { name, text, bytes }| {
            let value = match (text, bytes) {
                (Some(_), Some(_)) => bail!("{name:?} has text and bytes; give one of them"),
                (Some(text), None) => Some(header::Value::Text(text)),
                (None, Some(bytes)) => Some(header::Value::Bytes(decoded(&bytes).context("bytes: not base64")?)),
                (None, None) => None,
            };
            Ok(Header { name, value })
        })
        .collect()
}

fn json(value: &RawValue) -> Bytes {
    value.get().to_owned().into()
}

fn text(name: &str, value: &RawValue) -> Result<Option<Bytes>> {
    let text: Option<String> = from(value).with_context(|| format!("{name}: give a text"))?;
    Ok(text.map(Into::into))
}

fn base64(name: &str, value: &RawValue) -> Result<Option<Bytes>> {
    let wrong = || format!("{name}: in a line of a printed record this is base64; {name}Text is a text");
    let text: Option<String> = from(value).with_context(wrong)?;
    text.map(|text| decoded(&text).with_context(wrong)).transpose()
}

fn decoded(text: &str) -> Result<Bytes> {
    let alphabet = if text.contains(['-', '_']) { URL_SAFE } else { STANDARD };
    let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    Ok(GeneralPurpose::new(&alphabet, config).decode(text)?.into())
}

/// RFC 3339, an age, or milliseconds since 1970.
fn timestamp(value: &RawValue) -> Result<Option<Timestamp>> {
    const WRONG: &str = "timestamp: give a time such as 2026-01-31T12:00:00Z, or milliseconds since 1970";
    if value.get().starts_with('"') {
        let text: String = from(value).context(WRONG)?;
        return Ok(Some(when::parse(&text).map_err(|_| anyhow!(WRONG))?));
    }
    let millis: Option<i64> = from(value).context(WRONG)?;
    Ok(millis.map(Timestamp::from_millis))
}

fn text_of(name: &str, value: &RawValue) -> Result<Option<String>> {
    payload(value).with_context(|| format!("{name}: not a text of whole characters"))
}

fn from<'a, T: Deserialize<'a>>(value: &'a RawValue) -> Result<T> {
    Ok(serde_json::from_str(value.get())?)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::option;
    use proptest::prelude::*;
    use sluice_proto::stream::v1::{ReceivedRecord, Record, record};

    use super::*;
    use crate::args::consume::Encoding;
    use crate::commands::consume::written::{self, Form};
    use crate::commands::shown::Payload;

    fn key(bytes: &'static str) -> Option<KeyKind> {
        Some(KeyKind::Key(bytes.into()))
    }

    fn value(bytes: &'static str) -> Option<ValueKind> {
        Some(ValueKind::Value(bytes.into()))
    }

    #[test]
    fn an_object_becomes_a_record() {
        let line =
            br#"{"key":"a","value":{"b": 1},"headers":{"c":"d","c":null},"partition":2,"timestamp":"2026-01-01T00:00:00Z"}"#;
        let record = parse(line).expect("parse");
        assert_eq!((record.key_kind, record.value_kind), (key("a"), value(r#"{"b": 1}"#)));
        assert_eq!(record.partition, Some(2));
        let header = |value| Header { name: "c".into(), value };
        assert_eq!(record.headers, [header(Some(header::Value::Text("d".into()))), header(None)]);
    }

    #[test]
    fn every_number_keeps_its_digits() {
        for number in ["1234567890.123456789", "123456789012345678901234567890", "0.1000", "1e5", "-0", "1E400"] {
            let written =
                parse(format!(r#"{{"key":{number},"value":{number},"headers":{{"n":{number}}}}}"#).as_bytes());
            let written = written.expect(number);
            assert_eq!(written.key_kind, Some(KeyKind::Key(number.to_owned().into())));
            assert_eq!(written.value_kind, Some(ValueKind::Value(number.to_owned().into())));
            assert_eq!(written.headers[0].value, Some(header::Value::Text(number.into())));
            let nested = format!(r#"[{{"a":{number}, "a":null}}]"#);
            let record = parse(format!(r#"{{"value":{nested}}}"#).as_bytes()).expect(number);
            assert_eq!(record.value_kind, Some(ValueKind::Value(nested.into())));
        }
    }

    #[test]
    fn null_is_null_and_the_text_null_is_a_text() {
        for (line, expected) in [
            (r#"{"key":"k","value":null}"#, None),
            (r#"{"key":"k"}"#, None),
            (r#"{"key":"k","value":"null"}"#, value("null")),
            (r#"{"keyText":"k","value":null}"#, None),
            (r#"{"keyText":"k","valueText":"null"}"#, value("null")),
            (r#"{"keyText":"k","valueJson":null}"#, value("null")),
        ] {
            assert_eq!(parse(line.as_bytes()).expect(line).value_kind, expected, "{line}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (line, words) in [
            (r#"{"vlaue":1}"#, "vlaue"),
            ("[]", "a JSON object"),
            ("{", "not JSON"),
            (r#"{"value":1,"value":2}"#, "value is there twice"),
            (r#"{"key":"a","valueText":"b"}"#, "keyText is a text"),
            (r#"{"keyText":"a","keyJson":1}"#, "keyJson: the line has another key"),
            (r#"{"value":"aQ==","valueText":"a"}"#, "another value"),
            (r#"{"partition":1.5}"#, "partition: give a number"),
            (r#"{"timestamp":1.5}"#, "milliseconds"),
            (r#"{"timestamp":"soon"}"#, "2026-01-31"),
            (r#"{"headers":[{"name":"a","text":"b","bytes":"Yg=="}]}"#, "one of them"),
            (r#"{"headers":"a"}"#, "headers: give an object"),
            (r#"{"key":"\ud800"}"#, "key: not a text"),
        ] {
            let error = format!("{:#}", parse(line.as_bytes()).expect_err(line));
            assert!(error.contains(words), "{line}: {error}");
        }
    }

    /// Payloads that are most easily mistaken for one another, and any bytes at all.
    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            vec(any::<u8>(), 0..40),
            any::<String>().prop_map(String::into_bytes),
            "[0-9]{1,25}(\\.[0-9]{1,25})?([eE][+-]?[0-9]{1,3})?".prop_map(String::into_bytes),
            "[ \n\r\t]{0,2}[\\[{\"][ \n]?(\"a\" ?: ?[0-9.]{1,30}|\\\\u00e9|\\\\ud8[0-9a]{2}|null)?[\\]}\"][ \n\r]{0,2}"
                .prop_map(String::into_bytes),
            prop::sample::select(vec![
                "null",
                "true",
                "007",
                "1e5",
                "",
                "\"a\"",
                "{\"a\":1,\"a\":2}",
                "\u{feff}1",
                "1e400",
                "AQI=",
                "{\"a\": 0.1000}",
                "\"\\ud800\"",
                "[1]\n",
                "\u{2028}",
            ])
            .prop_map(|text| text.as_bytes().to_vec()),
        ]
    }

    fn header() -> impl Strategy<Value = Header> {
        let name = any::<String>().prop_filter("ours", |name| !is_reserved_header(name.as_bytes()));
        (name, option::of(bytes()))
            .prop_map(|(name, value)| Header { name, value: value.map(|bytes| header::Value::Bytes(bytes.into())) })
    }

    fn value_bytes(header: &Header) -> Option<&[u8]> {
        header.value.as_ref().map(|value| match value {
            header::Value::Text(text) => text.as_bytes(),
            header::Value::Bytes(bytes) => bytes,
        })
    }

    proptest! {
        #[test]
        fn what_was_printed_is_published_unchanged(
            (key, value) in (option::of(bytes()), option::of(bytes())),
            headers in vec(header(), 0..4),
            partition in 0i32..1_000,
            millis in option::of(-1_000i64..253_402_300_799_999),
            encoding in prop::sample::select(vec![Encoding::Json, Encoding::Text, Encoding::Bytes]),
        ) {
            let record = Record {
                partition,
                offset: 7,
                timestamp: millis.map(Timestamp::from_millis),
                key_kind: key.clone().map(|key| record::KeyKind::Key(key.into())),
                value_kind: value.clone().map(|value| record::ValueKind::Value(value.into())),
                headers: headers.clone(),
                ..Default::default()
            };
            let fetched = Payload::of(&record).encoded(encoding).json();
            let received = ReceivedRecord {
                ack_id: "A-b".into(),
                topic: "namespaces/demo/topics/orders".into(),
                record: Some(record),
                attempt: 1,
                lease_end_time: None,
            };
            let form = Form { output: crate::args::Output::Json, encoding, ids: false };
            let consumed = written::line(form, &received);
            for line in [fetched, consumed.trim_end().to_owned()] {
                prop_assert!(!line.contains(['\n', '\r']), "not one line: {line}");
                // What any reader of JSON can read.
                serde_json::from_str::<serde_json::Value>(&line).map_err(|e| TestCaseError::fail(format!("{e}: {line}")))?;
                let read = parse(line.as_bytes()).map_err(|error| TestCaseError::fail(format!("{error:#}: {line}")))?;
                let bytes = |bytes: &Option<Vec<u8>>| bytes.clone().map(Bytes::from);
                prop_assert_eq!(read.key_kind, bytes(&key).map(KeyKind::Key), "{}", line);
                prop_assert_eq!(read.value_kind, bytes(&value).map(ValueKind::Value), "{}", line);
                prop_assert_eq!(read.partition, Some(partition));
                prop_assert_eq!(read.timestamp, millis.map(Timestamp::from_millis));
                let names = |headers: &[Header]| headers.iter().map(|header| header.name.clone()).collect::<Vec<_>>();
                prop_assert_eq!(names(&read.headers), names(&headers));
                for (read, sent) in read.headers.iter().zip(&headers) {
                    prop_assert_eq!(value_bytes(read), value_bytes(sent));
                }
            }
        }
    }

    #[test]
    fn headers_that_tell_a_history_are_left_out() {
        let line = br#"{"offset":"1","headers":[{"name":"sluice-dlq-reason","text":"x"},{"name":"a"}]}"#;
        let record = parse(line).expect("parse");
        assert_eq!(record.headers.len(), 1);
        assert_eq!(record.headers[0].name, "a");
    }
}
