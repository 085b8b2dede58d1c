//! `NamespaceService`.

use sluice_proto::admin::v1::namespace_service_server::NamespaceService;
use sluice_proto::admin::v1::{
    CreateNamespaceRequest, DeleteNamespaceRequest, GetNamespaceRequest, ListNamespacesRequest, ListNamespacesResponse,
    Namespace, UpdateNamespaceRequest,
};
use sluice_proto::google::longrunning::Operation;
use sluice_types::{Error, ResourceName};
use tonic::{Request, Response, Status};

use super::Api;
use super::reads::Page;
use crate::changes::namespace;
use crate::domain::{fields, present};
use crate::store::namespace::{namespace_by_id, namespace_list};

#[tonic::async_trait]
impl NamespaceService for Api {
    async fn create_namespace(&self, request: Request<CreateNamespaceRequest>) -> Result<Response<Operation>, Status> {
        self.operated(request, namespace::create).await
    }

    async fn get_namespace(&self, request: Request<GetNamespaceRequest>) -> Result<Response<Namespace>, Status> {
        self.looked(
            request,
            |request| fields::named("name", &request.name, ResourceName::parse_namespace),
            |txn, request, id| {
                Box::pin(async move {
                    let row = namespace_by_id(txn.tx(), &id).await?;
                    Ok(present::namespace(&row.ok_or_else(|| Error::not_found(&request.name))?))
                })
            },
        )
        .await
    }

    async fn list_namespaces(
        &self,
        request: Request<ListNamespacesRequest>,
    ) -> Result<Response<ListNamespacesResponse>, Status> {
        self.looked(
            request,
            |_| Ok(()),
            |txn, request, ()| {
                Box::pin(async move {
                    let page = Page::begin(txn, request.page_size, &request.page_token, String::new())?;
                    let after = page.after.clone().unwrap_or_default();
                    let rows = namespace_list(txn.tx(), &after, page.limit()).await?;
                    let (namespaces, next_page_token) =
                        page.finish(txn, &rows, |row| row.id.clone(), present::namespace);
                    Ok(ListNamespacesResponse { namespaces, next_page_token })
                })
            },
        )
        .await
    }

    async fn update_namespace(&self, request: Request<UpdateNamespaceRequest>) -> Result<Response<Operation>, Status> {
        self.operated(request, namespace::update).await
    }

    async fn delete_namespace(&self, request: Request<DeleteNamespaceRequest>) -> Result<Response<Operation>, Status> {
        self.operated(request, namespace::delete).await
    }
}
