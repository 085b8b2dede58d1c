//! JSON payloads over HTTP, digit for digit.
//!
//! In the messages JSON is a `google.protobuf.Value`, whose numbers are doubles: 0.1000 and 12345678901234567890 do not survive
//! it. Over HTTP the payload is text on both sides, so it need not pass through: [`take`] lifts it out of a request before
//! that is read, [`splice`] puts it into an answer. It is stored as sent, without the white space between tokens.
//!
//! One bad payload must not make an answer unreadable that holds a thousand good ones. So what counts as JSON is what every
//! common parser reads: [`check`] bounds the depth, and refuses numbers beyond a double's range and broken surrogates.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use bytes::Bytes;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use sluice_proto::stream::v1::ProduceRecord;
use sluice_proto::stream::v1::produce_record::{KeyKind, ValueKind};
use sluice_proto::wkt::Value;
use sluice_proto::wkt::value::Kind;
use sluice_types::error::Error;

/// Arrays and objects within each other. Parsers stop at 128, and an answer adds a few.
const DEPTH_MAX: usize = 100;

/// The same where JSON is a message. Most readers of protobuf stop at 100 messages within each other. An object in an object takes
/// three of them, and a record lies up to four deep in an answer; some are left for messages of others around ours.
pub(super) const MESSAGE_LEVELS_MAX: usize = 30;

/// A request without its JSON payloads.
pub(super) struct Taken {
    /// The request, with a 0 in the place of each.
    pub(super) body: Vec<u8>,
    payloads: Vec<Payload>,
}

struct Payload {
    record: usize,
    side: Side,
    text: Bytes,
}

#[derive(Clone, Copy)]
enum Side {
    Key,
    Value,
}

impl Side {
    fn of(field: &str) -> Option<Self> {
        match field {
            "keyJson" | "key_json" => Some(Self::Key),
            "valueJson" | "value_json" => Some(Self::Value),
            _ => None,
        }
    }

    const fn field(self) -> &'static str {
        match self {
            Self::Key => "keyJson",
            Self::Value => "valueJson",
        }
    }
}

/// A text without the byte order mark that some programs put before UTF-8.
pub(super) fn without_mark(text: &[u8]) -> &[u8] {
    text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text)
}

/// Lifts the payloads out of a request. `None`: it has none, or is no request at all, which reading it will tell.
pub(super) fn take(body: &[u8]) -> Result<Option<Taken>, Error> {
    // Most requests have none and are read once.
    if !body.windows(4).any(|part| part.eq_ignore_ascii_case(b"json")) {
        return Ok(None);
    }
    let Ok(request) = serde_json::from_slice::<Object<'_>>(body) else { return Ok(None) };
    let mut taken = Taken { body: Vec::with_capacity(body.len()), payloads: Vec::new() };
    taken.object(&request, |taken, field, raw| match (field, serde_json::from_str::<Vec<Object<'_>>>(raw.get())) {
        ("records", Ok(records)) => taken.records(&records),
        _ => taken.copy(raw),
    })?;
    Ok(Some(taken).filter(|taken| !taken.payloads.is_empty()))
}

impl Taken {
    fn copy(&mut self, raw: &RawValue) -> Result<(), Error> {
        self.body.extend_from_slice(raw.get().as_bytes());
        Ok(())
    }

    fn object(
        &mut self,
        object: &Object<'_>,
        mut each: impl FnMut(&mut Self, &str, &RawValue) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.body.push(b'{');
        for (number, (field, raw)) in object.0.iter().enumerate() {
            if number > 0 {
                self.body.push(b',');
            }
            serde_json::to_writer(&mut self.body, field).map_err(Error::internal)?;
            self.body.push(b':');
            each(self, field, raw)?;
        }
        self.body.push(b'}');
        Ok(())
    }

