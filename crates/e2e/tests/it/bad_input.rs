//! Requests that are wrong: each is refused with the fitting code, naming the field, the limit and the remedy, and nothing
//! is written. All cases run against one installation; all that fail are reported.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use prost::Message;
use serde_json::{Value, json};
use sluice_e2e::raw::{self, RawAnswer};
use sluice_e2e::tenant::record;
use sluice_e2e::{Api, Installation, Options, kafka_reader};
use sluice_proto::stream::v1::fetch_request::Start;
use sluice_proto::stream::v1::stream_service_client::StreamServiceClient;
use sluice_proto::stream::v1::{
    FetchRequest, Header, ListOffsetsRequest, Position, ProduceRecord, ProduceRequest, header, list_offsets_request,
};
use sluice_proto::wkt::Timestamp;
use tonic::{Code, Status};
use tonic_types::StatusExt;

const TOPIC: &str = "namespaces/prod/topics/orders";
const PARTITIONS: i32 = 4;
const WITHIN: Duration = Duration::from_secs(20);
const MIB: usize = 1 << 20;
/// One of these is in every refusal: what to do.
const REMEDIES: &[&str] = &[
    "send",
    "must",
    "at most",
    "split",
    "remove",
    "choose",
    "takes",
    "lists",
    "has the partitions",
    // Of what cannot be parsed, the place is what helps.
    "at line",
];

struct Cases {
    address: String,
    key: String,
    api: Api,
    faults: Vec<String>,
    run: usize,
}

impl Cases {
    /// An HTTP call that must be refused with this status and reason; the answer must name all of `says`.
    async fn http(
        &mut self,
        name: &str,
        (method, path): (&str, &str),
        headers: &[(&str, &str)],
        body: &[u8],
        (status, reason): (u16, &str),
        says: &[&str],
    ) -> Option<RawAnswer> {
        self.run += 1;
        let authorization = format!("Bearer {}", self.key);
        let mut all = vec![("authorization", authorization.as_str())];
        all.extend_from_slice(headers);
        let answer = match raw::http(&self.address, method, path, &all, body, WITHIN).await {
            Ok(answer) => answer,
            Err(error) => {
                self.faults.push(format!("{name}: {error:#}"));
                return None;
            }
        };
        let json: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let message = json["error"]["message"].as_str().unwrap_or_default();
        let details = json["error"]["details"].to_string();
        let found =
            json["error"]["details"].as_array().and_then(|all| all.iter().find_map(|one| one["reason"].as_str()));
        let fits = answer.status == status && found == Some(reason) && answer.header("x-request-id").is_some();
        if !fits || !names(message, &details, says) {
            self.faults.push(format!("{name}: wanted {status} {reason} naming {says:?}, got {}", answer.shown()));
        }
        Some(answer)
    }

    async fn json(&mut self, name: &str, body: &Value, reason: &str, says: &[&str]) {
        let path = format!("/v1/{TOPIC}/records");
        let body = body.to_string();
        self.http(name, ("POST", &path), &[("content-type", "application/json")], body.as_bytes(), (400, reason), says)
            .await;
    }

    async fn text(&mut self, name: &str, body: &[u8], reason: &str, says: &[&str]) {
        let path = format!("/v1/{TOPIC}/records");
        self.http(name, ("POST", &path), &[("content-type", "application/json")], body, (400, reason), says).await;
    }

    /// A gRPC call that must have been refused.
    fn grpc<T: std::fmt::Debug>(&mut self, name: &str, answer: Result<T, Status>, code: Code, says: &[&str]) {
        self.run += 1;
        match answer {
            Ok(taken) => {
                let mut text = format!("{taken:?}");
                text.truncate(300);
                self.faults.push(format!("{name}: was taken: {text}"));
            }
            Err(status) => {
                let details = format!("{:?}", status.get_error_details());
                if status.code() != code || !names(status.message(), &details, says) {
                    self.faults.push(format!("{name}: wanted {code:?} naming {says:?}, got {status:?}"));
                }
            }
        }
    }

    async fn produce(&mut self, name: &str, records: Vec<ProduceRecord>, says: &[&str]) {
        let answer = self.api.produce(TOPIC, records).await;
        self.grpc(name, answer, Code::InvalidArgument, says);
    }

    async fn fetch(&mut self, name: &str, request: FetchRequest, code: Code, says: &[&str]) {
        let request = FetchRequest { topic: TOPIC.into(), ..request };
        let mut client = StreamServiceClient::new(self.api.channel.clone());
        let answer = client.fetch(self.api.request(request)).await.map(tonic::Response::into_inner);
        self.grpc(name, answer, code, says);
    }
}

