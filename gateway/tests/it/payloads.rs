//! Payloads at their edges, by every way to a consumer: all of them arrive, as what they are.

use std::collections::VecDeque;
use std::time::Duration;

use reqwest::{Method, Response};
use serde_json::{Value, json};
use tonic::transport::Channel;

use sluice_proto::stream::v1::consumer_service_client::ConsumerServiceClient;
use sluice_proto::stream::v1::{PayloadEncoding, PullRequest, ReceivedRecord, SubscribeRequest};

use crate::egress::Shop;
use crate::world::PATIENCE;

const GROUP: &str = "namespaces/prod/groups/billing";
const RECORDS: &str = "/v1/namespaces/prod/topics/orders/records";
const MIB: usize = 1 << 20;

/// A way to a consumer.
#[derive(Debug, Clone, Copy)]
enum Way {
    Pull,
    Events,
    GrpcPull,
    GrpcSubscribe,
}

const WAYS: [Way; 4] = [Way::Pull, Way::Events, Way::GrpcPull, Way::GrpcSubscribe];

impl Shop {
    async fn call(&self, method: Method, path: &str, kind: &str, body: Vec<u8>) -> Response {
        let request = reqwest::Client::new().request(method, self.gateway.url(path)).header("content-type", kind);
        request.bearer_auth(self.tenant.key.expose()).body(body).send().await.expect("an answer")
    }

    fn signed<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        let bearer = format!("Bearer {}", self.tenant.key.expose()).parse().expect("ascii");
        request.metadata_mut().insert("authorization", bearer);
        request
    }

    async fn client(&self) -> ConsumerServiceClient<Channel> {
        let endpoint = Channel::from_shared(self.gateway.url("")).expect("address");
        ConsumerServiceClient::new(endpoint.connect().await.expect("connect"))
    }

    /// The first so many records of the group, from its beginning, in the JSON form of a record.
    async fn receive(&self, way: Way, encoding: PayloadEncoding, count: usize) -> Vec<Value> {
        self.post(&format!("/v1/{GROUP}:reset"), &json!({"position": "POSITION_EARLIEST", "force": true})).await;
        let received = async {
            match way {
                Way::Pull => self.pull(encoding, count).await,
                Way::Events => self.events(encoding, count).await,
                Way::GrpcPull => self.grpc_pull(encoding, count).await,
                Way::GrpcSubscribe => self.subscribe(encoding, count).await,
            }
        };
        let received = tokio::time::timeout(PATIENCE, received).await;
        let received = received.unwrap_or_else(|_| panic!("{way:?} in {encoding:?} does not bring all"));
        assert_eq!(received.len(), count, "{way:?} in {encoding:?}");
        received
    }

    async fn pull(&self, encoding: PayloadEncoding, count: usize) -> Vec<Value> {
        let body = json!({"maxRecords": 1_000, "maxBytes": 8 << 20, "wait": "5s", "encoding": encoding.as_str_name()});
        let mut records = Vec::new();
        while records.len() < count {
            let answer = self.post(&format!("/v1/{GROUP}:pull"), &body).await;
            records.extend(answer["records"].as_array().expect("records").iter().map(|it| it["record"].clone()));
        }
        records
    }

    async fn events(&self, encoding: PayloadEncoding, count: usize) -> Vec<Value> {
        let encoding = encoding.as_str_name();
        let path = format!("/v1/{GROUP}:stream?encoding={encoding}&maxOutstandingRecords=2000");
        let mut stream = self.call(Method::GET, &path, "text/plain", Vec::new()).await;
        assert_eq!(stream.status(), 200);
        let (mut text, mut records) = (VecDeque::new(), Vec::new());
        while records.len() < count {
            text.extend(stream.chunk().await.expect("open").expect("more to come"));
            while let Some(end) = text.make_contiguous().windows(2).position(|end| end == b"\n\n") {
                let event: Vec<u8> = text.drain(..end + 2).collect();
                let event = String::from_utf8(event).expect("text");
                let Some(data) = event.strip_prefix("event: records\ndata: ") else { continue };
                let data: Value = serde_json::from_str(data).expect("JSON");
                records.extend(data["records"].as_array().expect("records").iter().map(|it| it["record"].clone()));
            }
        }
        records
    }

    async fn grpc_pull(&self, encoding: PayloadEncoding, count: usize) -> Vec<Value> {
        let mut client = self.client().await;
        let mut records = Vec::new();
        while records.len() < count {
            let request = PullRequest {
                group: GROUP.into(),
                max_records: 1_000,
                max_bytes: 8 << 20,
                wait: Some(Duration::from_secs(5).into()),
                encoding: encoding.into(),
                ..PullRequest::default()
            };
            let answer = client.pull(self.signed(request)).await.expect("an answer").into_inner();
            records.extend(answer.records.into_iter().map(in_json));
        }
        records
    }

    async fn subscribe(&self, encoding: PayloadEncoding, count: usize) -> Vec<Value> {
        let request = SubscribeRequest {
            group: GROUP.into(),
            max_outstanding_records: 2_000,
            encoding: encoding.into(),
            ..SubscribeRequest::default()
        };
        let mut stream = self.client().await.subscribe(self.signed(request)).await.expect("a stream").into_inner();
        let mut records = Vec::new();
        while records.len() < count {
            let message = stream.message().await.expect("open").expect("more to come");
            records.extend(message.records.into_iter().map(in_json));
        }
        records
    }
}