    fn records(&mut self, records: &[Object<'_>]) -> Result<(), Error> {
        self.body.push(b'[');
        for (record, object) in records.iter().enumerate() {
            if record > 0 {
                self.body.push(b',');
            }
            self.object(object, |taken, field, raw| {
                let Some(side) = Side::of(field) else { return taken.copy(raw) };
                check(raw.get()).map_err(|what| Error::invalid(format!("records[{record}].{}", side.field()), what))?;
                taken.payloads.push(Payload { record, side, text: compact(raw.get()).into() });
                taken.body.push(b'0');
                Ok(())
            })?;
        }
        self.body.push(b']');
        Ok(())
    }

    /// Puts the payloads into what was read of `body`.
    pub(super) fn put_back(self, records: &mut [ProduceRecord]) {
        for payload in self.payloads {
            let Some(record) = records.get_mut(payload.record) else { continue };
            match payload.side {
                Side::Key => record.key_kind = Some(KeyKind::Key(payload.text)),
                Side::Value => record.value_kind = Some(ValueKind::Value(payload.text)),
            }
        }
    }
}

/// A message as JSON with payloads added at its end: `(field, JSON)`.
pub(super) fn splice(message: &impl Serialize, payloads: &[(&str, &[u8])]) -> serde_json::Result<Vec<u8>> {
    let mut text = serde_json::to_vec(message)?;
    for (field, payload) in payloads {
        // A message is an object.
        text.pop();
        if text.len() > 1 {
            text.push(b',');
        }
        serde_json::to_writer(&mut text, field)?;
        text.push(b':');
        text.extend_from_slice(payload);
        text.push(b'}');
    }
    Ok(text)
}

/// Whether a text is JSON that may be handed on as it is; else why not.
pub(super) fn check(text: &str) -> Result<(), String> {
    let mut parser = serde_json::Deserializer::from_str(text);
    Check(DEPTH_MAX).deserialize(&mut parser).and_then(|()| parser.end()).map_err(|error| {
        let what = error.to_string();
        match what.strip_prefix("number out of range") {
            Some(_) => "has a number beyond the range of a double; send the JSON as text".to_owned(),
            // The place is one within this payload, which says nothing to who sent a whole request.
            None => what.rsplit_once(" at line ").map_or(what.as_str(), |(what, _)| what).to_owned(),
        }
    })
}

/// Whether a message, which has doubles for numbers, gives every number of a JSON text back as it is written there.
pub(super) fn survives_doubles(text: &str) -> bool {
    let mut rest = text.as_bytes();
    let is_number = |byte: &u8| byte.is_ascii_digit() || matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E');
    while let Some(first) = rest.first() {
        let length = match first {
            b'"' => string_length(rest),
            b'-' | b'0'..=b'9' => {
                let length = rest.iter().position(|byte| !is_number(byte)).unwrap_or(rest.len());
                if !is_double(&rest[..length]) {
                    return false;
                }
                length
            }
            _ => 1,
        };
        rest = &rest[length..];
    }
    true
}

/// Whether readers of the message get all of a value: it is not too deep for them, and no object names a member twice, of which a
/// map keeps one.
pub(super) fn survives_messages(value: &Value) -> bool {
    survives_within(value, MESSAGE_LEVELS_MAX)
}

fn survives_within(value: &Value, levels: usize) -> bool {
    match &value.kind {
        Some(Kind::ListValue(list)) => {
            levels > 0 && list.values.iter().all(|element| survives_within(element, levels - 1))
        }
        Some(Kind::StructValue(object)) => {
            let mut seen = HashSet::with_capacity(object.fields.len());
            levels > 0
                && object.fields.iter().all(|member| {
                    seen.insert(member.key.as_str())
                        && member.value.as_ref().is_none_or(|value| survives_within(value, levels - 1))
                })
        }
        _ => true,
    }
}

/// Of the string that a text begins with, with its quotes.
fn string_length(text: &[u8]) -> usize {
    let mut escaped = false;
    let end = text.iter().skip(1).position(|byte| {
        let ends = !escaped && *byte == b'"';
        escaped = !escaped && *byte == b'\\';
        ends
    });
    end.map_or(text.len(), |end| end + 2)
}

/// Whether a number is written as the double that is nearest to it.
fn is_double(number: &[u8]) -> bool {
    let value = serde_json::from_slice::<Value>(number).and_then(|value| serde_json::to_vec(&value));
    value.is_ok_and(|written| written == number)
}

/// Without the white space between tokens.
fn compact(text: &str) -> String {
    let (mut in_string, mut escaped) = (false, false);
    let keep = |c: &char| {
        let keep = in_string || !matches!(c, ' ' | '\t' | '\n' | '\r');
        match c {
            _ if escaped => escaped = false,
            '\\' if in_string => escaped = true,
            '"' => in_string = !in_string,
            _ => {}
        }
        keep
    };
    text.chars().filter(keep).collect()
}

/// An object's fields as they stand there, repeated ones too.
struct Object<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Object<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Object<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object<'de>, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Object(fields))
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

/// Reads a value, with so many levels to go, and keeps nothing.
#[derive(Clone, Copy)]
struct Check(usize);

impl Check {
    fn inner<E: serde::de::Error>(self) -> Result<Self, E> {
        match self.0.checked_sub(1) {
            Some(levels) => Ok(Self(levels)),
            None => Err(E::custom(format_args!("is nested deeper than {DEPTH_MAX} levels; send the JSON as text"))),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Check {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Check {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<(), E> {
        if number.is_finite() { Ok(()) } else { Err(E::custom("number out of range")) }
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let inner = self.inner()?;
        while seq.next_element_seed(inner)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let inner = self.inner()?;
        while map.next_key_seed(inner)?.is_some() {
            map.next_value_seed(inner)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_are_lifted_out_as_sent_and_put_back() {
        let body = br#"{"records":[
            {"keyJson": {"id" : 12345678901234567890}, "valueJson": [0.1000, "a \" b"], "partition": 1},
            {"valueText": "{\"valueJson\": 1}"}, {"value_json": null}]}"#;
        let taken = take(body).expect("good").expect("payloads");
        assert_eq!(
            std::str::from_utf8(&taken.body).expect("text"),
            r#"{"records":[{"keyJson":0,"valueJson":0,"partition":1},{"valueText":"{\"valueJson\": 1}"},{"value_json":0}]}"#
        );
        let mut records = vec![ProduceRecord::default(); 3];
        taken.put_back(&mut records);
        assert_eq!(records[0].key_kind, Some(KeyKind::Key(r#"{"id":12345678901234567890}"#.into())));
        assert_eq!(records[0].value_kind, Some(ValueKind::Value(r#"[0.1000,"a \" b"]"#.into())));
        assert_eq!((&records[1].value_kind, &records[2].value_kind), (&None, &Some(ValueKind::Value("null".into()))));
    }

    #[test]
    fn what_is_no_request_is_left_to_its_reader() {
        for body in
            ["", "json", "[\"json\"]", r#"{"records":{"valueJson":1}}"#, r#"{"records":[{"valueText":"json"}]}"#]
        {
            assert!(take(body.as_bytes()).expect("no fault of a payload").is_none(), "{body}");
        }
    }

    #[test]
    fn a_payload_that_a_parser_may_refuse_names_its_field() {
        let deep = "[".repeat(101) + &"]".repeat(101);
        for (payload, part) in [("1e400", "double"), (deep.as_str(), "100 levels"), (r#""\ud800""#, "escape")] {
            let body = format!(r#"{{"records":[{{}},{{"valueJson":{payload}}}]}}"#);
            let error = take(body.as_bytes()).err().expect(payload);
            assert_eq!(error.field.as_deref(), Some("records[1].valueJson"));
            assert!(error.message.contains(part), "{}", error.message);
        }
        assert!(check(&("[".repeat(100) + &"]".repeat(100))).is_ok());
        assert!(check("1 2").is_err() && check("").is_err());
    }

    #[test]
    fn numbers_that_a_double_prints_otherwise_are_found() {
        for kept in ["0", "-5", "0.1", "9007199254740992", r#"{"a":[0.5,"1.0 \" 1e5"],"b":-1}"#, "true"] {
            assert!(survives_doubles(kept), "{kept}");
        }
        for lost in ["1e5", "1.0", "-0", "0.1000", "9007199254740993", "1234567890.123456789", r#"{"a \" b":[1E+2]}"#] {
            assert!(!survives_doubles(lost), "{lost}");
        }
    }

    #[test]
    fn payloads_are_spliced_behind_a_messages_fields() {
        let spliced = |message: serde_json::Value, payloads: &[(&str, &[u8])]| {
            String::from_utf8(splice(&message, payloads).expect("JSON")).expect("text")
        };
        let both: [(&str, &[u8]); 2] = [("keyJson", b"1.50"), ("valueJson", b"{}")];
        assert_eq!(spliced(serde_json::json!({"a": 1}), &both), r#"{"a":1,"keyJson":1.50,"valueJson":{}}"#);
        assert_eq!(spliced(serde_json::json!({}), &both[..1]), r#"{"keyJson":1.50}"#);
    }
}
