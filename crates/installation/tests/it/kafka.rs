//! A cluster that is empty, one that is ours, and one that somebody changed. Each test has a cluster of its own.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use sluice_devstack::{ADMIN, KafkaConnection, Stack};
use sluice_installation::State;
use sluice_installation::kafka::{Difference, Principals, Wanted, apply, brokers, observe, plan};
use sluice_types::physical::{CONTROL_TOPIC, USAGE_TOPIC};
use sluice_wire::{
    AclBinding, AclFilter, AclOperation, Client, ConfigChange, NewTopic, PatternType, Permission, ResourceType,
    ScramUpsert,
};

pub(crate) const CALL: Duration = Duration::from_secs(20);

/// Principals that no local stack makes, so that its own do not count.
pub(crate) fn wanted() -> Wanted {
    let principals = Principals {
        gateway: "their-gateway".to_owned(),
        control_plane: "their-control-plane".to_owned(),
        provisioning: "their-provisioning".to_owned(),
        billing: "their-billing".to_owned(),
    };
    let password = |name: &str| (name.to_owned(), format!("password of {name}").into());
    let passwords = principals.by_role().map(|(_, name)| password(name)).into();
    Wanted { admin: ADMIN.to_owned(), principals, internal_topics: true, replication: None, passwords }
}

pub(crate) async fn differences(kafka: &KafkaConnection, wanted: &Wanted) -> Vec<Difference> {
    let config = kafka.client_config(&wanted.admin).unwrap();
    plan(wanted, &observe(&config, wanted).await.unwrap())
}

pub(crate) async fn apply_all(client: &Client, wanted: &Wanted, differences: &[Difference]) {
    for action in differences.iter().filter_map(Difference::action) {
        apply(client, action, |user| wanted.passwords.get(user).cloned()).await.unwrap();
    }
}

/// Looks until it is so: a change reaches the broker that is asked a moment after it was made.
pub(crate) async fn until(
    kafka: &KafkaConnection,
    wanted: &Wanted,
    holds: impl Fn(&[Difference]) -> bool,
) -> Vec<Difference> {
    let deadline = Instant::now() + CALL;
    loop {
        let found = differences(kafka, wanted).await;
        if holds(&found) {
            return found;
        }
        assert!(Instant::now() < deadline, "{found:#?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn kinds(differences: &[Difference]) -> BTreeMap<&str, usize> {
    let mut kinds = BTreeMap::new();
    differences.iter().for_each(|difference| *kinds.entry(difference.kind).or_default() += 1);
    kinds
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_cluster_becomes_ours_and_what_is_changed_by_hand_is_named_and_mended() {
    let stack = Stack::builder().without_postgres().build().await.unwrap();
    let kafka = stack.connection().kafka().unwrap();
    let admin = kafka.client(ADMIN).unwrap();
    let wanted = wanted();

    let observed = observe(&kafka.client_config(ADMIN).unwrap(), &wanted).await.unwrap();
    let seen = observed.brokers[&1].as_ref().unwrap();
    let untold: Vec<_> = brokers::settings()
        .into_iter()
        .map(|setting| setting.key)
        .filter(|key| seen.get(*key).and_then(|entry| entry.value.as_ref()).is_none())
        .collect();
    assert_eq!(untold, ["group.consumer.assignor.offload.enable"], "what Kafka 4.3 does not tell");

    let empty = plan(&wanted, &observed);
    assert!(empty.iter().all(|difference| difference.state == State::Missing), "{empty:#?}");
    assert_eq!(kinds(&empty), [("access", 14), ("topic", 3), ("user", 4)].into());

    let further = Wanted { internal_topics: false, ..wanted.clone() };
    let of_further = differences(kafka, &further).await;
    assert_eq!(kinds(&of_further), [("access", 14), ("user", 4)].into(), "it has no internal topics");

    apply_all(&admin, &wanted, &empty).await;
    until(kafka, &wanted, <[_]>::is_empty).await;

    let change = [("retention.ms".to_owned(), ConfigChange::Set("60000".to_owned()))].into();
    admin.incremental_alter_configs(USAGE_TOPIC, &change, false, CALL).await.unwrap();
    let gateway = &wanted.principals.gateway;
    let read = AclBinding::allow(gateway, AclOperation::Read, ResourceType::Topic, PatternType::Literal, CONTROL_TOPIC);
    assert_eq!(admin.delete_acl_bindings(std::slice::from_ref(&read), CALL).await.unwrap(), 1);
    let too_much = AclBinding { operation: AclOperation::Write, ..read };
    admin.create_acls(&[too_much], CALL).await.unwrap();
    admin.delete_scram_user(&wanted.principals.billing, CALL).await.unwrap();
    let other = ScramUpsert { user: gateway.clone(), password: "another".to_owned().into() };
    admin.upsert_scram_users(&[other], CALL).await.unwrap();

    let changed = until(kafka, &wanted, |found| found.len() == 5).await;
    let named: Vec<_> = changed.iter().map(|d| (d.kind, d.name.as_str(), d.item.as_str(), d.state)).collect();
    let expected = [
        ("user", "their-billing", "", State::Missing),
        ("user", "their-gateway", "password", State::Differs),
        ("access", "their-gateway", CONTROL_TOPIC, State::Missing),
        ("access", "their-gateway", "more than it needs", State::Unwanted),
        ("topic", USAGE_TOPIC, "retention.ms", State::Differs),
    ];
    assert_eq!(named, expected);
    apply_all(&admin, &wanted, &changed).await;
    until(kafka, &wanted, <[_]>::is_empty).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_ours_is_neither_told_nor_touched() {
    let stack = Stack::builder().without_postgres().build().await.unwrap();
    let kafka = stack.connection().kafka().unwrap();
    let admin = kafka.client(ADMIN).unwrap();
    let wanted = wanted();
    let configs: BTreeMap<String, String> = [("retention.ms".to_owned(), "1234".to_owned())].into();
    for name in ["orders", "sluice", "sluice-events"] {
        let topic = NewTopic { name: name.to_owned(), partitions: 2, replication: 1, configs: configs.clone() };
        admin.create_topic(&topic, CALL).await.unwrap();
    }
    let allow = |user: &str, name: &str| {
        AclBinding::allow(user, AclOperation::Write, ResourceType::Topic, PatternType::Literal, name)
    };
    let fence = AclBinding { permission: Permission::Deny, ..allow("their-gateway", "aaaaaaaaaaaaa.aaaaaaaaaaaaa") };
    let foreign =
        [allow("somebody", "orders"), allow("somebody", CONTROL_TOPIC), allow("their-gateway", "orders"), fence];
    admin.create_acls(&foreign, CALL).await.unwrap();
    let rules_before = admin.describe_acls(&AclFilter::default(), CALL).await.unwrap();

    apply_all(&admin, &wanted, &differences(kafka, &wanted).await).await;

    until(kafka, &wanted, <[_]>::is_empty).await;
    let rules = admin.describe_acls(&AclFilter::default(), CALL).await.unwrap();
    assert!(rules_before.iter().all(|rule| rules.contains(rule)), "a rule that is not ours is gone");
    let metadata = admin.metadata(&["orders", "sluice", "sluice-events"], CALL).await.unwrap();
    for topic in &metadata.topics {
        assert_eq!((topic.error.as_ref(), topic.partitions.len()), (None, 2), "{}", topic.name);
        let configs = admin.describe_topic_configs(&topic.name, Some(&["retention.ms"]), CALL).await.unwrap();
        assert_eq!(configs["retention.ms"].value.as_deref(), Some("1234"), "{}", topic.name);
    }
}
