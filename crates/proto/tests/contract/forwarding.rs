//! Calls go on to another process over real gRPC, with nothing but what the context lets through.

use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use sluice_proto::Rpc;
use sluice_proto::admin::v1::topic_service_server::{TopicService, TopicServiceServer};
use sluice_proto::admin::v1::*;
use sluice_proto::forward::{Forward, ForwardCall, ForwardContext, Prepared};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, Server};
use tonic::{Code, Request, Status};

use crate::fake::{Caller, Topics};

struct Context {
    channel: Channel,
    timeout: Duration,
}

#[tonic::async_trait]
impl ForwardContext for Context {
    type Service = Channel;

    async fn prepare(&self, call: ForwardCall<'_>) -> Result<Prepared<Channel>, Status> {
        let caller = call.extensions.get::<Caller>().ok_or_else(|| Status::unauthenticated("who?"))?;
        let token = format!("{}:{}:{}:{}", caller.0, call.rpc.method, call.resource.unwrap_or("-"), call.message.len());
        let mut metadata = MetadataMap::new();
        metadata.insert("sluice-caller", token.parse().unwrap());
        Ok(Prepared { service: self.channel.clone(), metadata, timeout: self.timeout })
    }

    fn on_response(&self, _: &'static Rpc, metadata: &mut MetadataMap) {
        metadata.remove("sluice-internal");
    }

    fn on_error(&self, rpc: &'static Rpc, status: Status) -> Status {
        Status::new(status.code(), format!("{}: {}", rpc.method, status.message()))
    }
}

/// Runs a server for as long as the test does.
async fn forward(timeout: Duration) -> (Arc<Topics>, Forward<Context>) {
    let topics = Arc::new(Topics::default());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = Server::builder().add_service(TopicServiceServer::from_arc(Arc::clone(&topics)));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    let channel = Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
    (topics, Forward::new(Context { channel, timeout }))
}

fn create() -> Request<CreateTopicRequest> {
    let mut request = Request::new(CreateTopicRequest {
        parent: "namespaces/prod".into(),
        topic_id: "orders".into(),
        topic: Some(Topic { labels: [("b".into(), "1".into()), ("a".into(), "2".into())].into(), ..Topic::default() }),
        ..CreateTopicRequest::default()
    });
    request.extensions_mut().insert(Caller("acme"));
    request.metadata_mut().insert("authorization", "Bearer sl_secret".parse().unwrap());
    request.metadata_mut().insert("idempotency-key", "k-1".parse().unwrap());
    request
}

#[tokio::test]
async fn a_forwarded_call_carries_the_token_and_not_the_credential() {
    let (topics, forward) = forward(Duration::from_secs(10)).await;
    let response = forward.create_topic(create()).await.unwrap();
    assert_eq!(response.metadata().get("sluice-revision").unwrap(), "r-7");
    assert!(response.metadata().get("sluice-internal").is_none());
    assert_eq!(response.get_ref().name, "operations/1");
    let (request, metadata, _) = topics.created.lock().unwrap().remove(0);
    assert_eq!(request.request_id, "k-1", "the idempotency key is in the message");
    assert!(metadata.get("authorization").is_none() && metadata.get("idempotency-key").is_none());
    assert!(metadata.get("grpc-timeout").is_some());
    let token = format!("acme:CreateTopic:namespaces/prod:{}", request.encoded_len());
    assert_eq!(metadata.get("sluice-caller").unwrap(), token.as_str());
}

#[tokio::test]
async fn errors_pass_through_the_context() {
    let (_, forward) = forward(Duration::from_secs(10)).await;
    let mut request = Request::new(GetTopicRequest { name: "namespaces/a/topics/b".into() });
    assert_eq!(forward.get_topic(Request::new(GetTopicRequest::default())).await.unwrap_err().message(), "who?");
    request.extensions_mut().insert(Caller("acme"));
    let status = forward.get_topic(request).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::NotFound, "GetTopic: no topic namespaces/a/topics/b"));
}

#[tokio::test]
async fn a_call_that_hangs_ends_at_its_deadline() {
    let (_, forward) = forward(Duration::from_millis(50)).await;
    let mut request = Request::new(ListTopicsRequest::default());
    request.extensions_mut().insert(Caller("acme"));
    let status = forward.list_topics(request).await.unwrap_err();
    assert!(matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled), "{status:?}");
    assert!(status.message().starts_with("ListTopics"), "{status:?}");
}
