//! A data path that only says which topic it was asked for.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use http_body_util::Full;
use parking_lot::Mutex;
use tonic::{Request, Response, Status};

use sluice_gateway::access::DataCall;
use sluice_gateway::ports::{Body, BoxFuture, DataPath, DataTools, HttpCall, TopicReadiness};
use sluice_proto::stream::v1::stream_service_server::StreamService;
use sluice_proto::stream::v1::{
    FetchRequest, FetchResponse, GetTopicMetadataRequest, ListOffsetsRequest, ListOffsetsResponse, PartitionOffset,
    ProduceRequest, ProduceResponse, TopicMetadata,
};
use sluice_runtime::statuses::to_tonic;
use sluice_types::error::Error;
use sluice_types::physical::PhysicalTopic;

/// See the module.
#[derive(Default)]
pub(crate) struct Data {
    /// Topics that were made ready.
    pub(crate) ready: Mutex<Vec<String>>,
    /// What the groups use; real, in a process that serves no records.
    pub(crate) tools: OnceLock<DataTools>,
    /// `shutdown` was called.
    pub(crate) flushed: AtomicBool,
}

fn topic(extensions: &http::Extensions, name: &str) -> Result<Arc<sluice_gateway::view::ResolvedTopic>, Status> {
    let call = DataCall::of(extensions).map_err(|error| to_tonic(&error, ""))?;
    call.topic("topic", name).map_err(|error| to_tonic(&error, &call.context.request_id))
}

#[tonic::async_trait]
impl StreamService for Data {
    async fn produce(&self, request: Request<ProduceRequest>) -> Result<Response<ProduceResponse>, Status> {
        topic(request.extensions(), &request.get_ref().topic)?;
        Ok(Response::new(ProduceResponse::default()))
    }

    async fn fetch(&self, request: Request<FetchRequest>) -> Result<Response<FetchResponse>, Status> {
        topic(request.extensions(), &request.get_ref().topic)?;
        Ok(Response::new(FetchResponse::default()))
    }

    async fn get_topic_metadata(
        &self,
        request: Request<GetTopicMetadataRequest>,
    ) -> Result<Response<TopicMetadata>, Status> {
        let topic = topic(request.extensions(), &request.get_ref().topic)?;
        let (topic, uid) = (topic.name.clone(), topic.topic_uid.to_string());
        Ok(Response::new(TopicMetadata { topic, uid, partitions: Vec::new() }))
    }

    async fn list_offsets(
        &self,
        request: Request<ListOffsetsRequest>,
    ) -> Result<Response<ListOffsetsResponse>, Status> {
        let topic = topic(request.extensions(), &request.get_ref().topic)?;
        let offsets = (0..topic.partitions).map(|partition| PartitionOffset { partition, offset: 0 });
        Ok(Response::new(ListOffsetsResponse { offsets: offsets.collect(), ..Default::default() }))
    }
}

impl TopicReadiness for Data {
    fn ready<'a>(&'a self, name: &'a PhysicalTopic, _: i32) -> BoxFuture<'a, bool> {
        Box::pin(async move {
            self.ready.lock().push(name.as_str().to_owned());
            true
        })
    }

    fn forget(&self, _: &PhysicalTopic) {}
}

impl DataPath for Data {
    fn http_produce(&self, call: HttpCall) -> BoxFuture<'_, Result<http::Response<Body>, Error>> {
        Box::pin(async move {
            let topic = call.call.topic("topic", &call.topic)?;
            call.call.limiter.take_ingress(call.body.len() as u64)?;
            Ok(http::Response::new(Body::new(Full::from(format!("{} {}", topic.name, call.body.len())))))
        })
    }

    /// Takes a second, for tests of draining.
    fn http_fetch(&self, call: HttpCall) -> BoxFuture<'_, Result<http::Response<Body>, Error>> {
        Box::pin(async move {
            let topic = call.call.topic("topic", &call.topic)?;
            tokio::time::sleep(Duration::from_secs(1)).await;
            Ok(http::Response::new(Body::new(Full::from(topic.topic_uid.to_string()))))
        })
    }

    fn tools(&self) -> DataTools {
        self.tools.get().cloned().expect("set when it was built")
    }

    fn shutdown(&self, _: Instant) -> BoxFuture<'_, ()> {
        self.flushed.store(true, Ordering::Release);
        Box::pin(std::future::ready(()))
    }
}
