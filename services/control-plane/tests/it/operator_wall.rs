//! The operator's listener stands behind the same layers as the tenants': limits, deadlines, request ids, figures, and one
//! credential that cannot be guessed at leisure.

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use sluice_proto::operator::v1::ListTenantsRequest;
use sluice_runtime::statuses::from_tonic;
use sluice_types::Reason;
use tonic::Code;

use crate::support::Plant;

const TENANTS: &str = "/v1/tenants";
/// More than one source may fail at once.
const MANY: usize = 200;

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Value,
}

impl Answer {
    fn reason(&self) -> &str {
        self.body["error"]["details"][0]["reason"].as_str().unwrap_or_default()
    }
}

async fn send(plant: &Plant, method: Method, path: &str, headers: &[(&str, &str)], body: Bytes) -> Answer {
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let request = Request::builder().method(method).uri(format!("http://{}{path}", plant.addrs().operator));
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    let (parts, body) = client.request(request.body(Full::new(body)).unwrap()).await.unwrap().into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    Answer { status: parts.status, headers: parts.headers, body: serde_json::from_slice(&bytes).unwrap_or_default() }
}

async fn get(plant: &Plant, path: &str, headers: &[(&str, &str)]) -> Answer {
    send(plant, Method::GET, path, headers, Bytes::new()).await
}

#[tokio::test]
async fn who_guesses_the_token_is_told_to_wait_and_who_has_it_is_not() {
    let plant = Plant::start().await;
    let good = format!("Bearer {}", plant.operator_token());
    let mut limited = None;
    for _ in 0..MANY {
        let answer = get(&plant, TENANTS, &[("authorization", "Bearer guess")]).await;
        if answer.status == StatusCode::TOO_MANY_REQUESTS {
            limited = Some(answer);
            break;
        }
        assert_eq!((answer.status, answer.reason()), (StatusCode::UNAUTHORIZED, "CREDENTIAL_INVALID"));
    }
    let limited = limited.expect("guessing is limited");
    assert_eq!(limited.reason(), "AUTHENTICATION_RATE_LIMITED");
    assert!(limited.headers.contains_key("retry-after"));
    assert_eq!(get(&plant, TENANTS, &[("authorization", &good)]).await.status, StatusCode::OK);
    // Two are one too many, even if one of them is right.
    let both = [("authorization", good.as_str()), ("authorization", "Bearer x")];
    assert_ne!(get(&plant, TENANTS, &both).await.status, StatusCode::OK);
    let both = [("authorization", good.as_str()), ("authorization", good.as_str())];
    assert_ne!(get(&plant, TENANTS, &both).await.status, StatusCode::OK);
}

#[tokio::test]
async fn deadlines_bodies_and_request_ids_are_as_strict_as_for_tenants() {
    let plant = Plant::start().await;
    let good = format!("Bearer {}", plant.operator_token());
    for bad in ["soon", "0", "-1", "1.5"] {
        let headers = [("authorization", good.as_str()), ("x-request-timeout-ms", bad)];
        let answer = get(&plant, TENANTS, &headers).await;
        assert_eq!((answer.status, answer.reason()), (StatusCode::BAD_REQUEST, "INVALID_FIELD"), "{bad}");
    }
    let mut late = plant.as_operator(ListTenantsRequest::default());
    late.metadata_mut().insert("grpc-timeout", "1.5S".parse().unwrap());
    let refused = plant.operator().list_tenants(late).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");

    let large = Bytes::from(vec![b' '; (256 << 10) + 6]);
    let answer = send(&plant, Method::POST, "/v1/tenants?tenantId=a", &[("authorization", &good)], large).await;
    assert_eq!((answer.status, answer.reason()), (StatusCode::BAD_REQUEST, "TOO_LARGE"));

    let headers = [("authorization", good.as_str()), ("x-request-id", "a b\"c")];
    let id = get(&plant, TENANTS, &headers).await.headers["x-request-id"].to_str().unwrap().to_owned();
    assert!(id.bytes().all(|byte| byte.is_ascii_alphanumeric()), "what could harm a log is replaced: {id}");
    let headers = [("authorization", good.as_str()), ("x-request-id", "mine")];
    let missing = get(&plant, "/v1/tenants/nobody", &headers).await;
    assert_eq!((missing.status, &missing.headers["x-request-id"]), (StatusCode::NOT_FOUND, &"mine".parse().unwrap()));
    let details = missing.body["error"]["details"].to_string();
    assert!(details.contains("RESOURCE_NOT_FOUND") && details.contains("mine"), "{details}");
}

#[tokio::test]
async fn calls_are_counted_and_what_is_no_call_of_the_operators_goes_nowhere() {
    let plant = Plant::start().await;
    let good = format!("Bearer {}", plant.operator_token());
    let wrong = get(&plant, "/v1/namespaces", &[("authorization", &good)]).await;
    assert_eq!((wrong.status, wrong.reason()), (StatusCode::NOT_FOUND, "ROUTE_NOT_FOUND"));
    let wrong = send(&plant, Method::PUT, TENANTS, &[("authorization", &good)], Bytes::new()).await;
    assert_eq!(wrong.status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(wrong.headers["allow"], "POST, GET, HEAD, OPTIONS");
    assert_eq!(get(&plant, TENANTS, &[("authorization", &good)]).await.status, StatusCode::OK);

    // The document changes with the build alone.
    assert_eq!(get(&plant, "/openapi.json", &[]).await.status, StatusCode::UNAUTHORIZED);
    let document = get(&plant, "/openapi.json", &[("authorization", &good)]).await;
    let etag = document.headers["etag"].to_str().unwrap();
    let again = get(&plant, "/openapi.json", &[("authorization", &good), ("if-none-match", etag)]).await;
    assert_eq!(again.status, StatusCode::NOT_MODIFIED);

    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let metrics = format!("http://{}/metrics", plant.addrs().admin).parse().unwrap();
    let text = client.get(metrics).await.unwrap().into_body().collect().await.unwrap().to_bytes();
    let text = String::from_utf8(text.to_vec()).unwrap();
    let counted = r#"sluice_operator_calls_total{rpc="ListTenants",protocol="http",code="OK"} 1"#;
    assert!(text.contains(counted), "{text}");
}

#[tokio::test]
async fn a_message_that_is_none_is_refused_with_a_reason() {
    let plant = Plant::start().await;
    let good = format!("Bearer {}", plant.operator_token());
    let headers = [("authorization", good.as_str()), ("content-type", "application/grpc+json"), ("te", "trailers")];
    let path = "/sluice.operator.v1.TenantsService/ListTenants";
    let answer = send(&plant, Method::POST, path, &headers, Bytes::new()).await;
    assert_eq!(answer.headers["grpc-status"], "12");
    let refused = tonic::Status::from_header_map(&answer.headers).unwrap();
    assert_eq!(from_tonic(&refused).reason, Reason::MalformedBody);
}

#[tokio::test]
async fn a_message_encoding_that_is_not_known_is_refused_with_those_that_are() {
    let plant = Plant::start().await;
    let mut compressed = plant.as_operator(ListTenantsRequest::default());
    compressed.metadata_mut().insert("grpc-encoding", "snappy".parse().unwrap());
    let refused = plant.operator().list_tenants(compressed).await.unwrap_err();
    assert_eq!((refused.code(), from_tonic(&refused).reason), (Code::Unimplemented, Reason::MalformedBody));
    assert_eq!(refused.metadata().get("grpc-accept-encoding").unwrap(), "identity,gzip");
}
