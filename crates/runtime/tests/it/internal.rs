//! Calls between processes, whole: channel, token, layers, and what happens when the server goes away.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use http::{Request, Response};
use sluice_runtime::BoxError;
use sluice_runtime::internal::{
    CALLER_KEY, CallerLayer, CallerSigner, CallerVerifier, RequireRole, SignedChannel, call_as, internal_channel,
};
use sluice_runtime::server::{ConnInfo, Edge, bind, serve};
use sluice_runtime::statuses::from_tonic;
use sluice_runtime::tls::InternalTls;
use sluice_types::{ErrorKind, OpContext, Reason};
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::{Code, Status};
use tonic_prost::ProstCodec;
use tower::{Layer, ServiceExt};

use crate::support::{PATIENCE, Pki};
use crate::token::claims;

const PATH: &str = "/test.Echo/Echo";

/// Answers with the tenant it was called for, or `nobody`, and the message.
async fn echo<B>(request: Request<B>) -> Result<Response<Body>, Infallible>
where
    B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<BoxError> + Send,
{
    struct Echo;
    impl tonic::server::UnaryService<String> for Echo {
        type Response = String;
        type Future = std::future::Ready<Result<tonic::Response<String>, Status>>;

        fn call(&mut self, request: tonic::Request<String>) -> Self::Future {
            let context = request.extensions().get::<OpContext>();
            let who = context.map_or("nobody", |context| context.tenant.id().as_str());
            std::future::ready(Ok(tonic::Response::new(format!("{who}: {}", request.get_ref()))))
        }
    }
    Ok(tonic::server::Grpc::new(ProstCodec::<String, String>::default()).unary(Echo, request).await)
}

struct Running {
    addr: SocketAddr,
    shutdown: CancellationToken,
    done: tokio::task::JoinHandle<sluice_runtime::server::ServeReport>,
}

impl Running {
    async fn start(tls: &InternalTls, addr: SocketAddr) -> Self {
        let listener = bind(addr).await.expect("bind");
        let addr = listener.local_addr().expect("address");
        let shutdown = CancellationToken::new();
        let make = |_: &ConnInfo| {
            let for_tenants = CallerLayer::new(CallerVerifier::new("control-plane")).layer(tower::service_fn(echo));
            let for_gateways = RequireRole::new(&["gateway"]).layer(tower::service_fn(echo));
            tower::service_fn(move |request: Request<_>| {
                let (for_tenants, for_gateways) = (for_tenants.clone(), for_gateways.clone());
                async move {
                    if request.uri().path() == PATH {
                        for_tenants.oneshot(request).await
                    } else {
                        for_gateways.oneshot(request).await
                    }
                }
            })
        };
        let server_tls = tls.server_tls().expect("TLS");
        let serving = serve(listener, Some(server_tls), Edge::internal(), make, shutdown.clone(), PATIENCE);
        Self { addr, shutdown, done: tokio::spawn(serving) }
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.done.await.expect("ends");
    }
}

const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

