//! `TopicService`.

use sluice_proto::admin::v1::topic_service_server::TopicService;
use sluice_proto::admin::v1::{
    CreateTopicRequest, DeleteTopicRequest, GetTopicRequest, ListTopicsRequest, ListTopicsResponse, Topic,
    UpdateTopicRequest,
};
use sluice_proto::google::longrunning::Operation;
use sluice_types::{Error, ResourceName};
use tonic::{Request, Response, Status};

use super::Api;
use super::reads::Page;
use crate::changes::topic;
use crate::domain::{fields, present};
use crate::store::namespace::namespace_by_id;
use crate::store::topic::{topic_by_id, topic_list};

#[tonic::async_trait]
impl TopicService for Api {
    async fn create_topic(&self, request: Request<CreateTopicRequest>) -> Result<Response<Operation>, Status> {
        self.operated(request, topic::create).await
    }

    async fn get_topic(&self, request: Request<GetTopicRequest>) -> Result<Response<Topic>, Status> {
        self.looked(
            request,
            |request| fields::named("name", &request.name, ResourceName::parse_topic),
            |txn, request, (namespace_id, id)| {
                Box::pin(async move {
                    let not_found = || Error::not_found(&request.name);
                    let namespace = namespace_by_id(txn.tx(), &namespace_id).await?.ok_or_else(not_found)?;
                    let row = topic_by_id(txn.tx(), namespace.uid(), &id).await?.ok_or_else(not_found)?;
                    Ok(present::topic(&row))
                })
            },
        )
        .await
    }

    async fn list_topics(&self, request: Request<ListTopicsRequest>) -> Result<Response<ListTopicsResponse>, Status> {
        self.looked(
            request,
            |request| fields::named("parent", &request.parent, ResourceName::parse_namespace),
            |txn, request, id| {
                Box::pin(async move {
                    let page = Page::begin(txn, request.page_size, &request.page_token, request.parent.clone())?;
                    let namespace = namespace_by_id(txn.tx(), &id).await?;
                    let namespace = namespace.ok_or_else(|| Error::not_found(&request.parent))?;
                    let after = page.after.clone().unwrap_or_default();
                    let rows = topic_list(txn.tx(), namespace.uid(), &after, page.limit()).await?;
                    let (topics, next_page_token) = page.finish(txn, &rows, |row| row.id.clone(), present::topic);
                    Ok(ListTopicsResponse { topics, next_page_token })
                })
            },
        )
        .await
    }

    async fn update_topic(&self, request: Request<UpdateTopicRequest>) -> Result<Response<Operation>, Status> {
        self.operated(request, topic::update).await
    }

    async fn delete_topic(&self, request: Request<DeleteTopicRequest>) -> Result<Response<Operation>, Status> {
        self.operated(request, topic::delete).await
    }
}
