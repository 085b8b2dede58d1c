//! Our own principal is no super user: with the rights that it needs it can do everything, without them it is told which.

use std::time::{Duration, Instant};

use sluice_devstack::{ADMIN, KafkaConnection, Stack};
use sluice_installation::State;
use sluice_installation::kafka::{Action, ApplyError, Wanted, apply};
use sluice_wire::{AclBinding, AclOperation, Client, PatternType, ResourceType, ScramUpsert};

use crate::kafka::{CALL, apply_all, differences, until, wanted};

const INSTALLER: &str = "installer";

/// A user without any right, and how to reach the cluster as it.
async fn installer(kafka: &KafkaConnection) -> (KafkaConnection, Wanted) {
    let admin = kafka.client(ADMIN).unwrap();
    let user = ScramUpsert { user: INSTALLER.to_owned(), password: "installing".to_owned().into() };
    admin.upsert_scram_users(&[user], CALL).await.unwrap();
    let mut kafka = kafka.clone();
    kafka.users.insert(INSTALLER.to_owned(), "installing".to_owned());
    let deadline = Instant::now() + CALL;
    while Client::connect(kafka.client_config(INSTALLER).unwrap(), CALL).await.is_err() {
        assert!(Instant::now() < deadline, "the new user is not let in");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    (kafka, Wanted { admin: INSTALLER.to_owned(), ..wanted() })
}

async fn give(admin: &Client, resource: ResourceType, name: &str, operations: &[AclOperation]) {
    let pattern = if resource == ResourceType::Cluster { PatternType::Literal } else { PatternType::Prefixed };
    let rules: Vec<_> =
        operations.iter().map(|operation| AclBinding::allow(INSTALLER, *operation, resource, pattern, name)).collect();
    admin.create_acls(&rules, CALL).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_principal_that_is_no_super_user_installs_with_the_documented_rights() {
    use AclOperation::{Alter, AlterConfigs, Create, Describe, DescribeConfigs};
    let stack = Stack::builder().without_postgres().build().await.unwrap();
    let admin = stack.connection().kafka().unwrap().client(ADMIN).unwrap();
    let (kafka, wanted) = installer(stack.connection().kafka().unwrap()).await;
    give(&admin, ResourceType::Cluster, "kafka-cluster", &[Alter, Describe, DescribeConfigs]).await;
    give(&admin, ResourceType::Topic, "sluice.", &[Create, Describe, DescribeConfigs, AlterConfigs]).await;

    let missing = until(&kafka, &wanted, |found| found.iter().all(|difference| difference.action().is_some())).await;
    apply_all(&kafka.client(INSTALLER).unwrap(), &wanted, &missing).await;

    until(&kafka, &wanted, <[_]>::is_empty).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_principal_without_rights_is_told_which_ones_it_lacks() {
    let stack = Stack::builder().without_postgres().build().await.unwrap();
    let admin = stack.connection().kafka().unwrap().client(ADMIN).unwrap();
    let (kafka, wanted) = installer(stack.connection().kafka().unwrap()).await;

    let blind = differences(&kafka, &wanted).await;
    assert!(blind.iter().all(|difference| difference.action().is_none()), "{blind:#?}");
    for right in
        ["Describe on the cluster", "DescribeConfigs on the cluster", "Describe on topics that begin with sluice."]
    {
        let told = blind.iter().any(|d| d.state == State::Hidden && d.must == format!("{INSTALLER} needs {right}"));
        assert!(told, "{right}: {blind:#?}");
    }

    give(&admin, ResourceType::Cluster, "kafka-cluster", &[AclOperation::Describe, AclOperation::DescribeConfigs])
        .await;
    give(&admin, ResourceType::Topic, "sluice.", &[AclOperation::Describe]).await;
    let seeing = until(&kafka, &wanted, |found| found.iter().all(|one| one.state != State::Hidden)).await;
    let right = seeing.iter().find(|difference| difference.kind == "right").unwrap();
    assert_eq!((right.name.as_str(), right.item.as_str()), (INSTALLER, "Alter on the cluster"));
    let topics: Vec<_> = seeing.iter().filter(|difference| difference.kind == "topic").collect();
    assert_eq!(topics.len(), 3);
    assert!(topics.iter().all(|topic| topic.action().is_none()), "Kafka would refuse to make them: {topics:#?}");

    let client = kafka.client(INSTALLER).unwrap();
    let user = Action::SetPassword { user: "their-gateway".to_owned() };
    let refused = apply(&client, &user, |_| Some("secret".to_owned().into())).await.unwrap_err();
    assert!(matches!(refused, ApplyError::Right { right: "Alter on the cluster", .. }), "{refused:?}");
}
