//! A topic service that remembers what it was asked.

use std::sync::Mutex;

use sluice_proto::Any;
use sluice_proto::admin::v1::topic_service_server::TopicService;
use sluice_proto::admin::v1::*;
use sluice_proto::google::longrunning::{Operation, operation};
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};

/// What a layer puts into the extensions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Caller(pub(crate) &'static str);

#[derive(Debug, Default)]
pub(crate) struct Topics {
    pub(crate) created: Mutex<Vec<(CreateTopicRequest, MetadataMap, Option<Caller>)>>,
}

#[tonic::async_trait]
impl TopicService for Topics {
    async fn create_topic(&self, request: Request<CreateTopicRequest>) -> Result<Response<Operation>, Status> {
        let caller = request.extensions().get::<Caller>().cloned();
        let (metadata, _, request) = request.into_parts();
        let name = format!("{}/topics/{}", request.parent, request.topic_id);
        self.created.lock().unwrap().push((request, metadata, caller));
        let topic = Topic { name, ..Topic::default() };
        let result = Some(operation::Result::Response(Any::pack(&topic)));
        let mut response = Response::new(Operation { name: "operations/1".into(), done: true, result, metadata: None });
        response.metadata_mut().insert("sluice-revision", "r-7".parse().unwrap());
        response.metadata_mut().insert("sluice-internal", "secret".parse().unwrap());
        Ok(response)
    }

    async fn get_topic(&self, request: Request<GetTopicRequest>) -> Result<Response<Topic>, Status> {
        Err(Status::not_found(format!("no topic {}", request.get_ref().name)))
    }

    async fn list_topics(&self, _: Request<ListTopicsRequest>) -> Result<Response<ListTopicsResponse>, Status> {
        std::future::pending().await
    }

    async fn update_topic(&self, _: Request<UpdateTopicRequest>) -> Result<Response<Operation>, Status> {
        Err(Status::unimplemented("update"))
    }

    async fn delete_topic(&self, _: Request<DeleteTopicRequest>) -> Result<Response<Operation>, Status> {
        Err(Status::unimplemented("delete"))
    }
}
