//! The door of consumer groups: two gateways on one Kafka, called as clients call them.

mod between;
mod half_open;
mod pacing;
mod refusals;
mod streams;

use std::net::SocketAddr;
use std::time::Duration;

use reqwest::StatusCode;
use serde_json::{Value, json};

use sluice_proto::internal::control::v1::Life;
use sluice_proto::stream::v1::consumer_service_client::ConsumerServiceClient;
use sluice_proto::stream::v1::{NackRequest, PullRequest, SettleOutcome};
use sluice_types::{GroupUid, TopicUid};
use tonic::transport::Channel;

use crate::world::{Gateway, PATIENCE, Tenant, World};

const GROUP: &str = "namespaces/prod/groups/billing";

/// Two gateways, a tenant with a topic of three partitions and a group that reads it.
struct Shop {
    world: World,
    gateways: Vec<Gateway>,
    tenant: Tenant,
    topic: TopicUid,
    group: GroupUid,
}

impl Shop {
    async fn open() -> Self {
        let world = World::new().await;
        let gateways = vec![world.gateway("gateway-a").await, world.gateway("gateway-b").await];
        Self::of(world, gateways).await
    }

    async fn of(world: World, gateways: Vec<Gateway>) -> Self {
        let tenant = Tenant::new("acme");
        let (topic, group) = (TopicUid::random(), GroupUid::random());
        world.create_topic(&tenant, topic, 3).await;
        for record in tenant.base() {
            world.publish(&record).await;
        }
        world.publish(&tenant.key_state(1, Life::Active)).await;
        world.publish(&tenant.topic(topic, 1, Life::Active, 3)).await;
        let offset = world.publish(&tenant.group(group, 1, Life::Active)).await;
        for gateway in &gateways {
            world.applied(gateway, offset).await;
        }
        Self { world, gateways, tenant, topic, group }
    }

    /// One record in each partition.
    async fn produce(&self, value: &str) {
        for partition in 0..3 {
            self.world.produce(&self.tenant, self.topic, partition, &format!("{value}{partition}")).await;
        }
    }

    async fn post(&self, gateway: usize, verb: &str, body: &Value) -> (StatusCode, Value) {
        let url = self.gateways[gateway].url(&format!("/v1/{GROUP}:{verb}"));
        let request = reqwest::Client::new().post(url).bearer_auth(self.tenant.key.expose()).json(body);
        let answer = request.send().await.expect("an answer");
        (answer.status(), answer.json().await.expect("JSON"))
    }

    /// Pulls over HTTP until so many records came.
    async fn pull(&self, gateway: usize, count: usize) -> Vec<Value> {
        let body = json!({"maxRecords": 10, "wait": "2s", "encoding": "PAYLOAD_ENCODING_TEXT"});
        let mut records = Vec::new();
        let all = async {
            while records.len() < count {
                let (status, answer) = self.post(gateway, "pull", &body).await;
                assert_eq!(status, StatusCode::OK, "{answer}");
                records.extend(answer["records"].as_array().expect("records").iter().cloned());
            }
        };
        tokio::time::timeout(PATIENCE, all).await.expect("the records come");
        records
    }

    async fn client(&self, gateway: usize) -> ConsumerServiceClient<Channel> {
        self.client_at(self.gateways[gateway].addrs.public).await
    }

    async fn client_at(&self, address: SocketAddr) -> ConsumerServiceClient<Channel> {
        let endpoint = Channel::from_shared(format!("http://{address}")).expect("address");
        ConsumerServiceClient::new(endpoint.connect().await.expect("connect"))
    }

    fn signed<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        let bearer = format!("Bearer {}", self.tenant.key.expose()).parse().expect("ascii");
        request.metadata_mut().insert("authorization", bearer);
        request
    }

    async fn close(self) {
        for gateway in self.gateways {
            gateway.stop().await.expect("an orderly end");
        }
    }
}

fn ids(records: &[Value]) -> Vec<&str> {
    records.iter().map(|record| record["ackId"].as_str().expect("an id")).collect()
}

fn values(records: &[Value]) -> Vec<&str> {
    let mut values: Vec<&str> =
        records.iter().map(|record| record["record"]["valueText"].as_str().expect("a text")).collect();
    values.sort_unstable();
    values
}

