//! `NamespaceService`.

use sluice_proto::admin::v1::namespace_service_server::NamespaceService;
use sluice_proto::admin::v1::{
    CreateNamespaceRequest, DeleteNamespaceRequest, GetNamespaceRequest, ListNamespacesRequest, ListNamespacesResponse,
    Namespace, UpdateNamespaceRequest,
};
use sluice_proto::google::longrunning::Operation;
use sluice_types::{Error, ResourceName};
use tonic::{Request, Response, Status};

use super::operations::finished;
use super::reads::{Page, rpc_of};
use super::{Api, answered};
use crate::changes::{namespace, read};
use crate::domain::{fields, present};
use crate::store::namespace::{namespace_by_id, namespace_list};

#[tonic::async_trait]
impl NamespaceService for Api {
    async fn create_namespace(&self, request: Request<CreateNamespaceRequest>) -> Result<Response<Operation>, Status> {
        answered(request, async |call, request| {
            let committed = namespace::create(&self.plane, call.clone(), request).await?;
            finished(&self.plane, call, committed).await
        })
        .await
    }

    async fn get_namespace(&self, request: Request<GetNamespaceRequest>) -> Result<Response<Namespace>, Status> {
        answered(request, async |call, request| {
            let id = fields::named("name", &request.name, ResourceName::parse_namespace)?;
            let shown = read(&self.plane, call, rpc_of(&request), move |txn| {
                Box::pin(async move {
                    txn.authorize(&request)?;
                    let row = namespace_by_id(txn.tx(), &id).await?;
                    Ok(present::namespace(&row.ok_or_else(|| Error::not_found(&request.name))?))
                })
            });
            Ok(Response::new(shown.await?))
        })
        .await
    }

    async fn list_namespaces(
        &self,
        request: Request<ListNamespacesRequest>,
    ) -> Result<Response<ListNamespacesResponse>, Status> {
        answered(request, async |call, request| {
            let listed = read(&self.plane, call, rpc_of(&request), move |txn| {
                Box::pin(async move {
                    txn.authorize(&request)?;
                    let page = Page::begin(txn, request.page_size, &request.page_token, String::new())?;
                    let after = page.after.clone().unwrap_or_default();
                    let rows = namespace_list(txn.tx(), &after, page.limit()).await?;
                    let (rows, next_page_token) = page.finish(txn, rows, |row| row.id.clone());
                    let namespaces = rows.iter().map(present::namespace).collect();
                    Ok(ListNamespacesResponse { namespaces, next_page_token })
                })
            });
            Ok(Response::new(listed.await?))
        })
        .await
    }

    async fn update_namespace(&self, request: Request<UpdateNamespaceRequest>) -> Result<Response<Operation>, Status> {
        answered(request, async |call, request| {
            let committed = namespace::update(&self.plane, call.clone(), request).await?;
            finished(&self.plane, call, committed).await
        })
        .await
    }

    async fn delete_namespace(&self, request: Request<DeleteNamespaceRequest>) -> Result<Response<Operation>, Status> {
        answered(request, async |call, request| {
            let committed = namespace::delete(&self.plane, call.clone(), request).await?;
            finished(&self.plane, call, committed).await
        })
        .await
    }
}
