//! One odd record among a thousand good ones, in each encoding, as each kind of consumer gets them: every answer can be read, and
//! every record is in it with all that it has.

use bytes::Bytes;
use http_body_util::BodyExt;
use prost::Message;
use serde_json::{Value, json};

use sluice_proto::stream::v1::record::ValueKind;
use sluice_proto::stream::v1::{PayloadEncoding, PullResponse, Record, header};
use sluice_wire::Record as Read;

use super::delivery::Received;
use super::delivery::tests::{encoded, record};
use super::outlet::{Said, outlet};
use super::pull::tests::flowing;
use super::sse;
use crate::data::encode::IntoJson;

const COUNT: usize = 1_000;
const ODD: usize = 500;
const GOOD: &[u8] = b"{\"a\":1}";
const ENCODINGS: [PayloadEncoding; 3] = [PayloadEncoding::Bytes, PayloadEncoding::Text, PayloadEncoding::Json];

fn odd_ones() -> Vec<Read> {
    let values: [Option<&'static [u8]>; 10] = [
        None,
        Some(b""),
        Some(b"null"),
        Some(b"{\"a\":"),
        Some(b"1 2"),
        Some(b"1e400"),
        Some(b"12345678901234567890"),
        Some(b"[\"\\ud800\"]"),
        Some(b"\xff\xfe{\"a\":1}"),
        Some("[".repeat(5_000).leak().as_bytes()),
    ];
    let mut odd: Vec<Read> = values.into_iter().map(record).collect();
    // One name three times: null, empty, and no text.
    let header = |value: Option<&'static [u8]>| (Bytes::from_static(b"h"), value.map(Bytes::from_static));
    let once = [header(None), header(Some(b"")), header(Some(b"\xff\x00"))];
    odd.push(Read { headers: [once.clone(), once].concat(), ..record(Some(GOOD)) });
    odd
}

fn among_good_ones(odd: &Read, encoding: PayloadEncoding) -> Vec<Received> {
    let at = |place| if place == ODD { odd.clone() } else { record(Some(GOOD)) };
    (0..COUNT).map(|place| encoded("a", at(place), encoding)).collect()
}

async fn events(records: Vec<Received>) -> Value {
    let (out, outgoing) = outlet();
    out.messages.send(Said::Records(records)).await.expect("room");
    out.end(None);
    let body = sse::response(outgoing, "r").into_body().collect().await.expect("a body").to_bytes();
    let text = std::str::from_utf8(&body).expect("text");
    let data = text.split("event: records\ndata: ").nth(1).expect("an event");
    let (line, rest) = data.split_once('\n').expect("a line");
    assert_eq!(rest, "\n", "data is one line");
    serde_json::from_str(line).expect("JSON")
}

/// What was stored, whatever form it comes in.
fn value(record: &Record) -> Option<Bytes> {
    record.value_kind.clone().map(|value| match value {
        ValueKind::Value(bytes) => bytes,
        ValueKind::ValueText(text) => text.into(),
        ValueKind::ValueJson(json) => serde_json::to_vec(&json).expect("JSON").into(),
    })
}

fn headers(record: &Record) -> Vec<Option<Bytes>> {
    let of = |value: &header::Value| match value {
        header::Value::Bytes(bytes) => bytes.clone(),
        header::Value::Text(text) => Bytes::from(text.clone()),
    };
    record.headers.iter().map(|header| header.value.as_ref().map(of)).collect()
}

#[tokio::test]
async fn an_odd_record_is_whole_in_each_encoding_and_harms_no_answer() {
    for (odd, encoding) in odd_ones().iter().flat_map(|odd| ENCODINGS.map(|encoding| (odd, encoding))) {
        let sent = among_good_ones(odd, encoding);
        let message = flowing(sent).into_message().encode_to_vec();
        let read = PullResponse::decode(&message[..]).expect("a message").records;
        let read: Vec<Record> = read.into_iter().filter_map(|received| received.record).collect();
        assert_eq!(read.len(), COUNT);
        assert!(read.iter().enumerate().all(|(at, record)| at == ODD || value(record).as_deref() == Some(GOOD)));
        assert_eq!(value(&read[ODD]), odd.value, "{encoding:?}");
        let stored: Vec<Option<Bytes>> = odd.headers.iter().map(|(_, value)| value.clone()).collect();
        assert_eq!(headers(&read[ODD]), stored, "{encoding:?}");

        let pulled = flowing(among_good_ones(odd, encoding)).into_json().expect("JSON");
        let pulled: Value = serde_json::from_slice(&pulled).expect("readable as a whole");
        let pushed = events(among_good_ones(odd, encoding)).await;
        assert_eq!(pulled["records"], pushed["records"], "a pull and a stream say the same");
        assert_eq!(pulled["records"].as_array().map(Vec::len), Some(COUNT));
        // JSON keeps digits that a message gives as text; everything else is the same.
        let told = &pulled["records"][ODD]["record"];
        if told.get("valueJson").is_none() {
            let message = serde_json::to_value(&read[ODD]).expect("JSON");
            assert_eq!(told, &message, "{encoding:?}");
        }
    }
}

#[tokio::test]
async fn a_tombstone_differs_from_a_null_and_from_nothing_over_events() {
    for (stored, encoding, told) in [
        (None, PayloadEncoding::Json, json!({})),
        (Some(&b"null"[..]), PayloadEncoding::Json, json!({"valueText": "null"})),
        (Some(b""), PayloadEncoding::Json, json!({"valueText": ""})),
        (None, PayloadEncoding::Bytes, json!({})),
        (Some(b""), PayloadEncoding::Bytes, json!({"value": ""})),
    ] {
        let event = events(vec![encoded("a", record(stored), encoding)]).await;
        let mut shown = event["records"][0]["record"].clone();
        let fields = shown.as_object_mut().expect("a record");
        fields.retain(|field, _| field.starts_with("value"));
        assert_eq!(shown, told, "{encoding:?}");
    }
}
