//! Names: what the grammar allows works and is told apart; everything else is refused before it reaches anything.

use std::time::Duration;

use anyhow::{Result, ensure};
use sluice_e2e::raw::{self, RawAnswer};
use sluice_e2e::tenant::record;
use sluice_e2e::{Api, Installation, Options, kafka_reader};
use sluice_proto::stream::v1::stream_service_client::StreamServiceClient;
use sluice_proto::stream::v1::{GetTopicMetadataRequest, ListOffsetsRequest};
use tonic::{Code, Status};
use tonic_types::StatusExt;

const WITHIN: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread")]
async fn names_that_kafka_would_mix_up_are_told_apart_and_the_whole_grammar_works() -> Result<()> {
    let it = Installation::start(Options { gateways: 1, ..Options::default() }).await?;
    let tenant = it.tenant("acme").await?;
    let api = it.api(0, &tenant.key)?;
    let namespace = api.create_namespace("prod").await?;
    // Kafka's metrics do not tell `.` from `_`, so it refuses the second of such a pair.
    let longest = "x".repeat(249);
    let good = ["a.b", "a_b", "a-b", "a.b_c", "A", "0", "...", "-", "_", ".a", "Topic.With-Everything_9", &longest];
    let mut uids = Vec::new();
    for id in good {
        let topic = api.create_topic("prod", id, 1).await?;
        ensure!(topic.name == format!("namespaces/prod/topics/{id}"), "{topic:?}");
        uids.push(topic.uid);
    }
    for id in good {
        let name = format!("namespaces/prod/topics/{id}");
        let results = api.produce_all(&name, vec![record(None, id.as_bytes())]).await?;
        ensure!(results[0].offset == Some(0), "{id}: {results:?}");
    }
    for (id, uid) in good.iter().zip(&uids) {
        let name = format!("namespaces/prod/topics/{id}");
        let read = api.fetch(&name, 0, 0, Duration::ZERO).await?;
        ensure!(read.records.len() == 1 && read.end_offset == 1, "{id}: {read:?}");
        let physical = it.physical(&namespace.uid, uid)?;
        let kafka = it.kafka()?.clone();
        let values = tokio::task::spawn_blocking(move || {
            let mut values = Vec::new();
            kafka_reader::read_topic(&kafka, &physical, |raw| values.extend(raw.value)).map(|_| values)
        });
        ensure!(values.await?? == vec![id.as_bytes().to_vec()], "{id}: another value in its log");
    }
    let http = it.http(0, Some(&tenant.key));
    for id in ["a.b", "a_b", "..."] {
        let answer = http.get(&format!("/v1/namespaces/prod/topics/{id}/records?offset=earliest")).await?;
        ensure!(
            answer.status == 200 && answer.json()["records"].as_array().is_some_and(|r| r.len() == 1),
            "{answer:?}"
        );
    }
    it.stop().await
}