fn in_json(received: ReceivedRecord) -> Value {
    serde_json::to_value(received.record.expect("a record")).expect("JSON")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_of_one_mebibyte_comes_whole_by_every_way_and_a_larger_one_is_refused_with_the_limit() {
    const SIZES: [usize; 2] = [MIB - 1, MIB];
    let shop = Shop::open(0, "").await;
    let value = |size: usize| -> String { ('a'..='z').cycle().take(size).collect() };
    for size in SIZES {
        let answer = shop.call(Method::POST, RECORDS, "application/octet-stream", value(size).into_bytes()).await;
        assert_eq!(answer.status(), 200, "{size}");
    }
    let answer = shop.call(Method::POST, RECORDS, "application/octet-stream", value(MIB + 1).into_bytes()).await;
    assert_eq!(answer.status(), 400);
    let answer: Value = answer.json().await.expect("JSON");
    let message = answer["error"]["message"].as_str().expect("a message");
    assert!(message.contains("1048577") && message.contains("1048576"), "{message}");
    assert_eq!(answer["error"]["details"][0]["reason"], "TOO_LARGE", "{answer}");
    for way in WAYS {
        for encoding in [PayloadEncoding::Text, PayloadEncoding::Bytes] {
            let records = shop.receive(way, encoding, SIZES.len()).await;
            for (record, size) in records.iter().zip(SIZES) {
                let text = match encoding {
                    PayloadEncoding::Text => record["valueText"].as_str().expect("a text").to_owned(),
                    _ => decoded(&record["value"]),
                };
                assert!(text == value(size), "{way:?} in {encoding:?}: {size} bytes became {}", text.len());
            }
        }
    }
    shop.gateway.stop().await.expect("an orderly end");
}

fn decoded(value: &Value) -> String {
    use base64::Engine as _;
    let bytes = base64::engine::general_purpose::STANDARD.decode(value.as_str().expect("base64")).expect("base64");
    String::from_utf8(bytes).expect("text")
}

#[tokio::test(flavor = "multi_thread")]
async fn one_value_that_is_no_json_among_a_thousand_comes_as_text_and_costs_the_others_nothing() {
    const COUNT: usize = 1_000;
    const BAD: usize = 500;
    let shop = Shop::open(0, "").await;
    let text = |at: usize| if at == BAD { "{\"id\":".to_owned() } else { format!("{{\"id\":{at}}}") };
    let records: Vec<Value> = (0..COUNT).map(|at| json!({"valueText": text(at)})).collect();
    shop.post(RECORDS, &json!({"records": records})).await;
    for way in WAYS {
        for encoding in [PayloadEncoding::Json, PayloadEncoding::Text, PayloadEncoding::Bytes] {
            for (at, record) in shop.receive(way, encoding, COUNT).await.iter().enumerate() {
                let as_sent = match encoding {
                    PayloadEncoding::Json if at != BAD => record["valueJson"]["id"].as_f64() == Some(at as f64),
                    PayloadEncoding::Json | PayloadEncoding::Text => record["valueText"] == text(at),
                    _ => decoded(&record["value"]) == text(at),
                };
                assert!(as_sent, "{way:?} in {encoding:?}, record {at}: {record}");
            }
        }
    }
    shop.gateway.stop().await.expect("an orderly end");
}
