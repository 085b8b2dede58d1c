//! `NamespacesService`.

use sluice_proto::operator::v1::namespaces_service_server::NamespacesService;
use sluice_proto::operator::v1::{GetNamespaceRequest, Namespace, PlaceNamespaceRequest};
use sluice_types::{Error, ResourceName, TenantUid};
use tonic::{Request, Response, Status};

use super::super::{Conditioned, refuse};
use super::{Operator, unpack};
use crate::changes::cluster;
use crate::domain::{fields, present};
use crate::error::Fault;
use crate::store::cluster::cluster_by_uid_in_txn;
use crate::store::namespace::namespace_by_id;

#[tonic::async_trait]
impl NamespacesService for Operator {
    async fn get_namespace(&self, request: Request<GetNamespaceRequest>) -> Result<Response<Namespace>, Status> {
        let (operator, request) = unpack(request)?;
        let found = self.namespace(&request.name).await;
        found.map(Response::new).map_err(|error| refuse(error, &operator.request_id))
    }

    async fn place_namespace(&self, request: Request<PlaceNamespaceRequest>) -> Result<Response<Namespace>, Status> {
        let find = async |r: &PlaceNamespaceRequest| self.tenant_of(&r.name).await;
        self.mutate(request, find, async |call, r| cluster::place(&self.plane, call, r).await).await
    }
}

impl Conditioned for Namespace {
    fn conditions(&mut self) -> &mut Vec<sluice_proto::admin::v1::Condition> {
        &mut self.conditions
    }
}

impl Operator {
    /// The tenant of a namespace's name. That of an absent one is answered as an absent namespace.
    async fn tenant_of(&self, name: &str) -> Result<TenantUid, Error> {
        let (tenant, _) = fields::named("name", name, ResourceName::parse_tenant_namespace)?;
        let row = self.tenant_row(&tenant).await?;
        row.map(|row| row.uid()).ok_or_else(|| Error::not_found(name))
    }

    async fn namespace(&self, name: &str) -> Result<Namespace, Error> {
        let (tenant_id, id) = fields::named("name", name, ResourceName::parse_tenant_namespace)?;
        let (system, tenant) = (self.plane.db.system().clone(), self.tenant_of(name).await?);
        let work = async move {
            let mut tx = system.tenant(tenant).await?;
            let row = namespace_by_id(&mut tx, &id).await?;
            let cluster = match &row {
                Some(row) => cluster_by_uid_in_txn(&mut tx, row.cluster_uid()).await?,
                None => None,
            };
            tx.rollback().await?;
            Ok::<_, Fault>(row.zip(cluster))
        };
        let found = self.plane.db.run(work).await.map_err(Fault::into_answer)?;
        let (row, cluster) = found.ok_or_else(|| Error::not_found(name))?;
        Ok(present::placed_namespace(&tenant_id, &row, &cluster))
    }
}
