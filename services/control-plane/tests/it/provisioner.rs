//! A stand-in for provisioning that says what the test wants of Kafka.

use sluice_proto::internal::control::v1::intent_service_client::IntentServiceClient;
use sluice_proto::internal::control::v1::report_topic_request::Observed;
use sluice_proto::internal::control::v1::topic_intent::Want;
use sluice_proto::internal::control::v1::{
    AcquireLeaseRequest, AwaitWorkRequest, DeletedGroup, ListDeletedGroupsRequest, RecordAttemptRequest,
    ReportTopicRequest, TopicIntent,
};
use sluice_proto::wkt::Duration;
use tonic::transport::Channel;

use crate::support::Plant;

/// Does what is asked, at once, until dropped.
pub(crate) struct Provisioner(tokio::task::JoinHandle<()>);

impl Drop for Provisioner {
    fn drop(&mut self) {
        self.0.abort();
    }
}

pub(crate) async fn lease(client: &mut IntentServiceClient<Channel>, holder: &str, ttl_ms: i64) -> i64 {
    let request = AcquireLeaseRequest { holder: holder.into(), ttl: Some(Duration::from_millis(ttl_ms)) };
    client.acquire_lease(request).await.unwrap().into_inner().epoch
}

/// The topics that wait for something, or none after a moment.
pub(crate) async fn work(client: &mut IntentServiceClient<Channel>) -> Vec<TopicIntent> {
    let request = AwaitWorkRequest { wait: Some(Duration::from_millis(2_000)), limit: 100 };
    client.await_work(request).await.unwrap().into_inner().topics
}

/// Groups that Kafka should not hold.
pub(crate) async fn deleted_groups(plant: &Plant) -> Vec<String> {
    listed_groups(plant).await.into_iter().map(|group| group.group_uid).collect()
}

/// The same with what is said of each.
pub(crate) async fn listed_groups(plant: &Plant) -> Vec<DeletedGroup> {
    let request = ListDeletedGroupsRequest { limit: 100, ..Default::default() };
    plant.intents().list_deleted_groups(request).await.unwrap().into_inner().groups
}

pub(crate) fn report(epoch: i64, intent: &TopicIntent, observed: Observed) -> ReportTopicRequest {
    ReportTopicRequest {
        lease_epoch: epoch,
        topic_uid: intent.topic_uid.clone(),
        observed_generation: intent.generation,
        observed: observed as i32,
        partitions: intent.partitions,
        kafka_topic_id: format!("kafka-{}", intent.topic_uid),
        cluster_uid: intent.cluster_uid.clone(),
        ..Default::default()
    }
}

impl Provisioner {
    pub(crate) async fn start(plant: &Plant) -> Self {
        let mut client = plant.intents();
        let epoch = lease(&mut client, "provisioner", 60_000).await;
        Self(tokio::spawn(async move {
            loop {
                for intent in work(&mut client).await {
                    serve(&mut client, epoch, &intent).await;
                }
            }
        }))
    }
}

async fn serve(client: &mut IntentServiceClient<Channel>, epoch: i64, intent: &TopicIntent) {
    // A test may have changed the intent meanwhile: then the next round serves it.
    if intent.want() == Want::Present {
        let attempt = RecordAttemptRequest { lease_epoch: epoch, topic_uid: intent.topic_uid.clone() };
        if client.record_attempt(attempt).await.is_ok() {
            let _ = client.report_topic(report(epoch, intent, Observed::Ready)).await;
        }
        return;
    }
    let closing = ReportTopicRequest {
        final_end_offsets: vec![0; intent.partitions as usize],
        ..report(epoch, intent, Observed::Closing)
    };
    client.report_topic(closing).await.unwrap();
    client.report_topic(report(epoch, intent, Observed::Gone)).await.unwrap();
}
