//! Update masks: what they name is changed, over gRPC as over HTTP.

use anyhow::{Context, Result, ensure};
use reqwest::Method;
use serde_json::{Value, json};
use sluice_e2e::{Api, Http, Installation, Options};
use sluice_proto::admin::v1::group_service_client::GroupServiceClient;
use sluice_proto::admin::v1::namespace_service_client::NamespaceServiceClient;
use sluice_proto::admin::v1::service_account_service_client::ServiceAccountServiceClient;
use sluice_proto::admin::v1::topic_service_client::TopicServiceClient;
use sluice_proto::admin::v1::{
    Group, Namespace, ServiceAccount, Topic, UpdateGroupRequest, UpdateNamespaceRequest, UpdateServiceAccountRequest,
    UpdateTopicRequest,
};
use sluice_proto::google::rpc::Status as Refusal;
use sluice_proto::wkt::FieldMask;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

const NAMESPACE: &str = "namespaces/prod";
const TOPIC: &str = "namespaces/prod/topics/orders";
const GROUP: &str = "namespaces/prod/groups/billing";
const ACCOUNT: &str = "serviceAccounts/checkout";

#[tokio::test(flavor = "multi_thread")]
async fn a_mask_of_all_fields_replaces_them_over_both_doors_and_stands_alone() -> Result<()> {
    let it = Installation::start(Options { gateways: 1, ..Options::default() }).await?;
    let tenant = it.tenant("acme").await?;
    let (http, api) = (it.http(0, Some(&tenant.key)), it.api(0, &tenant.key)?);
    for (path, body) in [
        ("/v1/namespaces?namespaceId=prod", json!({})),
        ("/v1/namespaces/prod/topics?topicId=orders", json!({"partitionCount": 2})),
        ("/v1/namespaces/prod/groups?groupId=billing", json!({"topics": [TOPIC]})),
        ("/v1/serviceAccounts?serviceAccountId=checkout", json!({})),
    ] {
        let made = http.post(path, &body).await?;
        ensure!(made.status == 200, "{path}: {}", made.message());
    }
    // What is required is sent again.
    let all = [
        (NAMESPACE, json!({"displayName": "New"})),
        (TOPIC, json!({"displayName": "New"})),
        (GROUP, json!({"displayName": "New", "topics": [TOPIC]})),
        (ACCOUNT, json!({"displayName": "New"})),
    ];
    for (name, body) in &all {
        label(&http, name).await?;
        let answer = patch(&http, &format!("/v1/{name}?updateMask=*"), body).await?;
        ensure!(answer.0 == 200, "{name}: {answer:?}");
        is_replaced(&http, name).await?;

        label(&http, name).await?;
        over_grpc(&api, name, &["*"]).await.with_context(|| name.to_string())?;
        is_replaced(&http, name).await?;

        // Both doors refuse the same, and name the field.
        let (status, answer) = patch(&http, &format!("/v1/{name}?updateMask=*,labels"), body).await?;
        ensure!(status == 400 && answer.to_string().contains("update_mask"), "{name}: {answer}");
        let refused = over_grpc(&api, name, &["*", "labels"]).await.err().context("it is refused")?;
        let field = refused.get_details_bad_request().and_then(|bad| bad.field_violations.first().cloned());
        let field = field.map(|violation| violation.field);
        ensure!((refused.code(), field.as_deref()) == (Code::InvalidArgument, Some("update_mask")), "{refused:?}");
    }
    let topic = http.get(&format!("/v1/{TOPIC}")).await?.json();
    ensure!(topic["effectivePartitionCount"] == 2, "partitions stay as many: {topic}");
    it.stop().await
}

async fn patch(http: &Http, path: &str, body: &Value) -> Result<(u16, Value)> {
    let answer = http.send(http.request(Method::PATCH, path).json(body)).await?;
    Ok((answer.status, answer.json()))
}

/// Something that a replacement takes away.
async fn label(http: &Http, name: &str) -> Result<()> {
    let (status, answer) = patch(http, &format!("/v1/{name}"), &json!({"labels": {"team": "old"}})).await?;
    ensure!(status == 200, "{name}: {answer}");
    let there = http.get(&format!("/v1/{name}")).await?.json();
    ensure!(there["labels"] == json!({"team": "old"}), "{there}");
    Ok(())
}

async fn is_replaced(http: &Http, name: &str) -> Result<()> {
    let there = http.get(&format!("/v1/{name}")).await?.json();
    ensure!(there["displayName"] == "New" && there["labels"] == json!({}), "{there}");
    Ok(())
}

/// The same change over gRPC.
async fn over_grpc(api: &Api, name: &str, paths: &[&str]) -> Result<(), Status> {
    let update_mask = Some(FieldMask { paths: paths.iter().map(|path| (*path).to_owned()).collect() });
    let (name, display_name, channel) = (name.to_owned(), "New".to_owned(), api.channel.clone());
    let operation = match &*name {
        NAMESPACE => {
            let namespace = Some(Namespace { name, display_name, ..Namespace::default() });
            let request = UpdateNamespaceRequest { namespace, update_mask, ..UpdateNamespaceRequest::default() };
            NamespaceServiceClient::new(channel).update_namespace(api.request(request)).await?.into_inner()
        }
        TOPIC => {
            let topic = Some(Topic { name, display_name, ..Topic::default() });
            let request = UpdateTopicRequest { topic, update_mask, ..UpdateTopicRequest::default() };
            TopicServiceClient::new(channel).update_topic(api.request(request)).await?.into_inner()
        }
        GROUP => {
            let group = Some(Group { name, display_name, topics: vec![TOPIC.into()], ..Group::default() });
            let request = UpdateGroupRequest { group, update_mask, ..UpdateGroupRequest::default() };
            GroupServiceClient::new(channel).update_group(api.request(request)).await?.into_inner()
        }
        _ => {
            let service_account = Some(ServiceAccount { name, display_name, ..ServiceAccount::default() });
            let request = UpdateServiceAccountRequest { service_account, update_mask, ..Default::default() };
            ServiceAccountServiceClient::new(channel).update_service_account(api.request(request)).await?;
            return Ok(());
        }
    };
    match operation.result {
        Some(sluice_proto::google::longrunning::operation::Result::Error(Refusal { message, .. })) => {
            Err(Status::internal(message))
        }
        _ => Ok(()),
    }
}