async fn call<S>(channel: S, path: &'static str, request: tonic::Request<String>) -> Result<String, Status>
where
    S: tonic::client::GrpcService<Body>,
    S::ResponseBody: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    <S::ResponseBody as http_body::Body>::Error: Into<BoxError>,
{
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.map_err(|error| Status::from_error(error.into()))?;
    let codec = ProstCodec::<String, String>::default();
    let path = http::uri::PathAndQuery::from_static(path);
    client.unary(request, path, codec).await.map(tonic::Response::into_inner)
}

fn for_acme(message: &str) -> tonic::Request<String> {
    call_as(&claims().into_context(), message.to_owned()).expect("request")
}

#[tokio::test]
async fn a_forwarded_call_arrives_with_its_caller() {
    let pki = Pki::new();
    let server = Running::start(&pki.process("control-plane"), ANY).await;
    let gateway = pki.process("gateway");
    let channel = internal_channel(&server.addr.to_string(), &gateway, "control-plane").expect("channel");
    let signed = SignedChannel::new(channel.clone(), CallerSigner::from(&gateway), "control-plane");
    assert_eq!(call(signed.clone(), PATH, for_acme("hello")).await.expect("answer"), "acme: hello");

    // Without a caller, with a token for another message, with one for another service.
    let refused = call(signed, PATH, tonic::Request::new("hello".to_owned())).await.expect_err("no caller");
    assert_eq!(refused.code(), Code::Unauthenticated);
    let mut replayed = for_acme("other");
    let token = CallerSigner::from(&gateway).sign("control-plane", PATH, b"\x0a\x05hello", &claims());
    replayed.metadata_mut().insert(CALLER_KEY, token.parse().expect("token"));
    let refused = call(channel.clone(), PATH, replayed).await.expect_err("another message");
    assert_eq!(refused.code(), Code::Unauthenticated);
    let told = from_tonic(&refused);
    assert_eq!((told.kind, told.reason), (ErrorKind::Unavailable, Reason::CallerUnverified), "for a tenant");
    let elsewhere = SignedChannel::new(channel, CallerSigner::from(&gateway), "billing");
    let refused = call(elsewhere, PATH, for_acme("hello")).await.expect_err("another audience");
    assert_eq!(refused.code(), Code::Unauthenticated);
    server.stop().await;
}

#[tokio::test]
async fn a_process_that_is_no_gateway_cannot_speak_for_tenants() {
    let pki = Pki::new();
    let server = Running::start(&pki.process("control-plane"), ANY).await;
    let billing = pki.process("billing");
    let channel = internal_channel(&server.addr.to_string(), &billing, "control-plane").expect("channel");
    let signed = SignedChannel::new(channel.clone(), CallerSigner::from(&billing), "control-plane");
    let refused = call(signed, PATH, for_acme("hello")).await.expect_err("no gateway");
    assert_eq!(refused.code(), Code::Unauthenticated);
    let plain = tonic::Request::new("hello".to_owned());
    let refused = call(channel, "/test.Keys/Get", plain).await.expect_err("no gateway");
    assert_eq!(refused.code(), Code::Unauthenticated);

    let gateway = pki.process("gateway");
    let channel = internal_channel(&server.addr.to_string(), &gateway, "control-plane").expect("channel");
    let plain = tonic::Request::new("hello".to_owned());
    assert_eq!(call(channel, "/test.Keys/Get", plain).await.expect("answer"), "nobody: hello");
    server.stop().await;
}

#[tokio::test]
async fn a_server_of_another_role_or_none_is_unavailable_at_once() {
    let pki = Pki::new();
    let gateway = pki.process("gateway");
    let server = Running::start(&pki.process("billing"), ANY).await;
    let addr = server.addr.to_string();
    let began = Instant::now();
    for _ in 0..2 {
        let channel = internal_channel(&addr, &gateway, "control-plane").expect("channel");
        let error = from_tonic(&call(channel, PATH, for_acme("x")).await.expect_err("another role"));
        assert_eq!(error.kind, ErrorKind::Unavailable);
    }
    server.stop().await;
    let channel = internal_channel(&addr, &gateway, "control-plane").expect("channel");
    let error = from_tonic(&call(channel, PATH, for_acme("x")).await.expect_err("nobody there"));
    assert_eq!(error.kind, ErrorKind::Unavailable);
    // A listener that accepts and says nothing.
    let mute = std::net::TcpListener::bind(ANY).expect("bind");
    let addr = mute.local_addr().expect("address").to_string();
    let channel = internal_channel(&addr, &gateway, "control-plane").expect("channel");
    let error = from_tonic(&call(channel, PATH, for_acme("x")).await.expect_err("mute"));
    assert!(matches!(error.kind, ErrorKind::Unavailable | ErrorKind::DeadlineExceeded), "{error:?}");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    for wrong in ["", "host", ":80", "host:", "host:99999"] {
        assert!(internal_channel(wrong, &gateway, "billing").is_err(), "{wrong}");
    }
}

#[tokio::test]
async fn a_channel_finds_its_server_again_after_a_restart() {
    let pki = Pki::new();
    let (gateway, control_plane) = (pki.process("gateway"), pki.process("control-plane"));
    let server = Running::start(&control_plane, ANY).await;
    let addr = server.addr;
    let channel = internal_channel(&addr.to_string(), &gateway, "control-plane").expect("channel");
    let signed = SignedChannel::new(channel, CallerSigner::from(&gateway), "control-plane");
    call(signed.clone(), PATH, for_acme("one")).await.expect("answer");
    server.stop().await;
    let error = from_tonic(&call(signed.clone(), PATH, for_acme("x")).await.expect_err("stopped"));
    assert_eq!(error.kind, ErrorKind::Unavailable);
    let server = Running::start(&control_plane, addr).await;
    assert_eq!(call(signed, PATH, for_acme("two")).await.expect("answer"), "acme: two");
    server.stop().await;
}
