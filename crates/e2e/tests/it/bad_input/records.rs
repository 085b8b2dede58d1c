//! Records that are wrong in one field.

use prost::Message;
use serde_json::json;
use sluice_e2e::raw;
use sluice_proto::stream::v1::ProduceRequest;
use sluice_proto::wkt::Timestamp;

use super::cases::Cases;
use super::{PARTITIONS, TOPIC, header, value};

pub(super) async fn records_over_grpc(cases: &mut Cases) {
    let with_header = |name: &str| {
        let mut one = value(1);
        one.headers = vec![header("fine"), header(name)];
        vec![value(1), one]
    };
    for name in ["sluice-x", "Sluice-X", "sluice-tp", "sluice-"] {
        let what = format!("header {name}");
        cases.produce(&what, with_header(name), &["records[1].headers[1]", "sluice-", "reserved"]).await;
    }
    cases.produce("header without a name", with_header(""), &["records[1].headers[1]", "255"]).await;
    cases.produce("header name of 256 bytes", with_header(&"n".repeat(256)), &["records[1].headers[1]", "255"]).await;
    let mut many = value(1);
    many.headers = (0..101).map(|i| header(&format!("h{i}"))).collect();
    cases.produce("101 headers", vec![many], &["records[0].headers", "100"]).await;
    for partition in [-1, PARTITIONS, i32::MAX] {
        let mut one = value(1);
        one.partition = Some(partition);
        let what = format!("partition {partition}");
        // One below the count, so the last partition, is what is left to say.
        cases.produce(&what, vec![value(1), one], &["records[1].partition", "3"]).await;
    }
    let mut old = value(1);
    old.timestamp = Some(Timestamp { seconds: i64::MAX, nanos: 0 });
    cases.produce("a time far away", vec![old], &["records[0].timestamp"]).await;
    let mut odd = value(1);
    odd.timestamp = Some(Timestamp { seconds: 0, nanos: -1 });
    cases.produce("a time that is none", vec![odd], &["records[0].timestamp"]).await;
    let channel = cases.api.channel.clone();
    let authorization = format!("Bearer {}", cases.key);
    let metadata = [("authorization", authorization.as_str())];
    let path = "/sluice.stream.v1.StreamService/Produce";
    for (what, message) in [
        ("random bytes", vec![0xff; 64]),
        ("a cut message", {
            let mut whole = ProduceRequest { topic: TOPIC.into(), records: vec![value(100)] }.encode_to_vec();
            whole.truncate(60);
            whole
        }),
    ] {
        let answer = raw::grpc(&channel, path, &metadata, &message, false).await;
        cases.run += 1;
        match answer {
            Ok(answer) if answer.grpc_code() == Some(3) => {}
            Ok(answer) => cases.faults.push(format!("{what}: {}", answer.shown())),
            Err(error) => cases.faults.push(format!("{what}: {error:#}")),
        }
    }
}

