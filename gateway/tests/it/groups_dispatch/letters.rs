//! Dead letters: who gets one, who does not any more, and what happens if none can be written.

use bytes::Bytes;
use sluice_proto::stream::v1::reset_offsets_request::To;
use sluice_proto::stream::v1::{Position, ResetOffsetsRequest};
use sluice_wire::OutRecord;

use super::LONG;
use super::node::{Node, Tenant, until, values};

async fn says(node: &Node, what: &str) {
    until(what, async || node.status().await.1.findings.iter().any(|finding| finding.message.contains(what))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_who_is_dead_still_when_its_letter_can_be_written_gets_one() {
    let tenant = Tenant::new().await;
    let topic = tenant.topic("orders", 1).await;
    let mortal = |attempts| {
        move |group: &mut sluice_proto::internal::control::v1::GroupState| {
            group.key_ordered = false;
            group.minimum_backoff_ms = 0;
            group.dead_letter_topic_id = "dead".into();
            group.max_attempts = attempts;
        }
    };
    tenant.group(&["orders"], mortal(1));
    tenant.produce(&topic, 0, &["a"], 0).await;
    let node = tenant.node("a").await.alone();
    let first = node.collect(1).await;
    node.nack(&first, "no").await;
    says(&node, "the dead-letter topic dead does not exist").await;

    // It has more attempts now, and is acknowledged.
    tenant.group(&["orders"], mortal(5));
    node.follow(&tenant);
    let again = node.collect(1).await;
    assert_eq!((values(&again), again[0].key.attempt), (vec![0], 2));
    node.ack(&again).await;

    // Another one is dead, and passed over by a reset.
    tenant.group(&["orders"], mortal(1));
    node.follow(&tenant);
    tenant.produce(&topic, 0, &["b"], 1).await;
    let second = node.collect(1).await;
    node.nack(&second, "no").await;
    says(&node, "the dead-letter topic dead does not exist").await;
    let to = Some(To::Position(Position::Latest.into()));
    node.reset(ResetOffsetsRequest { to, force: true, ..Default::default() }).await.expect("moved");

    let dead = tenant.topic("dead", 1).await;
    node.follow(&tenant);
    tenant.produce(&topic, 0, &["c"], 2).await;
    let third = node.collect(1).await;
    node.nack(&third, "no").await;
    until("a letter is written", async || !tenant.records_of(&dead).await.is_empty()).await;
    until("all is done", async || node.status().await.1.lag == 0).await;
    let letters: Vec<_> = tenant.records_of(&dead).await.into_iter().filter_map(|letter| letter.value).collect();
    assert_eq!(letters, ["2"]);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn letters_that_nobody_takes_hold_their_keys_and_nothing_else_until_they_are_taken() {
    let tenant = Tenant::new().await;
    let topic = tenant.topic("orders", 1).await;
    // Smaller than any letter.
    let dead = tenant.topic_with("dead", 1, &[("max.message.bytes", "100")]).await;
    tenant.group(&["orders"], |group| {
        group.dead_letter_topic_id = "dead".into();
        group.max_attempts = 1;
    });
    tenant.produce(&topic, 0, &["a", "a", "b", "b"], 0).await;
    let node = tenant.node("a").await.alone();
    let first = node.collect(2).await;
    assert_eq!(values(&first), [0, 2]);
    node.nack(&first[..1], "no").await;
    says(&node, "the dead-letter topic does not take records").await;
    node.ack(&first[1..]).await;
    let other = node.collect(1).await;
    assert_eq!(values(&other), [3], "the other key goes on");
    node.ack(&other).await;
    let (_, status) = node.status().await;
    assert_eq!((status.partitions[0].committed_offset, status.lag), (Some(0), 2));
    assert!(tenant.records_of(&dead).await.is_empty());
    let unset = std::collections::BTreeMap::from([("max.message.bytes".to_owned(), sluice_wire::ConfigChange::Unset)]);
    tenant.admin.incremental_alter_configs(&dead.physical(), &unset, false, LONG).await.expect("configs");
    let next = node.collect(1).await;
    assert_eq!(values(&next), [1], "once its letter is stored");
    assert_eq!(tenant.records_of(&dead).await.len(), 1);
    node.ack(&next).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_comes_back_as_the_letter_of_another_group_gets_no_further_letter() {
    let tenant = Tenant::new().await;
    let topic = tenant.topic("orders", 1).await;
    let dead = tenant.topic("dead", 1).await;
    tenant.group(&["orders"], |group| {
        group.key_ordered = false;
        group.dead_letter_topic_id = "dead".into();
        group.max_attempts = 1;
    });
    let node = tenant.node("a").await.alone();
    let uid = node.resolved().group_uid.to_string();
    let letter = |value: &'static str, path: String| OutRecord {
        key: None,
        value: Some(Bytes::from_static(value.as_bytes())),
        headers: vec![
            (Bytes::from_static(b"sluice-dlq-group"), Some(Bytes::from_static(b"other"))),
            (Bytes::from_static(b"sluice-dlq-path"), Some(Bytes::from(path))),
        ],
        timestamp_ms: sluice_devstack::now_ms(),
    };
    let letters = [letter("1", format!("{uid},other")), letter("2", "other".to_owned())];
    tenant.admin.produce_batch(&topic.physical(), 0, &letters, LONG).await.expect("produce");
    let got = node.collect(2).await;
    node.nack(&got, "no").await;
    until("both are done", async || node.status().await.1.lag == 0).await;
    let written = tenant.records_of(&dead).await;
    assert_eq!(written.iter().map(|letter| letter.value.clone().expect("a value")).collect::<Vec<_>>(), ["2"]);
    let path = written[0].headers.iter().rev().find(|(name, _)| name.as_ref() == b"sluice-dlq-path").expect("a path");
    assert_eq!(path.1.as_deref(), Some(format!("other,{uid}").as_bytes()));
    says(&node, "came back as dead letters of another group").await;
    node.stop().await;
}
