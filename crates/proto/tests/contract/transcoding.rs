//! From path, query and body to a request message.

use http::Method;
use serde_json::json;
use sluice_proto::admin::v1::*;
use sluice_proto::billing::v1::GetUsageRequest;
use sluice_proto::operator::v1::UpdateTenantRequest;
use sluice_proto::stream::v1::*;
use sluice_proto::wkt::{Duration, FieldMask, Timestamp};
use sluice_proto::{ApiRequest, Audience, TranscodeError, decode_request, match_route};

const TOPIC: &str = "/v1/namespaces/demo/topics/flights";

fn decode<R: ApiRequest>(method: Method, target: &str, body: &str) -> Result<R, TranscodeError> {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let query: Vec<(String, String)> = query
        .split('&')
        .filter(|p| !p.is_empty())
        .map(|pair| pair.split_once('=').map(|(n, v)| (n.to_owned(), v.to_owned())).unwrap())
        .collect();
    let audience = R::rpc().audience;
    assert_ne!(audience, Audience::Internal);
    decode_request(&match_route(audience, &method, path).unwrap(), &query, body.as_bytes())
}

#[track_caller]
fn refused<R: ApiRequest>(method: Method, target: &str, body: &str, field: &str, reason: &str) {
    let error = decode::<R>(method, target, body).err().expect("was accepted");
    assert_eq!(error.field, field, "{error}");
    assert!(error.reason.contains(reason), "{error}");
}

fn records(method: Method, query: &str, body: &str) -> Result<ProduceRequest, TranscodeError> {
    decode(method, &format!("{TOPIC}/records{query}"), body)
}

#[test]
fn path_query_and_body_make_up_one_request() {
    let body = json!({"displayName": "F", "labels": {"team": "a"}, "partitionCount": 3, "retention": "86400s",
                      "cleanup_policy": "CLEANUP_POLICY_COMPACT"});
    let request: CreateTopicRequest =
        decode(Method::POST, "/v1/namespaces/prod/topics?topicId=orders&validate_only=true", &body.to_string())
            .unwrap();
    assert_eq!(
        request,
        CreateTopicRequest {
            parent: "namespaces/prod".into(),
            topic_id: "orders".into(),
            validate_only: true,
            topic: Some(Topic {
                display_name: "F".into(),
                labels: [("team".to_owned(), "a".to_owned())].into(),
                partition_count: Some(3),
                retention: Some(Duration { seconds: 86_400, nanos: 0 }),
                cleanup_policy: topic::CleanupPolicy::Compact.into(),
                ..Topic::default()
            }),
            ..CreateTopicRequest::default()
        }
    );
}

#[test]
fn every_type_of_query_parameter_is_parsed() {
    let fetch: FetchRequest = decode(
        Method::GET,
        &format!(
            "{TOPIC}/records?partition=2&offset=9007199254740993&maxBytes=10&max_records=5&wait=1.5s\
                  &isolation=ISOLATION_READ_UNCOMMITTED&encoding=3"
        ),
        "",
    )
    .unwrap();
    assert_eq!(
        fetch,
        FetchRequest {
            topic: "namespaces/demo/topics/flights".into(),
            partition: 2,
            start: Some(fetch_request::Start::Offset(9_007_199_254_740_993)),
            max_bytes: 10,
            max_records: 5,
            wait: Some(Duration { seconds: 1, nanos: 500_000_000 }),
            isolation: Isolation::ReadUncommitted.into(),
            encoding: PayloadEncoding::Json.into(),
        }
    );
    let usage: GetUsageRequest =
        decode(Method::GET, "/v1/usage?startTime=2026-11-21T01:00:00%2B01:00".replace("%2B", "+").as_str(), "")
            .unwrap();
    assert_eq!(usage.start_time, Some(Timestamp { seconds: 1_795_219_200, nanos: 0 }));
    let update: UpdateTopicRequest =
        decode(Method::PATCH, &format!("{TOPIC}?updateMask=displayName,labels"), "{}").unwrap();
    assert_eq!(update.update_mask, Some(FieldMask { paths: vec!["display_name".into(), "labels".into()] }));
}

