//! Each limit at its edge, and what a record becomes.

use proptest::prelude::*;

use sluice_proto::wkt::Timestamp;
use sluice_types::record::{client_headers, producers_time_ms};

use super::times::FUTURE_MS_MAX;
use super::*;

const RULES: Rules<'static> = Rules {
    partitions: 3,
    keyless: 2,
    compacted: false,
    age_ms_max: Some(86_400_000),
    log_append_time: false,
    traceparent: None,
    now_ms: NOW,
};
const NOW: i64 = 1_764_000_000_000;
const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn value(bytes: impl Into<Bytes>) -> ProduceRecord {
    ProduceRecord { value_kind: Some(ValueKind::Value(bytes.into())), ..Default::default() }
}

fn named(name: &str) -> ProduceRecord {
    let header = Header { name: name.into(), value: Some(header::Value::Text("v".into())) };
    ProduceRecord { headers: vec![header], ..value("x") }
}

fn fault(records: Vec<ProduceRecord>) -> (String, String) {
    let error = check(records, &RULES).expect_err("a fault");
    assert_eq!(error.kind, ErrorKind::InvalidArgument);
    (error.field.expect("a field"), error.message)
}

#[test]
fn each_fault_names_its_field_its_limit_and_a_remedy() {
    let long = "n".repeat(HEADER_NAME_BYTES_MAX + 1);
    let future = Timestamp::from_millis(NOW + FUTURE_MS_MAX + 1);
    let nan = Value { kind: Some(sluice_proto::wkt::value::Kind::NumberValue(f64::NAN)) };
    let cases = vec![
        (vec![], "records", "at least one"),
        (vec![value("x"); BATCH_RECORDS_MAX + 1], "records", "10000"),
        (vec![value("x"), value(vec![0; RECORD_BYTES_MAX + 1])], "records[1]", "1048576"),
        (vec![value(vec![0; RECORD_BYTES_MAX]); 5], "records", "4194304"),
        (vec![named("")], "records[0].headers[0].name", "1..255"),
        (vec![named(&long)], "records[0].headers[0].name", "1..255"),
        (vec![value("x"), named("Sluice-x")], "records[1].headers[0].name", "reserved"),
        (vec![ProduceRecord { headers: vec![Header::default(); 101], ..value("x") }], "records[0].headers", "100"),
        (vec![ProduceRecord { partition: Some(3), ..value("x") }], "records[0].partition", "0..2"),
        (vec![ProduceRecord { partition: Some(-1), ..value("x") }], "records[0].partition", "0..2"),
        (vec![ProduceRecord { timestamp: Some(future), ..value("x") }], "records[0].timestamp", "hour"),
        (
            vec![ProduceRecord { timestamp: Some(Timestamp::from_millis(0)), ..value("x") }],
            "records[0].timestamp",
            "1970",
        ),
        (
            vec![ProduceRecord { value_kind: Some(ValueKind::ValueJson(nan)), ..Default::default() }],
            "records[0].valueJson",
            "JSON",
        ),
    ];
    for (records, field, part) in cases {
        let (found, message) = fault(records);
        assert_eq!(found, field);
        assert!(message.starts_with(field) && message.contains(part), "{message}");
    }
}

#[test]
fn what_is_just_within_the_limits_passes() {
    let four = vec![value(vec![0; RECORD_BYTES_MAX]); 4];
    assert_eq!(check(four, &RULES).expect("4 MiB").bytes, BATCH_BYTES_MAX as u64);
    assert!(check(vec![value(""); BATCH_RECORDS_MAX], &RULES).is_ok());
    let headers = vec![Header { name: "h".repeat(HEADER_NAME_BYTES_MAX), value: None }; RECORD_HEADERS_MAX];
    assert!(check(vec![ProduceRecord { headers, ..Default::default() }], &RULES).is_ok());
}

