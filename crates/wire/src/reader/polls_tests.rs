//! Who must poll for whom, and that idle waiters cost no requests.

use super::*;
use crate::codec::fetch_request::FetchPartition;
use crate::types::KafkaTopicId;

const WAIT: Duration = Duration::from_millis(500);

fn key(partition: i32) -> Key {
    Key { topic_id: KafkaTopicId([7; 16]), partition }
}

fn join(polls: &mut Polls, partition: i32, offset: i64) -> (Seat, oneshot::Receiver<Result<Outcome>>, Needs) {
    polls.join(key(partition), offset, 1000, 0, None)
}

/// The partitions a long poll names with their offsets, and how many it forgets.
fn begin(polls: &mut Polls) -> (Vec<(i32, i64)>, usize) {
    let request = polls.begin(Isolation::ReadCommitted, WAIT).unwrap();
    let at = |partition: &FetchPartition| (partition.partition, partition.fetch_offset);
    let named = request.topics.iter().flat_map(|topic| &topic.partitions).map(at).collect();
    (named, request.forgotten_topics_data.iter().map(|topic| topic.partitions.len()).sum())
}

#[tokio::test]
async fn a_new_waiter_needs_the_short_poll_while_the_long_one_is_under_way() {
    let mut polls = Polls::default();
    assert_eq!(join(&mut polls, 0, 5).2, Needs::Long);
    assert!(polls.uncovered().is_empty(), "the long poll is about to begin");
    assert_eq!(begin(&mut polls), (vec![(0, 5)], 0));
    assert!(polls.polls_at(key(0), 5) && !polls.polls_at(key(0), 6));
    assert_eq!(join(&mut polls, 0, 5).2, Needs::Nothing);
    let (_, _answer, needs) = join(&mut polls, 1, 3);
    assert_eq!(needs, Needs::Short);
    assert_eq!(polls.uncovered().iter().map(|(key, _)| key.partition).collect::<Vec<_>>(), [1]);
    polls.ended(99);
    assert_eq!(begin(&mut polls), (vec![(1, 3)], 0));
    assert!(polls.uncovered().is_empty() && polls.polls_at(key(1), 3));
}

#[tokio::test]
async fn idle_waiters_are_named_once() {
    let mut polls = Polls::default();
    let _waiters: Vec<_> = (0..1_000).map(|partition| join(&mut polls, partition, 5)).collect();
    assert_eq!(begin(&mut polls).0.len(), 1_000);
    for _ in 0..3 {
        polls.ended(99);
        assert_eq!(begin(&mut polls), (vec![], 0));
    }
    polls.forgotten();
    assert_eq!(begin(&mut polls).0.len(), 1_000, "a new session hears of all");
}

#[tokio::test]
async fn what_nobody_waits_for_any_more_is_forgotten_at_the_broker_even_after_a_pause() {
    let mut polls = Polls::default();
    let (seat, answer, _) = join(&mut polls, 0, 5);
    begin(&mut polls);
    drop(answer);
    polls.leave(seat);
    polls.answer(key(0), 5, Err(Error::Busy));
    polls.ended(99);
    assert!(polls.begin(Isolation::ReadCommitted, WAIT).is_none(), "nothing to poll for");
    assert_eq!(join(&mut polls, 1, 7).2, Needs::Long);
    assert_eq!(begin(&mut polls), (vec![(1, 7)], 1));
}
