//! Waiters get each record once, from whichever poll brings it first.

use super::*;
use crate::batch::encode::{OutRecord, encode_batch};

const KEY: Key = Key { topic_id: KafkaTopicId([7; 16]), partition: 0 };

/// Records `from..to` as fetched.
fn fetched(from: i64, to: i64) -> Fetched {
    let records: Vec<_> = (from..to).map(|_| OutRecord::default()).collect();
    let mut batches = encode_batch(&records).unwrap().to_vec();
    batches[..8].copy_from_slice(&from.to_be_bytes());
    Fetched {
        topic_id: KEY.topic_id,
        batches: batches.into(),
        high_watermark: to,
        last_stable_offset: to,
        log_start_offset: 0,
        aborted: Vec::new(),
    }
}

fn join(cursors: &mut Cursors, offset: i64) -> (Seat, oneshot::Receiver<Result<Outcome>>) {
    cursors.join(KEY, offset, 1000, 0, None)
}

fn answer(cursors: &mut Cursors, asked_offset: i64, answer: Result<Fetched>) {
    cursors.answer(KEY, asked_offset, answer, Instant::now());
}

fn got_data(turn: &mut oneshot::Receiver<Result<Outcome>>) -> bool {
    matches!(turn.try_recv(), Ok(Ok(Outcome::Data(_))))
}

#[tokio::test]
async fn all_waiters_at_one_place_share_one_answer() {
    let mut cursors = Cursors::default();
    let (_, mut a) = join(&mut cursors, 5);
    assert_eq!(cursors.take_changed().len(), 1);
    let (_, mut b) = join(&mut cursors, 5);
    assert!(cursors.take_changed().is_empty(), "it is polled there already");
    answer(&mut cursors, 5, Ok(fetched(5, 7)));
    assert!(got_data(&mut a) && got_data(&mut b));
    assert_eq!(cursors.offset(KEY), Some(7), "where they are about to come back");
    assert_eq!(cursors.take_changed().len(), 1);
}

#[tokio::test]
async fn an_answer_for_a_place_already_left_is_not_given_twice() {
    let mut cursors = Cursors::default();
    let (_, mut first) = join(&mut cursors, 5);
    answer(&mut cursors, 5, Ok(fetched(5, 6)));
    assert!(got_data(&mut first));
    let (_, mut second) = join(&mut cursors, 6);
    answer(&mut cursors, 5, Ok(fetched(5, 6)));
    assert!(second.try_recv().is_err(), "waits on");
    answer(&mut cursors, 6, Ok(fetched(6, 7)));
    assert!(got_data(&mut second));
}

#[tokio::test]
async fn a_waiter_that_was_overtaken_is_sent_to_read_without_waiting() {
    let mut cursors = Cursors::default();
    let (_, mut high) = join(&mut cursors, 9);
    let (_, mut middle) = join(&mut cursors, 6);
    let (_, _low) = join(&mut cursors, 5);
    assert_eq!(cursors.take_changed(), [(KEY, Some(Position { offset: 5, max_bytes: 1000, epoch: 0 }))]);
    answer(&mut cursors, 5, Ok(fetched(5, 8)));
    assert!(matches!(middle.try_recv(), Ok(Ok(Outcome::Behind))));
    assert!(high.try_recv().is_err());
    assert_eq!(cursors.offset(KEY), Some(9));
}

#[tokio::test]
async fn a_waiter_that_leaves_is_not_polled_for() {
    let mut cursors = Cursors::default();
    let (low, _answer) = join(&mut cursors, 5);
    let (high, _answer) = join(&mut cursors, 9);
    cursors.take_changed();
    cursors.leave(low, Instant::now());
    assert_eq!(cursors.changed().map(|(_, position)| position.offset).collect::<Vec<_>>(), [9]);
    cursors.leave(high, Instant::now());
    assert_eq!(cursors.changed().count(), 0);
}

#[tokio::test]
async fn data_for_nobody_ends_the_cursor() {
    let mut cursors = Cursors::default();
    let (seat, _answer) = join(&mut cursors, 5);
    cursors.take_changed();
    cursors.leave(seat, Instant::now());
    answer(&mut cursors, 5, Ok(fetched(5, 6)));
    assert!(cursors.is_empty());
    assert_eq!(cursors.take_changed(), [(KEY, None)]);
}

#[tokio::test]
async fn errors_reach_waiters_of_that_partition_and_nobody_elses() {
    let mut cursors = Cursors::default();
    let (_, mut turn) = join(&mut cursors, 5);
    let other = Key { partition: 1, ..KEY };
    let (_, mut untouched) = cursors.join(other, 0, 1, 0, None);
    answer(&mut cursors, 5, Err(Error::Busy));
    assert!(matches!(turn.try_recv(), Ok(Err(Error::Busy))));
    assert!(untouched.try_recv().is_err());
    cursors.fail_all(&Error::Busy);
    assert!(matches!(untouched.try_recv(), Ok(Err(Error::Busy))));
}

#[tokio::test]
async fn a_cursor_nobody_comes_back_to_is_forgotten_and_one_that_is_used_again_is_not() {
    let mut cursors = Cursors::default();
    let now = Instant::now();
    let other = Key { partition: 1, ..KEY };
    let (seat, _answer) = join(&mut cursors, 5);
    cursors.leave(seat, now);
    let (seat, _answer) = cursors.join(other, 5, 1000, 0, None);
    cursors.leave(seat, now);
    let (_, _answer) = cursors.join(other, 5, 1000, 0, None);
    cursors.take_changed();
    cursors.expire(now + LINGER / 2);
    assert!(cursors.take_changed().is_empty());
    cursors.expire(now + LINGER);
    assert_eq!(cursors.take_changed(), [(KEY, None)]);
    assert_eq!((cursors.offset(KEY), cursors.offset(other)), (None, Some(5)));
}
