//! The whole stack around a small handler: the order of the layers, and what callers see of each refusal.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::StatusCode;
use http_body_util::{BodyExt, Full};
use serde_json::Value;
use tower::Service;

use sluice_edge::Body;
use sluice_edge::browsers::Origins;
use sluice_edge::service::EdgeService;
use sluice_edge::{Request, Response};
use sluice_proto::Audience;
use sluice_proto::internal::control::v1::control_record::Resource;
use sluice_proto::internal::control::v1::{self as control, ControlRecord, Life};
use sluice_runtime::server::{ConnHandle, ConnInfo};
use sluice_types::api_key::ApiKey;
use sluice_types::error::Error;
use sluice_types::{AccountUid, KeyUid, Revision, TenantUid};

use super::*;
use crate::access::DataCall;
use crate::auth::{KeySource, LookupFailure};
use crate::layers::ORDER;
use crate::metrics::{Denials, LookupMetrics};

const HASH_KEY: HashKey = HashKey([9; 32]);
const LOG: [u8; 16] = [5; 16];

/// A control plane that knows no keys, or does not answer.
struct Keys {
    down: bool,
    asked: Arc<AtomicUsize>,
}

impl KeySource for Keys {
    fn look_up(&self, _: KeyUid) -> BoxFuture<'static, Result<Vec<ControlRecord>, LookupFailure>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let down = self.down;
        Box::pin(
            async move { Err(if down { LookupFailure::Unavailable("refused".into()) } else { LookupFailure::Absent }) },
        )
    }
}

struct World {
    view: Arc<View>,
    applied: Applied,
    tenant: TenantUid,
    account: AccountUid,
    key: ApiKey,
    asked: Arc<AtomicUsize>,
    control_plane_down: bool,
    failures: u64,
}

impl World {
    fn new() -> Self {
        let world = Self {
            view: Arc::default(),
            applied: Applied::default(),
            tenant: TenantUid::random(),
            account: AccountUid::random(),
            key: ApiKey::generate("dev"),
            asked: Arc::default(),
            control_plane_down: false,
            failures: 1_000,
        };
        world.tenant_state(1, false, None);
        let grants = vec![control::Grant { role: "producer".into(), resource: "namespaces/prod".into() }];
        world.apply(
            1,
            Resource::Account(control::AccountState {
                uid: world.account.to_string(),
                id: "ci".into(),
                life: Life::Active.into(),
                grants,
            }),
        );
        world.put_key(&world.key, 1, Life::Active, 0);
        world.applied.reset(LOG);
        world.applied.reached(10);
        world
    }

    fn apply(&self, version: i64, resource: Resource) {
        let record = ControlRecord {
            version,
            tenant_uid: self.tenant.to_string(),
            resource: Some(resource),
            ..Default::default()
        };
        self.view.index().apply(record).expect("a good record");
    }

    fn tenant_state(&self, version: i64, suspended: bool, limits: Option<control::Limits>) {
        let uid = self.tenant.to_string();
        let state = control::TenantState { uid, id: "acme".into(), life: Life::Active.into(), suspended, limits };
        self.apply(version, Resource::Tenant(state));
    }

    fn grant(&self, version: i64, role: &str, resource: &str) {
        let grants = vec![control::Grant { role: role.into(), resource: resource.into() }];
        let uid = self.account.to_string();
        self.apply(
            version,
            Resource::Account(control::AccountState { uid, id: "ci".into(), life: Life::Active.into(), grants }),
        );
    }

    fn put_key(&self, key: &ApiKey, version: i64, life: Life, expire_time_ms: i64) {
        self.apply(
            version,
            Resource::Key(control::KeyState {
                key_id: key.id().to_string(),
                account_uid: self.account.to_string(),
                hash: key.hash(&HASH_KEY).0.to_vec().into(),
                life: life.into(),
                expire_time_ms,
            }),
        );
    }

