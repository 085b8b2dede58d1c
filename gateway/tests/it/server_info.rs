//! What the gateway tells of itself: to callers with a key which build it is, and to everybody what its API is.

use reqwest::{Client, Method, Response};
use serde_json::Value;

use sluice_proto::internal::control::v1::Life;
use sluice_proto::server::v1::GetServerInfoRequest;
use sluice_proto::server::v1::server_service_client::ServerServiceClient;
use sluice_types::api_key::ApiKey;

use crate::world::{Gateway, Tenant, World};

async fn ask(gateway: &Gateway, method: Method, path: &str, headers: &[(&str, &str)]) -> Response {
    let request = Client::new().request(method, gateway.url(path));
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    request.send().await.expect("an answer")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_tells_its_build_to_callers_with_a_key_and_its_api_to_everybody() {
    let world = World::new().await;
    let gateway = world.gateway("gateway-a").await;
    let tenant = Tenant::new("acme");
    for record in tenant.base() {
        world.publish(&record).await;
    }
    let offset = world.publish(&tenant.key_state(1, Life::Active)).await;
    world.applied(&gateway, offset).await;

    build_and_revision(&gateway, &tenant.key, offset).await;
    document(&gateway).await;
    gateway.stop().await.expect("an orderly end");
}

async fn build_and_revision(gateway: &Gateway, key: &ApiKey, offset: i64) {
    let bearer = format!("Bearer {}", key.expose());
    let answer = ask(gateway, Method::GET, "/v1/serverInfo", &[("authorization", &bearer)]).await;
    assert_eq!(answer.status(), 200);
    let revision = answer.headers()["sluice-revision"].to_str().expect("text").to_owned();
    let over_http: Value = answer.json().await.expect("JSON");
    assert_eq!(over_http["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(over_http["build"], "unknown", "no program was built that knows better");
    assert_eq!(over_http["revision"], Value::from(revision.clone()));
    assert!(revision.ends_with(&format!("-{offset}")), "{revision}");
    let versions = over_http["apiVersions"].as_array().expect("a list");
    assert!(versions.contains(&"sluice.server.v1".into()) && !versions.contains(&"sluice.operator.v1".into()));

    let mut client = ServerServiceClient::connect(gateway.url("")).await.expect("connect");
    let mut request = tonic::Request::new(GetServerInfoRequest {});
    request.metadata_mut().insert("authorization", bearer.parse().expect("ascii"));
    let over_grpc = client.get_server_info(request).await.expect("the same over gRPC").into_inner();
    assert_eq!(serde_json::to_value(&over_grpc).expect("JSON"), over_http);

    let stranger = ask(gateway, Method::GET, "/v1/serverInfo", &[]).await;
    assert_eq!(stranger.status(), 401);
    assert!(!stranger.text().await.expect("text").contains(env!("CARGO_PKG_VERSION")));
}

async fn document(gateway: &Gateway) {
    let path = "/openapi.json";
    let answer = ask(gateway, Method::GET, path, &[]).await;
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["content-type"]),
        (200, &"application/json".parse().expect("ascii"))
    );
    assert!(answer.headers()["cache-control"].to_str().expect("text").contains("max-age"));
    let etag = answer.headers()["etag"].to_str().expect("text").to_owned();
    let length = answer.content_length();
    let document: Value = answer.json().await.expect("JSON");
    assert!(document["paths"]["/v1/serverInfo"]["get"].is_object() && document["paths"].get("/v1/tenants").is_none());

    let same = ask(gateway, Method::GET, path, &[("if-none-match", &etag)]).await;
    assert_eq!((same.status().as_u16(), same.headers()["etag"].to_str().expect("text")), (304, etag.as_str()));
    assert!(same.bytes().await.expect("no body").is_empty());
    let head = ask(gateway, Method::HEAD, path, &[]).await;
    assert_eq!((head.status().as_u16(), head.headers().get("etag").is_some()), (200, true));
    assert_eq!(head.headers()["content-length"].to_str().ok().and_then(|text| text.parse().ok()), length);
    let posted = ask(gateway, Method::POST, path, &[]).await;
    assert_eq!(
        (posted.status().as_u16(), posted.headers()["allow"].to_str().expect("text")),
        (405, "GET, HEAD, OPTIONS")
    );
    let options = ask(gateway, Method::OPTIONS, path, &[]).await;
    assert_eq!(
        (options.status().as_u16(), options.headers()["allow"].to_str().expect("text")),
        (204, "GET, HEAD, OPTIONS")
    );
}
