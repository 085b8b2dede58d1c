//! What gRPC clients and tools find on the public listener before they know anything of it.

use std::collections::BTreeSet;

use futures::StreamExt as _;
use prost::Message as _;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_reflection::pb::{v1, v1alpha};

use sluice_proto::admin::v1::GetTenantRequest;
use sluice_proto::admin::v1::tenant_service_client::TenantServiceClient;
use sluice_proto::internal::control::v1::Life;
use sluice_proto::stream::v1::consumer_service_client::ConsumerServiceClient;
use sluice_proto::stream::v1::stream_service_client::StreamServiceClient;
use sluice_proto::stream::v1::{AckRequest, ConsumeRequest, ListOffsetsRequest, SubscribeRequest};
use sluice_runtime::statuses::from_tonic;
use sluice_types::Reason;

use crate::world::{Tenant, World};

async fn channel(url: String) -> Channel {
    Channel::from_shared(url).expect("address").connect().await.expect("connect")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_encoding_that_is_not_known_is_refused_with_those_that_are() {
    let world = World::new().await;
    let gateway = world.gateway("gateway-a").await;
    let tenant = Tenant::new("acme");
    for record in tenant.base() {
        world.publish(&record).await;
    }
    let offset = world.publish(&tenant.key_state(1, Life::Active)).await;
    world.applied(&gateway, offset).await;
    let channel = channel(gateway.url("")).await;
    let bearer = format!("Bearer {}", tenant.key.expose());

    for encoding in ["snappy", "deflate", "zstd"] {
        // A function each, for messages of different types.
        macro_rules! said {
            ($message:expr) => {{
                let mut request = Request::new($message);
                request.metadata_mut().insert("authorization", bearer.parse().expect("ascii"));
                request.metadata_mut().insert("grpc-encoding", encoding.parse().expect("ascii"));
                request
            }};
        }
        let mut stream = StreamServiceClient::new(channel.clone());
        let mut consumer = ConsumerServiceClient::new(channel.clone());
        let mut tenants = TenantServiceClient::new(channel.clone());
        let start = futures::stream::iter([ConsumeRequest::default()]);
        let answers: [(&str, Result<(), Status>); 5] = [
            ("unary", stream.list_offsets(said!(ListOffsetsRequest::default())).await.map(drop)),
            ("unary of consumers", consumer.ack(said!(AckRequest::default())).await.map(drop)),
            ("both stream", consumer.consume(said!(start)).await.map(drop)),
            ("the answer streams", consumer.subscribe(said!(SubscribeRequest::default())).await.map(drop)),
            ("forwarded", tenants.get_tenant(said!(GetTenantRequest {})).await.map(drop)),
        ];
        for (what, answer) in answers {
            let status = answer.expect_err(what);
            assert_eq!(status.code(), Code::Unimplemented, "{what}, {encoding}: {status}");
            assert_eq!(from_tonic(&status).reason, Reason::MalformedBody, "{what}, {encoding}");
            assert_eq!(status.metadata().get("grpc-accept-encoding").expect("told"), "identity,gzip", "{what}");
        }
    }
    gateway.stop().await.expect("an orderly end");
}

/// What both versions of the protocol have.
macro_rules! asking {
    ($name:ident, $version:ident) => {
        /// Asks on a stream of its own, without a credential: the names of services, or files, or the code of a refusal.
        async fn $name(channel: &Channel, question: Question<'_>) -> Result<Found, Code> {
            use $version::server_reflection_client::ServerReflectionClient;
            use $version::server_reflection_request::MessageRequest;
            use $version::server_reflection_response::MessageResponse;
            let message_request = match question {
                Question::Services => MessageRequest::ListServices(String::new()),
                Question::FileOf(symbol) => MessageRequest::FileContainingSymbol(symbol.to_owned()),
                Question::File(name) => MessageRequest::FileByFilename(name.to_owned()),
            };
            let request =
                $version::ServerReflectionRequest { host: String::new(), message_request: Some(message_request) };
            let mut client = ServerReflectionClient::new(channel.clone());
            let answers = client.server_reflection_info(futures::stream::iter([request])).await;
            let answer = answers.map_err(|status| status.code())?.into_inner().next().await.expect("an answer");
            match answer.map_err(|status| status.code())?.message_response.expect("a message") {
                MessageResponse::ListServicesResponse(list) => {
                    Ok(Found::Services(list.service.into_iter().map(|service| service.name).collect()))
                }
                MessageResponse::FileDescriptorResponse(files) => Ok(Found::Files(
                    files
                        .file_descriptor_proto
                        .iter()
                        .map(|file| prost_types::FileDescriptorProto::decode(&file[..]).expect("a descriptor"))
                        .collect(),
                )),
                MessageResponse::ErrorResponse(error) => Err(Code::from_i32(error.error_code)),
                other => panic!("{other:?}"),
            }
        }
    };
}

#[derive(Clone, Copy)]
enum Question<'a> {
    Services,
    FileOf(&'a str),
    File(&'a str),
}

#[derive(Debug)]
enum Found {
    Services(BTreeSet<String>),
    Files(Vec<prost_types::FileDescriptorProto>),
}

asking!(ask, v1);
asking!(ask_alpha, v1alpha);

/// The services of tenants, and of everybody.
const SERVICES: [&str; 12] = [
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "sluice.admin.v1.GroupService",
    "sluice.admin.v1.NamespaceService",
    "sluice.admin.v1.OperationService",
    "sluice.admin.v1.ServiceAccountService",
    "sluice.admin.v1.TenantService",
    "sluice.admin.v1.TopicService",
    "sluice.billing.v1.UsageService",
    "sluice.server.v1.ServerService",
    "sluice.stream.v1.ConsumerService",
    "sluice.stream.v1.StreamService",
];

#[tokio::test(flavor = "multi_thread")]
async fn reflection_shows_everybody_what_is_for_tenants_and_nothing_else() {
    let world = World::new().await;
    let gateway = world.gateway("gateway-a").await;
    let channel = channel(gateway.url("")).await;

    let Ok(Found::Services(services)) = ask(&channel, Question::Services).await else { panic!("services") };
    let Ok(Found::Services(alpha)) = ask_alpha(&channel, Question::Services).await else { panic!("services") };
    assert_eq!(services, SERVICES.map(str::to_owned).into());
    let version = |name: &String| name.replace("v1alpha", "v1");
    assert_eq!(alpha.iter().map(version).collect::<BTreeSet<_>>(), services);

    // All files that a tool would follow.
    let mut files = Vec::new();
    for service in &services {
        let Ok(Found::Files(found)) = ask(&channel, Question::FileOf(service)).await else { panic!("{service}") };
        files.extend(found);
    }
    let mut seen = BTreeSet::new();
    while let Some(file) = files.pop() {
        if !seen.insert(file.name().to_owned()) {
            continue;
        }
        assert!(!is_hidden(file.package()), "{}", file.name());
        for name in &file.dependency {
            let Ok(Found::Files(found)) = ask(&channel, Question::File(name)).await else { panic!("{name}") };
            files.extend(found);
        }
    }

    // Nor does it tell who knows the names.
    let set = prost_types::FileDescriptorSet::decode(sluice_proto::FILE_DESCRIPTOR_SET).expect("descriptors");
    let hidden: Vec<_> = set.file.iter().filter(|file| is_hidden(file.package())).collect();
    assert!(hidden.iter().any(|file| file.package() == "sluice.operator.v1"));
    for file in hidden {
        let symbol = file.service.first().map(|service| service.name());
        let symbol = symbol.or_else(|| file.message_type.first().map(|message| message.name()));
        let symbol = format!("{}.{}", file.package(), symbol.expect("a symbol"));
        for question in [Question::FileOf(&symbol), Question::File(file.name())] {
            assert_eq!(ask(&channel, question).await.expect_err(&symbol), Code::NotFound, "{symbol}");
            assert_eq!(ask_alpha(&channel, question).await.expect_err(&symbol), Code::NotFound, "{symbol}");
        }
    }

    // What is shown to everybody is not served to everybody.
    let mut stream = StreamServiceClient::new(channel);
    let refused = stream.list_offsets(ListOffsetsRequest::default()).await.expect_err("no credential");
    assert_eq!(refused.code(), Code::Unauthenticated);
    gateway.stop().await.expect("an orderly end");
}

fn is_hidden(package: &str) -> bool {
    ["sluice.internal", "sluice.operator"].iter().any(|hidden| package.starts_with(hidden))
}
