//! The hot routes over HTTP.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn http_takes_json_raw_records_and_protobuf() {
    let world = World::new(1).await;
    let json = r#"{"records":[{"keyText":"N14228","valueJson":{"delay":11},"headers":[{"name":"a","text":"b"}]}]}"#;
    let answer =
        world.data.http_produce(world.request("POST", "", &[("content-type", "application/json")], json)).await;
    let answer = answer.expect("taken");
    assert_eq!(answer.status(), 200);
    assert_eq!(body(answer).await["results"][0]["offset"], "0");
    let raw = world.request(
        "POST",
        "?key=k%201&partition=0",
        &[("content-type", "text/plain"), ("x-record-header-source", "curl")],
        "plain",
    );
    assert_eq!(world.data.http_produce(raw).await.expect("taken").status(), 200);
    let message = ProduceRequest { topic: String::new(), records: vec![keyed("k", "proto")] }.encode_to_vec();
    let proto = world.request("POST", "", &[("content-type", "application/x-protobuf")], message);
    let answer = world.data.http_produce(proto).await.expect("taken");
    assert_eq!(answer.headers()["content-type"], "application/x-protobuf");

    // Behind a byte order mark, with and without a JSON payload.
    for text in
        ["\u{feff}{\"records\":[{\"partition\":0,\"valueJson\":1.50}]}", "\u{feff}{\"records\":[{\"partition\":0}]}"]
    {
        let marked = world.request("POST", "", &[("content-type", "application/json")], text);
        assert_eq!(world.data.http_produce(marked).await.expect(text).status(), 200);
    }

    let read = world.request("GET", "?partition=0&offset=earliest&encoding=JSON&wait_ms=100", &[], "");
    let answer = body(world.data.http_fetch(read).await.expect("read")).await;
    let records = answer["records"].as_array().expect("records");
    assert_eq!(records[0]["valueJson"], serde_json::json!({"delay": 11}));
    assert_eq!((&records[0]["keyText"], &records[0]["headers"][0]["text"]), (&"N14228".into(), &"b".into()));
    assert_eq!((&records[1]["keyText"], &records[1]["valueText"]), (&"k 1".into(), &"plain".into()));
    assert_eq!(records[1]["headers"][0], serde_json::json!({"name": "source", "text": "curl"}));
    assert_eq!(records[2]["valueText"], "proto");
    assert_eq!(answer["nextOffset"], "5");
}

#[tokio::test(flavor = "multi_thread")]
async fn http_faults_name_their_field_and_write_nothing() {
    let world = World::new(1).await;
    let json = [("content-type", "application/json")];
    let cases = [
        (r#"{"records":[{"value":"%%%"}]}"#, "", "records[0].value"),
        (r#"{"records":[{"vlaue":"x"}]}"#, "", "records[0].vlaue"),
        (r#"{"records":[]}"#, "", "records"),
        (r#"{"records":[{}],"topic":"namespaces/other/topics/x"}"#, "", "topic"),
        (r#"{"records":[{}]}"#, "?key=x", "key"),
    ];
    for kind in [
        "application/vnd.kafka.json.v2+json",
        "application/vnd.api+json",
        "text/json",
        "text/plain",
        "application/json5",
        "application/geo+json-seq",
        "application/xml",
        "application/yaml",
        "*/*",
    ] {
        let batch = world.request("POST", "", &[("content-type", kind)], r#"{"records":[{"value":{"a":1}}]}"#);
        let error = world.data.http_produce(batch).await.expect_err(kind);
        assert_eq!((error.kind, error.field.as_deref()), (ErrorKind::InvalidArgument, Some("content-type")), "{kind}");
    }
    for (text, query, field) in cases {
        let error = world.data.http_produce(world.request("POST", query, &json, text)).await.expect_err(text);
        assert_eq!((error.kind, error.field.as_deref()), (ErrorKind::InvalidArgument, Some(field)), "{text}");
    }
    let deep = format!(r#"{{"records":[{{"valueJson":{}{}}}]}}"#, "[".repeat(1_000), "]".repeat(1_000));
    for text in [deep.as_str(), "{", "[]", ""] {
        assert!(
            world.data.http_produce(world.request("POST", "", &json, text.to_owned())).await.is_err(),
            "{text:.20}"
        );
    }
    assert!(world.read(world.physical.as_str(), 0).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn json_over_http_is_stored_as_sent_and_comes_back_digit_for_digit() {
    let world = World::new(1).await;
    let json = [("content-type", "application/json")];
    let sent = r#"{"id":12345678901234567890,"price":0.1000,"text":"a  b"}"#;
    let body = format!(r#"{{"records":[{{"keyJson": 0.10, "valueJson": {} }}]}}"#, sent.replace(':', " : "));
    let answer = world.data.http_produce(world.request("POST", "", &json, body)).await.expect("taken");
    assert_eq!(answer.status(), 200);
    let log = world.read(world.physical.as_str(), 0).await;
    assert_eq!((log[0].key.as_deref(), log[0].value.as_deref()), (Some(&b"0.10"[..]), Some(sent.as_bytes())));

    let read = world.request("GET", "?partition=0&offset=earliest&encoding=JSON&wait_ms=100", &[], "");
    let answer = text(world.data.http_fetch(read).await.expect("read")).await;
    assert!(answer.contains(&format!(r#""keyJson":0.10,"valueJson":{sent}}}"#)), "{answer}");

    let body = r#"{"records":[{"valueJson":1e400}]}"#;
    let error = world.data.http_produce(world.request("POST", "", &json, body)).await.expect_err("no double");
    assert_eq!(error.field.as_deref(), Some("records[0].valueJson"));
    assert!(error.message.contains("double"), "{}", error.message);
}
