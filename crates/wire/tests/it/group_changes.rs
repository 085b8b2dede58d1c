//! What a membership goes through while it lasts: another subscription, topics that grow or go, members that do not
//! play along.

use std::time::{Duration, Instant};

use sluice_wire::{Error, GroupMember, Groups, MemberEvent, MemberOptions, OnFenced, TopicPartition, code};

use crate::fixture::{TIMEOUT, client, make_topic, unique};
use crate::groups::{commit_of, hold};

/// Plays a member that nobody may fence until its partitions are these, by topic.
async fn holds(member: &mut GroupMember, expected: &[(&str, usize)]) {
    let started = Instant::now();
    let is_as_expected = |all: &[TopicPartition]| {
        let count = |topic: &str| all.iter().filter(|partition| *partition.topic == *topic).count();
        all.len() == expected.iter().map(|(_, partitions)| partitions).sum::<usize>()
            && expected.iter().all(|(topic, partitions)| count(topic) == *partitions)
    };
    while !is_as_expected(&member.assignment()) {
        let event = tokio::time::timeout(TIMEOUT, member.next()).await;
        match event.unwrap_or_else(|_| panic!("has {:?}", member.assignment())) {
            Some(MemberEvent::Revoked(revoked)) => member.release(&revoked),
            Some(MemberEvent::Assigned(_)) => {}
            other => panic!("{other:?}"),
        }
    }
    eprintln!("{expected:?} after {:?}", started.elapsed());
}

#[tokio::test]
async fn a_subscription_is_changed_in_place() {
    let client = client().await;
    let (left, stays, group) = (unique("left"), unique("stays"), unique("group"));
    make_topic(&client, &left, 2, &[]).await;
    make_topic(&client, &stays, 1, &[]).await;
    let groups = Groups::new(client.clone());
    let mut member = groups.join(&group, &[&left], MemberOptions::default()).unwrap();
    holds(&mut member, &[(&left, 2)]).await;
    let epoch = member.epoch().unwrap();

    member.subscribe(&[&left, &stays]).unwrap();
    holds(&mut member, &[(&left, 2), (&stays, 1)]).await;
    member.subscribe(&[&stays]).unwrap();
    holds(&mut member, &[(&stays, 1)]).await;
    assert!(member.epoch().unwrap() > epoch, "still the same member");
    let done = member.commit(&[commit_of(&stays, 0, 1, "")], TIMEOUT).await.unwrap();
    assert!(done.values().all(Result::is_ok), "{done:?}");
    let described = client.describe_group(&group, TIMEOUT).await.unwrap();
    assert_eq!(described.members[0].topics, [stays.as_str()]);
    assert!(matches!(member.subscribe(&[]), Err(Error::InvalidRequest(_))));

    // A topic that is still to come counts once it is there.
    let later = unique("later");
    member.subscribe(&[&stays, &later]).unwrap();
    make_topic(&client, &later, 1, &[]).await;
    holds(&mut member, &[(&stays, 1), (&later, 1)]).await;
}

#[tokio::test]
async fn a_deleted_topic_is_revoked_its_successor_assigned_and_the_others_go_on() {
    let client = client().await;
    let (gone, stays, group) = (unique("gone"), unique("stays"), unique("group"));
    let first_id = make_topic(&client, &gone, 1, &[]).await;
    make_topic(&client, &stays, 1, &[]).await;
    let groups = Groups::new(client.clone());
    let mut member = groups.join(&group, &[&gone, &stays], MemberOptions::default()).unwrap();
    holds(&mut member, &[(&gone, 1), (&stays, 1)]).await;
    client.delete_topic_by_id(first_id, TIMEOUT).await.unwrap();
    holds(&mut member, &[(&stays, 1)]).await;
    let both = [commit_of(&stays, 0, 1, ""), commit_of(&gone, 0, 1, "")];
    let done = member.commit(&both, TIMEOUT).await.unwrap();
    assert!(done[&(stays.clone(), 0)].is_ok(), "{done:?}");
    let refused = done[&(gone.clone(), 0)].as_ref().unwrap_err();
    assert_eq!(refused.kafka_code(), Some(code::UNKNOWN_TOPIC_OR_PARTITION), "{refused:?}");

    let second_id = make_topic(&client, &gone, 1, &[]).await;
    holds(&mut member, &[(&gone, 1), (&stays, 1)]).await;
    assert!(member.assignment().iter().any(|partition| partition.topic_id == second_id));
    let found = member.committed(&[(&gone, &[0])], TIMEOUT).await.unwrap();
    assert!(found[&(gone.clone(), 0)].as_ref().unwrap().is_none(), "its predecessor's offset went with it");
}

