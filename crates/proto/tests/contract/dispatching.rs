//! HTTP calls reach the gRPC service trait.

use http::Method;
use serde_json::{Value, json};
use sluice_proto::dispatch::{HttpCall, HttpError, HttpReply, dispatch_topic_service_http};
use sluice_proto::{Audience, match_route};
use tonic::Code;
use tonic::metadata::MetadataMap;

use crate::fake::{Caller, Topics};

fn call(method: Method, path: &str, query: &[(&str, &str)], body: &str, key: Option<&str>) -> HttpCall {
    let mut metadata = MetadataMap::new();
    metadata.insert("x-request-id", "req-1".parse().unwrap());
    if let Some(key) = key {
        metadata.insert("idempotency-key", key.parse().unwrap());
    }
    let mut extensions = tonic::Extensions::new();
    extensions.insert(Caller("acme"));
    HttpCall {
        route: match_route(Audience::Tenant, &method, path).unwrap(),
        metadata,
        extensions,
        query: query.iter().map(|(n, v)| ((*n).into(), (*v).into())).collect(),
        body: body.to_owned().into(),
    }
}

async fn create(topics: &Topics, query: &[(&str, &str)], key: Option<&str>) -> Result<HttpReply, HttpError> {
    let call = call(Method::POST, "/v1/namespaces/prod/topics", query, r#"{"partitionCount":3}"#, key);
    dispatch_topic_service_http(topics, call).await
}

#[tokio::test]
async fn a_call_carries_metadata_and_extensions_both_ways() {
    let topics = Topics::default();
    let reply = create(&topics, &[("topicId", "orders")], Some("k-1")).await.unwrap();
    assert_eq!(reply.metadata.get("sluice-revision").unwrap(), "r-7");
    let body: Value = serde_json::from_slice(&reply.body).unwrap();
    assert_eq!(body["response"]["name"], "namespaces/prod/topics/orders");
    assert_eq!(body["done"], json!(true));
    let (request, metadata, caller) = topics.created.lock().unwrap().remove(0);
    assert_eq!(request.request_id, "k-1");
    assert_eq!(metadata.get("x-request-id").unwrap(), "req-1");
    assert_eq!(caller, Some(Caller("acme")));
}

#[tokio::test]
async fn an_idempotency_key_must_agree_with_the_request_id() {
    let topics = Topics::default();
    assert!(create(&topics, &[("topicId", "a"), ("requestId", "k-1")], Some("k-1")).await.is_ok());
    match create(&topics, &[("topicId", "a"), ("requestId", "k-2")], Some("k-1")).await {
        Err(HttpError::Request(error)) => assert_eq!(error.field, "request_id"),
        other => panic!("{other:?}"),
    }
    assert_eq!(topics.created.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn errors_of_request_and_method_stay_apart() {
    let topics = Topics::default();
    match create(&topics, &[("topicID", "a")], None).await {
        Err(HttpError::Request(error)) => {
            assert_eq!(error.to_string(), "topicID: no such query parameter; remove it, or correct its name")
        }
        other => panic!("{other:?}"),
    }
    let get = call(Method::GET, "/v1/namespaces/prod/topics/x", &[], "", Some("ignored"));
    match dispatch_topic_service_http(&topics, get).await {
        Err(HttpError::Status(status)) => assert_eq!(status.message(), "no topic namespaces/prod/topics/x"),
        other => panic!("{other:?}"),
    }
    let elsewhere = call(Method::GET, "/v1/tenant", &[], "", None);
    match dispatch_topic_service_http(&topics, elsewhere).await {
        Err(HttpError::Status(status)) => assert_eq!(status.code(), Code::Unimplemented),
        other => panic!("{other:?}"),
    }
}
