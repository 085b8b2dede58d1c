//! The demo tenant of `up`: made at the first start, found at the next ones.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use sluice_proto::admin::v1::namespace_service_client::NamespaceServiceClient;
use sluice_proto::admin::v1::tenant_service_client::TenantServiceClient;
use sluice_proto::admin::v1::topic_service_client::TopicServiceClient;
use sluice_proto::admin::v1::{CreateNamespaceRequest, CreateTopicRequest, GetTenantRequest, Namespace, Topic};
use sluice_proto::operator::v1::tenants_service_client::TenantsServiceClient;
use sluice_proto::operator::v1::{CreateTenantRequest, IssueOwnerKeyRequest, Tenant};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

use crate::local::Local;

const TENANT: &str = "demo";
pub(super) const NAMESPACE: &str = "demo";
pub(super) const TOPIC: &str = "events";

/// The tenant with a key that works.
pub(super) struct DemoTenant {
    key: String,
    /// The address and the key as variables of a shell, mode 0600.
    pub(super) env_file: PathBuf,
}

impl DemoTenant {
    /// Makes tenant, key, namespace and topic; what is there already stays.
    pub(super) async fn make_or_find(local: &Local) -> Result<Self> {
        let env_file = local.dir.join("env");
        let gateway = channel(&local.public[0])?;
        let key = match known_key(&env_file) {
            Some(key) if works(&gateway, &key).await => key,
            _ => new_key(local).await?,
        };
        let namespace = CreateNamespaceRequest {
            namespace_id: NAMESPACE.into(),
            namespace: Some(Namespace { display_name: "Demo".into(), ..Default::default() }),
            ..Default::default()
        };
        let made = NamespaceServiceClient::new(gateway.clone()).create_namespace(request(namespace, &key)?).await;
        unless_exists(made).context("make the demo namespace")?;
        let topic = CreateTopicRequest {
            parent: format!("namespaces/{NAMESPACE}"),
            topic_id: TOPIC.into(),
            topic: Some(Topic { partition_count: Some(1), ..Default::default() }),
            ..Default::default()
        };
        let made = TopicServiceClient::new(gateway).create_topic(request(topic, &key)?).await;
        unless_exists(made).context("make the demo topic")?;
        let tenant = Self { key, env_file };
        tenant.write_env(local)?;
        Ok(tenant)
    }

    fn write_env(&self, local: &Local) -> Result<()> {
        let text = format!(
            "export SLUICE_URL=http://{}\nexport SLUICE_API_KEY={}\nexport SLUICE_OPERATOR_URL=http://{}\n\
             export SLUICE_OPERATOR_TOKEN_FILE={}\n",
            local.public[0],
            self.key,
            local.operator,
            local.operator_token_file.display(),
        );
        crate::local::write_secret(&self.env_file, &text)
    }
}

async fn new_key(local: &Local) -> Result<String> {
    let token = std::fs::read_to_string(&local.operator_token_file)
        .with_context(|| format!("read {}", local.operator_token_file.display()))?;
    let mut client = TenantsServiceClient::new(channel(&local.operator)?);
    let tenant = CreateTenantRequest {
        tenant_id: TENANT.into(),
        tenant: Some(Tenant { display_name: "Demo tenant".into(), ..Default::default() }),
        ..Default::default()
    };
    unless_exists(client.create_tenant(request(tenant, token.trim())?).await).context("make the demo tenant")?;
    let issue = IssueOwnerKeyRequest { name: format!("tenants/{TENANT}"), ..Default::default() };
    let key = client.issue_owner_key(request(issue, token.trim())?).await.context("make the demo key")?;
    Ok(key.into_inner().key)
}

async fn works(gateway: &Channel, key: &str) -> bool {
    let Ok(request) = request(GetTenantRequest {}, key) else { return false };
    TenantServiceClient::new(gateway.clone()).get_tenant(request).await.is_ok()
}

fn known_key(env_file: &std::path::Path) -> Option<String> {
    let text = std::fs::read_to_string(env_file).ok()?;
    text.lines().find_map(|line| line.strip_prefix("export SLUICE_API_KEY=")).map(str::to_owned)
}

fn channel(address: &str) -> Result<Channel> {
    Ok(Endpoint::from_shared(format!("http://{address}"))?.connect_timeout(Duration::from_secs(2)).connect_lazy())
}

fn request<T>(message: T, secret: &str) -> Result<Request<T>> {
    let mut request = Request::new(message);
    request.set_timeout(Duration::from_secs(20));
    request.metadata_mut().insert("authorization", format!("Bearer {secret}").parse()?);
    Ok(request)
}

fn unless_exists<T>(answer: Result<T, Status>) -> Result<(), Status> {
    match answer {
        Err(status) if status.code() != Code::AlreadyExists => Err(status),
        _ => Ok(()),
    }
}
