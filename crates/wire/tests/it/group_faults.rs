//! Groups whose coordinator dies, moves, and comes back.

use std::time::{Duration, Instant};

use futures::FutureExt as _;
use futures::future::join_all;
use sluice_devstack::ADMIN;
use sluice_wire::{Client, CommitOffset, GroupMember, Groups, MemberOptions};
use tokio::task::unconstrained;

use crate::fixture::{TIMEOUT, eventually, make_replicated, make_topic, own_kafka};
use crate::groups::{commit_of, hold};

/// How long a group may be without its coordinator.
const BACK_WITHIN: Duration = Duration::from_secs(15);

async fn joined(groups: &Groups, count: usize) -> Vec<GroupMember> {
    let join = |number| groups.join(&format!("group-{number}"), &["log"], MemberOptions::default()).unwrap();
    let mut members: Vec<_> = (0..count).map(join).collect();
    for member in &mut members {
        hold(member, 1).await;
    }
    members
}

async fn commit_all(members: &[GroupMember], commit: &CommitOffset) {
    let done = join_all(members.iter().map(async |member| {
        let done = member.commit(std::slice::from_ref(commit), BACK_WITHIN).await.unwrap();
        assert!(done.values().all(Result::is_ok), "{done:?}");
    }));
    done.await;
}

async fn all_confirmed(members: &[GroupMember]) {
    let oldest = || async { members.iter().filter_map(GroupMember::since_confirmed).max().unwrap() };
    eventually(
        || async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            oldest().await
        },
        |oldest| *oldest < Duration::from_secs(3),
    )
    .await;
}

fn nothing_happened(members: &mut [GroupMember]) {
    for member in members {
        let event = unconstrained(member.next()).now_or_never();
        assert!(event.is_none(), "nobody was fenced, and no assignment changed: {event:?}");
    }
}

async fn committed(client: &Client, members: &[GroupMember]) -> Vec<i64> {
    let read = async |member: &GroupMember| {
        let found = client.committed_offsets(member.group(), sluice_wire::Committer::Outside, None, TIMEOUT).await;
        found.unwrap()[&("log".to_owned(), 0)].as_ref().unwrap().as_ref().unwrap().offset
    };
    join_all(members.iter().map(read)).await
}

#[tokio::test]
async fn members_are_kept_through_a_kill_and_restart_of_their_coordinator() {
    let stack = own_kafka(1).await;
    let kafka = stack.kafka().unwrap();
    let client = kafka.connection().client(ADMIN).unwrap();
    make_topic(&client, "log", 1, &[]).await;
    let groups = Groups::new(client.clone());
    let mut members = joined(&groups, 100).await;
    commit_all(&members, &commit_of("log", 0, 3, "kept")).await;
    kafka.kill9(1).await.unwrap();
    let refused = members[0].commit(&[commit_of("log", 0, 4, "")], Duration::from_millis(300)).await.unwrap_err();
    assert!(refused.is_retriable(), "{refused:?}");
    kafka.start_broker(1).await.unwrap();
    let serves = Instant::now();
    commit_all(&members, &commit_of("log", 0, 5, "after")).await;
    let took = serves.elapsed();
    eprintln!("100 groups commit again {took:?} after the broker serves");
    assert!(took < Duration::from_secs(10), "{took:?}");
    all_confirmed(&members).await;
    nothing_happened(&mut members);
    stack.stop().await;
}

#[tokio::test]
async fn a_thousand_members_survive_a_restart_of_their_coordinator() {
    let stack = own_kafka(1).await;
    let kafka = stack.kafka().unwrap();
    let client = kafka.connection().client(ADMIN).unwrap();
    make_topic(&client, "log", 1, &[]).await;
    let groups = Groups::new(client.clone());
    let mut members = joined(&groups, 1_000).await;
    commit_all(&members, &commit_of("log", 0, 3, "")).await;
    kafka.restart(1).await.unwrap();
    let serves = Instant::now();
    all_confirmed(&members).await;
    let confirmed = serves.elapsed();
    commit_all(&members, &commit_of("log", 0, 5, "")).await;
    let took = serves.elapsed();
    eprintln!("1,000 members confirmed {confirmed:?} and committed {took:?} after the broker serves");
    assert!(took < BACK_WITHIN, "{took:?}");
    nothing_happened(&mut members);
    stack.stop().await;
}

#[tokio::test]
async fn groups_follow_their_coordinator_to_another_broker_and_lose_no_commit() {
    let stack = own_kafka(3).await;
    let kafka = stack.kafka().unwrap();
    let client = kafka.connection().client(ADMIN).unwrap();
    make_replicated(&client, "log", 1, 3, &[]).await;
    let groups = Groups::new(client.clone());
    // Their coordinators are all three brokers.
    let mut members = joined(&groups, 24).await;
    commit_all(&members, &commit_of("log", 0, 1, "")).await;
    let dies = client.group_coordinator("group-0", TIMEOUT).await.unwrap();
    assert!(commits_go_on(&members, 2, 5).await < TIMEOUT);

    kafka.kill9(dies as u32).await.unwrap();
    let longest = commits_go_on(&members, 6, 50).await;
    eprintln!("longest commit while a coordinator dies: {longest:?}");
    assert_ne!(client.group_coordinator("group-0", TIMEOUT).await.unwrap(), dies);
    assert!(committed(&client, &members).await.iter().all(|offset| *offset == 50));
    all_confirmed(&members).await;

    kafka.start_broker(dies as u32).await.unwrap();
    let longest = commits_go_on(&members, 51, 100).await;
    eprintln!("longest commit while it comes back: {longest:?}");
    assert!(committed(&client, &members).await.iter().all(|offset| *offset == 100));
    all_confirmed(&members).await;
    nothing_happened(&mut members);
    stack.stop().await;
}

/// Every member commits these offsets one after another; the longest time one took.
async fn commits_go_on(members: &[GroupMember], from: i64, to: i64) -> Duration {
    let each = members.iter().map(async |member| {
        let mut longest = Duration::ZERO;
        for offset in from..=to {
            let started = Instant::now();
            let done = member.commit(&[commit_of("log", 0, offset, "")], BACK_WITHIN).await.unwrap();
            assert!(done.values().all(Result::is_ok), "{done:?}");
            longest = longest.max(started.elapsed());
        }
        longest
    });
    join_all(each).await.into_iter().max().unwrap_or_default()
}
