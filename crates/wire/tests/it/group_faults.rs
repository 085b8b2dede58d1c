//! Groups whose coordinator dies and comes back.

use std::time::{Duration, Instant};

use futures::FutureExt as _;
use sluice_devstack::ADMIN;
use sluice_wire::{Groups, MemberOptions};
use tokio::task::unconstrained;

use crate::fixture::{TIMEOUT, eventually, make_topic, own_kafka};
use crate::groups::{commit_of, hold};

#[tokio::test]
async fn members_are_kept_through_a_kill_and_restart_of_their_coordinator() {
    let stack = own_kafka(1).await;
    let kafka = stack.kafka().unwrap();
    let client = kafka.connection().client(ADMIN).unwrap();
    make_topic(&client, "log", 1, &[]).await;
    let groups = Groups::new(client.clone());
    let join = |number| groups.join(&format!("group-{number}"), &["log"], MemberOptions::default()).unwrap();
    let mut members: Vec<_> = (0..100).map(join).collect();
    for member in &mut members {
        hold(member, 1).await;
        let done = member.commit(&[commit_of("log", 0, 3, "kept")], TIMEOUT).await.unwrap();
        assert!(done.values().all(Result::is_ok));
    }
    kafka.kill9(1).await.unwrap();
    let refused = members[0].commit(&[commit_of("log", 0, 4, "")], Duration::from_millis(300)).await.unwrap_err();
    assert!(refused.is_retriable(), "{refused:?}");
    kafka.start_broker(1).await.unwrap();
    let serves = Instant::now();
    for member in &mut members {
        let done = member.commit(&[commit_of("log", 0, 5, "after")], TIMEOUT).await.unwrap();
        assert!(done.values().all(Result::is_ok));
    }
    let took = serves.elapsed();
    eprintln!("100 groups commit again {took:?} after the broker serves");
    assert!(took < Duration::from_secs(10), "{took:?}");
    let confirmed = || async { members.iter().filter_map(|member| member.since_confirmed()).max().unwrap() };
    eventually(confirmed, |oldest| *oldest < Duration::from_secs(2)).await;
    for member in &mut members {
        assert!(unconstrained(member.next()).now_or_never().is_none(), "nobody was fenced, and no assignment changed");
    }
    stack.stop().await;
}
