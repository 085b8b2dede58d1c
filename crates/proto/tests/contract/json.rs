//! Canonical JSON of our messages and of the well-known types.

use serde_json::{Value as Json, from_str, from_value, json, to_string, to_value};
use sluice_proto::Any;
use sluice_proto::admin::v1::{OperationMetadata, Topic, topic};
use sluice_proto::google::longrunning::{Operation, operation};
use sluice_proto::google::rpc;
use sluice_proto::stream::v1::{Header, Record, header, record};
use sluice_proto::wkt::{Duration, Empty, FieldMask, Struct, Timestamp, Value};

#[test]
fn a_topic_in_json_is_complete_and_canonical() {
    let topic = Topic {
        name: "namespaces/prod/topics/orders".into(),
        partition_count: Some(3),
        retention: Some(Duration { seconds: 604_800, nanos: 0 }),
        labels: [("b".to_owned(), "2".to_owned()), ("a".to_owned(), "1".to_owned())].into(),
        create_time: Some(Timestamp::from_millis(1_795_255_200_250)),
        state: topic::State::Active.into(),
        generation: 9_007_199_254_740_993,
        ..Topic::default()
    };
    let text = to_string(&topic).unwrap();
    let expected = json!({
        "name": "namespaces/prod/topics/orders", "uid": "", "displayName": "", "labels": {"a": "1", "b": "2"},
        "partitionCount": 3, "retention": "604800s", "cleanupPolicy": "CLEANUP_POLICY_UNSPECIFIED",
        "timestampPolicy": "TIMESTAMP_POLICY_UNSPECIFIED",
        "deletionProtection": false, "effectivePartitionCount": 0, "createTime": "2026-11-21T10:00:00.250Z", "etag": "",
        "state": "STATE_ACTIVE", "reconciling": false, "conditions": [], "generation": "9007199254740993",
        "observedGeneration": "0",
    });
    assert_eq!(from_str::<Json>(&text).unwrap(), expected);
    assert!(text.contains(r#""labels":{"a":"1","b":"2"}"#), "maps are ordered: {text}");
    assert_eq!(from_str::<Topic>(&text).unwrap(), topic);
}

#[test]
fn a_record_says_which_form_its_payload_has() {
    let record = Record {
        key_kind: Some(record::KeyKind::KeyText("k".into())),
        value_kind: Some(record::ValueKind::Value(vec![0xff].into())),
        headers: vec![Header { name: "h".into(), value: Some(header::Value::Text(String::new())) }],
        ..Record::default()
    };
    let expected =
        json!({"partition": 0, "offset": "0", "keyText": "k", "value": "/w==", "headers": [{"name": "h", "text": ""}]});
    assert_eq!(to_value(&record).unwrap(), expected);
}

#[test]
fn an_operation_carries_its_messages_with_their_type() {
    let topic = Topic { name: "namespaces/a/topics/b".into(), ..Topic::default() };
    let metadata = OperationMetadata { verb: "create".into(), progress_percent: 100, ..OperationMetadata::default() };
    let operation = Operation {
        name: "operations/x".into(),
        metadata: Some(Any::pack(&metadata)),
        done: true,
        result: Some(operation::Result::Response(Any::pack(&topic))),
    };
    let json = to_value(&operation).unwrap();
    assert_eq!(json["done"], true);
    assert_eq!(json["metadata"]["@type"], "type.googleapis.com/sluice.admin.v1.OperationMetadata");
    assert_eq!(json["metadata"]["progressPercent"], 100);
    assert_eq!(json["response"]["@type"], "type.googleapis.com/sluice.admin.v1.Topic");
    assert_eq!(json["response"]["name"], "namespaces/a/topics/b");
    assert_eq!(json["response"].as_object().unwrap().keys().next().unwrap(), "@type");
    assert_eq!(from_value::<Operation>(json).unwrap(), operation);
    assert_eq!(Any::pack(&topic).unpack::<Topic>().unwrap().unwrap(), topic);
    assert!(Any::pack(&topic).unpack::<OperationMetadata>().is_none());
}

#[test]
fn error_details_hold_only_what_was_said() {
    let status = rpc::Status {
        code: 3,
        message: "no".into(),
        details: vec![
            Any::pack(&rpc::ErrorInfo { reason: "R".into(), domain: "sluice".into(), ..rpc::ErrorInfo::default() }),
            Any::pack(&rpc::BadRequest {
                field_violations: vec![rpc::bad_request::FieldViolation { field: "a".into(), ..Default::default() }],
            }),
            Any::pack(&rpc::RetryInfo { retry_delay: Some(Duration::from_millis(1_500)) }),
            Any::pack(&Empty {}),
        ],
    };
    let expected = json!({"code": 3, "message": "no", "details": [
        {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "R", "domain": "sluice"},
        {"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": [{"field": "a"}]},
        {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "1.500s"},
        {"@type": "type.googleapis.com/google.protobuf.Empty", "value": {}},
    ]});
    assert_eq!(to_value(&status).unwrap(), expected);
    assert_eq!(from_value::<rpc::Status>(expected).unwrap(), status);
}

#[test]
fn an_any_of_an_unknown_type_is_written_but_not_read() {
    let any = Any { type_url: "type.googleapis.com/x.Y".into(), value: vec![1].into() };
    let json = to_value(&any).unwrap();
    assert_eq!(json, json!({"@type": "type.googleapis.com/x.Y", "value": "AQ=="}));
    assert!(from_value::<Any>(json).unwrap_err().to_string().contains("unknown `@type`"));
    assert!(from_value::<Any>(json!({"a": 1})).unwrap_err().to_string().contains("`@type`"));
    let field = json!({"@type": "type.googleapis.com/google.rpc.ErrorInfo", "raeson": ""});
    assert!(from_value::<Any>(field).unwrap_err().to_string().contains("raeson"));
}

#[test]
fn unknown_fields_are_refused_by_name() {
    let error = from_str::<Topic>(r#"{"partitionCuont":3}"#).unwrap_err().to_string();
    assert!(error.contains("partitionCuont"), "{error}");
}

#[test]
fn times_are_rfc_3339_in_utc() {
    for (text, seconds, nanos, back) in [
        ("1970-01-01T00:00:00Z", 0, 0, "1970-01-01T00:00:00Z"),
        ("1969-12-31T23:59:59.999Z", -1, 999_000_000, "1969-12-31T23:59:59.999Z"),
        ("2024-02-29T12:30:45.123456789+05:30", 1_709_190_045, 123_456_789, "2024-02-29T07:00:45.123456789Z"),
        ("2000-03-01T00:00:00-00:01", 951_868_860, 0, "2000-03-01T00:01:00Z"),
        ("0001-01-01T00:00:00Z", -62_135_596_800, 0, "0001-01-01T00:00:00Z"),
        ("9999-12-31T23:59:59.1Z", 253_402_300_799, 100_000_000, "9999-12-31T23:59:59.100Z"),
    ] {
        let time: Timestamp = from_value(json!(text)).unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(time, Timestamp { seconds, nanos }, "{text}");
        assert_eq!(to_value(time).unwrap(), json!(back));
    }
    for bad in [
        "",
        "2026-11-21",
        "2026-11-21T10:00:00",
        "2026-11-21 10:00:00Z",
        "2026-13-01T00:00:00Z",
        "2023-02-29T00:00:00Z",
        "2026-01-01T24:00:00Z",
        "2026-01-01T00:00:60Z",
        "2026-01-01T00:00:00.Z",
        "2026-01-01T00:00:00.1234567891Z",
        "2026-01-01T00:00:00+1:00",
        "2026-01-01T00:00:00+24:00",
        "0000-01-01T00:00:00Z",
        "2026-01-01T00:00:00ZZ",
        "2026-01-01T00:00:00é",
        "+026-01-01T00:00:00Z",
    ] {
        assert!(from_value::<Timestamp>(json!(bad)).is_err(), "{bad}");
    }
    assert!(to_value(Timestamp { seconds: i64::MAX, nanos: 0 }).is_err());
    assert_eq!(Timestamp::from_millis(-1), Timestamp { seconds: -1, nanos: 999_000_000 });
    assert_eq!(Timestamp::from_millis(-1).as_millis(), -1);
}

#[test]
fn every_day_of_four_centuries_survives_json() {
    for day in -80_000..80_000_i64 {
        let time = Timestamp { seconds: day * 86_400, nanos: 0 };
        assert_eq!(from_value::<Timestamp>(to_value(time).unwrap()).unwrap(), time);
    }
}

#[test]
fn durations_are_seconds_with_an_s() {
    for (text, seconds, nanos, back) in [
        ("0s", 0, 0, "0s"),
        ("1.5s", 1, 500_000_000, "1.500s"),
        ("-0.000001s", 0, -1_000, "-0.000001s"),
        ("-3.25s", -3, -250_000_000, "-3.250s"),
        ("315576000000s", 315_576_000_000, 0, "315576000000s"),
    ] {
        let duration: Duration = from_value(json!(text)).unwrap();
        assert_eq!(duration, Duration { seconds, nanos });
        assert_eq!(to_value(duration).unwrap(), json!(back));
    }
    for bad in
        ["", "s", "1", "1m", "1.s", ".5s", "--1s", "+1s", "1.-5s", "1e3s", "315576000001s", "1.1234567891s", " 1s"]
    {
        assert!(from_value::<Duration>(json!(bad)).is_err(), "{bad}");
    }
    assert!(std::time::Duration::try_from(Duration { seconds: -1, nanos: 0 }).is_err());
    assert_eq!(Duration::from_millis(-1_500), Duration { seconds: -1, nanos: -500_000_000 });
}

#[test]
fn field_masks_are_one_string() {
    let mask: FieldMask = from_value(json!("displayName,limits.bytesInFlight,partition_count")).unwrap();
    assert_eq!(mask.paths, ["display_name", "limits.bytes_in_flight", "partition_count"]);
    assert_eq!(to_value(&mask).unwrap(), json!("displayName,limits.bytesInFlight,partitionCount"));
    assert_eq!(from_value::<FieldMask>(json!("")).unwrap(), FieldMask::default());
    // Whether it may stand there is for who applies the mask.
    assert_eq!(from_value::<FieldMask>(json!("*,labels")).unwrap().paths, ["*", "labels"]);
    assert_eq!(to_value(FieldMask { paths: vec!["*".into()] }).unwrap(), json!("*"));
    for bad in [",", "a,", "a..b", "a b", "a.*", "**"] {
        assert!(from_value::<FieldMask>(json!(bad)).is_err(), "{bad}");
    }
}

#[test]
fn any_json_survives_the_wire_unchanged() {
    use prost::Message;
    let text = r#"{"z":{"b":[1,-2,2.5,1e300,true,null,"é"],"a":{}},"a":9007199254740992,"e":[]}"#;
    let value: Value = from_str(text).unwrap();
    let decoded = Value::decode(value.encode_to_vec().as_slice()).unwrap();
    assert_eq!(to_string(&decoded).unwrap(), text.replace("1e300", "1e+300"));
    assert!(from_str::<Value>("9007199254740993").is_err());
    assert!(from_str::<Struct>("[]").is_err());
}
