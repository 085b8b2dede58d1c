//! Requests that are wrong: each is refused with the fitting code, naming the field, the limit and the remedy, and nothing
//! is written. All cases run against one installation; all that fail are reported.

mod cases;
mod reading;
mod records;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use prost::Message;
use serde_json::{Value, json};
use sluice_e2e::raw;
use sluice_e2e::tenant::record;
use sluice_e2e::{Installation, Options, kafka_reader};
use sluice_proto::stream::v1::stream_service_client::StreamServiceClient;
use sluice_proto::stream::v1::{
    Header, ListOffsetsRequest, Position, ProduceRecord, ProduceRequest, header, list_offsets_request,
};

use self::cases::Cases;

const TOPIC: &str = "namespaces/prod/topics/orders";
const PARTITIONS: i32 = 4;
const WITHIN: Duration = Duration::from_secs(20);
const MIB: usize = 1 << 20;
fn value(bytes: usize) -> ProduceRecord {
    record(None, &vec![b'v'; bytes])
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_refused_by_name_and_nothing_is_written() -> Result<()> {
    let it = Installation::start(Options { gateways: 1, ..Options::default() }).await?;
    let tenant = it.tenant("acme").await?;
    let api = it.api(0, &tenant.key)?;
    let namespace = api.create_namespace("prod").await?;
    let topic = api.create_topic("prod", "orders", PARTITIONS).await?;
    api.create_topic("prod", "control", PARTITIONS).await?;
    let address = it.gateway(0).to_owned();
    let mut cases = Cases { address, key: tenant.key.clone(), api: api.clone(), faults: Vec::new(), run: 0 };

    what_is_right_is_taken(&mut cases).await?;
    sizes(&mut cases).await?;
    records::records_over_grpc(&mut cases).await;
    records::records_over_http(&mut cases).await;
    encodings(&mut cases).await?;
    bodies_that_never_come(&mut cases).await?;
    routes(&mut cases).await;
    reading::reading(&mut cases).await;
    println!("{} cases", cases.run);

    let mut client = StreamServiceClient::new(api.channel.clone());
    let request = ListOffsetsRequest {
        topic: TOPIC.into(),
        at: Some(list_offsets_request::At::Position(Position::Latest.into())),
        ..Default::default()
    };
    let ends = client.list_offsets(api.request(request)).await?.into_inner().offsets;
    ensure!(ends.len() == PARTITIONS as usize, "{ends:?}");
    for end in &ends {
        if end.offset != 0 {
            cases.faults.push(format!("partition {} ends at {}", end.partition, end.offset));
        }
    }
    let (kafka, physical) = (it.kafka()?.clone(), it.physical(&namespace.uid, &topic.uid)?);
    let digest = tokio::task::spawn_blocking(move || kafka_reader::digest_topic(&kafka, &physical)).await??;
    if digest.records != 0 {
        cases.faults.push(format!("{} records are in the log", digest.records));
    }
    ensure!(cases.faults.is_empty(), "{} faults:\n{}", cases.faults.len(), cases.faults.join("\n"));
    it.stop().await
}

/// The largest that is allowed passes: the refusals below are for their own reasons.
async fn what_is_right_is_taken(cases: &mut Cases) -> Result<()> {
    const CONTROL: &str = "namespaces/prod/topics/control";
    cases.api.produce_all(CONTROL, vec![value(MIB)]).await.context("a record of 1 MiB")?;
    cases.api.produce_all(CONTROL, vec![value(MIB); 4]).await.context("a batch of 4 MiB")?;
    cases.api.produce_all(CONTROL, vec![value(1); 10_000]).await.context("10,000 records")?;
    let mut many = value(1);
    many.headers = (0..100).map(|i| header(&format!("h{i}"))).collect();
    cases.api.produce_all(CONTROL, vec![many]).await.context("100 headers")?;
    let nested = format!("{}1{}", "[".repeat(90), "]".repeat(90));
    let body = format!(r#"{{"records":[{{"valueJson":{nested}}},{{"value":"aGVsbG8="}},{{"keyText":"k"}}]}}"#);
    let authorization = format!("Bearer {}", cases.key);
    let headers =
        [("authorization", authorization.as_str()), ("content-type", "application/json"), ("content-encoding", "gzip")];
    let path = format!("/v1/{CONTROL}/records");
    let answer = raw::http(&cases.address, "POST", &path, &headers, &raw::gzip(body.as_bytes())?, WITHIN).await?;
    let results: Value = serde_json::from_slice(&answer.body)?;
    let outcomes: Vec<&Value> =
        results["results"].as_array().into_iter().flatten().map(|one| &one["outcome"]).collect();
    ensure!(answer.status == 200 && outcomes.len() == 3, "{}", answer.shown());
    ensure!(outcomes.iter().all(|outcome| *outcome == "OUTCOME_PERSISTED"), "{}", answer.shown());
    Ok(())
}

fn header(name: &str) -> Header {
    Header { name: name.into(), value: Some(header::Value::Text("v".into())) }
}

async fn sizes(cases: &mut Cases) -> Result<()> {
    cases.produce("no records", Vec::new(), &["records"]).await;
    cases.produce("10,001 records", vec![value(1); 10_001], &["records", "10000"]).await;
    cases.produce("a record over 1 MiB", vec![value(MIB + 1)], &["records[0]", "1048576"]).await;
    let mut keyed = record(Some(&vec![b'k'; MIB / 2]), &vec![b'v'; MIB / 2]);
    keyed.headers = vec![header("x")];
    cases.produce("a record over 1 MiB by its parts", vec![value(1), keyed], &["records[1]", "1048576"]).await;
    cases.produce("a batch over 4 MiB", vec![value(MIB * 9 / 10); 5], &["records", "4194304"]).await;
    cases.produce("a message over the body limit", vec![value(MIB); 9], &["body", "8388608"]).await;
    let path = format!("/v1/{TOPIC}/records");
    let raw_record = vec![b'v'; MIB + 1];
    let headers = [("content-type", "application/octet-stream")];
    cases
        .http("a raw record over 1 MiB", ("POST", &path), &headers, &raw_record, (400, "TOO_LARGE"), &["1048576"])
        .await;
    let text = "v".repeat(MIB + 1);
    cases
        .json(
            "a JSON record over 1 MiB",
            &json!({"records": [{"valueText": text}]}),
            "TOO_LARGE",
            &["records[0]", "1048576"],
        )
        .await;
    let part = "v".repeat(MIB * 9 / 10);
    let batch = vec![json!({"valueText": part}); 5];
    cases.json("a JSON batch over 4 MiB", &json!({ "records": batch }), "TOO_LARGE", &["records", "4194304"]).await;
    let body = vec![b' '; 8 * MIB + 6];
    cases.text("a body over the limit", &body, "TOO_LARGE", &["body", "8388608"]).await;
    // Not declared: counted as it comes.
    let part = Bytes::from(vec![b' '; MIB]);
    let mut parts = vec![part; 8];
    parts.push(Bytes::from_static(b"      "));
    let headers = [("content-type", "application/json"), ("transfer-encoding", "chunked")];
    let chunked = raw::chunked(&parts);
    cases
        .http(
            "a chunked body over the limit",
            ("POST", &path),
            &headers,
            &chunked,
            (400, "TOO_LARGE"),
            &["body", "8388608"],
        )
        .await;
    let many = vec![json!({}); 10_001];
    cases.json("10,001 JSON records", &json!({ "records": many }), "INVALID_FIELD", &["records", "10000"]).await;
    Ok(())
}

async fn encodings(cases: &mut Cases) -> Result<()> {
    let path = format!("/v1/{TOPIC}/records");
    let headers = [("content-type", "application/json"), ("content-encoding", "gzip")];
    let good = raw::gzip(br#"{"records":[{"valueText":"hello hello hello hello"}]}"#)?;
    for cut in [1, 8, good.len() / 2, good.len() - 5] {
        let what = format!("gzip without its last {cut} bytes");
        cases
            .http(&what, ("POST", &path), &headers, &good[..good.len() - cut], (400, "MALFORMED_BODY"), &["gzip"])
            .await;
    }
    let mut broken = good.clone();
    let middle = broken.len() / 2;
    broken[middle] ^= 0xff;
    cases.http("gzip with a broken byte", ("POST", &path), &headers, &broken, (400, "MALFORMED_BODY"), &["gzip"]).await;
    let plain = br#"{"records":[{"valueText":"x"}]}"#;
    cases.http("no gzip at all", ("POST", &path), &headers, plain, (400, "MALFORMED_BODY"), &["gzip"]).await;
    let bomb = raw::gzip(&vec![b' '; 512 * MIB])?;
    println!("a bomb of {} bytes", bomb.len());
    let started = Instant::now();
    cases.http("a gzip bomb", ("POST", &path), &headers, &bomb, (400, "TOO_LARGE"), &["inflation", "8388608"]).await;
    if started.elapsed() > Duration::from_secs(3) {
        cases.faults.push(format!("a gzip bomb took {:?}", started.elapsed()));
    }
    let text = format!(r#"{{"records":[{{"valueText":"{}"}}]}}"#, "v".repeat(9 * MIB));
    let body = raw::gzip(text.as_bytes())?;
    cases
        .http(
            "oversized after inflation",
            ("POST", &path),
            &headers,
            &body,
            (400, "TOO_LARGE"),
            &["inflation", "8388608"],
        )
        .await;
    let members: Vec<u8> = (0..40).flat_map(|_| raw::gzip(&vec![b' '; MIB]).unwrap_or_default()).collect();
    cases
        .http(
            "a bomb of many members",
            ("POST", &path),
            &headers,
            &members,
            (400, "TOO_LARGE"),
            &["inflation", "8388608"],
        )
        .await;

    let authorization = format!("Bearer {}", cases.key);
    let metadata = [("authorization", authorization.as_str())];
    let rpc = "/sluice.stream.v1.StreamService/Produce";
    let whole = raw::gzip(&ProduceRequest { topic: TOPIC.into(), records: vec![value(1000)] }.encode_to_vec())?;
    for (what, message) in [
        ("a gRPC gzip bomb", bomb.as_slice()),
        ("truncated gRPC gzip", &whole[..whole.len() - 8]),
        ("no gRPC gzip", b"plain"),
    ] {
        cases.run += 1;
        match raw::grpc(&cases.api.channel.clone(), rpc, &metadata, message, true).await {
            Ok(answer) if answer.grpc_code() == Some(3) => {}
            Ok(answer) => cases.faults.push(format!("{what}: {}", answer.shown())),
            Err(error) => cases.faults.push(format!("{what}: {error:#}")),
        }
    }
    Ok(())
}

/// A declared length over the limit is refused before the body is read: none is sent here.
async fn bodies_that_never_come(cases: &mut Cases) -> Result<()> {
    let path = format!("/v1/{TOPIC}/records");
    for length in ["8388614", "1000000000", "9223372036854775807"] {
        let started = Instant::now();
        let headers = [("content-type", "application/json"), ("content-length", length)];
        let what = format!("a declared length of {length}");
        cases.http(&what, ("POST", &path), &headers, b"", (400, "TOO_LARGE"), &["body", "8388608"]).await;
        if started.elapsed() > Duration::from_secs(2) {
            cases.faults.push(format!("{what}: answered after {:?} only", started.elapsed()));
        }
    }
    // A stranger's body is not waited for either.
    let headers = [("content-type", "application/json"), ("content-length", "1000000"), ("authorization", "Bearer x")];
    let answer = raw::http(&cases.address, "POST", &path, &headers, b"", Duration::from_secs(2)).await?;
    ensure!(answer.status == 401, "{}", answer.shown());
    Ok(())
}

async fn routes(cases: &mut Cases) {
    for (method, path, allow) in [
        ("PUT", "/v1/tenant", "GET, HEAD, OPTIONS"),
        ("DELETE", "/v1/tenant", "GET, HEAD, OPTIONS"),
        ("PATCH", "/v1/namespaces/prod/topics/orders/records", "GET, POST, OPTIONS"),
        ("DELETE", "/v1/namespaces", "GET, POST, HEAD, OPTIONS"),
        ("GET", "/v1/namespaces/prod/topics/orders:listOffsets", "POST, OPTIONS"),
        ("POST", "/v1/namespaces/prod/topics/orders:metadata", "GET, HEAD, OPTIONS"),
    ] {
        let what = format!("{method} {path}");
        let answer = cases.http(&what, (method, path), &[], b"", (405, "ROUTE_NOT_FOUND"), &["this path takes"]).await;
        let sorted = |text: &str| {
            let mut methods: Vec<String> = text.split(',').map(|method| method.trim().to_owned()).collect();
            methods.sort();
            methods
        };
        if let Some(answer) = answer
            && answer.header("allow").map(sorted) != Some(sorted(allow))
        {
            cases.faults.push(format!("{what}: Allow is {:?}, not {allow}", answer.header("allow")));
        }
    }
    for path in ["/", "/v1", "/v2/tenant", "/v1/tenants", "/v1/nothing/here", "/metrics", "/admin", "/v1/tenant/"] {
        cases.http(&format!("GET {path}"), ("GET", path), &[], b"", (404, "ROUTE_NOT_FOUND"), &[]).await;
    }
    let channel = cases.api.channel.clone();
    for path in ["/sluice.stream.v1.StreamService/Nothing", "/nobody.Service/Call", "/x"] {
        cases.run += 1;
        match raw::grpc(&channel, path, &[], b"", false).await {
            Ok(answer) if answer.grpc_code() == Some(12) => {}
            Ok(answer) => cases.faults.push(format!("gRPC {path}: {}", answer.shown())),
            Err(error) => cases.faults.push(format!("gRPC {path}: {error:#}")),
        }
    }
}