#[test]
fn keys_decide_partitions_as_in_java_and_keyless_records_stay_together() {
    let keyed = |key: &str| ProduceRecord { key_kind: Some(KeyKind::KeyText(key.into())), ..Default::default() };
    let pinned = ProduceRecord { partition: Some(0), ..keyed("foobar") };
    let checked = check(vec![keyed("foobar"), keyed(""), value("x"), value("y"), pinned], &RULES).expect("good");
    let partitions: Vec<i32> = checked.records.iter().map(|record| record.partition).collect();
    assert_eq!(partitions, vec![partition_of(b"foobar", 3), partition_of(b"", 3), 2, 2, 0]);
    assert_eq!(checked.records[1].key.as_deref(), Some(&b""[..]), "an empty key is not null");
    assert_eq!(checked.records[2].key, None);
}

#[test]
fn a_trace_is_added_only_where_the_record_has_none() {
    let rules = Rules { traceparent: Some(TRACE), ..RULES };
    let checked = check(vec![named("a"), named("traceparent")], &rules).expect("good");
    let names = |at: usize| -> Vec<&[u8]> { checked.records[at].headers.iter().map(|(name, _)| &name[..]).collect() };
    assert_eq!(names(0), vec![&b"a"[..], b"traceparent", b"sluice-tp"]);
    assert_eq!(names(1), vec![&b"traceparent"[..]]);
    assert_eq!(checked.sizes, vec![3, 13]);
}

fn at(time_ms: i64) -> ProduceRecord {
    ProduceRecord { timestamp: Some(Timestamp::from_millis(time_ms)), ..value("x") }
}

#[test]
fn a_record_that_retention_would_take_at_once_is_refused_alone() {
    let checked = check(vec![at(1), at(NOW), at(NOW - 2 * 86_400_000), value("x")], &RULES).expect("good");
    assert_eq!((checked.records.len(), checked.sizes.len(), checked.bytes), (2, 2, 2));
    let results = checked.rejected.put_back(vec![RecordResult { offset: Some(7), ..Default::default() }; 2]);
    let told: Vec<_> = results.iter().map(|result| (result.offset, result.outcome())).collect();
    let (stored, refused) = ((Some(7), Outcome::Unspecified), (None, Outcome::NotPersisted));
    assert_eq!(told, [refused, stored, refused, stored]);
    let error = results[2].error.as_ref().expect("an error");
    assert!(error.message.starts_with("records[2].timestamp: is ") && error.message.contains("1 d"), "{error:?}");
    assert!(!results[2].retriable);
}

#[test]
fn by_append_time_the_producers_time_goes_beside() {
    let rules = Rules { age_ms_max: None, log_append_time: true, ..RULES };
    let checked = check(vec![at(-5), value("x")], &rules).expect("good");
    let times: Vec<_> = checked.records.iter().map(|record| producers_time_ms(&record.headers)).collect();
    assert_eq!((times, &checked.sizes[..]), (vec![Some(-5), None], &[1, 1][..]));
    assert!(checked.records.iter().all(|record| record.timestamp_ms == NOW));
}

proptest! {
    #[test]
    fn a_reader_counts_the_bytes_that_we_counted(
        key in prop::option::of(prop::collection::vec(any::<u8>(), 0..20)),
        body in prop::option::of(prop::collection::vec(any::<u8>(), 0..50)),
        headers in prop::collection::vec(
            ("(traceparent|[a-z]{1,12})", prop::option::of(prop::collection::vec(any::<u8>(), 0..9))),
            0..6,
        ),
        traced in any::<bool>(),
    ) {
        let record = ProduceRecord {
            key_kind: key.map(|key| KeyKind::Key(key.into())),
            value_kind: body.map(|body| ValueKind::Value(body.into())),
            headers: headers
                .iter()
                .map(|(name, value)| Header {
                    name: name.clone(),
                    value: value.clone().map(|value| header::Value::Bytes(value.into())),
                })
                .collect(),
            ..Default::default()
        };
        let rules = Rules { traceparent: traced.then_some(TRACE), ..RULES };
        let checked = check(vec![record], &rules).expect("good");
        let sent = &checked.records[0];
        let theirs = client_headers(sent.headers.clone());
        let read = logical_bytes(
            sent.key.as_deref(),
            sent.value.as_deref(),
            theirs.iter().map(|(name, value)| (&name[..], value.as_deref())),
        );
        prop_assert_eq!(read, u64::from(checked.sizes[0]));
        prop_assert_eq!(theirs.len(), headers.len());
    }
}
