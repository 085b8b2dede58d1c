//! What is published is served as soon as the heartbeat says so; what is not ours is forwarded.

use std::time::{Duration, Instant};

use serde_json::Value;
use tonic::Code;
use tonic::transport::Channel;

use sluice_proto::admin::v1::GetTenantRequest;
use sluice_proto::admin::v1::tenant_service_client::TenantServiceClient;
use sluice_proto::internal::control::v1::{Life, MemberPhase};
use sluice_proto::internal::gateway::v1::GetStateRequest;
use sluice_proto::internal::gateway::v1::peer_service_client::PeerServiceClient;
use sluice_proto::stream::v1::ListOffsetsRequest;
use sluice_proto::stream::v1::stream_service_client::StreamServiceClient;
use sluice_runtime::internal::internal_channel;
use sluice_runtime::statuses::from_tonic;
use sluice_types::TopicUid;

use crate::world::{Gateway, Tenant, World};

/// How long a gateway waits until a new topic can be served.
const READY_WITHIN: Duration = Duration::from_millis(1_500);
const METADATA: &str = "/v1/namespaces/prod/topics/orders:metadata";

fn reason(body: &Value) -> &str {
    body["error"]["details"][0]["reason"].as_str().unwrap_or_default()
}

fn signed<T>(message: T, tenant: &Tenant) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    let bearer = format!("Bearer {}", tenant.key.expose()).parse().expect("ascii");
    request.metadata_mut().insert("authorization", bearer);
    request
}

