//! Membership: joining, sharing, leaving, being made to leave.

use std::time::{Duration, Instant};

use futures::FutureExt as _;
use sluice_wire::{Client, CommitOffset, GroupMember, Groups, MemberEvent, MemberOptions, MembershipRefusal, OnFenced};
use tokio::task::unconstrained;

use crate::fixture::{TIMEOUT, client, eventually, make_topic, unique};

/// Plays a member, releasing what is revoked at once, until it has this many partitions and no event is left.
pub(crate) async fn hold(member: &mut GroupMember, partitions: usize) {
    let play = async {
        loop {
            let event = // Unconstrained: tokio's budget would hide an event that is there.
            match unconstrained(member.next()).now_or_never() {
                Some(event) => event,
                None if member.assignment().len() == partitions && member.epoch().is_some() => return,
                None => member.next().await,
            };
            match event.expect("the membership goes on") {
                MemberEvent::Revoked(revoked) => member.release(&revoked),
                MemberEvent::Assigned(_) | MemberEvent::Fenced { .. } => {}
                MemberEvent::Lost { error } => panic!("{error:?}"),
            }
        }
    };
    let done = tokio::time::timeout(TIMEOUT, play).await;
    assert!(done.is_ok(), "has {:?}", member.assignment());
}

pub(crate) fn commit_of(topic: &str, partition: i32, offset: i64, metadata: &str) -> CommitOffset {
    CommitOffset { topic: topic.to_owned(), partition, offset, leader_epoch: None, metadata: metadata.to_owned() }
}

async fn members(client: &Client, group: &str) -> Vec<String> {
    let described = client.describe_group(group, TIMEOUT).await.expect("describe the group");
    described.members.into_iter().map(|member| member.member_id).collect()
}

#[tokio::test]
async fn a_member_joins_commits_with_metadata_and_leaves() {
    let client = client().await;
    let (topic, group) = (unique("joined"), unique("group"));
    let id = make_topic(&client, &topic, 3, &[]).await;
    let groups = Groups::new(client.clone());
    let mut member = groups.join(&group, &[&topic], MemberOptions::default()).unwrap();
    hold(&mut member, 3).await;
    assert!(member.assignment().iter().all(|partition| partition.topic_id == id && *partition.topic == *topic));
    assert!(member.since_confirmed().unwrap() < Duration::from_secs(3));

    let metadata = "m".repeat(4_096);
    let done = member.commit(&[commit_of(&topic, 1, 42, &metadata)], TIMEOUT).await.unwrap();
    assert!(done.values().all(Result::is_ok), "{done:?}");
    let found = member.committed(&[(&topic, &[0, 1])], TIMEOUT).await.unwrap();
    let committed = found[&(topic.clone(), 1)].as_ref().unwrap().as_ref().unwrap();
    assert_eq!((committed.offset, committed.metadata.len()), (42, 4_096));
    assert!(found[&(topic.clone(), 0)].as_ref().unwrap().is_none());

    let described = eventually(
        || async { client.describe_group(&group, TIMEOUT).await.unwrap() },
        |group| group.state == "Stable" && group.members.len() == 1,
    )
    .await;
    assert_eq!(described.members[0].member_id, member.member_id());
    assert_eq!((described.members[0].assignment.len(), described.members[0].target.len()), (3, 3));
    member.leave(TIMEOUT).await.unwrap();
    assert_eq!(members(&client, &group).await, Vec::<String>::new());
    assert!(groups.is_empty());
}

#[tokio::test]
async fn a_second_member_gets_its_share_once_the_first_has_released_it() {
    let client = client().await;
    let (topic, group) = (unique("shared"), unique("group"));
    make_topic(&client, &topic, 4, &[]).await;
    let groups = Groups::new(client.clone());
    let mut first = groups.join(&group, &[&topic], MemberOptions::default()).unwrap();
    hold(&mut first, 4).await;
    let mut second = groups.join(&group, &[&topic], MemberOptions::default()).unwrap();
    let revoked = loop {
        if let MemberEvent::Revoked(revoked) = first.next().await.unwrap() {
            break revoked;
        }
    };
    assert_eq!((revoked.len(), first.assignment().len(), second.assignment().len()), (2, 2, 0));
    let done = first.commit(&[commit_of(&topic, revoked[0].partition, 7, "")], TIMEOUT).await.unwrap();
    assert!(done.values().all(Result::is_ok), "what is revoked can be committed before it is released: {done:?}");
    first.release(&revoked);
    hold(&mut second, 2).await;
    let mut all: Vec<_> =
        first.assignment().into_iter().chain(second.assignment()).map(|part| part.partition).collect();
    all.sort_unstable();
    assert_eq!(all, [0, 1, 2, 3]);
    let leaving = Instant::now();
    first.leave(TIMEOUT).await.unwrap();
    hold(&mut second, 4).await;
    assert!(leaving.elapsed() < Duration::from_secs(4), "{:?}", leaving.elapsed());
}

