//! `GroupService`.

use sluice_proto::admin::v1::group_service_server::GroupService;
use sluice_proto::admin::v1::{
    CreateGroupRequest, DeleteGroupRequest, GetGroupRequest, Group, ListGroupsRequest, ListGroupsResponse,
    UpdateGroupRequest,
};
use sluice_proto::google::longrunning::Operation;
use sluice_types::{Error, ResourceName};
use tonic::{Request, Response, Status};

use super::Api;
use super::reads::Page;
use crate::changes::group;
use crate::domain::{fields, present};
use crate::store::group::{group_by_id, group_list};
use crate::store::namespace::namespace_by_id;

#[tonic::async_trait]
impl GroupService for Api {
    async fn create_group(&self, request: Request<CreateGroupRequest>) -> Result<Response<Operation>, Status> {
        self.operated(request, group::create).await
    }

    async fn get_group(&self, request: Request<GetGroupRequest>) -> Result<Response<Group>, Status> {
        self.looked(
            request,
            |request| fields::named("name", &request.name, ResourceName::parse_group),
            |txn, request, (namespace_id, id)| {
                Box::pin(async move {
                    let not_found = || Error::not_found(&request.name);
                    let namespace = namespace_by_id(txn.tx(), &namespace_id).await?.ok_or_else(not_found)?;
                    let row = group_by_id(txn.tx(), namespace.uid(), &id).await?.ok_or_else(not_found)?;
                    Ok(present::group(&row))
                })
            },
        )
        .await
    }

    async fn list_groups(&self, request: Request<ListGroupsRequest>) -> Result<Response<ListGroupsResponse>, Status> {
        self.looked(
            request,
            |request| fields::named("parent", &request.parent, ResourceName::parse_namespace),
            |txn, request, id| {
                Box::pin(async move {
                    let page = Page::begin(txn, request.page_size, &request.page_token, request.parent.clone())?;
                    let namespace = namespace_by_id(txn.tx(), &id).await?;
                    let namespace = namespace.ok_or_else(|| Error::not_found(&request.parent))?;
                    let after = page.after.clone().unwrap_or_default();
                    let rows = group_list(txn.tx(), namespace.uid(), &after, page.limit()).await?;
                    let (groups, next_page_token) = page.finish(txn, &rows, |row| row.id.clone(), present::group);
                    Ok(ListGroupsResponse { groups, next_page_token })
                })
            },
        )
        .await
    }

    async fn update_group(&self, request: Request<UpdateGroupRequest>) -> Result<Response<Operation>, Status> {
        self.operated(request, group::update).await
    }

    async fn delete_group(&self, request: Request<DeleteGroupRequest>) -> Result<Response<Operation>, Status> {
        self.operated(request, group::delete).await
    }
}
