//! Internal topics that somebody set otherwise are set right at the start, and what only a person can change is told in health.

use std::time::Duration;

use sluice_devstack::{ADMIN, Stack};
use sluice_installation::kafka::topics;
use sluice_types::physical::USAGE_TOPIC;
use sluice_wire::ConfigChange;

use crate::support::{Plant, eventually};

const CALL: Duration = Duration::from_secs(10);
const RETENTION: &str = "retention.ms";

#[tokio::test(flavor = "multi_thread")]
async fn internal_topics_are_set_right_and_too_few_replicas_are_told() {
    let stack = Stack::builder().build().await.unwrap();
    let kafka = stack.connection().kafka().unwrap().client(ADMIN).unwrap();
    for name in topics::NAMES {
        topics::create(&kafka, name, 1, CALL).await.unwrap();
    }
    let change = [(RETENTION.to_owned(), ConfigChange::Set("60000".to_owned()))].into();
    kafka.incremental_alter_configs(USAGE_TOPIC, &change, false, CALL).await.unwrap();
    let mut plant = Plant::prepare(stack.connection()).await;
    plant.config().internal_topics.replication = Some(3);

    plant.run().await;

    eventually("the topics are looked at", || async { plant.health().component("internal_topics").is_some() }).await;
    let told = plant.health().component("internal_topics").unwrap();
    assert!(!told.ok && told.detail.contains("sluice.control has 1 replicas and should have 3"), "{told:?}");
    eventually("the setting is set right", || async {
        let settings = kafka.describe_topic_configs(USAGE_TOPIC, Some(&[RETENTION]), CALL).await.unwrap();
        settings[RETENTION].value.as_deref() == Some("2592000000")
    })
    .await;
    plant.stop().await;
}
