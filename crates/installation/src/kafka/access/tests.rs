//! The rules: whom they let in where, and what is ours of those that exist.

use sluice_types::physical::{CONTROL_TOPIC, MEMBERS_TOPIC, PhysicalTopic, USAGE_TOPIC};
use sluice_types::uid::{NamespaceUid, TopicUid};
use sluice_wire::AclOperation;

use super::grants::tenant_prefixes;
use super::*;

fn covered(name: &str) -> bool {
    tenant_prefixes().iter().any(|prefix| name.starts_with(prefix.as_str()))
}

fn ours() -> (Principals, Vec<AclBinding>) {
    let principals = Principals::default();
    let rules = rules(&principals);
    (principals, rules)
}

fn allow(user: &str, name: &str) -> AclBinding {
    AclBinding::allow(user, AclOperation::Write, ResourceType::Topic, PatternType::Literal, name)
}

#[test]
fn every_tenants_topic_is_covered() {
    for _ in 0..10_000 {
        let name = PhysicalTopic::new(NamespaceUid::random(), TopicUid::random());
        assert!(covered(name.as_str()), "{name:?}");
    }
    for name in ["sluice2abcdef.aaaaaaaaaaaaa", "sluiceabcdefg.aaaaaaaaaaaaa", "slui2aaaaaaaa.aaaaaaaaaaaaa"] {
        assert!(covered(name), "{name}");
    }
}

#[test]
fn no_internal_topic_is_covered() {
    for name in [CONTROL_TOPIC, MEMBERS_TOPIC, USAGE_TOPIC, "sluice.later", "__consumer_offsets", "Orders"] {
        assert!(!covered(name), "{name}");
    }
}

#[test]
fn no_rule_is_given_twice() {
    let (_, rules) = ours();
    let distinct: HashSet<_> = rules.iter().collect();
    assert_eq!(distinct.len(), rules.len());
}

#[test]
fn all_rules_are_no_difference_and_none_is_one_for_each_grant() {
    let (principals, rules) = ours();
    assert_eq!(plan(&principals, &rules), []);
    let differences = plan(&principals, &[]);
    assert_eq!(differences.len(), grants(&principals).len());
    assert!(differences.iter().all(|difference| difference.state == State::Missing));
}

#[test]
fn one_rule_that_is_missing_is_named() {
    let (principals, mut rules) = ours();
    let gone = rules.iter().position(|rule| rule.name == "b" && rule.operation == AclOperation::Write).expect("a rule");
    let gone = rules.remove(gone);
    let differences = plan(&principals, &rules);
    let [difference] = differences.as_slice() else { panic!("{differences:?}") };
    assert_eq!(difference.must, "Write on topic b…");
    assert_eq!(difference.action(), Some(&Action::AddRules(vec![gone])));
}

#[test]
fn a_rule_beyond_what_a_principal_of_ours_needs_is_removed() {
    let (principals, mut rules) = ours();
    for name in [CONTROL_TOPIC, "sluice.later", "*"] {
        rules.push(allow(&principals.gateway, name));
    }
    let differences = plan(&principals, &rules);
    let [difference] = differences.as_slice() else { panic!("{differences:?}") };
    assert_eq!(difference.state, State::Unwanted);
    let Some(Action::RemoveRules(removed)) = difference.action() else { panic!("{difference:?}") };
    assert_eq!(removed.len(), 3);
}

#[test]
fn rules_of_others_on_other_topics_and_rules_that_deny_are_left_alone() {
    let (principals, mut rules) = ours();
    rules.push(allow("somebody", CONTROL_TOPIC));
    rules.push(allow(&principals.gateway, "orders"));
    rules
        .push(AclBinding { permission: Permission::Deny, ..allow(&principals.gateway, "aaaaaaaaaaaaa.aaaaaaaaaaaaa") });
    rules.push(AclBinding { permission: Permission::Deny, ..allow(&principals.gateway, CONTROL_TOPIC) });
    assert_eq!(plan(&principals, &rules), []);
}
