//! The gateway can do what consumer groups need on tenants' groups, and nothing on ours.

use std::time::{Duration, Instant};

use sluice_devstack::{BILLING, GATEWAY, PROVISIONING, shared};
use sluice_types::physical::{PhysicalGroup, PhysicalTopic};
use sluice_types::uid::{GroupUid, NamespaceUid, TopicUid};
use sluice_wire::{
    Client, CommitOffset, Committer, ConfigChange, GroupMember, Groups, MemberEvent, MemberOptions, OnFenced, Result,
    code,
};

use crate::support::{CALL, START_WITHIN, topic};

/// Waits until the member has its partition.
async fn assigned(member: &mut GroupMember) {
    let play = async {
        while member.assignment().is_empty() {
            match member.next().await {
                Some(MemberEvent::Lost { error }) => panic!("{error:?}"),
                Some(_) => {}
                None => panic!("the membership ended"),
            }
        }
    };
    tokio::time::timeout(START_WITHIN, play).await.expect("is assigned");
}

fn position(topic: &str) -> [CommitOffset; 1] {
    [CommitOffset { topic: topic.to_owned(), partition: 0, offset: 0, leader_epoch: None, metadata: String::new() }]
}

fn session(ms: u32) -> std::collections::BTreeMap<String, ConfigChange> {
    [("consumer.session.timeout.ms".to_owned(), ConfigChange::Set(ms.to_string()))].into()
}

#[track_caller]
fn refused<T: std::fmt::Debug>(outcome: Result<T>) {
    let error = outcome.expect_err("this must be refused");
    assert_eq!(error.kafka_code(), Some(code::GROUP_AUTHORIZATION_FAILED), "{error:?}");
}

/// A tenant's topic, made by who may.
async fn tenants_topic(namespace: NamespaceUid) -> String {
    let provisioning = shared().await.unwrap().kafka().unwrap().client(PROVISIONING).unwrap();
    let name = PhysicalTopic::new(namespace, TopicUid::random());
    provisioning.create_topic(&topic(name.as_str(), 1), CALL).await.unwrap();
    let made = Instant::now();
    while provisioning.topic(name.as_str(), CALL).await.is_err() {
        assert!(made.elapsed() < START_WITHIN, "the topic was made and is not to be seen");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    name.as_str().to_owned()
}

fn gateway(connection: &sluice_devstack::Connection) -> Client {
    connection.kafka().unwrap().client(GATEWAY).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gateway_is_a_member_of_tenants_groups_and_steers_them() {
    let namespace = NamespaceUid::random();
    let topic = tenants_topic(namespace).await;
    let group = PhysicalGroup::new(namespace, GroupUid::random());
    let group = group.as_str();
    let client = gateway(shared().await.unwrap());
    let groups = Groups::new(client.clone());

    client.commit_offsets(group, Committer::Outside, &position(&topic), CALL).await.unwrap();
    client.delete_offsets(group, &[(&topic, &[0])], CALL).await.unwrap();
    client.delete_group(group, CALL).await.unwrap_or_else(|error| {
        assert_eq!(error.kafka_code(), Some(code::GROUP_ID_NOT_FOUND), "it went with its last offset: {error:?}");
    });

    client.alter_group_configs(group, &session(6_500), CALL).await.unwrap();
    client.describe_group_configs(group, None, CALL).await.unwrap();

    let options = MemberOptions { on_fenced: OnFenced::End, ..MemberOptions::default() };
    let mut first = groups.join(group, &[&topic], options).unwrap();
    assigned(&mut first).await;
    let done = first.commit(&position(&topic), CALL).await.unwrap();
    assert!(done.values().all(Result::is_ok), "{done:?}");
    let found = first.committed(&[(&topic, &[0])], CALL).await.unwrap();
    assert!(found.values().all(|found| matches!(found, Ok(Some(_)))), "{found:?}");

    // Another gateway takes over.
    let other = gateway(shared().await.unwrap());
    let mut second = Groups::new(other.clone()).join(group, &[&topic], MemberOptions::default()).unwrap();
    let described = other.describe_group(group, CALL).await.unwrap();
    assert!(described.members.iter().any(|member| member.member_id == first.member_id()), "{described:?}");
    assert!(other.leave_group_for(group, first.member_id(), CALL).await.unwrap());
    assigned(&mut second).await;
    second.leave(CALL).await.unwrap();
    assert!(client.list_groups(&[], CALL).await.unwrap().iter().any(|listed| listed.group == group));
    client.delete_group(group, CALL).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn provisioning_deletes_tenants_groups_and_does_nothing_else_with_them() {
    let namespace = NamespaceUid::random();
    let topic = tenants_topic(namespace).await;
    let group = PhysicalGroup::new(namespace, GroupUid::random());
    let group = group.as_str();
    let gateway = gateway(shared().await.unwrap());
    gateway.commit_offsets(group, Committer::Outside, &position(&topic), CALL).await.unwrap();
    let client = shared().await.unwrap().kafka().unwrap().client(PROVISIONING).unwrap();
    refused(client.commit_offsets(group, Committer::Outside, &position(&topic), CALL).await);
    refused(client.leave_group_for(group, "somebody", CALL).await);
    refused(client.alter_group_configs(group, &session(6_500), CALL).await);
    client.delete_group(group, CALL).await.unwrap();
    let again = client.delete_group(group, CALL).await.unwrap_err();
    assert_eq!(again.kafka_code(), Some(code::GROUP_ID_NOT_FOUND), "{again:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_but_the_gateway_touches_groups_and_the_gateway_not_ours() {
    let namespace = NamespaceUid::random();
    let topic = tenants_topic(namespace).await;
    let kafka = shared().await.unwrap().kafka().unwrap();
    let tenants = PhysicalGroup::new(namespace, GroupUid::random());
    let tries = [
        (GATEWAY, "sluice.usage-readers"),
        (GATEWAY, "sluice."),
        (BILLING, tenants.as_str()),
        (PROVISIONING, "sluice.usage-readers"),
    ];
    for (user, group) in tries {
        let client = kafka.client(user).unwrap();
        refused(client.commit_offsets(group, Committer::Outside, &position(&topic), CALL).await);
        refused(client.committed_offsets(group, Committer::Outside, None, CALL).await);
        refused(client.describe_group(group, CALL).await);
        refused(client.leave_group_for(group, "somebody", CALL).await);
        refused(client.delete_group(group, CALL).await);
        refused(client.delete_offsets(group, &[(&topic, &[0])], CALL).await);
        refused(client.alter_group_configs(group, &session(6_500), CALL).await);
        let mut member = Groups::new(client.clone()).join(group, &[&topic], MemberOptions::default()).unwrap();
        let told = tokio::time::timeout(START_WITHIN, member.next()).await.expect("is told");
        let Some(MemberEvent::Lost { error }) = told else { panic!("{user} joined {group}: {told:?}") };
        refused(Err::<(), _>(error));
    }
}