/// Topic ids outside of the grammar.
fn bad_ids() -> Vec<(&'static str, String)> {
    vec![
        ("one dot", ".".into()),
        ("two dots", "..".into()),
        ("a slash", "a/b".into()),
        ("a way up", "../admin".into()),
        ("250 characters", "x".repeat(250)),
        ("10,000 characters", "x".repeat(10_000)),
        ("not ASCII", "bestellungen-ä".into()),
        ("looks like ASCII", "оrders".into()),
        ("a space", "a b".into()),
        ("a line break", "a\nb".into()),
        ("a zero byte", "a\0b".into()),
        ("a colon", "a:b".into()),
        ("a percent sign", "a%2fb".into()),
        ("a star", "*".into()),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_names_are_refused_over_both_protocols_and_reach_nothing() -> Result<()> {
    let it = Installation::start(Options { gateways: 1, ..Options::default() }).await?;
    let tenant = it.tenant("acme").await?;
    let api = it.api(0, &tenant.key)?;
    api.create_namespace("prod").await?;
    api.create_topic("prod", "orders", 1).await?;
    let topics_before = topics(&it).await?;
    let mut faults = Vec::new();

    for (what, id) in bad_ids().into_iter().chain([("nothing", String::new())]) {
        let status = api.create_topic_call("prod", &id, 1).await.err();
        check(&mut faults, &format!("create over gRPC: {what}"), status, &["topic_id"], &id);
        let answer = create_over_http(&it, &tenant.key, "prod", &id).await?;
        check_http(&mut faults, &format!("create over HTTP: {what}"), &answer, &["topic_id", "topicId"], &id);
    }
    for (what, id) in bad_ids() {
        for name in [format!("namespaces/prod/topics/{id}"), format!("namespaces/{id}/topics/orders")] {
            for (call, status) in data_calls(&api, &name).await {
                check(&mut faults, &format!("{call} over gRPC: {what} in {name:.60}"), status, &["topic"], &id);
            }
        }
        // Encoded, so that it is one segment of the path.
        for (method, path) in [
            ("POST", format!("/v1/namespaces/prod/topics/{}/records", encoded(&id))),
            ("GET", format!("/v1/namespaces/prod/topics/{}/records", encoded(&id))),
            ("GET", format!("/v1/namespaces/prod/topics/{}:metadata", encoded(&id))),
            ("GET", format!("/v1/namespaces/{}/topics/orders/records", encoded(&id))),
            ("GET", format!("/v1/namespaces/prod/topics/{}", encoded(&id))),
            ("DELETE", format!("/v1/namespaces/prod/topics/{}", encoded(&id))),
        ] {
            let answer = call(&it, &tenant.key, method, &path).await?;
            check_http(&mut faults, &format!("{method} {path:.70}: {what}"), &answer, &["topic", "name"], &id);
        }
    }
    // Not even a name.
    for name in [
        "",
        "orders",
        "namespaces/prod",
        "namespaces/prod/topics/",
        "namespaces//topics/orders",
        "/namespaces/prod/topics/orders",
        "namespaces/prod/topics/orders/",
        "tenants/acme/namespaces/prod/topics/orders",
        "namespaces/PROD/topics/orders",
    ] {
        for (call, status) in data_calls(&api, name).await {
            check(&mut faults, &format!("{call} over gRPC: {name:?}"), status, &["topic"], "\u{1}");
        }
    }
    // Raw: no client tidied these up. They are other paths, or names outside of the grammar; never the topic `orders`.
    for path in [
        "/v1/namespaces/prod/topics/../topics/orders/records",
        "/v1/namespaces/prod/topics/./orders/records",
        "/v1/namespaces/prod/topics/../records",
        "/v1/namespaces/../topics/orders/records",
        "/v1/namespaces/prod/topics/%2e%2e/records",
        "/v1/namespaces/prod/topics/%2E/records",
        "/v1/namespaces/prod/topics/orders%2F..%2Forders/records",
        "/v1/namespaces/prod/topics/orders%2Frecords",
        "/v1/namespaces/prod%2Ftopics%2Forders/records",
        "/v1//namespaces/prod/topics/orders/records",
        "/v1/namespaces/prod/topics//records",
        "/v1/namespaces/prod/topics/orders/records/",
        "/v1/namespaces/prod/topics/orders%00/records",
        "/v1/namespaces/prod/topics/orders%/records",
        "/v1/namespaces/prod/topics/orders%zz/records",
        "/v1/namespaces/prod/topics/%ff%fe/records",
        "/v1/namespaces/prod/topics/%C3%A4/records",
        "/V1/namespaces/prod/topics/orders/records",
    ] {
        for method in ["GET", "POST"] {
            let answer = call(&it, &tenant.key, method, path).await?;
            if !matches!(answer.status, 400 | 404 | 405) {
                faults.push(format!("{method} {path}: {}", answer.shown()));
            }
        }
    }
    ensure!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
    ensure!(topics(&it).await? == topics_before, "topics were made");
    let read = api.fetch("namespaces/prod/topics/orders", 0, 0, Duration::ZERO).await?;
    ensure!(read.end_offset == 0, "a record was written: {read:?}");
    it.stop().await
}

async fn data_calls(api: &Api, name: &str) -> Vec<(&'static str, Option<Status>)> {
    let mut client = StreamServiceClient::new(api.channel.clone());
    let offsets = ListOffsetsRequest { topic: name.into(), ..Default::default() };
    vec![
        ("produce", api.produce(name, vec![record(None, b"x")]).await.err()),
        ("fetch", api.fetch(name, 0, 0, Duration::ZERO).await.err()),
        (
            "metadata",
            client.get_topic_metadata(api.request(GetTopicMetadataRequest { topic: name.into() })).await.err(),
        ),
        ("offsets", client.list_offsets(api.request(offsets)).await.err()),
    ]
}

/// INVALID_ARGUMENT that names the field.
fn check(faults: &mut Vec<String>, what: &str, status: Option<Status>, fields: &[&str], sent: &str) {
    let Some(status) = status else { return faults.push(format!("{what}: was taken")) };
    let details = status.get_error_details();
    let field =
        details.bad_request().and_then(|bad| bad.field_violations.first()).map(|violation| violation.field.clone());
    let fits = status.code() == Code::InvalidArgument
        && field.as_deref().is_some_and(|field| fields.contains(&field))
        && is_modest(status.message(), sent);
    if !fits {
        faults.push(format!("{what}: {status:?}"));
    }
}

fn check_http(faults: &mut Vec<String>, what: &str, answer: &RawAnswer, fields: &[&str], sent: &str) {
    let json: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let message = json["error"]["message"].as_str().unwrap_or_default();
    let field = json["error"]["details"]
        .as_array()
        .and_then(|details| details.iter().find_map(|detail| detail["fieldViolations"][0]["field"].as_str()))
        .unwrap_or_default();
    let fits = answer.status == 400
        && json["error"]["status"] == "INVALID_ARGUMENT"
        && fields.contains(&field)
        && is_modest(message, sent);
    if !fits {
        faults.push(format!("{what}: {}", answer.shown()));
    }
}

/// A message that is short, has no control characters in it (logs and terminals show it), and says more than "no".
fn is_modest(message: &str, sent: &str) -> bool {
    let repeats_much = sent.len() > 300 && message.contains(sent);
    message.len() > 20 && message.len() < 1_000 && !repeats_much && !message.chars().any(char::is_control)
}

async fn call(it: &Installation, key: &str, method: &str, path: &str) -> Result<RawAnswer> {
    let authorization = format!("Bearer {key}");
    let mut headers = vec![("authorization", authorization.as_str())];
    let body: &[u8] = if method == "POST" {
        headers.push(("content-type", "application/json"));
        br#"{"records":[{"valueText":"x"}]}"#
    } else {
        b""
    };
    raw::http(it.gateway(0), method, path, &headers, body, WITHIN).await
}

async fn create_over_http(it: &Installation, key: &str, namespace: &str, id: &str) -> Result<RawAnswer> {
    let authorization = format!("Bearer {key}");
    let headers = [("authorization", authorization.as_str()), ("content-type", "application/json")];
    let path = format!("/v1/namespaces/{namespace}/topics?topicId={}", encoded(id));
    raw::http(it.gateway(0), "POST", &path, &headers, br#"{"partitionCount":1}"#, WITHIN).await
}

/// Every byte but letters and digits percent-encoded.
fn encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte.is_ascii_alphanumeric() {
            true => char::from(byte).to_string(),
            false => format!("%{byte:02X}"),
        })
        .collect()
}

async fn topics(it: &Installation) -> Result<Vec<String>> {
    let kafka = it.kafka()?.clone();
    let mut topics = tokio::task::spawn_blocking(move || kafka_reader::topics(&kafka)).await??;
    topics.sort();
    // Kafka makes it when a group is first looked for.
    topics.retain(|topic| !topic.starts_with("__"));
    Ok(topics)
}
