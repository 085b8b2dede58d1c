//! `GroupService`.

use sluice_proto::admin::v1::group_service_server::GroupService;
use sluice_proto::admin::v1::{
    CreateGroupRequest, DeleteGroupRequest, GetGroupRequest, Group, ListGroupsRequest, ListGroupsResponse,
    UpdateGroupRequest,
};
use sluice_proto::google::longrunning::Operation;
use sluice_types::{Error, ResourceName};
use tonic::{Request, Response, Status};

use super::operations::finished;
use super::reads::{Page, rpc_of};
use super::{Api, answered};
use crate::changes::{group, read};
use crate::domain::{fields, present};
use crate::store::group::{group_by_id, group_list};
use crate::store::namespace::namespace_by_id;

#[tonic::async_trait]
impl GroupService for Api {
    async fn create_group(&self, request: Request<CreateGroupRequest>) -> Result<Response<Operation>, Status> {
        answered(request, async |call, request| {
            let committed = group::create(&self.plane, call.clone(), request).await?;
            finished(&self.plane, call, committed).await
        })
        .await
    }

    async fn get_group(&self, request: Request<GetGroupRequest>) -> Result<Response<Group>, Status> {
        answered(request, async |call, request| {
            let (namespace_id, id) = fields::named("name", &request.name, ResourceName::parse_group)?;
            let shown = read(&self.plane, call, rpc_of(&request), move |txn| {
                Box::pin(async move {
                    txn.authorize(&request)?;
                    let not_found = || Error::not_found(&request.name);
                    let namespace = namespace_by_id(txn.tx(), &namespace_id).await?.ok_or_else(not_found)?;
                    let row = group_by_id(txn.tx(), namespace.uid(), &id).await?.ok_or_else(not_found)?;
                    Ok(present::group(&row))
                })
            });
            Ok(Response::new(shown.await?))
        })
        .await
    }

    async fn list_groups(&self, request: Request<ListGroupsRequest>) -> Result<Response<ListGroupsResponse>, Status> {
        answered(request, async |call, request| {
            let id = fields::named("parent", &request.parent, ResourceName::parse_namespace)?;
            let listed = read(&self.plane, call, rpc_of(&request), move |txn| {
                Box::pin(async move {
                    txn.authorize(&request)?;
                    let page = Page::begin(txn, request.page_size, &request.page_token, request.parent.clone())?;
                    let namespace = namespace_by_id(txn.tx(), &id).await?;
                    let namespace = namespace.ok_or_else(|| Error::not_found(&request.parent))?;
                    let after = page.after.clone().unwrap_or_default();
                    let rows = group_list(txn.tx(), namespace.uid(), &after, page.limit()).await?;
                    let (rows, next_page_token) = page.finish(txn, rows, |row| row.id.clone());
                    Ok(ListGroupsResponse { groups: rows.iter().map(present::group).collect(), next_page_token })
                })
            });
            Ok(Response::new(listed.await?))
        })
        .await
    }

    async fn update_group(&self, request: Request<UpdateGroupRequest>) -> Result<Response<Operation>, Status> {
        answered(request, async |call, request| {
            let committed = group::update(&self.plane, call.clone(), request).await?;
            finished(&self.plane, call, committed).await
        })
        .await
    }

    async fn delete_group(&self, request: Request<DeleteGroupRequest>) -> Result<Response<Operation>, Status> {
        answered(request, async |call, request| {
            let committed = group::delete(&self.plane, call.clone(), request).await?;
            finished(&self.plane, call, committed).await
        })
        .await
    }
}
