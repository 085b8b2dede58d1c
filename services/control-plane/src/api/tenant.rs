//! `TenantService`: the caller's own tenant.

use sluice_proto::admin::v1::tenant_service_server::TenantService;
use sluice_proto::admin::v1::{GetTenantRequest, Tenant};
use tonic::{Request, Response, Status};

use super::reads::rpc_of;
use super::{Api, answered};
use crate::changes::read;
use crate::domain::{access, present};
use crate::store::tenant::tenant_get;

#[tonic::async_trait]
impl TenantService for Api {
    async fn get_tenant(&self, request: Request<GetTenantRequest>) -> Result<Response<Tenant>, Status> {
        answered(request, async |call, request| {
            let rpc = rpc_of(&request);
            let shown = read(&self.plane, call, rpc, move |txn| {
                Box::pin(async move {
                    txn.authorize(&request)?;
                    let row = tenant_get(txn.tx()).await?.ok_or_else(access::credential_invalid)?;
                    Ok(present::own_tenant(&row))
                })
            });
            Ok(Response::new(shown.await?))
        })
        .await
    }
}
