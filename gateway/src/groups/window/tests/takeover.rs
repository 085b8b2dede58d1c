//! What is committed, and what the next dispatcher finds in it.

use super::*;

#[test]
fn the_start_is_to_be_committed_before_anything_else() {
    let mut window = Window::start_at(42, POLICY, Bounds::default());
    let snapshot = window.snapshot().expect("the position itself");
    assert_eq!((snapshot.offset, snapshot.metadata.as_str()), (42, ""));
    window.committed(snapshot.sequence);
    assert_eq!(window.snapshot(), None);
    assert_eq!(window.current().offset, 42);
}

#[test]
fn there_is_something_to_commit_exactly_after_a_change() {
    let mut window = reading(POLICY, &[None, None]);
    window.committed(window.sequence());
    lease(&mut window, 0, 0);
    lease(&mut window, 1, 0);
    assert_eq!(window.snapshot(), None, "a lease is no change");
    window.ack(0, 1);
    let first = window.snapshot().expect("an ack");
    assert_eq!(first.sequence, window.sequence());
    refuse(&mut window, 1, 1, None, 0);
    window.committed(first.sequence);
    let second = window.snapshot().expect("a failure after the snapshot");
    assert!(second.sequence > first.sequence);
    window.committed(second.sequence);
    window.committed(first.sequence);
    assert_eq!(window.snapshot(), None);
    window.ack(0, 1);
    assert_eq!(window.snapshot(), None, "the second of an ack changes nothing");
}

#[test]
fn a_takeover_delivers_only_what_is_not_done_and_counts_on() {
    let mut window = reading(FOREVER, &[None; 5]);
    done(&mut window, 1);
    done(&mut window, 3);
    lease(&mut window, 2, 0);
    refuse(&mut window, 2, 1, None, 0);
    lease(&mut window, 4, 0);
    let mut heir = takeover(&window);
    assert_eq!((heir.base(), heir.next_read(), heir.figures().acked_ahead), (0, 0, 2));
    assert_eq!(heir.snapshot(), None);
    assert_eq!((-1..6).filter(|&offset| heir.is_done(offset)).collect::<Vec<_>>(), [-1, 1, 3]);
    heir.read(&[seen(0, None), seen(1, None), seen(2, None), seen(3, None), seen(4, None), seen(5, None)], 6);
    // The one that was refused goes on waiting for its second delivery.
    heir.tick(POLICY.backoff_min_ms);
    let records: Vec<(i64, u32)> = heir.ready().map(|record| (record.offset, record.attempt)).collect();
    assert_eq!(records, [(2, 2), (0, 1), (4, 1), (5, 1)], "a lease that nobody ended is no failure");
    assert_eq!(heir.ack(1, 1), Acked::AlreadyDone);
}

#[test]
fn a_second_takeover_before_reading_loses_nothing() {
    let mut window = reading(FOREVER, &[None; 3]);
    done(&mut window, 2);
    lease(&mut window, 1, 0);
    refuse(&mut window, 1, 1, None, 0);
    let heir = takeover(&takeover(&window));
    assert_eq!(heir.current().metadata, window.current().metadata);
}

#[test]
fn what_is_done_ahead_is_not_read_again_when_the_base_comes_to_it() {
    let mut window = reading(POLICY, &[None; 4]);
    for offset in 1..4 {
        done(&mut window, offset);
    }
    let mut heir = takeover(&window);
    assert_eq!(heir.read(&[seen(0, None)], 1), 1);
    done(&mut heir, 0);
    assert_eq!((heir.base(), heir.next_read()), (4, 4));
    assert_eq!(heir.read(&[seen(2, None), seen(3, None), seen(4, None)], 5), 5);
    assert_eq!(ready(&heir), [4]);
}

#[test]
fn a_record_out_of_attempts_before_a_takeover_has_one_more() {
    let mut window = reading(Policy { max_attempts: Some(1), ..POLICY }, &[None]);
    lease(&mut window, 0, 0);
    refuse(&mut window, 0, 1, None, 0);
    let mut heir = takeover(&window);
    heir.read(&[seen(0, None)], 1);
    assert_eq!(heir.dead().count(), 0);
    assert_eq!(lease(&mut heir, 0, 500), 2);
    assert_eq!(refuse(&mut heir, 0, 2, None, 600), Refused::Dead);
    let dead = heir.dead().next().expect("dead");
    assert_eq!((dead.attempts, dead.first_delivery), (2, 500));
}

#[test]
fn records_compacted_away_before_a_takeover_reads_them_are_done() {
    let mut window = reading(FOREVER, &[None; 5]);
    done(&mut window, 1);
    done(&mut window, 4);
    lease(&mut window, 2, 0);
    refuse(&mut window, 2, 1, None, 0);
    let mut heir = takeover(&window);
    heir.read(&[seen(3, None)], 4);
    assert_eq!((heir.base(), ready(&heir), heir.figures().acked_ahead), (3, vec![3], 1));
    done(&mut heir, 3);
    assert_eq!((heir.base(), heir.current().metadata.as_str()), (5, ""));
    assert_eq!((heir.figures(), heir.slots.failing()), (Figures::default(), 0));
}

#[test]
fn metadata_that_is_not_ours_is_told_and_ignored() {
    let (window, restored) = Window::restore(10, "written by a tool", POLICY, Bounds::default(), 0);
    assert_eq!((window.base(), restored), (10, Restored::Unreadable));
    let mut other = reading(POLICY, &[None; 3]);
    done(&mut other, 2);
    let text = other.current().metadata;
    assert_eq!(Window::restore(1, &text, POLICY, Bounds::default(), 0).1, Restored::Unreadable);
    assert_eq!(Window::restore(0, &text, POLICY, Bounds::default(), 0).1, Restored::Read { acks: 1, attempts: 0 });
    Window::restore(i64::MAX, &text, POLICY, Bounds::default(), 0);
    Window::restore(i64::MIN, &text, POLICY, Bounds::default(), 0);
}

#[test]
fn a_wait_goes_on_after_a_takeover_and_never_longer_than_any_wait_may_be() {
    let mut window = reading(POLICY, &[None, None, Some(1), Some(1)]);
    for (offset, delay) in [(0, 2_000), (1, 60_000), (2, 50_000)] {
        lease(&mut window, offset, 1_000);
        refuse(&mut window, offset, 1, Some(delay), 1_000);
    }
    let Snapshot { offset, metadata, .. } = window.current();
    let (heir, _) = Window::restore(offset, &metadata, POLICY, Bounds::default(), 1_500);
    // Once more, before it has read anything.
    let mut heir = takeover(&heir);
    heir.read(&[seen(0, None), seen(1, None), seen(2, 1), seen(3, 1)], 4);
    heir.tick(1_500);
    assert_eq!((ready(&heir), heir.wake_at()), (vec![], Some(3_000)));
    heir.tick(3_000);
    assert_eq!(ready(&heir), [0]);
    heir.tick(51_000);
    assert_eq!(ready(&heir), [0, 2], "the head of its key still");
    // By a clock that is behind the former one's.
    let (mut heir, _) = Window::restore(offset, &metadata, POLICY, Bounds::default(), 500);
    heir.read(&[seen(0, None), seen(1, None)], 2);
    heir.tick(3_000);
    assert_eq!((ready(&heir), heir.wake_at()), (vec![0], Some(60_500)));
}
