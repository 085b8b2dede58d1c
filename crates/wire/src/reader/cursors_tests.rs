//! Waiters get each record once, from whichever poll brings it first.

use super::*;
use crate::batch::encode::{OutRecord, encode_batch};

const KEY: Key = Key { topic_id: TopicId([7; 16]), partition: 0 };

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

fn join(cursors: &mut Cursors, offset: i64) -> (oneshot::Receiver<Result<Outcome>>, bool) {
    cursors.join(KEY, offset, 1000, 0, None)
}

fn got_data(turn: &mut oneshot::Receiver<Result<Outcome>>) -> bool {
    matches!(turn.try_recv(), Ok(Ok(Outcome::Data(_))))
}

#[tokio::test]
async fn all_waiters_at_one_place_share_one_answer() {
    let mut cursors = Cursors::default();
    let (mut a, uncovered) = join(&mut cursors, 5);
    assert!(uncovered);
    assert_eq!(cursors.take_all(Instant::now()).len(), 1);
    let (mut b, uncovered) = join(&mut cursors, 5);
    assert!(!uncovered);
    cursors.answer(KEY, 5, Ok(fetched(5, 7)));
    assert!(got_data(&mut a) && got_data(&mut b));
}

#[tokio::test]
async fn a_reader_that_comes_back_is_covered_by_the_poll_under_way() {
    let mut cursors = Cursors::default();
    let (mut turn, _) = join(&mut cursors, 5);
    cursors.take_all(Instant::now());
    cursors.answer(KEY, 5, Ok(fetched(5, 7)));
    assert!(got_data(&mut turn));
    assert_eq!(cursors.take_all(Instant::now())[0].1.offset, 7);
    assert!(cursors.polls_at(KEY, 7) && !cursors.polls_at(KEY, 5));
    assert!(!join(&mut cursors, 7).1);
}

#[tokio::test]
async fn an_answer_for_a_place_already_left_is_not_given_twice() {
    let mut cursors = Cursors::default();
    let (mut first, _) = join(&mut cursors, 5);
    cursors.take_all(Instant::now());
    cursors.answer(KEY, 5, Ok(fetched(5, 6)));
    assert!(got_data(&mut first));
    let (mut second, _) = join(&mut cursors, 6);
    cursors.answer(KEY, 5, Ok(fetched(5, 6)));
    assert!(second.try_recv().is_err(), "waits on");
    cursors.answer(KEY, 6, Ok(fetched(6, 7)));
    assert!(got_data(&mut second));
}

#[tokio::test]
async fn a_waiter_that_was_overtaken_is_sent_to_read_without_waiting() {
    let mut cursors = Cursors::default();
    let (_low, _) = join(&mut cursors, 5);
    let (mut middle, _) = join(&mut cursors, 6);
    let (mut high, _) = join(&mut cursors, 9);
    assert_eq!(cursors.take_all(Instant::now()), [(KEY, Position { offset: 5, max_bytes: 1000, epoch: 0 })]);
    cursors.answer(KEY, 5, Ok(fetched(5, 8)));
    assert!(matches!(middle.try_recv(), Ok(Ok(Outcome::Behind))));
    assert!(high.try_recv().is_err());
    assert_eq!(cursors.take_all(Instant::now())[0].1.offset, 9);
}

#[tokio::test]
async fn data_for_nobody_ends_the_cursor() {
    let mut cursors = Cursors::default();
    drop(join(&mut cursors, 5));
    cursors.take_all(Instant::now());
    cursors.answer(KEY, 5, Ok(fetched(5, 6)));
    assert!(cursors.is_empty());
}

#[tokio::test]
async fn errors_reach_waiters_of_that_partition_and_nobody_elses() {
    let mut cursors = Cursors::default();
    let (mut turn, _) = join(&mut cursors, 5);
    let other = Key { partition: 1, ..KEY };
    let (mut untouched, _) = cursors.join(other, 0, 1, 0, None);
    cursors.take_all(Instant::now());
    cursors.answer(KEY, 5, Err(Error::Busy));
    assert!(matches!(turn.try_recv(), Ok(Err(Error::Busy))));
    assert!(untouched.try_recv().is_err());
    cursors.fail_all(&Error::Busy);
    assert!(matches!(untouched.try_recv(), Ok(Err(Error::Busy))));
}

#[tokio::test]
async fn a_cursor_nobody_comes_back_to_is_forgotten() {
    let mut cursors = Cursors::default();
    drop(join(&mut cursors, 5));
    assert_eq!(cursors.take_all(Instant::now()).len(), 1);
    assert!(cursors.take_all(Instant::now() + LINGER).is_empty() && cursors.is_empty());
}
