//! Groups that were deleted go from Kafka.

use sluice_types::physical::PhysicalGroup;
use sluice_types::{GroupUid, NamespaceUid};
use sluice_wire::{CommitOffset, Committer, Groups, MemberEvent, MemberOptions};

use crate::support::{CALL, SOON, World, eventually};

#[tokio::test]
async fn a_deleted_group_goes_from_kafka_when_its_last_member_has_left_and_takes_no_other_with_it() {
    let world = World::new().await;
    let topic = world.plane.want(1, &[]);
    world.make(&topic, 1).await;
    let topic = world.plane.known(&topic).name().as_str().to_owned();
    let namespace = NamespaceUid::random();
    let [served, idle, other] = [(); 3].map(|()| GroupUid::random());
    let position =
        CommitOffset { topic: topic.clone(), partition: 0, offset: 1, leader_epoch: None, metadata: String::new() };
    let position = [position];
    let names = [
        PhysicalGroup::new(namespace, idle),
        PhysicalGroup::redrive(namespace, idle),
        PhysicalGroup::new(namespace, other),
        PhysicalGroup::redrive(namespace, other),
    ];
    for name in &names {
        let stored = world.kafka.commit_offsets(name.as_str(), Committer::Outside, &position, CALL).await.unwrap();
        assert!(stored.values().all(Result::is_ok), "{stored:?}");
    }
    let groups = Groups::new(world.kafka.clone());
    let dispatched = PhysicalGroup::new(namespace, served);
    let mut member = groups.join(dispatched.as_str(), &[&topic], MemberOptions::default()).unwrap();
    while member.assignment().is_empty() {
        let event = tokio::time::timeout(SOON, member.next()).await.expect("is assigned");
        assert!(!matches!(event, None | Some(MemberEvent::Lost { .. })), "{event:?}");
    }
    let there = async |name: &PhysicalGroup| {
        let listed = world.kafka.list_groups(&[], CALL).await.unwrap();
        listed.iter().any(|listed| listed.group == name.as_str())
    };
    world.plane.delete_group(namespace, served);
    world.plane.delete_group(namespace, idle);
    let running = world.start().await;
    eventually("the idle group to go", SOON, async || world.plane.is_group_gone(idle)).await;
    assert!(!there(&names[0]).await && !there(&names[1]).await, "with what was kept of its dead letters");
    assert!(there(&names[2]).await && there(&names[3]).await, "nobody deleted these");
    assert!(there(&dispatched).await && !world.plane.is_group_gone(served), "it has a member");
    member.leave(CALL).await.unwrap();
    eventually("the other to go", SOON, async || world.plane.is_group_gone(served)).await;
    assert!(!there(&dispatched).await);
    running.stop().await;
}