pub(super) async fn records_over_http(cases: &mut Cases) {
    cases.json("no JSON records", &json!({"records": []}), "INVALID_FIELD", &["records"]).await;
    cases.json("an empty object", &json!({}), "INVALID_FIELD", &["records"]).await;
    cases.text("an empty body", b"", "INVALID_FIELD", &["records"]).await;
    for (what, text) in
        [("no base64 at all", "%%%"), ("a character outside of base64", "aGVsbG8$"), ("base64 cut off", "aGVsbG8=a")]
    {
        cases
            .json(what, &json!({"records": [{"value": text}]}), "INVALID_FIELD", &["records[0].value", "base64"])
            .await;
    }
    cases
        .json("a bad key", &json!({"records": [{}, {"key": "%%%"}]}), "INVALID_FIELD", &["records[1].key", "base64"])
        .await;
    let bad = json!({"records": [{"headers": [{"name": "a", "bytes": "%%%"}]}]});
    cases.json("a bad header value", &bad, "INVALID_FIELD", &["records[0].headers[0].bytes", "base64"]).await;
    cases.json("an unknown field", &json!({"records": [], "recordz": 1}), "INVALID_FIELD", &["recordz"]).await;
    let bad = json!({"records": [{"valeu": "x"}]});
    cases.json("an unknown field of a record", &bad, "INVALID_FIELD", &["records[0].valeu"]).await;
    let bad = json!({"records": [{"valueText": "a", "value": "YQ=="}]});
    cases.json("two values", &bad, "INVALID_FIELD", &["records[0]", "value"]).await;
    let bad = json!({"records": [{"headers": [{"name": "sluice-x", "text": "1"}]}]});
    cases.json("header sluice-x", &bad, "INVALID_FIELD", &["records[0].headers[0]", "sluice-", "reserved"]).await;
    for partition in [json!(4), json!(-1)] {
        let bad = json!({"records": [{"valueText": "x"}, {"valueText": "x", "partition": partition}]});
        cases.json("partition out of range", &bad, "INVALID_FIELD", &["records[1].partition", "3"]).await;
    }
    for partition in [json!("x"), json!(1.5), json!(4_294_967_296_u64), json!([1])] {
        let bad = json!({"records": [{"partition": partition}]});
        cases.json("partition that is none", &bad, "INVALID_FIELD", &["records[0].partition"]).await;
    }
    cases.json("records that are no list", &json!({"records": "x"}), "INVALID_FIELD", &["records"]).await;
    cases.json("a record that is none", &json!({"records": ["x"]}), "INVALID_FIELD", &["records[0]"]).await;
    for (what, text) in [
        ("not JSON", "hello"),
        ("JSON cut off", r#"{"records":[{"valueText":"x""#),
        ("two documents", r#"{"records":[]} {}"#),
        ("a list", "[]"),
        ("a key twice", r#"{"records":[],"records":[]}"#),
        ("not UTF-8 escaped", "{\"records\":[{\"valueText\":\"\\ud800\"}]}"),
    ] {
        cases.text(what, text.as_bytes(), "MALFORMED_BODY", &["JSON"]).await;
    }
    cases.text("not UTF-8", b"{\"records\":[{\"valueText\":\"\xff\xfe\"}]}", "MALFORMED_BODY", &["JSON"]).await;
    for depth in [200, 100_000, 3_000_000] {
        let text = format!(r#"{{"records":[{{"valueJson":{}{}}}]}}"#, "[".repeat(depth), "]".repeat(depth));
        cases
            .text(&format!("JSON {depth} deep"), text.as_bytes(), "INVALID_FIELD", &["valueJson", "deep", "100"])
            .await;
    }
    let text = format!(r#"{{"records":[{{"valueJson":{}"#, r#"{"a":"#.repeat(200_000));
    cases.text("objects 200,000 deep, cut off", text.as_bytes(), "MALFORMED_BODY", &["deep", "127"]).await;
    let path = format!("/v1/{TOPIC}/records");
    let body = br#"{"records":[{"valueText":"x"}]}"#;
    let with = |name, value| [("content-type", "application/json"), (name, value)];
    for (what, headers, says) in [
        ("a timeout that is none", with("x-request-timeout-ms", "soon"), ["x-request-timeout-ms"]),
        ("a timeout of nothing", with("x-request-timeout-ms", "0"), ["x-request-timeout-ms"]),
        ("a revision that is none", with("sluice-revision", "new"), ["sluice-revision"]),
        ("an unknown encoding", with("content-encoding", "br"), ["content-encoding"]),
    ] {
        cases.http(what, ("POST", &path), &headers, body, (400, "INVALID_FIELD"), &says).await;
    }
    let query = format!("{path}?key=a&colour=red");
    let headers = [("content-type", "text/plain")];
    cases
        .http("an unknown query parameter", ("POST", &query), &headers, b"x", (400, "INVALID_FIELD"), &["colour"])
        .await;
    let reserved = [("content-type", "text/plain"), ("x-record-header-sluice-x", "1")];
    cases
        .http(
            "a raw record with header sluice-x",
            ("POST", &path),
            &reserved,
            b"x",
            (400, "INVALID_FIELD"),
            &["records[0].headers[0]", "sluice-", "reserved"],
        )
        .await;
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let says = ["content-type", "application/json"];
    cases.http("a form", ("POST", &path), &form, b"records=1", (400, "INVALID_FIELD"), &says).await;
    let query = format!("{path}?partition=4");
    cases
        .http(
            "a raw record for no partition",
            ("POST", &query),
            &headers,
            b"x",
            (400, "INVALID_FIELD"),
            &["partition", "3"],
        )
        .await;
}
