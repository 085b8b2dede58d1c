//! `TenantService`: the caller's own tenant.

use sluice_proto::admin::v1::tenant_service_server::TenantService;
use sluice_proto::admin::v1::{GetTenantRequest, Tenant};
use tonic::{Request, Response, Status};

use super::Api;
use crate::domain::{access, present};
use crate::store::tenant::tenant_get;

#[tonic::async_trait]
impl TenantService for Api {
    async fn get_tenant(&self, request: Request<GetTenantRequest>) -> Result<Response<Tenant>, Status> {
        self.looked(
            request,
            |_| Ok(()),
            |txn, _, ()| {
                Box::pin(async move {
                    let row = tenant_get(txn.tx()).await?.ok_or_else(access::credential_invalid)?;
                    let settings = txn.settings();
                    Ok(present::own_tenant(&row, &settings.tenant_defaults, &settings.limits))
                })
            },
        )
        .await
    }
}
