//! Kafka limits how much we read from it: a call that can wait does, and one that cannot is told what it met.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use sluice_proto::internal::control::v1::Life;
use sluice_proto::stream::v1::fetch_request::Start;
use sluice_proto::stream::v1::stream_service_client::StreamServiceClient;
use sluice_proto::stream::v1::{FetchRequest, FetchResponse};
use sluice_types::TopicUid;

use crate::world::{PATIENCE, Tenant, World};

const RECORDS: i64 = 4;
const BYTES: usize = 500_000;
/// What Kafka lets us read a second; it gives ten seconds' worth at once, two records. A third makes us wait for five seconds.
const RATE: f64 = 100_000.0;
/// Enough for a read, and less than that.
const HASTY: Duration = Duration::from_secs(3);

struct Reader {
    client: StreamServiceClient<Channel>,
    bearer: String,
}

impl Reader {
    async fn record(&mut self, offset: i64, within: Duration) -> Result<FetchResponse, Status> {
        let request = FetchRequest {
            topic: "namespaces/prod/topics/orders".into(),
            start: Some(Start::Offset(offset)),
            max_records: 1,
            max_bytes: 1,
            ..FetchRequest::default()
        };
        let mut request = tonic::Request::new(request);
        request.set_timeout(within);
        request.metadata_mut().insert("authorization", self.bearer.parse().expect("ascii"));
        Ok(self.client.fetch(request).await?.into_inner())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_kafka_throttles_waits_if_it_can_and_is_told_overloaded_if_not() {
    // A Kafka of its own: the quota is of all gateways on it.
    let world = World::new().await;
    let gateway = world.whole_gateway("gateway-a", "").await;
    let (tenant, topic) = (Tenant::new("acme"), TopicUid::random());
    world.create_topic(&tenant, topic, 1).await;
    for record in tenant.base() {
        world.publish(&record).await;
    }
    world.publish(&tenant.key_state(1, Life::Active)).await;
    let offset = world.publish(&tenant.topic(topic, 1, Life::Active, 1)).await;
    world.applied(&gateway, offset).await;
    for _ in 0..RECORDS {
        world.produce(&tenant, topic, 0, &"x".repeat(BYTES)).await;
    }
    let quota = BTreeMap::from([("consumer_byte_rate".to_owned(), Some(RATE))]);
    world.kafka.alter_client_quotas("sluice-gateway", &quota, PATIENCE).await.expect("the quota");
    let client = StreamServiceClient::connect(gateway.url("")).await.expect("connect");
    let mut reader = Reader { client, bearer: format!("Bearer {}", tenant.key.expose()) };

    let began = Instant::now();
    let mut offset = 0;
    let refused = loop {
        match reader.record(offset, HASTY).await {
            Ok(found) => offset = found.next_offset % RECORDS,
            Err(status) => break status,
        }
        assert!(began.elapsed() < PATIENCE, "never throttled");
    };
    let details = refused.get_error_details();
    let reason = details.error_info().map(|info| info.reason.as_str());
    assert_eq!((refused.code(), reason), (Code::Unavailable, Some("OVERLOADED")), "{refused:?}");
    let pause = details.retry_info().and_then(|retry| retry.retry_delay).expect("when to come back");
    assert!(pause > Duration::ZERO && pause < PATIENCE, "{pause:?}");

    let found = reader.record(offset, PATIENCE).await.expect("who can wait gets it");
    assert_eq!(found.records.len(), 1);
    gateway.stop().await.expect("an orderly end");
}
