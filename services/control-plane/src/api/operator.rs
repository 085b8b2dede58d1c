//! `sluice.operator.v1`: `TenantsService` here, a file for each other service. The listener (`operator_listener.rs`) has checked the token.

mod clusters;
mod namespaces;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use sluice_proto::ApiRequest;
use sluice_proto::admin::v1::ApiKey;
use sluice_proto::dispatch::fill_request_id;
use sluice_proto::operator::v1::tenants_service_server::TenantsService;
use sluice_proto::operator::v1::{
    CreateTenantRequest, DeleteTenantRequest, GetTenantRequest, IssueOwnerKeyRequest, ListTenantsRequest,
    ListTenantsResponse, ResumeTenantRequest, SuspendTenantRequest, Tenant, UpdateTenantRequest,
};
use sluice_types::{Error, Reason, ResourceName, TenantId, TenantUid};
use tonic::{Request, Response, Status};

use super::{Conditioned, refuse, settled};
use crate::changes::{Call, Committed, tenant};
use crate::domain::page::List;
use crate::domain::{fields, present};
use crate::error::Fault;
use crate::plane::SharedPlane;
use crate::store::tenant::{TenantRow, TenantState, tenant_by_id, tenant_list};

/// What the listener knows of a call.
#[derive(Debug, Clone)]
pub(crate) struct OperatorCall {
    pub(crate) request_id: Arc<str>,
    pub(crate) deadline: Instant,
    pub(crate) peer: Option<IpAddr>,
}

/// Serves `sluice.operator.v1`.
#[derive(Clone)]
pub(crate) struct Operator {
    pub(crate) plane: SharedPlane,
}

#[tonic::async_trait]
impl TenantsService for Operator {
    async fn create_tenant(&self, request: Request<CreateTenantRequest>) -> Result<Response<Tenant>, Status> {
        // A new tenant has no lock to share; a race for its id is decided by the unique index.
        self.mutate(
            request,
            async |_| Ok(TenantUid::random()),
            async |call, r| tenant::create(&self.plane, call, r).await,
        )
        .await
    }

    async fn get_tenant(&self, request: Request<GetTenantRequest>) -> Result<Response<Tenant>, Status> {
        let (operator, request) = unpack(request)?;
        let row = self.existing(&request.name).await;
        row.map(|row| Response::new(present::tenant(&row))).map_err(|error| refuse(error, &operator.request_id))
    }

    async fn list_tenants(
        &self,
        request: Request<ListTenantsRequest>,
    ) -> Result<Response<ListTenantsResponse>, Status> {
        let (operator, request) = unpack(request)?;
        self.list(request).await.map(Response::new).map_err(|error| refuse(error, &operator.request_id))
    }

    async fn update_tenant(&self, request: Request<UpdateTenantRequest>) -> Result<Response<Tenant>, Status> {
        let find = async |r: &UpdateTenantRequest| {
            let name = r.tenant.as_ref().map(|tenant| tenant.name.as_str()).unwrap_or_default();
            self.uid("tenant.name", name, false).await
        };
        self.mutate(request, find, async |call, r| tenant::update(&self.plane, call, r).await).await
    }

    async fn suspend_tenant(&self, request: Request<SuspendTenantRequest>) -> Result<Response<Tenant>, Status> {
        let find = async |r: &SuspendTenantRequest| self.uid("name", &r.name, false).await;
        self.mutate(request, find, async |call, r| tenant::suspend(&self.plane, call, r).await).await
    }

    async fn resume_tenant(&self, request: Request<ResumeTenantRequest>) -> Result<Response<Tenant>, Status> {
        let find = async |r: &ResumeTenantRequest| self.uid("name", &r.name, false).await;
        self.mutate(request, find, async |call, r| tenant::resume(&self.plane, call, r).await).await
    }

    async fn delete_tenant(&self, request: Request<DeleteTenantRequest>) -> Result<Response<Tenant>, Status> {
        let find = async |r: &DeleteTenantRequest| self.uid("name", &r.name, true).await;
        self.mutate(request, find, async |call, r| tenant::delete(&self.plane, call, r).await).await
    }