#[tokio::test(flavor = "multi_thread")]
async fn any_gateway_delivers_and_any_other_takes_what_was_done_with_it() {
    let shop = Shop::open().await;
    shop.produce("a").await;
    let first = shop.pull(0, 3).await;
    assert_eq!(values(&first), ["a0", "a1", "a2"]);
    assert_eq!((&first[0]["attempt"], &first[0]["topic"]), (&json!(1), &json!("namespaces/prod/topics/orders")));

    // Acknowledged through the other one; twice is OK twice, and the same id twice in a call, too.
    let all = ids(&first);
    let (status, answer) = shop.post(1, "ack", &json!({"ackIds": [all[0], all[0]]})).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    assert_eq!(answer["results"].as_array().map(Vec::len), Some(2));
    let (status, _) = shop.post(0, "ack", &json!({"ackIds": [all[0]]})).await;
    assert_eq!(status, StatusCode::OK);

    // One that is wrong makes it 207, and the others are done.
    let (status, answer) = shop.post(1, "ack", &json!({"ackIds": [all[1], "nonsense"]})).await;
    assert_eq!(status, StatusCode::MULTI_STATUS);
    assert_eq!(answer["results"][0]["outcome"], "SETTLE_OUTCOME_OK");
    assert_eq!(answer["results"][1]["outcome"], "SETTLE_OUTCOME_INVALID");
    assert_eq!(answer["results"][1]["error"]["details"][0]["reason"], "ACK_ID_INVALID");

    // Extended over HTTP, refused over gRPC: the next delivery is the second, at the other gateway.
    let (status, answer) = shop.post(0, "extend", &json!({"ackIds": [all[2]], "ackDeadline": "60s"})).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    let nack = NackRequest {
        group: GROUP.into(),
        ack_ids: vec![all[2].into()],
        delay: Some(sluice_proto::wkt::Duration::default()),
        reason: "not now".into(),
        release: false,
    };
    let mut client = shop.client(1).await;
    let answer = client.nack(shop.signed(nack)).await.expect("answered").into_inner();
    assert_eq!(answer.results[0].outcome(), SettleOutcome::Ok);
    let again = PullRequest { group: GROUP.into(), wait: Some(Duration::from_secs(5).into()), ..Default::default() };
    let again = client.pull(shop.signed(again)).await.expect("answered").into_inner().records;
    assert_eq!((again.len(), again[0].attempt), (1, 2));
    let (status, _) = shop.post(0, "ack", &json!({"ackIds": [again[0].ack_id]})).await;
    assert_eq!(status, StatusCode::OK);

    // Given back over HTTP: the next delivery is no retry, but has an id of its own.
    shop.produce("b").await;
    let given = shop.pull(0, 3).await;
    let back: Vec<&str> = ids(&given);
    let (status, answer) = shop.post(1, "nack", &json!({"ackIds": back, "release": true, "reason": "?"})).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{answer}");
    let (status, answer) = shop.post(1, "nack", &json!({"ackIds": back, "release": true})).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    let taken = shop.pull(1, 3).await;
    assert_eq!((values(&taken), &taken[0]["attempt"]), (values(&given), &json!(2)));
    let (_, answer) = shop.post(0, "nack", &json!({"ackIds": back, "release": true})).await;
    assert_eq!(answer["results"][0]["outcome"], "SETTLE_OUTCOME_STALE_LEASE", "it is another's now");
    let (status, answer) = shop.post(0, "ack", &json!({"ackIds": ids(&taken)})).await;
    assert_eq!(status, StatusCode::OK, "{answer}");

    for gateway in &shop.gateways {
        let (status, answer) = gateway.get(&format!("/v1/{GROUP}:status"), &shop.tenant.key).await;
        assert_eq!((status, &answer["lag"], &answer["group"]), (200, &json!("0"), &json!(GROUP)), "{answer}");
        assert!(answer["dispatcher"].as_str().is_some_and(|id| id.starts_with("gateway-")), "{answer}");
    }
    let (status, answer) = shop.post(1, "reset", &json!({"position": "POSITION_EARLIEST", "dryRun": true})).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    assert_eq!(answer["partitions"].as_array().map(Vec::len), Some(3));
    shop.close().await;
}
