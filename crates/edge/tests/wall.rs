//! The common layers around a small handler, for another audience than tenants: what every listener gets.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http_body_util::{BodyExt, Full};
use serde_json::Value;
use tower::Service;

use sluice_edge::authenticate::{Authenticator, BoxFuture, Credentials, Identity};
use sluice_edge::call::Call;
use sluice_edge::deadline::Deadline;
use sluice_edge::failures::Failures;
use sluice_edge::metrics::CallMetrics;
use sluice_edge::service::EdgeService;
use sluice_edge::{Body, CommonParts, Inner, Request, Response, Stack, common};
use sluice_proto::Audience;
use sluice_runtime::server::ConnInfo;
use sluice_types::error::Error;
use sluice_types::{ErrorKind, Reason};

/// Takes what begins with its prefix, and is right only if it is the prefix.
struct Prefix(&'static str);

impl Authenticator for Prefix {
    fn recognises(&self, credential: &str) -> bool {
        credential.starts_with(self.0)
    }

    fn authenticate<'a>(
        &'a self,
        credential: &'a str,
        _: &'a Call,
        _: Deadline,
    ) -> BoxFuture<'a, Result<Identity, Error>> {
        let good = credential == self.0;
        let wrong = || Error::new(ErrorKind::Unauthenticated, Reason::CredentialInvalid, "wrong");
        Box::pin(async move { good.then(|| Identity::new(self.0)).ok_or_else(wrong) })
    }
}

fn stack<H, F>(handler: H) -> Stack<impl Inner>
where
    H: Fn(Request) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Result<Response, Error>> + Send + 'static,
{
    let credentials = Credentials {
        chain: vec![Box::new(Prefix("key-")), Box::new(Prefix("token-")), Box::new(Prefix("key"))],
        failures: Failures::new(1, 5),
        wanted: "authorization: Bearer <token>",
        noun: "the token",
        for_common: true,
    };
    let parts = CommonParts {
        listener: "test",
        metrics: CallMetrics::default(),
        calls_max: 10,
        calls_per_peer_max: 10,
        body_bytes_max: 1000,
        credentials,
    };
    common(parts, Stack::of(tower::service_fn(handler)))
}

async fn send<H, F>(handler: H, request: http::request::Builder) -> (http::response::Parts, Value)
where
    H: Fn(Request) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Result<Response, Error>> + Send + 'static,
{
    call(&service(handler), request).await
}

fn service<H, F>(handler: H) -> EdgeService<impl Inner>
where
    H: Fn(Request) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Result<Response, Error>> + Send + 'static,
{
    EdgeService { stack: stack(handler).into_service(), audience: Audience::Operator, origins: Default::default() }
}

