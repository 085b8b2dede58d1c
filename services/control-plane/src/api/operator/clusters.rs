//! `ClustersService`.

use sluice_proto::ApiRequest as _;
use sluice_proto::operator::v1::clusters_service_server::ClustersService;
use sluice_proto::operator::v1::{
    Cluster, CreateClusterRequest, GetClusterRequest, ListClustersRequest, ListClustersResponse,
};
use sluice_types::{Error, ResourceName, TenantUid};
use tonic::{Request, Response, Status};

use super::super::refuse;
use super::{Operator, OperatorCall, unpack};
use crate::changes::{Call, cluster};
use crate::domain::page::List;
use crate::domain::{fields, present};
use crate::error::Fault;
use crate::store::cluster::{cluster_by_id, cluster_list};

/// What belongs to no tenant is the installation's.
const INSTALLATION: TenantUid = TenantUid::from_i64(0);

#[tonic::async_trait]
impl ClustersService for Operator {
    async fn create_cluster(&self, request: Request<CreateClusterRequest>) -> Result<Response<Cluster>, Status> {
        let (operator, request) = unpack(request)?;
        let OperatorCall { request_id, deadline, peer } = operator.clone();
        let call = Call::Operator { tenant: INSTALLATION, request_id, deadline, peer };
        let made = cluster::create(&self.plane, call, request).await;
        made.map(|made| Response::new(made.answer)).map_err(|error| refuse(error, &operator.request_id))
    }

    async fn get_cluster(&self, request: Request<GetClusterRequest>) -> Result<Response<Cluster>, Status> {
        let (operator, request) = unpack(request)?;
        let found = self.cluster(&request.name).await;
        found.map(Response::new).map_err(|error| refuse(error, &operator.request_id))
    }

    async fn list_clusters(
        &self,
        request: Request<ListClustersRequest>,
    ) -> Result<Response<ListClustersResponse>, Status> {
        let (operator, request) = unpack(request)?;
        self.clusters(request).await.map(Response::new).map_err(|error| refuse(error, &operator.request_id))
    }
}

impl Operator {
    async fn cluster(&self, name: &str) -> Result<Cluster, Error> {
        let id = fields::named("name", name, ResourceName::parse_cluster)?;
        let system = self.plane.db.system().clone();
        let work = async move {
            let mut tx = system.begin().await?;
            let row = cluster_by_id(&mut tx, &id).await?;
            tx.rollback().await?;
            Ok::<_, Fault>(row)
        };
        let row = self.plane.db.run(work).await.map_err(Fault::into_answer)?;
        row.as_ref().map(present::cluster).ok_or_else(|| Error::not_found(name))
    }

    async fn clusters(&self, request: ListClustersRequest) -> Result<ListClustersResponse, Error> {
        let size = fields::page_size(request.page_size)?;
        let list = List { caller: "operator", method: ListClustersRequest::rpc().path, arguments: "" };
        let after = self.plane.pages.last_key(list, &request.page_token)?.unwrap_or_default();
        let system = self.plane.db.system().clone();
        let work = async move {
            let mut tx = system.begin().await?;
            let rows = cluster_list(&mut tx, &after, size + 1).await?;
            tx.rollback().await?;
            Ok::<_, Fault>(rows)
        };
        let mut rows = self.plane.db.run(work).await.map_err(Fault::into_answer)?;
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        let more = rows.len() > size;
        rows.truncate(size);
        let last = rows.last().filter(|_| more);
        let next_page_token = last.map(|row| self.plane.pages.token(list, &row.id)).unwrap_or_default();
        Ok(ListClustersResponse { clusters: rows.iter().map(present::cluster).collect(), next_page_token })
    }
}
