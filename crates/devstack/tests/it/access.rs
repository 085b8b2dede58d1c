//! Each principal can do its work on the local Kafka, and nothing else.

use sluice_devstack::{ADMIN, BILLING, CONTROL_PLANE, GATEWAY, PROVISIONING, Stack};
use sluice_types::physical::{CONTROL_TOPIC, MEMBERS_TOPIC, PhysicalTopic, USAGE_TOPIC};
use sluice_types::uid::{NamespaceUid, TopicUid};
use sluice_wire::{Client, ClientConfig, ConfigChange, Isolation, OffsetAt, Result, code};

use crate::support::{CALL, record, topic};

async fn write(client: &Client, topic: &str) -> Result<()> {
    client.produce_batch(topic, 0, &[record("x")], CALL).await.map(drop)
}

async fn see_end(client: &Client, topic: &str) -> Result<()> {
    client.list_offset(topic, 0, OffsetAt::Latest, Isolation::ReadCommitted, CALL).await.map(drop)
}

async fn read(client: &Client, topic: &str) -> Result<()> {
    let request = sluice_wire::FetchRequest {
        topic: topic.to_owned(),
        topic_id: None,
        partition: 0,
        offset: 0,
        last_epoch: None,
        max_bytes: 1024,
        min_bytes: 1,
        max_wait: std::time::Duration::ZERO,
        isolation: Isolation::ReadUncommitted,
    };
    client.fetch(request, CALL).await.map(drop)
}

#[track_caller]
fn refused<T: std::fmt::Debug>(outcome: Result<T>) {
    // A topic that one may not even see looks as if it were not there.
    let refusals =
        [code::TOPIC_AUTHORIZATION_FAILED, code::CLUSTER_AUTHORIZATION_FAILED, code::UNKNOWN_TOPIC_OR_PARTITION];
    let error = outcome.expect_err("this must be refused");
    assert!(error.kafka_code().is_some_and(|code| refusals.contains(&code)), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_role_can_do_its_work_and_no_more() {
    let stack = Stack::builder().without_postgres().build().await.unwrap();
    let kafka = stack.connection().kafka().unwrap();
    let [control_plane, provisioning, gateway, billing] =
        [CONTROL_PLANE, PROVISIONING, GATEWAY, BILLING].map(|user| kafka.client(user).unwrap());
    let tenants = PhysicalTopic::new(NamespaceUid::random(), TopicUid::random());
    let tenants = tenants.as_str();

    for name in [CONTROL_TOPIC, MEMBERS_TOPIC, USAGE_TOPIC] {
        control_plane.create_topic(&topic(name, 1), CALL).await.unwrap();
        write(&control_plane, name).await.unwrap();
        read(&control_plane, name).await.unwrap();
    }
    refused(control_plane.create_topic(&topic(tenants, 1), CALL).await);

    provisioning.create_topic(&topic(tenants, 1), CALL).await.unwrap();
    provisioning.create_partitions(tenants, 2, false, CALL).await.unwrap();
    let change = [("retention.ms".to_owned(), ConfigChange::Set("60000".to_owned()))].into();
    provisioning.incremental_alter_configs(tenants, &change, false, CALL).await.unwrap();
    see_end(&provisioning, tenants).await.unwrap();
    refused(write(&provisioning, tenants).await);
    refused(read(&provisioning, tenants).await);
    refused(provisioning.create_topic(&topic("sluice.other", 1), CALL).await);

    write(&gateway, tenants).await.unwrap();
    read(&gateway, tenants).await.unwrap();
    read(&gateway, CONTROL_TOPIC).await.unwrap();
    write(&gateway, MEMBERS_TOPIC).await.unwrap();
    write(&gateway, USAGE_TOPIC).await.unwrap();
    refused(write(&gateway, CONTROL_TOPIC).await);
    refused(read(&gateway, USAGE_TOPIC).await);
    refused(gateway.create_topic(&topic("aaaaaaaaaaaaa.aaaaaaaaaaaaa", 1), CALL).await);
    refused(gateway.delete_topic(tenants, CALL).await);

    read(&billing, USAGE_TOPIC).await.unwrap();
    see_end(&billing, tenants).await.unwrap();
    refused(read(&billing, tenants).await);
    refused(write(&billing, USAGE_TOPIC).await);

    provisioning.delete_topic(tenants, CALL).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn kafka_answers_nobody_without_password_certificate_check_or_tls() {
    let stack = Stack::builder().without_postgres().build().await.unwrap();
    let kafka = stack.connection().kafka().unwrap();
    let admin = kafka.client_config(ADMIN).unwrap();
    let asks = async |config: ClientConfig| Client::connect(config, CALL).await.map(drop);

    let mut wrong_password = admin.clone();
    wrong_password.security.sasl.as_mut().unwrap().password = "wrong".to_owned().into();
    let mut no_password = admin.clone();
    no_password.security.sasl = None;
    let mut no_tls = admin.clone();
    no_tls.security.tls = None;
    let mut stranger = kafka.clone();
    let other = sluice_devstack::Ca::load_or_create(tempfile::tempdir().unwrap().path()).unwrap();
    stranger.ca_file = stack.dir().join("other.pem");
    std::fs::write(&stranger.ca_file, other.cert_pem()).unwrap();

    assert!(asks(admin).await.is_ok());
    for config in [wrong_password, no_password, no_tls, stranger.client_config(ADMIN).unwrap()] {
        assert!(asks(config).await.is_err());
    }
}
