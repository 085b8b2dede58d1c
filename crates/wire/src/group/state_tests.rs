//! The protocol's rules without a broker.

use std::sync::Arc;
use std::time::Duration;

use super::member::{MemberEvent, TopicPartition};
use super::state::{MemberState, PartitionKey};
use crate::error::Error;
use crate::types::KafkaTopicId;

const TOPIC: KafkaTopicId = KafkaTopicId([7; 16]);

fn joined(partitions: &[i32]) -> MemberState {
    let topics: Arc<[Arc<str>]> = Arc::from([Arc::from("t")]);
    let mut state = MemberState::new("g".into(), "m".into(), topics, Duration::from_secs(30));
    let join = state.beat();
    assert_eq!((join.epoch, join.owned, join.topics.is_some()), (0, Some([].into()), true));
    state.answered(1, Some(keys(partitions)));
    assert!(state.reconcile().is_empty() || partitions.is_empty(), "the name is not known yet");
    state.learn([(TOPIC, Arc::from("t"))]);
    state
}

fn keys(partitions: &[i32]) -> std::collections::BTreeSet<PartitionKey> {
    partitions.iter().map(|&partition| (TOPIC, partition)).collect()
}

fn parts(partitions: &[i32]) -> Vec<TopicPartition> {
    partitions.iter().map(|&partition| TopicPartition { topic: "t".into(), topic_id: TOPIC, partition }).collect()
}

#[test]
fn what_is_assigned_is_told_reported_and_then_left_unsaid() {
    let mut state = joined(&[0, 1]);
    assert!(matches!(&state.reconcile()[..], [MemberEvent::Assigned(told)] if *told == parts(&[0, 1])));
    assert!(state.owes_report());
    let report = state.beat();
    assert_eq!((report.epoch, report.owned, report.topics.is_none()), (1, Some(keys(&[0, 1])), true));
    state.answered(1, None);
    assert!(state.reconcile().is_empty() && !state.owes_report());
    assert!(state.beat().owned.is_none());
}

#[test]
fn a_revoked_partition_stays_owned_until_it_is_released() {
    let mut state = joined(&[0, 1]);
    state.reconcile();
    state.beat();
    state.answered(1, Some(keys(&[0])));
    assert!(matches!(&state.reconcile()[..], [MemberEvent::Revoked(told)] if *told == parts(&[1])));
    assert!(state.reconcile().is_empty(), "asked once");
    assert!(!state.owes_report());
    assert_eq!(state.usable(), parts(&[0]));
    state.release(&parts(&[0, 1]));
    assert!(state.owes_report());
    assert_eq!(state.beat().owned, Some(keys(&[0])), "what was not revoked cannot be released");
}

#[test]
fn a_partition_that_comes_back_while_it_is_revoked_is_assigned_again_after_the_release() {
    let mut state = joined(&[0]);
    state.reconcile();
    state.beat();
    state.answered(1, Some(keys(&[])));
    state.reconcile();
    state.beat();
    state.answered(2, Some(keys(&[0])));
    assert!(state.reconcile().is_empty());
    state.release(&parts(&[0]));
    assert!(matches!(&state.reconcile()[..], [MemberEvent::Assigned(told)] if *told == parts(&[0])));
}

#[test]
fn after_a_failure_everything_is_said_again_with_the_old_epoch() {
    let mut state = joined(&[0]);
    state.reconcile();
    state.beat();
    state.answered(1, None);
    state.beat();
    state.failed();
    let beat = state.beat();
    assert_eq!((beat.epoch, beat.owned, beat.topics.is_some()), (1, Some(keys(&[0])), true));
}

#[test]
fn a_fenced_member_owns_nothing_and_joins_from_the_start() {
    let mut state = joined(&[0, 1]);
    state.reconcile();
    let told = state.fenced(Error::Busy);
    assert!(matches!(told, MemberEvent::Fenced { partitions, .. } if partitions == parts(&[0, 1])));
    assert_eq!((state.epoch(), state.usable()), (None, vec![]));
    let beat = state.beat();
    assert_eq!((beat.epoch, beat.owned, beat.topics.is_some()), (0, Some([].into()), true));
}

#[test]
fn an_empty_first_assignment_is_told_too() {
    let mut state = joined(&[]);
    state.beat();
    state.answered(1, Some(keys(&[])));
    assert!(state.reconcile().is_empty(), "told when it joined");
    state.fenced(Error::Busy);
    state.beat();
    state.answered(3, Some(keys(&[])));
    assert!(matches!(&state.reconcile()[..], [MemberEvent::Assigned(told)] if told.is_empty()));
}

#[test]
fn another_subscription_is_said_once_and_what_it_takes_away_is_released_first() {
    let mut state = joined(&[0]);
    state.reconcile();
    state.beat();
    state.answered(1, None);
    let other: Arc<[Arc<str>]> = Arc::from([Arc::from("u")]);
    state.beat();
    state.subscribe(Arc::clone(&other));
    state.answered(1, None);
    assert!(state.owes_report(), "the heartbeat under way said the old one");
    let beat = state.beat();
    assert_eq!((beat.epoch, beat.topics, beat.owned), (1, Some(other), None));
    state.answered(2, Some([].into()));
    assert!(matches!(&state.reconcile()[..], [MemberEvent::Revoked(told)] if *told == parts(&[0])));
    assert!(state.beat().topics.is_none());
}