#[tokio::test]
async fn a_survivor_that_makes_a_dead_member_leave_gets_everything_and_the_dead_ones_commits_are_refused() {
    let client = client().await;
    let (topic, group) = (unique("takeover"), unique("group"));
    make_topic(&client, &topic, 4, &[]).await;
    // Its own connections, as another process would have.
    let other = crate::fixture::client().await;
    let options = MemberOptions { on_fenced: OnFenced::End, ..Default::default() };
    let mut dead = Groups::new(other).join(&group, &[&topic], options).unwrap();
    hold(&mut dead, 4).await;

    let started = Instant::now();
    let groups = Groups::new(client.clone());
    let mut survivor = groups.join(&group, &[&topic], MemberOptions::default()).unwrap();
    hold(&mut survivor, 0).await;
    for member_id in members(&client, &group).await {
        if member_id != survivor.member_id() {
            assert!(client.leave_group_for(&group, &member_id, TIMEOUT).await.unwrap());
        }
    }
    survivor.beat_now();
    hold(&mut survivor, 4).await;
    let took = started.elapsed();
    eprintln!("takeover: {took:?}");
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert_eq!(members(&client, &group).await, [survivor.member_id()]);
    assert!(!client.leave_group_for(&group, dead.member_id(), TIMEOUT).await.unwrap());

    let refused = dead.commit(&[commit_of(&topic, 0, 1, "")], TIMEOUT).await.unwrap_err();
    assert_eq!(refused.membership(), Some(MembershipRefusal::UnknownMember), "{refused:?}");
    let told = tokio::time::timeout(TIMEOUT, async {
        loop {
            match dead.next().await {
                Some(MemberEvent::Fenced { partitions, .. }) => return partitions.len(),
                Some(MemberEvent::Revoked(_) | MemberEvent::Assigned(_)) => {}
                other => panic!("{other:?}"),
            }
        }
    });
    assert_eq!(told.await.unwrap(), 4);
    assert!(dead.next().await.is_none(), "it does not fight for the group");
    assert_eq!((dead.epoch(), dead.assignment().len()), (None, 0));
    let done = survivor.commit(&[commit_of(&topic, 0, 1, "")], TIMEOUT).await.unwrap();
    assert!(done.values().all(Result::is_ok));
}

#[tokio::test]
async fn a_fenced_member_gives_everything_up_and_joins_again() {
    let client = client().await;
    let (topic, group) = (unique("fenced"), unique("group"));
    make_topic(&client, &topic, 2, &[]).await;
    let groups = Groups::new(client.clone());
    let mut member = groups.join(&group, &[&topic], MemberOptions::default()).unwrap();
    hold(&mut member, 2).await;
    let before = member.epoch().unwrap();
    assert!(client.leave_group_for(&group, member.member_id(), TIMEOUT).await.unwrap());
    let fenced = tokio::time::timeout(TIMEOUT, member.next()).await.unwrap();
    assert!(matches!(&fenced, Some(MemberEvent::Fenced { partitions, .. }) if partitions.len() == 2), "{fenced:?}");
    hold(&mut member, 2).await;
    assert!(member.epoch().unwrap() > before);
    let done = member.commit(&[commit_of(&topic, 0, 1, "")], TIMEOUT).await.unwrap();
    assert!(done.values().all(Result::is_ok));
}

#[tokio::test]
async fn a_thousand_members_share_a_few_connections() {
    let client = client().await;
    let topic = unique("many");
    make_topic(&client, &topic, 1, &[]).await;
    let prefix = unique("many");
    let groups = Groups::new(client.clone());
    let started = Instant::now();
    let join = |number| groups.join(&format!("{prefix}-{number}"), &[&topic], MemberOptions::default()).unwrap();
    let mut all: Vec<_> = (0..1_000).map(join).collect();
    for member in &mut all {
        hold(member, 1).await;
    }
    let took = started.elapsed();
    eprintln!("1,000 members joined: {took:?}");
    assert!(took < Duration::from_secs(15), "{took:?}");
    // For several heartbeats nothing happens to any of them.
    let events = futures::future::select_all(all.iter_mut().map(|member| Box::pin(member.next())));
    let quiet = tokio::time::timeout(Duration::from_secs(7), events).await.map(|(event, ..)| event);
    assert!(quiet.is_err(), "{quiet:?}");
    let oldest = all.iter().filter_map(GroupMember::since_confirmed).max().unwrap();
    assert!(oldest < Duration::from_secs(5), "{oldest:?}");
    assert!(all.iter().all(|member| member.epoch().is_some()));
    assert_eq!(groups.len(), 1_000);
    let leaving = Instant::now();
    let left = futures::future::join_all(all.into_iter().map(|member| member.leave(TIMEOUT))).await;
    assert!(left.iter().all(Result::is_ok));
    eprintln!("1,000 members left: {:?}", leaving.elapsed());
}