#[test]
fn bad_query_parameters_are_named() {
    type F = FetchRequest;
    for (query, field, reason) in [
        ("wait_millis=3", "wait_millis", "no such query parameter"),
        ("topic.name=3", "topic.name", "no such query parameter"),
        ("partition=x", "partition", "whole number, -2147483648..=2147483647"),
        ("partition=2147483648", "partition", "whole number"),
        ("partition=1&partition=1", "partition", "twice"),
        ("max_bytes=1&maxBytes=1", "maxBytes", "twice"),
        ("isolation=READ", "isolation", "must be one of ISOLATION_UNSPECIFIED, ISOLATION_READ_COMMITTED"),
        ("isolation=7", "isolation", "must be one of"),
        ("wait=3", "wait", "duration in seconds"),
        ("time=yesterday", "time", "RFC 3339"),
        ("offset=1&position=POSITION_LATEST", "position", "cannot be set together with offset"),
        ("topic=namespaces/other/topics/t", "topic", "given by the path"),
        ("=1", "", "no such query parameter"),
    ] {
        refused::<F>(Method::GET, &format!("{TOPIC}/records?{query}"), "", field, reason);
    }
    refused::<DeleteTopicRequest>(
        Method::DELETE,
        &format!("{TOPIC}?allowMissing=yes"),
        "",
        "allowMissing",
        "true or false",
    );
    refused::<UpdateTopicRequest>(
        Method::PATCH,
        &format!("{TOPIC}?topic.displayName=x"),
        "{}",
        "topic.displayName",
        "belongs in the body",
    );
    refused::<UpdateTopicRequest>(
        Method::PATCH,
        &format!("{TOPIC}?topic.name=x"),
        "{}",
        "topic.name",
        "given by the path",
    );
    refused::<UpdateTopicRequest>(Method::PATCH, &format!("{TOPIC}?topic=x"), "{}", "topic", "belongs in the body");
    refused::<UpdateTopicRequest>(
        Method::PATCH,
        &format!("{TOPIC}?updateMask=a,,b"),
        "{}",
        "updateMask",
        "field names",
    );
    refused::<ListOffsetsRequest>(
        Method::POST,
        &format!("{TOPIC}:listOffsets?partitions=1"),
        "{}",
        "partitions",
        "no query parameters",
    );
}

#[test]
fn a_body_is_refused_where_there_is_none() {
    refused::<GetTopicRequest>(Method::GET, TOPIC, "{}", "", "takes no body");
    let request: GetTopicRequest = decode(Method::GET, TOPIC, " \n").unwrap();
    assert_eq!(request.name, "namespaces/demo/topics/flights");
}

#[test]
fn an_absent_body_is_an_empty_object() {
    let request: RevokeApiKeyRequest = decode(Method::POST, "/v1/serviceAccounts/a/apiKeys/k:revoke", "").unwrap();
    assert_eq!(request.name, "serviceAccounts/a/apiKeys/k");
}

