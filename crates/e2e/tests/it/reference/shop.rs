//! What the cases find: a tenant with a namespace, a topic, a group and an account that may only look.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use reqwest::Method;
use serde_json::{Value, json};
use sluice_e2e::http::Answer;
use sluice_e2e::{Http, Installation, Tenant};
use sluice_proto::admin::v1::TenantLimits;
use sluice_proto::operator::v1::{Tenant as OperatorTenant, UpdateTenantRequest};
use sluice_proto::wkt::FieldMask;

pub(super) const TOPIC: &str = "/v1/namespaces/prod/topics/orders";
pub(super) const GROUP: &str = "/v1/namespaces/prod/groups/billing";

pub(super) struct Shop {
    pub(super) it: Installation,
    pub(super) owner: Http,
    pub(super) viewer: Http,
    pub(super) key: String,
}

impl Shop {
    pub(super) async fn open(it: Installation) -> Result<Self> {
        let Tenant { key, .. } = it.tenant("acme").await?;
        let owner = it.http(0, Some(&key));
        let viewer = owner.with_key(None);
        let mut shop = Self { it, owner, viewer, key };
        shop.made("/v1/namespaces?namespaceId=prod", json!({})).await?;
        shop.made("/v1/namespaces/prod/topics?topicId=orders", json!({"partitionCount": 1})).await?;
        let topics = json!({"topics": ["namespaces/prod/topics/orders"]});
        shop.made("/v1/namespaces/prod/groups?groupId=billing", topics).await?;
        let viewer = json!({"grants": [{"role": "ROLE_VIEWER", "resource": "*"}]});
        shop.made("/v1/serviceAccounts?serviceAccountId=viewer", viewer).await?;
        let key = shop.made("/v1/serviceAccounts/viewer/apiKeys", json!({})).await?;
        shop.viewer = shop.owner.with_key(key["key"].as_str());
        Ok(shop)
    }

    pub(super) async fn made(&self, path: &str, body: Value) -> Result<Value> {
        let answer = self.owner.post(path, &body).await?;
        ensure!(answer.status == 200, "{path}: {} {}", answer.status, answer.message());
        Ok(answer.json())
    }

    pub(super) async fn send(&self, method: Method, path: &str, body: Value) -> Result<Answer> {
        self.owner.send(self.owner.request(method, path).json(&body)).await
    }

    /// With a deadline of the caller.
    pub(super) async fn within(&self, ms: u64, method: Method, path: &str, body: Option<Value>) -> Result<Answer> {
        let request = self.owner.request(method, path).header("x-request-timeout-ms", ms);
        let request = match body {
            Some(body) => request.json(&body),
            None => request,
        };
        self.owner.send(request).await
    }

    /// As if from another machine.
    pub(super) fn at(&self, address: &str) -> Result<Http> {
        let client = reqwest::Client::builder()
            .local_address(Some(address.parse()?))
            .timeout(Duration::from_secs(60))
            .build()
            .context("client")?;
        Ok(Http { client, ..self.owner.clone() })
    }

    /// A tenant of its own with these limits, and its door.
    pub(super) async fn limited(&self, id: &str, limits: TenantLimits) -> Result<Http> {
        let tenant = self.it.tenant(id).await?;
        let owner = self.it.http(0, Some(&tenant.key));
        let (mut operator, token) = self.it.operator()?;
        let request = UpdateTenantRequest {
            tenant: Some(OperatorTenant { name: format!("tenants/{id}"), limits: Some(limits), ..Default::default() }),
            update_mask: Some(FieldMask { paths: vec!["limits".into()] }),
            ..Default::default()
        };
        operator.update_tenant(Installation::operator_request(request, &token)?).await?;
        Ok(owner)
    }
}

/// The first call that is refused, of so many at once.
pub(super) async fn first_refused(http: &Http, path: &str, calls: usize) -> Result<Answer> {
    let answers = futures::future::try_join_all((0..calls).map(|_| http.get(path))).await?;
    answers.into_iter().find(|answer| answer.status != 200).context("none was refused")
}

/// Repeats a call until it is answered with this status.
pub(super) async fn until_status(status: u16, call: impl AsyncFn() -> Result<Answer>) -> Result<Answer> {
    const CALLS_MAX: usize = 200;
    let mut last = None;
    for _ in 0..CALLS_MAX {
        let answer = call().await?;
        if answer.status == status {
            return Ok(answer);
        }
        last = Some(answer);
    }
    let last = last.map(|answer| (answer.status, answer.message()));
    bail!("{CALLS_MAX} calls and no {status}; the last one: {last:?}")
}