    fn stack<H, F>(&self, handler: H) -> Stack<impl Inner>
    where
        H: Fn(Request) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Result<Response, Error>> + Send + 'static,
    {
        let freshness = Freshness::default();
        freshness.set_servable();
        let keys = Keys { down: self.control_plane_down, asked: Arc::clone(&self.asked) };
        let parts = StackParts {
            view: Arc::clone(&self.view),
            applied: self.applied.clone(),
            freshness,
            hash_key: HASH_KEY,
            lookup: KeyLookup::new(Arc::new(keys), Arc::clone(&self.view), LookupMetrics::default()),
            failures: Failures::new(1, self.failures),
            audit: Denials::default().sink(),
            metrics: CallMetrics::default(),
            calls_max: 10,
            calls_per_peer_max: 10,
            body_bytes_max: 1000,
            in_flight_bytes_max: 10_000,
        };
        stack(parts, tower::service_fn(handler))
    }

    fn edge<H, F>(&self, handler: H) -> EdgeService<impl Inner>
    where
        H: Fn(Request) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Result<Response, Error>> + Send + 'static,
    {
        let origins = Origins::new(&["https://console.example.com".to_owned()]);
        EdgeService { stack: self.stack(handler).into_service(), audience: Audience::Tenant, origins }
    }

    fn get(&self, path: &str) -> http::request::Builder {
        let bearer = format!("Bearer {}", self.key.expose());
        http::Request::builder().uri(path).header("authorization", bearer)
    }
}

const FETCH: &str = "/v1/namespaces/prod/topics/orders/records";

async fn fine(_: Request) -> Result<Response, Error> {
    Ok(http::Response::new(Body::empty()))
}

async fn send(edge: &EdgeService<impl Inner>, request: http::request::Builder) -> (http::response::Parts, Value) {
    send_body(edge, request, Bytes::new()).await
}

