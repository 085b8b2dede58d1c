//! Who pays for an answer with records: whoever takes it, and nobody else.

use std::time::Duration;

use prost::Message;
use reqwest::Method;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tonic::transport::Channel;
use tower::ServiceExt;

use sluice_proto::internal::control::v1::control_record::Resource;
use sluice_proto::internal::control::v1::{ControlRecord, Life, Limits};
use sluice_proto::internal::usage::v1::{DeliveredPartition, UsageWindow};
use sluice_proto::stream::v1::FetchRequest;
use sluice_types::physical::{PhysicalTopic, USAGE_TOPIC};
use sluice_types::{GroupUid, TopicUid};
use sluice_wire::{LogTail, OffsetAt, OutRecord, TailOptions};

use crate::world::{Gateway, PATIENCE, Tenant, World};

const RECORDS: u64 = 8;
/// Logical bytes of each: more, together, than a socket takes from a server whose client does not read.
const BYTES: usize = 1_000_000;
/// One answer that is not given back owes more than a minute.
const SLOW: i64 = 10_000;
const TOPIC: &str = "namespaces/prod/topics/orders";
const PULL: &str = "/v1/namespaces/prod/groups/billing:pull";
const WAIT: &str = "{\"wait\":\"5s\",\"maxBytes\":3000000}";
const LETTERS: &str = "/v1/namespaces/prod/groups/billing/deadLetters";

/// A whole gateway, and a tenant with a topic and a group that has dead letters.
pub(crate) struct Shop {
    world: World,
    pub(crate) gateway: Gateway,
    pub(crate) tenant: Tenant,
    topic: TopicUid,
    dead: TopicUid,
}

impl Shop {
    /// With so many records, and as many letters; `tables` are of the gateway's configuration.
    pub(crate) async fn open(records: u64, tables: &str) -> Self {
        let world = World::new().await;
        let gateway = world.gateway_with("gateway-a", "", tables).await;
        let tenant = Tenant::new("acme");
        let (topic, dead, group) = (TopicUid::random(), TopicUid::random(), GroupUid::random());
        for topic in [topic, dead] {
            world.create_topic(&tenant, topic, 1).await;
        }
        for record in tenant.base() {
            world.publish(&record).await;
        }
        world.publish(&tenant.key_state(1, Life::Active)).await;
        world.publish(&tenant.topic(topic, 1, Life::Active, 1)).await;
        let mut of_letters = tenant.topic(dead, 1, Life::Active, 1);
        let mut with_letters = tenant.group(group, 1, Life::Active);
        if let (Some(Resource::Topic(topic)), Some(Resource::Group(group))) =
            (&mut of_letters.resource, &mut with_letters.resource)
        {
            topic.id = "dead".into();
            (group.dead_letter_topic_id, group.max_attempts) = ("dead".into(), 1);
        }
        world.publish(&of_letters).await;
        let offset = world.publish(&with_letters).await;
        world.applied(&gateway, offset).await;
        let shop = Self { world, gateway, tenant, topic, dead };
        let origin: [(&str, String); 2] =
            [("sluice-dlq-group", group.to_string()), ("sluice-dlq-topic", TOPIC.to_owned())];
        for _ in 0..records {
            shop.append(topic, &[]).await;
            shop.append(dead, &origin).await;
        }
        shop
    }