/// Whether the message names it all, and a remedy. Separators within numbers do not matter.
fn names(message: &str, details: &str, says: &[&str]) -> bool {
    let plain = |text: &str| text.replace([',', '_'], "").to_lowercase();
    let (message, details) = (plain(message), plain(details));
    let named = says.iter().all(|word| message.contains(&plain(word)) || details.contains(&plain(word)));
    named && REMEDIES.iter().any(|remedy| message.contains(remedy))
}

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
    records_over_grpc(&mut cases).await;
    records_over_http(&mut cases).await;
    encodings(&mut cases).await?;
    bodies_that_never_come(&mut cases).await?;
    routes(&mut cases).await;
    reading(&mut cases).await;
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

async fn records_over_grpc(cases: &mut Cases) {
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

async fn records_over_http(cases: &mut Cases) {
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
        cases.text(&format!("JSON {depth} deep"), text.as_bytes(), "MALFORMED_BODY", &["deep", "127"]).await;
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
        ("PUT", "/v1/tenant", "GET"),
        ("DELETE", "/v1/tenant", "GET"),
        ("PATCH", "/v1/namespaces/prod/topics/orders/records", "GET, POST"),
        ("DELETE", "/v1/namespaces", "GET, POST"),
        ("GET", "/v1/namespaces/prod/topics/orders:listOffsets", "POST"),
        ("POST", "/v1/namespaces/prod/topics/orders:metadata", "GET"),
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

async fn reading(cases: &mut Cases) {
    let plain = FetchRequest::default;
    for partition in [-1, PARTITIONS] {
        let request = FetchRequest { partition, ..plain() };
        cases
            .fetch(&format!("fetch of partition {partition}"), request, Code::InvalidArgument, &["partition", "3"])
            .await;
    }
    let request = FetchRequest { max_bytes: -1, ..plain() };
    cases.fetch("a negative number of bytes", request, Code::InvalidArgument, &["max_bytes"]).await;
    let request = FetchRequest { max_bytes: i32::MAX, ..plain() };
    cases.fetch("too many bytes", request, Code::InvalidArgument, &["max_bytes", "8388608"]).await;
    let request = FetchRequest { max_records: 10_001, ..plain() };
    cases.fetch("too many records", request, Code::InvalidArgument, &["max_records", "10000"]).await;
    let request = FetchRequest { wait: Some(Duration::from_secs(31).into()), ..plain() };
    cases.fetch("too long a wait", request, Code::InvalidArgument, &["wait", "30"]).await;
    let request = FetchRequest { start: Some(Start::Offset(-1)), ..plain() };
    cases.fetch("a negative offset", request, Code::InvalidArgument, &["offset"]).await;
    let request = FetchRequest { start: Some(Start::Position(7)), ..plain() };
    cases.fetch("an unknown position", request, Code::InvalidArgument, &["position"]).await;
    let request = FetchRequest { start: Some(Start::Offset(1)), ..plain() };
    cases.run += 1;
    let mut client = StreamServiceClient::new(cases.api.channel.clone());
    let request = FetchRequest { topic: TOPIC.into(), ..request };
    match client.fetch(cases.api.request(request)).await {
        Err(status) if status.code() == Code::OutOfRange => {
            let metadata =
                status.get_error_details().error_info().map(|info| info.metadata.clone()).unwrap_or_default();
            if metadata.len() < 2 {
                cases.faults.push(format!("an offset behind the end: no positions: {status:?}"));
            }
        }
        other => cases.faults.push(format!("an offset behind the end: {other:?}")),
    }
    let path = format!("/v1/{TOPIC}/records");
    for (what, query, field) in [
        ("a partition that is none", "partition=x", "partition"),
        ("an offset that is none", "offset=now", "offset"),
        ("a time that is none", "time=yesterday", "time"),
        ("a wait that is none", "wait_ms=long", "wait"),
        ("too long a wait", "wait_ms=30001", "wait"),
        ("an unknown parameter", "colour=red", "colour"),
        ("two starts", "offset=1&time=2026-01-01T00:00:00Z", "offset; send one"),
        ("a parameter twice", "partition=1&partition=2", "partition"),
    ] {
        let what = format!("GET with {what}");
        cases.http(&what, ("GET", &format!("{path}?{query}")), &[], b"", (400, "INVALID_FIELD"), &[field]).await;
    }
}
