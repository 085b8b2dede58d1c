//! Topics, configs, ACLs, users.

use std::collections::BTreeMap;

use sluice_wire::{
    AclBinding, AclFilter, AclOperation, ConfigChange, Error, NewTopic, PatternType, ResourceType, ScramUpsert, code,
};

use crate::fixture::{TIMEOUT, client, eventually, make_topic, unique};

#[tokio::test]
async fn a_topic_is_made_grown_reconfigured_and_deleted() {
    let client = client().await;
    let name = unique("admin");
    let id = make_topic(&client, &name, 1, &[("retention.ms", "60000")]).await;
    assert!(!id.is_zero());
    let again = NewTopic { name: name.clone(), partitions: 1, replication: 1, configs: BTreeMap::new() };
    let refused = client.create_topic(&again, TIMEOUT).await.unwrap_err();
    assert_eq!(refused.kafka_code(), Some(code::TOPIC_ALREADY_EXISTS));

    client.create_partitions(&name, 3, false, TIMEOUT).await.unwrap();
    let metadata = client.metadata(&[&name], TIMEOUT).await.unwrap();
    assert_eq!(metadata.topics[0].topic_id, id);

    let changes = BTreeMap::from([
        ("retention.ms".to_owned(), ConfigChange::Unset),
        ("cleanup.policy".to_owned(), ConfigChange::Set("compact".to_owned())),
    ]);
    client.incremental_alter_configs(&name, &changes, false, TIMEOUT).await.unwrap();
    let names = ["cleanup.policy", "retention.ms"];
    eventually(
        || async { client.describe_topic_configs(&name, Some(&names), TIMEOUT).await.unwrap() },
        |configs| {
            configs["cleanup.policy"].value.as_deref() == Some("compact")
                && configs["cleanup.policy"].is_set
                && !configs["retention.ms"].is_set
        },
    )
    .await;

    client.delete_topic_by_id(id, TIMEOUT).await.unwrap();
    let gone = client.delete_topic(&name, TIMEOUT).await.unwrap_err();
    assert_eq!(gone.kafka_code(), Some(code::UNKNOWN_TOPIC_OR_PARTITION));
}

#[tokio::test]
async fn an_invalid_config_is_refused_with_its_reason_and_nothing_is_made() {
    let client = client().await;
    let name = unique("invalid");
    let configs = BTreeMap::from([("retention.ms".to_owned(), "soon".to_owned())]);
    let topic = NewTopic { name: name.clone(), partitions: 1, replication: 1, configs };
    let results = client.create_topics(&[topic], true, TIMEOUT).await.unwrap();
    let Err(Error::Kafka(error)) = &results[0] else { panic!("{results:?}") };
    assert_eq!((error.code, error.name.as_str()), (code::INVALID_CONFIG, "INVALID_CONFIG"));
    assert!(error.message.is_some());
    let metadata = client.metadata(&[&name], TIMEOUT).await.unwrap();
    assert_eq!(metadata.topics[0].error.as_ref().unwrap().code, code::UNKNOWN_TOPIC_OR_PARTITION);
}

#[tokio::test]
async fn acls_are_listed_as_they_were_made() {
    let client = client().await;
    let prefix = unique("acl");
    let bindings = [
        AclBinding::allow("reader", AclOperation::Read, ResourceType::Topic, PatternType::Prefixed, &prefix),
        AclBinding::allow("reader", AclOperation::Describe, ResourceType::Topic, PatternType::Prefixed, &prefix),
    ];
    client.create_acls(&bindings, TIMEOUT).await.unwrap();
    let filter = AclFilter { name: Some(prefix), ..Default::default() };
    let list = || async { client.describe_acls(&filter, TIMEOUT).await.unwrap() };
    let mut listed = eventually(list, |listed| listed.len() == 2).await;
    listed.sort_by_key(|binding| binding.operation as i8);
    assert_eq!(listed, bindings);
    assert_eq!(client.delete_acls(&filter, TIMEOUT).await.unwrap(), 2);
    eventually(list, |listed| listed.is_empty()).await;
}

#[tokio::test]
async fn users_and_the_cluster_are_described() {
    let client = client().await;
    let user = unique("user");
    let upsert = ScramUpsert { user: user.clone(), password: "a password of some length".into() };
    client.upsert_scram_users(&[upsert], TIMEOUT).await.unwrap();
    client.delete_scram_user(&user, TIMEOUT).await.unwrap();
    let cluster = client.describe_cluster(TIMEOUT).await.unwrap();
    assert_eq!(cluster.brokers.len(), 1);
    let versions = client.api_versions(cluster.brokers[0].id, TIMEOUT).await.unwrap();
    assert!(versions.iter().any(|&(api, _, max)| api == 1 && max >= 13));
}
