//! Without Kafka: a gateway that starts serves from its snapshot; one that runs serves from memory.

use std::time::{Duration, Instant};

use sluice_proto::internal::control::v1::{ControlRecord, Life, MemberHeartbeat};
use sluice_types::TopicUid;
use sluice_types::physical::CONTROL_TOPIC;

use crate::world::{Gateway, PATIENCE, Tenant, World, mark_complete, mark_complete_for};

/// What a gateway says of it comes from its view alone: which topic, and how many partitions it has.
const BEYOND: &str = "/v1/namespaces/prod/topics/orders/records?partition=3";

pub(crate) async fn until(what: &str, condition: impl AsyncFn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !condition().await {
        assert!(Instant::now() < end, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Whether the gateway knows the tenant's topic with three partitions. Asking takes no Kafka.
async fn knows(gateway: &Gateway, tenant: &Tenant) -> bool {
    let (status, body) = gateway.get(BEYOND, &tenant.key).await;
    match status {
        404 => false,
        400 if body.to_string().contains("the partitions 0..2") => true,
        _ => panic!("{status} {body}"),
    }
}

fn says(gateway: &Gateway, component: &str, text: &str) -> bool {
    gateway.health.component(component).is_some_and(|status| !status.ok && status.detail.contains(text))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_without_kafka_serves_what_it_knows_and_catches_up() {
    let world = World::new().await;
    let gateway = world.gateway("gateway-a").await;
    let tenant = Tenant::new("acme");
    for record in tenant.base() {
        world.publish(&record).await;
    }
    world.publish(&tenant.key_state(1, Life::Active)).await;
    let uid = TopicUid::random();
    let offset = world.publish(&tenant.topic(uid, 1, Life::Active, 3)).await;
    world.applied(&gateway, offset).await;

    // Running: from memory, without waiting, and flagged after five seconds.
    world.stack.kafka().expect("Kafka").kill_all().await;
    until("the gateway says that it is cut off", async || says(&gateway, "control", "cut off")).await;
    assert!(gateway.health.is_ready(), "it is still the right place to ask");
    let before = Instant::now();
    assert!(knows(&gateway, &tenant).await);
    assert!(before.elapsed() < Duration::from_secs(1));
    gateway.stop().await.expect("an orderly end, though nobody can be told");

    // Started: from the snapshot.
    let gateway = world.gateway("gateway-a").await;
    until("the gateway serves", async || gateway.health.is_ready()).await;
    assert!(says(&gateway, "control", "snapshot"), "{:?}", gateway.health.component("control"));
    assert!(knows(&gateway, &tenant).await);

    // Kafka is back: the same process goes on from where the snapshot ended.
    world.stack.kafka().expect("Kafka").start_all().await.expect("start");
    let offset = world.publish(&tenant.topic(uid, 2, Life::Gone, 3)).await;
    world.applied(&gateway, offset).await;
    assert!(!knows(&gateway, &tenant).await);
    until("all is well", async || gateway.health.component("control").is_some_and(|status| status.ok)).await;
    gateway.stop().await.expect("an orderly end");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_control_log_takes_nothing_away_before_it_is_complete() {
    let world = World::new().await;
    let gateway = world.gateway("gateway-a").await;
    let tenant = Tenant::new("acme");
    let mut records = tenant.base();
    records.push(tenant.key_state(4, Life::Active));
    for record in &records {
        world.publish(record).await;
    }
    let uid = TopicUid::random();
    let offset = world.publish(&tenant.topic(uid, 4, Life::Active, 3)).await;
    world.applied(&gateway, offset).await;
    assert!(knows(&gateway, &tenant).await);

    // Made anew, and being filled.
    world.remake_control_log().await;
    world.publish(&records[0]).await;
    until("the gateway reads the new log", async || says(&gateway, "control", "not complete yet")).await;
    assert!(knows(&gateway, &tenant).await, "what it knows stays in service");

    // Complete: it is what counts, also with lower versions, and without what it lacks.
    for record in &records[1..] {
        world.publish(&ControlRecord { version: 1, ..record.clone() }).await;
    }
    mark_complete(&world.kafka).await;
    until("the topic is gone", async || !knows(&gateway, &tenant).await).await;
    world.publish(&tenant.topic(TopicUid::random(), 1, Life::Active, 3)).await;
    until("a new topic of the name is there", async || knows(&gateway, &tenant).await).await;
    gateway.stop().await.expect("an orderly end");

    // What was complete is served from the snapshot, too.
    world.stack.kafka().expect("Kafka").kill_all().await;
    let gateway = world.gateway("gateway-a").await;
    until("the gateway serves", async || gateway.health.is_ready()).await;
    assert!(knows(&gateway, &tenant).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_saw_its_log_lose_something_asks_whether_it_is_complete() {
    let world = World::new().await;
    let gateway = world.gateway("gateway-a").await;
    let tenant = Tenant::new("acme");
    let mut records = tenant.base();
    records.push(tenant.key_state(1, Life::Active));
    records.push(tenant.topic(TopicUid::random(), 1, Life::Active, 3));
    let mut offset = 0;
    for record in &records {
        offset = world.publish(record).await;
    }
    world.applied(&gateway, offset).await;
    gateway.stop().await.expect("an orderly end");

    // While it is away the log goes on and loses all of it.
    let lost_to = world.publish(&records[0]).await + 1;
    world.cut_control_log_below(lost_to).await;
    let gateway = world.gateway("gateway-a").await;
    let asked = world.heartbeat("gateway-a", |heartbeat| !heartbeat.awaits_complete.is_empty()).await;
    until("the gateway waits", async || says(&gateway, "control", "not complete yet")).await;
    for record in &records {
        world.publish(record).await;
    }
    mark_complete_for(&world.kafka, vec![asked.awaits_complete.clone()]).await;
    until("all is well", async || gateway.health.component("control").is_some_and(|status| status.ok)).await;
    assert!(knows(&gateway, &tenant).await);
    let asks_no_more = |heartbeat: &MemberHeartbeat| {
        heartbeat.boot_id == asked.boot_id
            && heartbeat.sequence > asked.sequence
            && heartbeat.awaits_complete.is_empty()
    };
    world.heartbeat("gateway-a", asks_no_more).await;
    gateway.stop().await.expect("an orderly end");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_control_log_that_lost_its_end_and_grew_again_while_the_gateway_was_away_is_read_anew() {
    let world = World::new().await;
    let gateway = world.gateway("gateway-a").await;
    let tenant = Tenant::new("acme");
    let mut records = tenant.base();
    records.push(tenant.topic(TopicUid::random(), 1, Life::Active, 3));
    records.push(tenant.key_state(1, Life::Active));
    let mut read_to = 0;
    for record in &records {
        read_to = world.publish(record).await;
    }
    world.applied(&gateway, read_to).await;
    assert!(knows(&gateway, &tenant).await);
    gateway.stop().await.expect("an orderly end");

    // All is lost, and other records come where those stood that were read, and beyond.
    let broker = world.stack.kafka().expect("Kafka");
    broker.stop(1).await.expect("stop");
    let log = world.stack.dir().join("kafka/node-1/data").join(format!("{CONTROL_TOPIC}-0"));
    std::fs::remove_dir_all(log).expect("remove");
    broker.start_broker(1).await.expect("start");
    assert_eq!(world.publish(&tenant.key_state(2, Life::Gone)).await, 0);
    records.pop();
    while world.publish(&records[0]).await <= read_to {}
    for record in &records {
        world.publish(record).await;
    }
    mark_complete(&world.kafka).await;

    let gateway = world.gateway("gateway-a").await;
    until("the key is revoked", async || gateway.get(BEYOND, &tenant.key).await.0 == 401).await;
    until("all is well", async || gateway.health.component("control").is_some_and(|status| status.ok)).await;
    gateway.stop().await.expect("an orderly end");
}
