//! What one broker cannot show: a broker that left in good order, partitions that only it has, a broker that freezes.
//! One cluster goes through all of it, because three brokers take long to start.

use std::time::Duration;

use sluice_devstack::{ADMIN, Kafka};
use sluice_wire::{
    Client, Error, GroupMember, Groups, Isolation, LogTail, MemberOptions, OffsetAt, Reader, TailOptions, TailState,
};

use crate::fixture::{TIMEOUT, eventually, make_replicated, own_kafka, read, record};
use crate::groups::{commit_of, hold};

const PARTITIONS: i32 = 6;
/// Less than connecting to a frozen broker may take.
const SOON: Duration = Duration::from_millis(2_500);

struct World<'a> {
    kafka: &'a Kafka,
    client: Client,
    reader: Reader,
    tails: Vec<LogTail>,
    members: Vec<GroupMember>,
}

#[tokio::test]
async fn a_broker_that_leaves_or_freezes_costs_the_others_nothing() {
    let stack = own_kafka(3).await;
    let kafka = stack.kafka().unwrap();
    let client = kafka.connection().client(ADMIN).unwrap();
    make_replicated(&client, "log", PARTITIONS, 3, &[("min.insync.replicas", "1")]).await;
    // Each partition on one broker only.
    make_replicated(&client, "single", PARTITIONS, 1, &[]).await;
    all_in_sync(&client).await;
    let groups = Groups::new(client.clone());
    let mut members = Vec::new();
    for number in 0..6 {
        let mut member = groups.join(&format!("group-{number}"), &["log"], MemberOptions::default()).unwrap();
        hold(&mut member, PARTITIONS as usize).await;
        members.push(member);
    }
    let tail = |partition| LogTail::new(client.clone(), "log", partition, OffsetAt::Earliest, TailOptions::default());
    let tails = (0..PARTITIONS).map(tail).collect();
    for partition in 0..PARTITIONS {
        client.produce_batch("log", partition, &[record("k", "v")], TIMEOUT).await.unwrap();
    }
    let mut world = World { kafka, reader: Reader::new(client.clone()), client, tails, members };

    a_broker_that_left_is_not_asked_for(&mut world).await;
    partitions_without_a_leader_fail_alone(&world).await;
    kafka.start_broker(2).await.unwrap();
    all_in_sync(&world.client).await;
    a_frozen_broker_is_passed_by(&world).await;
    stack.stop().await;
}

async fn all_in_sync(client: &Client) {
    let topic = || async { client.metadata(&["log"], TIMEOUT).await.unwrap().topics.remove(0) };
    eventually(topic, |topic| topic.partitions.values().all(|partition| partition.isr.len() == 3)).await;
}

async fn leader_of(client: &Client, topic: &str, partition: i32) -> Option<i32> {
    client.metadata(&[topic], TIMEOUT).await.unwrap().topics[0].partitions[&partition].leader
}

/// Everything that a client does works on every partition, whose next record has this offset.
async fn all_goes_on(world: &mut World<'_>, next: i64) {
    for partition in 0..PARTITIONS {
        let request = sluice_wire::FetchRequest { partition, ..read("log", 0) };
        world.client.fetch(request.clone(), TIMEOUT).await.unwrap();
        world.reader.fetch(request, 0, TIMEOUT).await.unwrap();
        let at = OffsetAt::Latest;
        world.client.list_offset("log", partition, at, Isolation::ReadCommitted, TIMEOUT).await.unwrap();
        world.client.produce_batch("log", partition, &[record("k", "v")], TIMEOUT).await.unwrap();
        let tail = &mut world.tails[partition as usize];
        let arrived = async {
            while tail.position() <= Some(next) {
                tail.next(TIMEOUT).await.unwrap();
            }
            tail.next(Duration::ZERO).await.unwrap().state
        };
        let state = tokio::time::timeout(TIMEOUT, arrived).await.expect("the tail reads on");
        assert!(matches!(state, TailState::Reading), "{state:?}");
    }
    for member in &world.members {
        let done = member.commit(&[commit_of("log", 0, next, "")], TIMEOUT).await.unwrap();
        assert!(done.values().all(Result::is_ok), "{done:?}");
    }
}

async fn a_broker_that_left_is_not_asked_for(world: &mut World<'_>) {
    all_goes_on(world, 1).await;
    world.kafka.stop(2).await.unwrap();
    // Somebody asks who is there, about no topic; what is known of the topics' leaders is from before.
    let brokers = || async { world.client.metadata(&[], TIMEOUT).await.unwrap().brokers };
    eventually(brokers, |brokers| !brokers.contains_key(&2)).await;
    all_goes_on(world, 2).await;
    for member in &mut world.members {
        assert_eq!(member.assignment().len(), PARTITIONS as usize, "kept its membership");
    }
}

async fn partitions_without_a_leader_fail_alone(world: &World<'_>) {
    let all: Vec<i32> = (0..PARTITIONS).collect();
    let listed = world.client.list_offsets("single", &all, OffsetAt::Latest, Isolation::ReadCommitted, TIMEOUT).await;
    let listed = listed.unwrap();
    let topic = world.client.metadata(&["single"], TIMEOUT).await.unwrap().topics.remove(0);
    let (mut led, mut lost) = (0, 0);
    for (id, partition) in &topic.partitions {
        match partition.leader {
            Some(_) => {
                assert_eq!(listed[id].as_ref().unwrap().offset, Some(0));
                world.client.produce_batch("single", *id, &[record("k", "v")], TIMEOUT).await.unwrap();
                led += 1;
            }
            None => {
                assert!(matches!(listed[id], Err(Error::NoLeader { .. })), "{listed:?}");
                lost += 1;
            }
        }
    }
    assert!(led > 0 && lost > 0, "{led} led, {lost} not");
}

async fn a_frozen_broker_is_passed_by(world: &World<'_>) {
    // The first of every list, and a leader.
    let first = 1;
    let mut led = None;
    for partition in 0..PARTITIONS {
        if leader_of(&world.client, "log", partition).await == Some(first) {
            led = Some(partition);
        }
    }
    let partition = led.expect("it leads something");
    let request = sluice_wire::FetchRequest { partition, ..read("log", 0) };
    let records = [record("k", "v")];
    world.client.produce_batch("log", partition, &records, TIMEOUT).await.unwrap();
    world.kafka.pause(first as u32).await.unwrap();

    let fresh = world.kafka.connection().client(ADMIN).unwrap();
    fresh.metadata(&["log"], SOON).await.expect("a client that knows nobody yet");
    world.client.metadata(&["log"], SOON).await.expect("a client that was connected to it");
    world.client.describe_cluster(SOON).await.unwrap();
    world.client.group_coordinator("a group nobody asked for yet", SOON).await.unwrap();

    let lost = world.client.produce_batch("log", partition, &records, Duration::from_secs(1)).await.unwrap_err();
    assert!(lost.is_outcome_unknown(), "{lost:?}");
    world.client.fetch(request.clone(), Duration::from_secs(1)).await.unwrap_err();
    eventually(|| leader_of(&fresh, "log", partition), |leader| leader.is_some_and(|leader| leader != first)).await;
    world.client.fetch(request, SOON).await.expect("the new leader is asked");
    world.client.produce_batch("log", partition, &records, SOON).await.expect("the new leader is asked");
    world.kafka.resume(first as u32).unwrap();
}
