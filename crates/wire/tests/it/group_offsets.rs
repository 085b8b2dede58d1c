//! Offsets outside of membership, listing, deleting, configs.

use std::collections::BTreeMap;

use sluice_wire::{Committer, ConfigChange, Groups, MemberOptions, MembershipRefusal, code};

use crate::fixture::{TIMEOUT, client, eventually, make_topic, unique};
use crate::groups::{commit_of, hold};

#[tokio::test]
async fn offsets_of_an_empty_group_are_set_from_outside_and_kept_for_its_members() {
    let client = client().await;
    let (topic, group) = (unique("reset"), unique("group"));
    make_topic(&client, &topic, 2, &[]).await;
    let outside = Committer::Outside;
    let reset = [commit_of(&topic, 0, 5, "reset"), commit_of(&topic, 1, 6, "")];
    let done = client.commit_offsets(&group, outside, &reset, TIMEOUT).await.unwrap();
    assert!(done.values().all(Result::is_ok), "{done:?}");
    let found = client.committed_offsets(&group, outside, None, TIMEOUT).await.unwrap();
    assert_eq!(found[&(topic.clone(), 0)].as_ref().unwrap().as_ref().unwrap().metadata, "reset");

    let groups = Groups::new(client.clone());
    let mut member = groups.join(&group, &[&topic], MemberOptions::default()).unwrap();
    hold(&mut member, 2).await;
    let found = member.committed(&[(&topic, &[0, 1])], TIMEOUT).await.unwrap();
    assert_eq!(found[&(topic.clone(), 1)].as_ref().unwrap().as_ref().unwrap().offset, 6);

    let refused = client.commit_offsets(&group, outside, &reset, TIMEOUT).await.unwrap_err();
    assert_eq!(refused.membership(), Some(MembershipRefusal::UnknownMember), "{refused:?}");
    let stale = Committer::Member { id: member.member_id(), epoch: member.epoch().unwrap() + 1 };
    let refused = client.commit_offsets(&group, stale, &reset, TIMEOUT).await.unwrap_err();
    assert_eq!(refused.membership(), Some(MembershipRefusal::StaleEpoch), "{refused:?}");
    let subscribed = client.delete_offsets(&group, &[(&topic, &[0])], TIMEOUT).await.unwrap();
    let error = subscribed[&(topic.clone(), 0)].as_ref().unwrap_err();
    assert_eq!(error.kafka_code(), Some(code::GROUP_SUBSCRIBED_TO_TOPIC));
    let too_long = [commit_of(&topic, 0, 5, &"m".repeat(4_097)), commit_of(&topic, 1, 8, "")];
    let done = member.commit(&too_long, TIMEOUT).await.unwrap();
    let error = done[&(topic.clone(), 0)].as_ref().unwrap_err();
    assert_eq!(error.kafka_code(), Some(code::OFFSET_METADATA_TOO_LARGE));
    assert!(done[&(topic.clone(), 1)].is_ok(), "each partition has its own result");

    let listed = client.list_groups(&[], TIMEOUT).await.unwrap();
    let entry = listed.iter().find(|listed| listed.group == group).unwrap();
    assert_eq!(entry.kind, "consumer");
    let refused = client.delete_group(&group, TIMEOUT).await.unwrap_err();
    assert_eq!(refused.kafka_code(), Some(code::NON_EMPTY_GROUP));
    member.leave(TIMEOUT).await.unwrap();

    let done = client.delete_offsets(&group, &[(&topic, &[0])], TIMEOUT).await.unwrap();
    assert!(done.values().all(Result::is_ok), "{done:?}");
    let found = client.committed_offsets(&group, outside, Some(&[(&topic, &[0, 1])]), TIMEOUT).await.unwrap();
    assert!(found[&(topic.clone(), 0)].as_ref().unwrap().is_none());
    client.delete_group(&group, TIMEOUT).await.unwrap();
    let gone = client.describe_group(&group, TIMEOUT).await.unwrap_err();
    assert_eq!(gone.kafka_code(), Some(code::GROUP_ID_NOT_FOUND));
}

#[tokio::test]
async fn a_groups_session_is_configured_within_the_brokers_bounds() {
    let client = client().await;
    let group = unique("configured");
    let set = |session: &str| {
        BTreeMap::from([
            ("consumer.session.timeout.ms".to_owned(), ConfigChange::Set(session.to_owned())),
            ("consumer.heartbeat.interval.ms".to_owned(), ConfigChange::Set("2000".to_owned())),
        ])
    };
    client.alter_group_configs(&group, &set("6500"), TIMEOUT).await.unwrap();
    eventually(
        || async { client.describe_group_configs(&group, None, TIMEOUT).await.unwrap() },
        |configs| {
            let session = &configs["consumer.session.timeout.ms"];
            session.is_set && session.value.as_deref() == Some("6500")
        },
    )
    .await;
    let refused = client.alter_group_configs(&group, &set("500"), TIMEOUT).await.unwrap_err();
    assert!(refused.kafka_code().is_some() && !refused.is_retriable(), "{refused:?}");
}