async fn call(edge: &EdgeService<impl Inner>, request: http::request::Builder) -> (http::response::Parts, Value) {
    let peer: SocketAddr = ([192, 0, 2, 7], 4000).into();
    let conn = ConnInfo { peer, local: peer, client: None, alpn: None, tls: false };
    let request = request.extension(conn).body(Full::new(Bytes::new())).expect("request");
    let Ok(response) = edge.clone().call(request).await;
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await.expect("body").to_bytes();
    (parts, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
}

fn get(path: &str) -> http::request::Builder {
    http::Request::builder().uri(path).header("authorization", "Bearer token-")
}

fn reason(body: &Value) -> &str {
    body["error"]["details"][0]["reason"].as_str().unwrap_or_default()
}

/// Answers with the kind of credential that was taken.
async fn whose(request: Request) -> Result<Response, Error> {
    let kind = request.extensions().get::<&'static str>().copied().unwrap_or_default();
    assert!(!request.headers().contains_key("authorization"), "no handler sees the secret");
    Ok(http::Response::new(Body::new(Full::new(Bytes::from(format!("\"{kind}\""))))))
}

#[test]
fn every_listener_begins_with_the_same_layers() {
    assert_eq!(stack(whose).order(), common::ORDER);
}

#[tokio::test]
async fn the_first_that_recognises_a_credential_decides() {
    let edge = service(whose);
    let shown = |credential: &str| http::Request::builder().uri("/v1/tenants").header("authorization", credential);
    assert_eq!(call(&edge, shown("Bearer key-")).await.1, "key-");
    assert_eq!(call(&edge, shown("bearer token-")).await.1, "token-");
    for wrong in ["Bearer key-x", "Bearer other", "Bearer ", "Basic key-"] {
        let (parts, body) = send(whose, shown(wrong)).await;
        assert_eq!((parts.status, reason(&body)), (StatusCode::UNAUTHORIZED, "CREDENTIAL_INVALID"), "{wrong}");
    }
    let two = shown("Bearer key-").header("authorization", "Bearer token-");
    let (parts, body) = call(&edge, two).await;
    assert_eq!((parts.status, reason(&body)), (StatusCode::UNAUTHORIZED, "CREDENTIAL_INVALID"));
    let (_, body) = call(&edge, http::Request::builder().uri("/openapi.json")).await;
    assert_eq!(reason(&body), "CREDENTIAL_MISSING", "this listener has nothing for strangers");
}

#[tokio::test]
async fn a_source_that_fails_too_often_is_told_to_wait() {
    let edge = service(whose);
    let wrong = || http::Request::builder().uri("/v1/tenants").header("authorization", "Bearer guess");
    for _ in 0..5 {
        assert_eq!(call(&edge, wrong()).await.0.status, StatusCode::UNAUTHORIZED);
    }
    let (parts, body) = call(&edge, wrong()).await;
    assert_eq!((parts.status, reason(&body)), (StatusCode::TOO_MANY_REQUESTS, "AUTHENTICATION_RATE_LIMITED"));
    assert_eq!(call(&edge, get("/v1/tenants")).await.0.status, StatusCode::OK);
}

#[tokio::test]
async fn a_panic_ends_its_call_and_tells_nothing() {
    let edge = service(|request: Request| async move {
        assert!(request.uri().path() != "/v1/tenants", "secret detail");
        whose(request).await
    });
    let (parts, body) = call(&edge, get("/v1/tenants").header("x-request-id", "mine")).await;
    assert_eq!((parts.status, reason(&body)), (StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL"));
    assert_eq!(parts.headers["x-request-id"], "mine");
    assert!(!body.to_string().contains("secret detail"));
    assert_eq!(call(&edge, get("/v1/tenants/acme")).await.0.status, StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn a_handler_is_cut_off_at_the_deadline_and_a_deadline_that_is_none_is_refused() {
    let edge = service(|_| std::future::pending());
    let before = tokio::time::Instant::now();
    let (parts, body) = call(&edge, get("/v1/tenants").header("x-request-timeout-ms", "1500")).await;
    assert_eq!((parts.status, reason(&body)), (StatusCode::GATEWAY_TIMEOUT, "DEADLINE_EXCEEDED"));
    assert!(before.elapsed() <= Duration::from_millis(1600));
    let (parts, _) = call(&edge, get("/v1/tenants").header("x-request-timeout-ms", "soon")).await;
    assert_eq!(parts.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn calls_of_another_audience_go_nowhere() {
    let edge = service(whose);
    for path in ["/v1/namespaces", "/v1/serverInfo"] {
        let (parts, body) = call(&edge, get(path)).await;
        assert_eq!((parts.status, reason(&body)), (StatusCode::NOT_FOUND, "ROUTE_NOT_FOUND"), "{path}");
    }
    let (parts, _) = call(&edge, get("/v1/tenants").method("DELETE")).await;
    assert_eq!(
        (parts.status, parts.headers["allow"].to_str().expect("text")),
        (StatusCode::METHOD_NOT_ALLOWED, "POST, GET, HEAD, OPTIONS")
    );
    let (parts, _) = call(&edge, get("/v1/tenants").method("HEAD")).await;
    assert_eq!(parts.status, StatusCode::OK);
}