async fn channel(gateway: &Gateway) -> Channel {
    let endpoint = Channel::from_shared(gateway.url("")).expect("address");
    endpoint.connect().await.expect("connect")
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_are_served_once_applied_and_the_rest_is_forwarded() {
    let mut world = World::new().await;
    let gateway = world.gateway("gateway-a").await;

    // Published before and after its start, nothing is missed.
    let tenant = Tenant::new("acme");
    for record in tenant.base() {
        world.publish(&record).await;
    }
    world.publish(&tenant.key_state(1, Life::Active)).await;
    let first = TopicUid::random();
    world.create_topic(&tenant, first, 3).await;
    let offset = world.publish(&tenant.topic(first, 1, Life::Active, 3)).await;
    world.applied(&gateway, offset).await;
    let (status, body) = gateway.get(METADATA, &tenant.key).await;
    assert_eq!((status, body["uid"].as_str()), (200, Some(first.to_string().as_str())), "{body}");

    // The same over gRPC, and after partitions were added.
    world.add_partitions(&tenant, first, 5).await;
    let offset = world.publish(&tenant.topic(first, 2, Life::Active, 5)).await;
    world.applied(&gateway, offset).await;
    let mut stream = StreamServiceClient::new(channel(&gateway).await);
    let ask = ListOffsetsRequest { topic: "namespaces/prod/topics/orders".into(), ..Default::default() };
    let answer = stream.list_offsets(signed(ask.clone(), &tenant)).await.expect("known");
    let revision = answer.metadata().get("sluice-revision").expect("a revision").to_str().expect("ascii").to_owned();
    assert!(revision.ends_with(&format!("-{offset}")), "{revision}");
    assert_eq!(answer.into_inner().offsets.len(), 5);

    another_tenants_topic_looks_absent(&world, &gateway).await;

    // Deleted, and made again under the same name.
    let offset = world.publish(&tenant.topic(first, 3, Life::Gone, 5)).await;
    world.applied(&gateway, offset).await;
    let (status, body) = gateway.get(METADATA, &tenant.key).await;
    assert_eq!((status, reason(&body)), (404, "RESOURCE_NOT_FOUND"));
    assert_eq!(stream.list_offsets(signed(ask, &tenant)).await.expect_err("gone").code(), Code::NotFound);
    let second = TopicUid::random();
    world.create_topic(&tenant, second, 1).await;
    let offset = world.publish(&tenant.topic(second, 1, Life::Active, 1)).await;
    world.applied(&gateway, offset).await;
    let (_, body) = gateway.get(METADATA, &tenant.key).await;
    assert_eq!(body["uid"].as_str(), Some(second.to_string().as_str()));

    over_tls(&world, &tenant, offset).await;
    asked_by_peers(&world, &gateway, offset).await;
    forwarding(&mut world, &gateway, &tenant).await;

    // Revoked.
    let offset = world.publish(&tenant.key_state(2, Life::Gone)).await;
    world.applied(&gateway, offset).await;
    let (status, body) = gateway.get(METADATA, &tenant.key).await;
    assert_eq!((status, reason(&body)), (401, "CREDENTIAL_INVALID"));

    draining(&world, gateway).await;
}

async fn over_tls(world: &World, tenant: &Tenant, offset: i64) {
    let gateway = world.gateway_with_tls("gateway-tls").await;
    world.applied(&gateway, offset).await;
    let ca = std::fs::read(&world.stack.connection().ca_file).expect("CA");
    let ca = reqwest::Certificate::from_pem(&ca).expect("CA");
    let client = reqwest::Client::builder().tls_certs_only([ca]).build().expect("client");
    let url = gateway.url(METADATA).replace("http://127.0.0.1", "https://localhost");
    let answer = client.get(url).bearer_auth(tenant.key.expose()).send().await.expect("over TLS");
    assert_eq!((answer.status().as_u16(), answer.version()), (200, reqwest::Version::HTTP_2));
    gateway.stop().await.expect("an orderly end");
}

async fn asked_by_peers(world: &World, gateway: &Gateway, offset: i64) {
    let address = gateway.addrs.internal.to_string();
    let channel = internal_channel(&address, &world.identity(), "gateway").expect("channel");
    let state = PeerServiceClient::new(channel).get_state(GetStateRequest {}).await.expect("the control plane may ask");
    let member = state.into_inner().member.expect("a member");
    assert_eq!((member.gateway_id.as_str(), member.phase()), ("gateway-a", MemberPhase::Serving));
    assert_eq!(member.applied_offset, offset);
}

async fn another_tenants_topic_looks_absent(world: &World, gateway: &Gateway) {
    let stranger = Tenant::new("stranger");
    for record in stranger.base() {
        world.publish(&record).await;
    }
    let offset = world.publish(&stranger.key_state(1, Life::Active)).await;
    world.applied(gateway, offset).await;
    let mut answers = Vec::new();
    for path in [METADATA, "/v1/namespaces/prod/topics/absent:metadata"] {
        let (status, body) = gateway.get(path, &stranger.key).await;
        assert_eq!(status, 404);
        let mut text = body["error"].clone();
        text["details"] = text["details"][0].clone();
        answers.push(text.to_string().replace("orders", "absent"));
    }
    assert_eq!(answers[0], answers[1]);
}

async fn forwarding(world: &mut World, gateway: &Gateway, tenant: &Tenant) {
    // A key that only the control plane knows yet.
    let fresh = Tenant::new("fresh");
    let mut records = fresh.base();
    records.push(fresh.key_state(1, Life::Active));
    let control_plane = world.control_plane.take().expect("running");
    control_plane.keys.lock().insert(fresh.key.id().to_string(), records);
    let (status, body) = gateway.get("/v1/tenant", &fresh.key).await;
    assert_eq!((status, body["tenant"].as_str()), (200, Some("fresh")), "{body}");

    // The same over gRPC; what is internal stays inside.
    let mut tenants = TenantServiceClient::new(channel(gateway).await);
    let answer = tenants.get_tenant(signed(GetTenantRequest {}, tenant)).await.expect("forwarded");
    assert!(!answer.metadata().contains_key("sluice-secret"));
    assert_eq!(answer.into_inner().tenant, "acme");

    // An error keeps its reason and metadata.
    let refused = Tenant::new("refused");
    let mut records = refused.base();
    records.push(refused.key_state(1, Life::Active));
    control_plane.keys.lock().insert(refused.key.id().to_string(), records);
    let (status, body) = gateway.get("/v1/tenant", &refused.key).await;
    assert_eq!((status, reason(&body)), (400, "RESOURCE_STATE"), "{body}");
    assert_eq!(body["error"]["details"][0]["metadata"]["limit"], "7");

    // No control plane: data calls go on, the rest says so, quickly.
    control_plane.stop().await;
    let before = Instant::now();
    let (status, body) = gateway.get("/v1/tenant", &tenant.key).await;
    assert_eq!((status, reason(&body)), (503, "CONTROL_PLANE_UNAVAILABLE"), "{body}");
    assert!(!body.to_string().contains("127.0.0.1"), "no address of ours: {body}");
    let (status, body) = gateway.get("/v1/tenant", &Tenant::new("nobody").key).await;
    assert_eq!((status, reason(&body)), (503, "CREDENTIAL_UNVERIFIED"), "{body}");
    assert!(before.elapsed() < std::time::Duration::from_secs(3), "{:?}", before.elapsed());
    let status = tenants.get_tenant(signed(GetTenantRequest {}, tenant)).await.expect_err("away");
    assert_eq!(from_tonic(&status).reason.as_str(), "CONTROL_PLANE_UNAVAILABLE");
    let (status, _) = gateway.get(METADATA, &tenant.key).await;
    assert_eq!(status, 200);
}

async fn draining(world: &World, gateway: Gateway) {
    let tenant = Tenant::new("draining");
    for record in tenant.base() {
        world.publish(&record).await;
    }
    world.publish(&tenant.key_state(1, Life::Active)).await;
    // A topic that is not in Kafka cannot be served: that it is applied is said only when the time for it is over.
    let uid = TopicUid::random();
    let published = Instant::now();
    let offset = world.publish(&tenant.topic(uid, 1, Life::Active, 1)).await;
    world.applied(&gateway, offset).await;
    assert!(published.elapsed() >= READY_WITHIN, "{:?}", published.elapsed());
    world.create_topic(&tenant, uid, 1).await;
    let url = gateway.url("/v1/namespaces/prod/topics/orders/records?offset=0&wait_ms=2000");
    let slow = tokio::spawn(reqwest::Client::new().get(url).bearer_auth(tenant.key.expose()).send());
    // It waits for records: it is under way when the metrics say so.
    let in_flight = || async {
        let metrics = reqwest::get(format!("http://{}/metrics", gateway.addrs.admin)).await.expect("metrics");
        metrics.text().await.expect("text").contains("sluice_gateway_calls_in_flight 1")
    };
    while !in_flight().await {
        tokio::task::yield_now().await;
    }
    let id = gateway.id.clone();
    gateway.stop().await.expect("an orderly end");
    let answer = slow.await.expect("no panic").expect("not reset");
    let (status, answer) = (answer.status(), answer.text().await.expect("text"));
    assert!(status == 200 && answer.contains("nextOffset"), "{status} {answer}");
    world.last_window(&id).await;
    let last = world.heartbeat(&id, |heartbeat| heartbeat.phase() == MemberPhase::Left).await;
    assert_eq!(last.applied_offset, offset);
}