async fn send_body(
    edge: &EdgeService<impl Inner>,
    request: http::request::Builder,
    body: Bytes,
) -> (http::response::Parts, Value) {
    let peer: SocketAddr = ([192, 0, 2, 7], 4000).into();
    let conn = ConnInfo { peer, local: peer, client: None, alpn: None, tls: false };
    let request = request.extension(conn).body(Full::new(body)).expect("request");
    let Ok(response) = edge.clone().call(request).await;
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await.expect("body").to_bytes();
    (parts, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
}

fn reason(body: &Value) -> &str {
    body["error"]["details"][0]["reason"].as_str().unwrap_or_default()
}

#[test]
fn the_layers_are_in_the_order_of_the_design() {
    let order = World::new().stack(fine).order();
    assert_eq!(order, ORDER);
    assert!(order.starts_with(&sluice_edge::common::ORDER), "as on every listener");
}

#[tokio::test]
async fn a_good_answer_carries_request_id_revision_and_rate() {
    let world = World::new();
    let edge = world.edge(|request: Request| async move {
        let call = DataCall::of(request.extensions())?;
        assert_eq!(&*call.context.request_id, "mine");
        assert!(!request.headers().contains_key("authorization"), "no handler sees the secret");
        fine(request).await
    });
    let (parts, _) = send(&edge, world.get(FETCH).method("POST").header("x-request-id", "mine")).await;
    assert_eq!(parts.headers["x-request-id"], "mine");
    assert_eq!(parts.headers["sluice-revision"], Revision { topic_id: LOG, offset: 9 }.to_string());
    for name in ["ratelimit-limit", "ratelimit-policy", "ratelimit-remaining", "ratelimit-reset"] {
        assert!(parts.headers.contains_key(name), "{name}");
    }
}

#[tokio::test]
async fn every_bad_key_gets_the_same_answer() {
    let world = World::new();
    let (revoked, expired, other) = (ApiKey::generate("dev"), ApiKey::generate("dev"), ApiKey::generate("dev"));
    world.put_key(&revoked, 1, Life::Active, 0);
    world.put_key(&revoked, 2, Life::Gone, 0);
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as i64;
    world.put_key(&expired, 1, Life::Active, now_ms - 1);
    let wrong_secret = {
        // Another key's text with this key's id: the checksum is right, the secret is not.
        let text = other.expose();
        let parts: Vec<&str> = text.split('_').collect();
        let body = format!("sl_dev_{}_{}", world.key.id(), parts[3]);
        (0u32..).map(|_| body.clone()).next().map(|body| with_crc(&body)).expect("text")
    };
    let edge = world.edge(fine);
    let mut answers = Vec::new();
    for value in [
        format!("Bearer {}", revoked.expose()),
        format!("Bearer {}", expired.expose()),
        format!("Bearer {wrong_secret}"),
        format!("Bearer {}", ApiKey::generate("dev").expose()),
        format!("Bearer {}x", world.key.expose()),
        "Bearer".into(),
        "Bearer sl_dev_x_y_z".into(),
        format!("Basic {}", world.key.expose()),
    ] {
        let request =
            http::Request::builder().uri(FETCH).header("authorization", &value).header("x-request-id", "same");
        let (parts, body) = send(&edge, request).await;
        assert_eq!(parts.status, StatusCode::UNAUTHORIZED, "{value}");
        assert!(!parts.headers.contains_key("sluice-revision"), "nothing about us for strangers");
        answers.push(body);
    }
    assert!(answers.windows(2).all(|pair| pair[0] == pair[1]), "{answers:#?}");
    assert_eq!(reason(&answers[0]), "CREDENTIAL_INVALID");
    assert_eq!(world.asked.load(Ordering::Relaxed), 2, "a wrong secret is asked for as an unknown id is");
}

#[tokio::test]
async fn neither_answer_nor_time_nor_budget_tells_whether_a_key_exists() {
    let wrong_secret = |world: &World| {
        let other = ApiKey::generate("dev").expose();
        let secret = other.split('_').nth(3).expect("a secret").to_owned();
        with_crc(&format!("sl_dev_{}_{secret}", world.key.id()))
    };
    let refused = async |edge: &EdgeService<_>, key: &str| {
        let before = Instant::now();
        let (parts, body) =
            send(edge, http::Request::builder().uri(FETCH).header("authorization", format!("Bearer {key}"))).await;
        (parts.status, reason(&body).to_owned(), before.elapsed() >= crate::auth::api_keys::REFUSED_AFTER)
    };
    for down in [false, true] {
        let mut world = World::new();
        world.control_plane_down = down;
        let edge = world.edge(fine);
        let unknown = ApiKey::generate("dev").expose();
        // Also when it is asked again, and beyond what one address may ask.
        for _ in 0..8 {
            let (known, unknown) = (refused(&edge, &wrong_secret(&world)).await, refused(&edge, &unknown).await);
            assert_eq!(known, unknown);
            assert!(known.2, "no sooner than all others");
        }
    }
}

fn with_crc(body: &str) -> String {
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let crc = crc32fast::hash(body.as_bytes());
    let text: String = (0..7).rev().map(|i| char::from(ALPHABET[(crc >> (5 * i) & 31) as usize])).collect();
    format!("{body}_{text}")
}

#[tokio::test]
async fn a_missing_key_is_said_so_and_failures_are_limited() {
    let mut world = World::new();
    world.failures = 3;
    let edge = world.edge(fine);
    for _ in 0..3 {
        let (parts, body) = send(&edge, http::Request::builder().uri(FETCH)).await;
        assert_eq!((parts.status, reason(&body)), (StatusCode::UNAUTHORIZED, "CREDENTIAL_MISSING"));
    }
    let (parts, body) = send(&edge, http::Request::builder().uri(FETCH)).await;
    assert_eq!((parts.status, reason(&body)), (StatusCode::TOO_MANY_REQUESTS, "AUTHENTICATION_RATE_LIMITED"));
    assert!(parts.headers.contains_key("retry-after"));
    let (parts, _) = send(&edge, world.get(FETCH).method("POST")).await;
    assert_eq!(parts.status, StatusCode::OK, "a good key passes all the same");
}

#[tokio::test]
async fn an_unknown_key_is_never_unauthenticated_while_the_control_plane_is_down() {
    let mut world = World::new();
    world.control_plane_down = true;
    let edge = world.edge(fine);
    let bearer = format!("Bearer {}", ApiKey::generate("dev").expose());
    let (parts, body) = send(&edge, http::Request::builder().uri(FETCH).header("authorization", bearer)).await;
    assert_eq!((parts.status, reason(&body)), (StatusCode::SERVICE_UNAVAILABLE, "CREDENTIAL_UNVERIFIED"));
    assert!(parts.headers.contains_key("retry-after"));
    let (parts, _) = send(&edge, world.get(FETCH).method("POST")).await;
    assert_eq!(parts.status, StatusCode::OK, "known ones go on");
}

#[tokio::test]
async fn a_suspended_tenant_is_told_so() {
    let world = World::new();
    world.tenant_state(2, true, None);
    let (parts, body) = send(&world.edge(fine), world.get(FETCH)).await;
    assert_eq!((parts.status, reason(&body)), (StatusCode::FORBIDDEN, "TENANT_SUSPENDED"));
}

#[tokio::test]
async fn grants_decide_what_is_denied_and_what_does_not_exist() {
    let world = World::new();
    let edge = world.edge(fine);
    // A producer may not read what it sees, and sees nothing else.
    let (parts, body) = send(&edge, world.get(FETCH)).await;
    assert_eq!((parts.status, reason(&body)), (StatusCode::FORBIDDEN, "PERMISSION_MISSING"));
    let (parts, body) = send(&edge, world.get("/v1/namespaces/other/topics/orders/records")).await;
    assert_eq!((parts.status, reason(&body)), (StatusCode::NOT_FOUND, "RESOURCE_NOT_FOUND"));
    let (parts, body) = send(&edge, world.get("/v1/namespaces/prod/topics/a%2Fb/records")).await;
    assert_eq!((parts.status, reason(&body)), (StatusCode::BAD_REQUEST, "INVALID_FIELD"));
}

#[tokio::test]
async fn routes_that_do_not_exist_are_named_in_both_protocols() {
    let world = World::new();
    let edge = world.edge(fine);
    let (parts, body) = send(&edge, http::Request::builder().uri("/v2/x")).await;
    assert_eq!((parts.status, reason(&body)), (StatusCode::NOT_FOUND, "ROUTE_NOT_FOUND"));
    let (parts, body) = send(&edge, http::Request::builder().method("DELETE").uri(FETCH)).await;
    assert_eq!((parts.status, body["error"]["code"].as_i64()), (StatusCode::METHOD_NOT_ALLOWED, Some(405)));
    let allow = parts.headers["allow"].to_str().expect("text");
    assert!(allow.contains("GET") && allow.contains("POST"), "{allow}");
    for path in [
        "/x.Y/Z",
        "/sluice.operator.v1.TenantsService/CreateTenant",
        "/sluice.internal.control.v1.KeyLookupService/LookupKey",
    ] {
        let request = http::Request::builder().method("POST").uri(path).header("content-type", "application/grpc");
        let (parts, _) = send(&edge, request).await;
        assert_eq!((parts.status, &parts.headers["grpc-status"]), (StatusCode::OK, &"12".parse().expect("header")));
    }
}

#[tokio::test]
async fn what_http_asks_beside_the_calls_is_answered() {
    let world = World::new();
    let edge = world.edge(|request: Request| async move {
        assert_eq!(request.method(), "GET");
        Ok(http::Response::new(Body::new(Full::new(Bytes::from_static(b"1234")))))
    });
    let metadata = "/v1/namespaces/prod/topics/orders:metadata";
    let peer: SocketAddr = ([192, 0, 2, 7], 4000).into();
    let conn = ConnInfo { peer, local: peer, client: None, alpn: None, tls: false };
    let head = world.get("/v1/tenant").method("HEAD").extension(conn).body(Full::default()).expect("request");
    let Ok(response) = edge.clone().call(head).await;
    assert_eq!((response.status(), &response.headers()["content-length"]), (StatusCode::OK, &"4".parse().expect("4")));
    assert!(response.into_body().collect().await.expect("body").to_bytes().is_empty());

    let stream = "/v1/namespaces/prod/groups/billing:stream";
    for path in [stream, "/v1/namespaces/prod/topics/orders/records"] {
        let (parts, _) = send(&edge, world.get(path).method("HEAD")).await;
        assert_eq!(
            parts.status,
            StatusCode::METHOD_NOT_ALLOWED,
            "HEAD must not begin a stream, nor read records: {path}"
        );
        assert!(!parts.headers["allow"].to_str().expect("text").contains("HEAD"));
    }

    let (parts, _) = send(&edge, http::Request::builder().method("OPTIONS").uri(metadata)).await;
    assert_eq!(
        (parts.status, &parts.headers["allow"]),
        (StatusCode::NO_CONTENT, &"GET, HEAD, OPTIONS".parse().expect("value"))
    );
    world.grant(2, "owner", "*");
    for colon in [":", "%3A", "%3a"] {
        let (parts, body) = send(&edge, world.get(&metadata.replace(':', colon))).await;
        assert_eq!(parts.status, StatusCode::OK, "a colon is a colon however it is written: {colon} {body}");
    }
    let (parts, body) = send(&edge, world.get(metadata).method("DELETE")).await;
    assert_eq!((parts.status, reason(&body)), (StatusCode::METHOD_NOT_ALLOWED, "ROUTE_NOT_FOUND"));
    assert_eq!(parts.headers["allow"], "GET, HEAD, OPTIONS");
    let (parts, _) = send(&edge, http::Request::builder().method("OPTIONS").uri("/v2/x")).await;
    assert_eq!(parts.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn pages_of_named_origins_may_call_and_others_may_not() {
    let world = World::new();
    let edge = world.edge(fine);
    let preflight = |origin: &str| {
        let request = http::Request::builder().method("OPTIONS").uri(FETCH).header("origin", origin);
        let asked = "authorization,content-type,x-record-header-color";
        request.header("access-control-request-method", "POST").header("access-control-request-headers", asked)
    };
    let (parts, _) = send(&edge, preflight("https://console.example.com")).await;
    assert_eq!(parts.status, StatusCode::NO_CONTENT, "browsers send no credential with it");
    assert_eq!(parts.headers["access-control-allow-origin"], "https://console.example.com");
    assert!(parts.headers["access-control-allow-methods"].to_str().expect("text").contains("POST"));
    assert!(parts.headers["access-control-allow-headers"].to_str().expect("text").contains("x-record-header-color"));
    let (parts, _) = send(&edge, preflight("https://elsewhere.example")).await;
    assert!(!parts.headers.contains_key("access-control-allow-origin"));

    // Errors can be read, too.
    for (origin, may) in [("https://console.example.com", true), ("https://elsewhere.example", false)] {
        let (parts, _) = send(&edge, http::Request::builder().uri(FETCH).header("origin", origin)).await;
        assert_eq!(parts.status, StatusCode::UNAUTHORIZED);
        assert_eq!(parts.headers.contains_key("access-control-allow-origin"), may);
        assert_eq!(parts.headers["vary"], "origin");
    }
}

#[tokio::test]
async fn grpc_in_another_format_or_encoding_is_told_what_is_understood() {
    let world = World::new();
    let edge = world.edge(fine);
    let path = "/sluice.stream.v1.StreamService/Fetch";
    let request = world.get(path).method("POST").header("content-type", "application/grpc+json");
    let (parts, _) = send(&edge, request).await;
    assert_eq!((parts.status, &parts.headers["grpc-status"]), (StatusCode::OK, &"12".parse().expect("header")));
    let text = parts.headers["grpc-message"].to_str().expect("text");
    assert!(text.contains("json") && text.contains("application/grpc"), "{text}");
    assert_eq!(parts.headers["grpc-accept-encoding"], "identity,gzip");
}

#[tokio::test]
async fn calls_that_wait_leave_room_on_their_connection_for_those_that_settle() {
    const STREAM: &str = "/v1/namespaces/prod/groups/billing:stream";
    let world = World::new();
    world.grant(2, "owner", "*");
    let edge = world.edge(|_| async { Ok(http::Response::new(Body::new(Full::new(Bytes::from_static(b"{}"))))) });
    let connection = ConnHandle::default();
    let call = async |method: &str, path: &str| {
        let peer: SocketAddr = ([192, 0, 2, 7], 4000).into();
        let conn = ConnInfo { peer, local: peer, client: None, alpn: None, tls: false };
        let request = world.get(path).method(method).extension(conn).extension(connection.clone());
        let Ok(response) = edge.clone().call(request.body(Full::<Bytes>::default()).expect("request")).await;
        response
    };
    let mut waiting = Vec::new();
    for _ in 0..sluice_edge::admit::LONG_CALLS_PER_CONNECTION {
        waiting.push(call("GET", STREAM).await);
    }
    assert!(waiting.iter().all(|answer| answer.status() == StatusCode::OK));
    // Their answers are not read to the end yet.
    assert_eq!(call("GET", STREAM).await.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(call("GET", FETCH).await.status(), StatusCode::OK, "its handler knows whether it waits");
    assert_eq!(call("POST", "/v1/namespaces/prod/groups/billing:ack").await.status(), StatusCode::OK);
    waiting.pop();
    assert_eq!(call("GET", STREAM).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_declared_body_over_the_limit_is_refused_unread() {
    let world = World::new();
    let edge = world.edge(fine);
    let request = world.get(FETCH).method("POST").header("content-length", "1006");
    let (parts, body) = send_body(&edge, request, Bytes::from(vec![b'x'; 1006])).await;
    assert_eq!((parts.status, reason(&body)), (StatusCode::BAD_REQUEST, "TOO_LARGE"));
}

#[tokio::test]
async fn a_panic_is_an_internal_error_that_tells_nothing() {
    let world = World::new();
    let edge = world.edge(|_| async { panic!("secret detail") });
    let (parts, body) = send(&edge, world.get(FETCH).method("POST")).await;
    assert_eq!((parts.status, reason(&body)), (StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL"));
    assert!(!body.to_string().contains("secret detail"));
}

#[tokio::test(start_paused = true)]
async fn a_handler_is_cut_off_at_the_callers_deadline() {
    let world = World::new();
    let edge = world.edge(|_| std::future::pending());
    let before = tokio::time::Instant::now();
    let (parts, body) = send(&edge, world.get(FETCH).method("POST").header("x-request-timeout-ms", "1500")).await;
    assert_eq!((parts.status, reason(&body)), (StatusCode::GATEWAY_TIMEOUT, "DEADLINE_EXCEEDED"));
    assert!(before.elapsed() <= Duration::from_millis(1600));
    let (parts, _) = send(&edge, world.get(FETCH).method("POST").header("x-request-timeout-ms", "soon")).await;
    assert_eq!(parts.status, StatusCode::BAD_REQUEST);
}

#[tokio::test(start_paused = true)]
async fn a_call_waits_for_the_revision_it_has_seen_and_is_checked_again() {
    let world = World::new();
    let edge = world.edge(fine);
    let revision = |topic_id, offset| Revision { topic_id, offset }.to_string();
    let call = |seen: String| world.get(FETCH).method("POST").header("sluice-revision", seen);
    let (parts, _) = send(&edge, call(revision([1; 16], 999))).await;
    assert_eq!(parts.status, StatusCode::OK, "another log cannot be compared");
    let (parts, body) = send(&edge, call(revision(LOG, 10))).await;
    assert_eq!((parts.status, reason(&body)), (StatusCode::SERVICE_UNAVAILABLE, "REVISION_BEHIND"));
    let revoke = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        world.put_key(&world.key, 2, Life::Gone, 0);
        world.applied.reached(11);
    };
    let ((parts, _), ()) = tokio::join!(send(&edge, call(revision(LOG, 10))), revoke);
    assert_eq!(parts.status, StatusCode::UNAUTHORIZED, "what it has seen was its own revocation");
    let (parts, _) = send(&edge, call("nonsense".into())).await;
    assert_eq!(parts.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_tenant_over_its_request_rate_is_told_when_to_come_back() {
    let world = World::new();
    world.tenant_state(2, false, Some(control::Limits { requests_per_second: 4, ..Default::default() }));
    let edge = world.edge(fine);
    let (parts, _) = send(&edge, world.get(FETCH).method("POST")).await;
    assert_eq!(parts.status, StatusCode::OK);
    let (parts, body) = send(&edge, world.get(FETCH).method("POST")).await;
    assert_eq!((parts.status, reason(&body)), (StatusCode::TOO_MANY_REQUESTS, "RATE_LIMITED"));
    assert_eq!(parts.headers["ratelimit-remaining"], "0");
    let wait: u64 = parts.headers["retry-after-ms"].to_str().expect("text").parse().expect("number");
    assert!((1..=250).contains(&wait), "{wait}");
}