    async fn append(&self, topic: TopicUid, headers: &[(&str, String)]) {
        let name = PhysicalTopic::new(self.tenant.namespace, topic);
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned().into(), Some(value.clone().into())));
        let record = OutRecord {
            value: Some(vec![b'v'; BYTES].into()),
            timestamp_ms: sluice_devstack::now_ms(),
            headers: headers.collect(),
            ..OutRecord::default()
        };
        self.world.kafka.produce_batch(name.as_str(), 0, &[record], PATIENCE).await.expect("produce");
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Value {
        let request = reqwest::Client::new().post(self.gateway.url(path)).bearer_auth(self.tenant.key.expose());
        let answer = request.json(body).send().await.expect("an answer");
        let (status, answer) = (answer.status(), answer.json().await.expect("JSON"));
        assert_eq!(status, 200, "{answer}");
        answer
    }

    async fn apply(&self, record: &ControlRecord) {
        let offset = self.world.publish(record).await;
        self.world.applied(&self.gateway, offset).await;
    }

    async fn limit_egress(&self, version: i64, egress_bytes_per_second: i64) {
        let mut tenant = self.tenant.base().remove(0);
        tenant.version = version;
        if let Some(Resource::Tenant(tenant)) = &mut tenant.resource {
            tenant.limits = Some(Limits { egress_bytes_per_second, ..Limits::default() });
        }
        self.apply(&tenant).await;
    }

    /// Waits until the tenant may read, far sooner than it could if it owed an answer.
    async fn owes_nothing(&self, after: &str) {
        let mut last = None;
        let paid = async {
            loop {
                let answer = self.gateway.get(&fetch("offset=latest"), &self.tenant.key).await;
                if answer.0 == 200 {
                    return;
                }
                last = Some(answer);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let paid = tokio::time::timeout(PATIENCE, paid).await;
        assert!(paid.is_ok(), "it still owes {after}: {last:?}");
    }

    /// Asks over HTTP/1.1, and goes away with the head of the answer.
    async fn ask_and_leave(&self, path: &str) {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(16 << 10).expect("a size");
        let mut stream = socket.connect(self.gateway.addrs.public).await.expect("connect");
        let key = self.tenant.key.expose();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("asked");
        let mut head = [0; 15];
        stream.read_exact(&mut head).await.expect("an answer");
        assert_eq!(&head, b"HTTP/1.1 200 OK");
    }

    /// The same over HTTP/2.
    async fn ask_and_leave_http2(&self, path: &str) {
        let client = reqwest::Client::builder().http2_prior_knowledge().http2_initial_stream_window_size(65_535);
        let method = if path == PULL { Method::POST } else { Method::GET };
        let request = client.build().expect("a client").request(method, self.gateway.url(path));
        let request = request.bearer_auth(self.tenant.key.expose()).header("content-type", "application/json");
        let answer = request.body(if path == PULL { WAIT } else { "" }).send().await.expect("its head");
        assert_eq!(answer.status(), 200);
    }

    /// The same over gRPC.
    async fn ask_and_leave_grpc(&self) {
        let endpoint = Channel::from_shared(self.gateway.url("")).expect("address");
        let channel = endpoint.initial_stream_window_size(65_535).connect().await.expect("connect");
        let request = FetchRequest { topic: TOPIC.into(), max_bytes: 8 << 20, ..FetchRequest::default() };
        let message = request.encode_to_vec();
        let mut frame = vec![0];
        frame.extend_from_slice(&u32::try_from(message.len()).expect("small").to_be_bytes());
        frame.extend_from_slice(&message);
        let body = tonic::body::Body::new(http_body_util::Full::new(bytes::Bytes::from(frame)));
        let request = http::Request::post("/sluice.stream.v1.StreamService/Fetch")
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("authorization", format!("Bearer {}", self.tenant.key.expose()));
        let answer = channel.oneshot(request.body(body).expect("a request")).await.expect("its head");
        assert!(!answer.headers().contains_key("grpc-status"), "{:?}", answer.headers());
    }

    /// Ends the gateway; what it says that was delivered, by topic.
    async fn delivered(self) -> Vec<DeliveredPartition> {
        self.gateway.stop().await.expect("an orderly end");
        let kafka = self.world.kafka.clone();
        let mut tail = LogTail::new(kafka, USAGE_TOPIC, 0, OffsetAt::Earliest, TailOptions::default());
        let mut delivered: Vec<DeliveredPartition> = Vec::new();
        let all = async {
            loop {
                for record in tail.next(PATIENCE).await.expect("usage").records {
                    let window = UsageWindow::decode(record.value.expect("a value")).expect("a window");
                    delivered.extend(window.delivered);
                    if window.last {
                        return;
                    }
                }
            }
        };
        tokio::time::timeout(PATIENCE, all).await.expect("the last window");
        delivered
    }
}

fn fetch(from: &str) -> String {
    format!("/v1/{TOPIC}/records?partition=0&max_bytes={}&{from}", 8 << 20)
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_without_reading_an_answer_pays_nothing_and_who_reads_it_pays_it_all() {
    let shop = Shop::open(RECORDS, "").await;
    let (status, answer) = shop.gateway.get(LETTERS, &shop.tenant.key).await;
    let letters = answer["deadLetters"].as_array().map_or(0, Vec::len) as u64;
    assert!(status == 200 && letters > 0, "{status}: {letters}");
    shop.ask_and_leave_http2(PULL).await;
    let pulled = async {
        let mut count = 0;
        while count < RECORDS {
            let answer = shop.post(PULL, &serde_json::from_str(WAIT).expect("JSON")).await;
            count += answer["records"].as_array().map_or(0, Vec::len) as u64;
        }
        count
    };
    // Each may be delivered once: had it counted for who left, it would not come any more.
    let pulled = tokio::time::timeout(PATIENCE, pulled).await.expect("all come");
    assert_eq!(pulled, RECORDS);

    shop.limit_egress(2, SLOW).await;
    for path in [&fetch("offset=0"), LETTERS] {
        shop.ask_and_leave_http2(path).await;
        shop.owes_nothing(path).await;
    }
    shop.ask_and_leave(&fetch("offset=0")).await;
    shop.owes_nothing("a fetch over HTTP/1.1").await;
    shop.ask_and_leave_grpc().await;
    shop.owes_nothing("a fetch over gRPC").await;
    let (status, answer) = shop.gateway.get(&fetch("offset=0"), &shop.tenant.key).await;
    let fetched = answer["records"].as_array().map_or(0, Vec::len) as u64;
    assert_eq!((status, fetched), (200, RECORDS));
    let (status, _) = shop.gateway.get(&fetch("offset=0"), &shop.tenant.key).await;
    assert_eq!(status, 429, "it owes what it has read");

    let (topic, dead) = (shop.topic.to_string(), shop.dead.to_string());
    let delivered = shop.delivered().await;
    let of = |uid: &str| {
        let of = delivered.iter().filter(|delivered| delivered.topic_uid == uid);
        of.fold((0, 0), |(records, bytes), delivered| (records + delivered.records, bytes + delivered.bytes))
    };
    assert_eq!(of(&topic), (fetched + pulled, (fetched + pulled) * BYTES as u64));
    assert_eq!(of(&dead), (letters, letters * BYTES as u64));
}