#[tokio::test]
async fn added_partitions_are_assigned() {
    let client = client().await;
    let (topic, group) = (unique("grows"), unique("group"));
    make_topic(&client, &topic, 1, &[]).await;
    let groups = Groups::new(client.clone());
    let mut member = groups.join(&group, &[&topic], MemberOptions::default()).unwrap();
    holds(&mut member, &[(&topic, 1)]).await;
    client.create_partitions(&topic, 3, false, TIMEOUT).await.unwrap();
    holds(&mut member, &[(&topic, 3)]).await;
    let done = member.commit(&[commit_of(&topic, 2, 1, "")], TIMEOUT).await.unwrap();
    assert!(done.values().all(Result::is_ok), "{done:?}");
}

#[tokio::test]
async fn who_does_not_release_in_time_is_fenced_and_others_get_its_partitions() {
    const PATIENCE: Duration = Duration::from_secs(2);
    let client = client().await;
    let (topic, group) = (unique("held"), unique("group"));
    make_topic(&client, &topic, 4, &[]).await;
    let groups = Groups::new(client.clone());
    let options = MemberOptions { rebalance_timeout: PATIENCE, on_fenced: OnFenced::End, ..MemberOptions::default() };
    let mut stubborn = groups.join(&group, &[&topic], options).unwrap();
    holds(&mut stubborn, &[(&topic, 4)]).await;
    let mut other = groups.join(&group, &[&topic], MemberOptions::default()).unwrap();
    let revoked = tokio::time::timeout(TIMEOUT, stubborn.next()).await.unwrap();
    assert!(matches!(&revoked, Some(MemberEvent::Revoked(half)) if half.len() == 2), "{revoked:?}");
    let asked = Instant::now();
    let fenced = tokio::time::timeout(TIMEOUT, stubborn.next()).await.unwrap();
    let took = asked.elapsed();
    assert!(matches!(&fenced, Some(MemberEvent::Fenced { partitions, .. }) if partitions.len() == 4), "{fenced:?}");
    assert!(took > PATIENCE / 2 && took < PATIENCE * 3, "{took:?}");
    hold(&mut other, 4).await;
    assert!(stubborn.next().await.is_none());
}

#[tokio::test]
async fn who_leaves_events_lying_loses_the_membership_and_is_told_in_the_end() {
    let client = client().await;
    let (topic, group) = (unique("lying"), unique("group"));
    make_topic(&client, &topic, 1, &[]).await;
    let groups = Groups::new(client.clone());
    let mut member = groups.join(&group, &[&topic], MemberOptions::default()).unwrap();
    // Being made to leave and joining again are two events.
    let started = Instant::now();
    while !groups.is_empty() {
        client.leave_group_for(&group, member.member_id(), TIMEOUT).await.unwrap();
        member.beat_now();
        assert!(started.elapsed() < TIMEOUT * 2, "the membership goes on");
    }
    assert_eq!((member.epoch(), member.assignment().len()), (None, 0));
    let mut events = Vec::new();
    while let Some(event) = member.next().await {
        events.push(event);
    }
    assert_eq!(events.len(), 65);
    assert!(matches!(events.last(), Some(MemberEvent::Lost { error: Error::Busy })), "{:?}", events.last());
}