    async fn issue_owner_key(&self, request: Request<IssueOwnerKeyRequest>) -> Result<Response<ApiKey>, Status> {
        let find = async |r: &IssueOwnerKeyRequest| self.uid("name", &r.name, false).await;
        self.mutate(request, find, async |call, r| tenant::issue_owner_key(&self.plane, call, r).await).await
    }
}

impl Operator {
    /// Finds the tenant, changes it, waits for the gateways.
    async fn mutate<R, M>(
        &self,
        request: Request<R>,
        find: impl AsyncFnOnce(&R) -> Result<TenantUid, Error>,
        change: impl AsyncFnOnce(Call, R) -> Result<Committed<M>, Error>,
    ) -> Result<Response<M>, Status>
    where
        R: ApiRequest,
        M: Conditioned,
    {
        let (operator, request) = unpack(request)?;
        let done = async {
            let tenant = find(&request).await?;
            let OperatorCall { request_id, deadline, peer } = operator.clone();
            let committed = change(Call::Operator { tenant, request_id, deadline, peer }, request).await?;
            Ok(settled(&self.plane, deadline, committed).await)
        };
        done.await.map_err(|error| refuse(error, &operator.request_id))
    }

    /// The uid behind a name. With `even_if_absent` a fresh one, under which the change finds nothing.
    async fn uid(&self, field: &str, name: &str, even_if_absent: bool) -> Result<TenantUid, Error> {
        fields::named(field, name, ResourceName::parse_tenant)?;
        match self.existing(name).await {
            Ok(row) => Ok(row.uid()),
            Err(error) if even_if_absent && error.reason == Reason::ResourceNotFound => Ok(TenantUid::random()),
            Err(error) => Err(error),
        }
    }

    async fn existing(&self, name: &str) -> Result<TenantRow, Error> {
        let id = fields::named("name", name, ResourceName::parse_tenant)?;
        self.tenant_row(&id).await?.ok_or_else(|| Error::not_found(name))
    }

    /// A tenant that is not deleted.
    async fn tenant_row(&self, id: &TenantId) -> Result<Option<TenantRow>, Error> {
        let id = id.clone();
        let system = self.plane.db.system().clone();
        let work = async move {
            let mut tx = system.begin().await?;
            let row = tenant_by_id(&mut tx, &id).await?;
            tx.rollback().await?;
            Ok::<_, Fault>(row)
        };
        let row = self.plane.db.run(work).await.map_err(Fault::into_answer)?;
        Ok(row.filter(|row| row.state != TenantState::Deleted))
    }

    async fn list(&self, request: ListTenantsRequest) -> Result<ListTenantsResponse, Error> {
        let size = fields::page_size(request.page_size)?;
        let list = List { caller: "operator", method: ListTenantsRequest::rpc().path, arguments: "" };
        let after = self.plane.pages.last_key(list, &request.page_token)?.unwrap_or_default();
        let system = self.plane.db.system().clone();
        let work = async move {
            let mut tx = system.begin().await?;
            let rows = tenant_list(&mut tx, &after, size + 1).await?;
            tx.rollback().await?;
            Ok::<_, Fault>(rows)
        };
        let mut rows = self.plane.db.run(work).await.map_err(Fault::into_answer)?;
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        let more = rows.len() > size;
        rows.truncate(size);
        let last = rows.last().filter(|_| more);
        let next_page_token = last.map(|row| self.plane.pages.token(list, &row.id)).unwrap_or_default();
        Ok(ListTenantsResponse { tenants: rows.iter().map(present::tenant).collect(), next_page_token })
    }
}

fn unpack<R: ApiRequest>(request: Request<R>) -> Result<(OperatorCall, R), Status> {
    let (metadata, extensions, mut message) = request.into_parts();
    let Some(call) = extensions.get::<OperatorCall>().cloned() else {
        return Err(refuse(Error::internal("an operator's call without a context"), ""));
    };
    fill_request_id(&mut message, &metadata)
        .map_err(|error| refuse(Error::invalid(error.field, error.reason), &call.request_id))?;
    Ok((call, message))
}