#[test]
fn records_are_read_in_every_form() {
    let body = json!({"records": [
        {"keyText": "k", "valueJson": {"z": 1, "a": [null, 2.5, "x"]}, "partition": "1", "timestamp": "2026-11-21T10:00:00.5Z"},
        {"key": "AAE=", "value": "_-8", "headers": [{"name": "h", "text": "v"}, {"name": "n"}]},
        {"key_json": null, "valueText": ""},
        {"value": null},
    ]});
    let request = records(Method::POST, "", &body.to_string()).unwrap();
    let [first, second, third, fourth] = &request.records[..] else { panic!("{request:?}") };
    assert_eq!(first.partition, Some(1));
    assert_eq!(first.timestamp, Some(Timestamp { seconds: 1_795_255_200, nanos: 500_000_000 }));
    let Some(produce_record::ValueKind::ValueJson(value)) = &first.value_kind else { panic!("{first:?}") };
    assert_eq!(serde_json::to_string(value).unwrap(), r#"{"z":1,"a":[null,2.5,"x"]}"#);
    assert_eq!(second.key_kind, Some(produce_record::KeyKind::Key(vec![0, 1].into())));
    assert_eq!(second.value_kind, Some(produce_record::ValueKind::Value(vec![0xff, 0xef].into())));
    assert_eq!(second.headers[1].value, None);
    assert_eq!(fourth.value_kind, None);
    assert_eq!(third.value_kind, Some(produce_record::ValueKind::ValueText(String::new())));
    let Some(produce_record::KeyKind::KeyJson(null)) = &third.key_kind else { panic!("{third:?}") };
    assert_eq!(serde_json::to_string(null).unwrap(), "null");
}

#[test]
fn errors_in_the_body_name_the_field() {
    for (body, field, reason) in [
        (json!({"recrods": []}), "recrods", "no such field"),
        (json!({"records": {}}), "records", "must be an array"),
        (json!({"records": [{}, 7]}), "records[1]", "must be an object"),
        (json!({"records": [{}, {"valeu": ""}]}), "records[1].valeu", "no such field"),
        (
            json!({"records": [{"key": "YQ==", "keyText": "b"}]}),
            "records[0].keyText",
            "cannot be set together with key",
        ),
        (json!({"records": [{"keyText": "b", "key_text": "b"}]}), "records[0].key_text", "twice"),
        (json!({"records": [{"keyText": 1}]}), "records[0].keyText", "must be a string"),
        (json!({"records": [{"key": "%"}]}), "records[0].key", "must be base64"),
        (json!({"records": [{}, {"value": "YQ==="}]}), "records[1].value", "must be base64"),
        (json!({"records": [{"key": 1}]}), "records[0].key", "base64"),
        (json!({"records": [{"partition": 1.5}]}), "records[0].partition", "whole number"),
        (json!({"records": [{"partition": true}]}), "records[0].partition", "whole number"),
        (json!({"records": [{"timestamp": "2026-02-30T00:00:00Z"}]}), "records[0].timestamp", "RFC 3339"),
        (
            json!({"records": [{"headers": [{"name": "a"}, {"nam": "a"}]}]}),
            "records[0].headers[1].nam",
            "no such field",
        ),
        (json!({"records": [{"valueJson": {"id": 9_007_199_254_740_993_u64}}]}), "records[0].valueJson.id", "exactly"),
        (json!({"topic": "namespaces/demo/topics/other"}), "topic", "differs from the path"),
        (json!([]), "", "must be a JSON object"),
    ] {
        refused::<ProduceRequest>(Method::POST, &format!("{TOPIC}/records"), &body.to_string(), field, reason);
    }
    let body = r#"{"topic": "namespaces/demo/topics/flights", "records": []}"#;
    assert!(records(Method::POST, "", body).is_ok(), "the body may repeat the path");
    refused::<CreateServiceAccountRequest>(
        Method::POST,
        "/v1/serviceAccounts?serviceAccountId=a",
        r#"{"grants":[{"role":"ROLE_KING"}]}"#,
        "serviceAccount.grants[0].role",
        "ROLE_OWNER",
    );
    refused::<CreateTopicRequest>(
        Method::POST,
        "/v1/namespaces/a/topics?topicId=t",
        r#"{"labels":{"a":1}}"#,
        "topic.labels.a",
        "must be a string",
    );
}

#[test]
fn whole_numbers_are_taken_in_every_json_form() {
    for number in ["3", "3.0", "3e0", "\"3\""] {
        let request = records(Method::POST, "", &format!(r#"{{"records":[{{"partition":{number}}}]}}"#)).unwrap();
        assert_eq!(request.records[0].partition, Some(3), "{number}");
    }
}

#[test]
fn bad_json_is_refused() {
    type P = ProduceRequest;
    let target = format!("{TOPIC}/records");
    for body in ["{", "{} {}", "{\"a\":1,}", "\u{feff}\u{feff}{}", "nul", "{\"records\":[{\"value\":\"\\ud800\"}]}"] {
        refused::<P>(Method::POST, &target, body, "", "not good JSON");
    }
    refused::<P>(Method::POST, &target, r#"{"records":[{"key":"","key":""}]}"#, "", "duplicate key \"key\"");
    let deep = |n: usize| format!(r#"{{"records":[{{"valueJson":{}{}}}]}}"#, "[".repeat(n), "]".repeat(n));
    refused::<P>(Method::POST, &target, &deep(125), "", "nested too deeply: at most 127 levels");
    assert!(records(Method::POST, "", &deep(124)).is_ok());
    // As RFC 8259, section 8.1, lets a reader do.
    assert!(records(Method::POST, "", "\u{feff}{}").is_ok(), "one byte order mark is passed over");
}

#[test]
fn a_patch_without_mask_changes_what_its_body_holds() {
    let body = json!({"name": "namespaces/demo/topics/flights", "uid": "x", "etag": "e", "state": "STATE_ACTIVE",
                      "displayName": null, "partition_count": 6, "labels": {}});
    let request: UpdateTopicRequest = decode(Method::PATCH, TOPIC, &body.to_string()).unwrap();
    assert_eq!(request.update_mask.unwrap().paths, ["display_name", "partition_count", "labels"]);
    let topic = request.topic.unwrap();
    assert_eq!((topic.etag.as_str(), topic.display_name.as_str(), topic.partition_count), ("e", "", Some(6)));

    let body = json!({"limits": {"topics": "5", "ingressBytesPerSecond": null}});
    let request: UpdateTenantRequest = decode(Method::PATCH, "/v1/tenants/acme", &body.to_string()).unwrap();
    assert_eq!(request.update_mask.unwrap().paths, ["limits.topics", "limits.ingress_bytes_per_second"]);

    let request: UpdateTopicRequest = decode(Method::PATCH, TOPIC, "{}").unwrap();
    assert_eq!(request.update_mask, Some(FieldMask::default()), "nothing was sent, so nothing changes");
}

#[test]
fn the_mask_of_the_query_wins() {
    let request: UpdateTopicRequest =
        decode(Method::PATCH, &format!("{TOPIC}?update_mask=labels"), r#"{"displayName":"x"}"#).unwrap();
    assert_eq!(request.update_mask.unwrap().paths, ["labels"]);
}

#[test]
fn a_mask_of_all_fields_is_passed_on_as_it_is() {
    for (mask, paths) in [("*", vec!["*"]), ("*,displayName", vec!["*", "display_name"])] {
        let request: UpdateTopicRequest =
            decode(Method::PATCH, &format!("{TOPIC}?updateMask={mask}"), r#"{"displayName":"x"}"#).unwrap();
        assert_eq!(request.update_mask.unwrap().paths, paths);
    }
    refused::<UpdateTopicRequest>(
        Method::PATCH,
        &format!("{TOPIC}?updateMask=labels.*"),
        "{}",
        "updateMask",
        "field names",
    );
}

#[test]
fn the_path_cannot_be_contradicted() {
    refused::<UpdateTopicRequest>(
        Method::PATCH,
        TOPIC,
        r#"{"name":"namespaces/demo/topics/other"}"#,
        "topic.name",
        "differs",
    );
    let request: UpdateTopicRequest = decode(Method::PATCH, TOPIC, r#"{"name":""}"#).unwrap();
    assert_eq!(request.topic.unwrap().name, "namespaces/demo/topics/flights");
}

#[test]
fn the_resource_of_a_request_is_the_field_that_its_rpc_names() {
    let request: UpdateTopicRequest = decode(Method::PATCH, TOPIC, "{}").unwrap();
    assert_eq!(request.resource_name(), Some("namespaces/demo/topics/flights"));
    assert_eq!(UpdateTopicRequest::default().resource_name(), None);
    assert_eq!(GetUsageRequest::default().resource_name(), None);
    assert_eq!(GetTenantRequest::default().resource_name(), None);
}
