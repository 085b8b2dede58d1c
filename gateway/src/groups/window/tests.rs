//! Each rule of the window, one at a time.

mod takeover;

use std::sync::Arc;

use sluice_types::limits::RELEASES_MAX;

use super::*;

const POLICY: Policy = Policy {
    key_ordered: true,
    ack_deadline_ms: 30_000,
    max_attempts: Some(3),
    backoff_min_ms: 1_000,
    backoff_max_ms: 3_000,
};
const UNORDERED: Policy = Policy { key_ordered: false, ..POLICY };
const FOREVER: Policy = Policy { max_attempts: None, ..POLICY };

fn window() -> Window {
    Window::start_at(0, POLICY, Bounds::default())
}

/// A record of one byte.
fn seen(offset: i64, key: impl Into<Option<u64>>) -> Seen {
    Seen { offset, key: key.into(), bytes: 1 }
}

/// A window with records of these keys at 0, 1, 2, …
fn reading(policy: Policy, keys: &[Option<u64>]) -> Window {
    let mut window = Window::start_at(0, policy, Bounds::default());
    let records: Vec<Seen> = (0..).zip(keys).map(|(offset, &key)| seen(offset, key)).collect();
    window.read(&records, records.len() as i64);
    window
}

fn ready(window: &Window) -> Vec<i64> {
    window.ready().map(|record| record.offset).collect()
}

fn lease(window: &mut Window, offset: i64, now: Millis) -> u32 {
    window.lease(offset, now).expect("ready").attempt
}

fn refuse(window: &mut Window, offset: i64, attempt: u32, delay: Option<i64>, now: Millis) -> Refused {
    window.refuse(offset, attempt, delay, Arc::from("no"), now)
}

fn done(window: &mut Window, offset: i64) {
    let attempt = lease(window, offset, 0);
    assert_eq!(window.ack(offset, attempt), Acked::Done);
}

/// What a dispatcher that takes over finds.
fn takeover(window: &Window) -> Window {
    let Snapshot { offset, metadata, .. } = window.current();
    Window::restore(offset, &metadata, window.policy, window.bounds, 0).0
}

#[test]
fn records_are_ready_in_order_and_leased_until_the_deadline() {
    let mut window = reading(POLICY, &[None, None]);
    let records: Vec<Ready> = window.ready().collect();
    assert_eq!(records[0], Ready { offset: 0, attempt: 1, bytes: 1 });
    assert_eq!(records.len(), 2);
    assert_eq!(window.lease(0, 5), Some(Lease { offset: 0, attempt: 1, end: 30_005 }));
    assert_eq!(ready(&window), [1]);
    assert_eq!(window.lease(0, 5), None, "it is out");
    assert_eq!(window.lease(2, 5), None, "it was not read");
    assert_eq!(window.wake_at(), Some(30_005));
}

#[test]
fn the_base_moves_only_over_what_is_done() {
    let mut window = reading(POLICY, &[None; 3]);
    done(&mut window, 1);
    done(&mut window, 2);
    assert_eq!(window.base(), 0);
    assert_eq!(window.figures().acked_ahead, 2);
    done(&mut window, 0);
    assert_eq!((window.base(), window.next_read()), (3, 3));
    assert_eq!(window.figures(), Figures::default());
}

#[test]
fn offsets_that_a_read_did_not_show_are_done() {
    let mut window = window();
    assert_eq!(window.read(&[seen(3, 1), seen(7, 1)], 20), 20);
    assert_eq!(window.base(), 3, "nothing is below the first record");
    done(&mut window, 3);
    assert_eq!(window.base(), 7);
    done(&mut window, 7);
    assert_eq!(window.base(), 20);
    assert_eq!(window.read(&[], 25), 25);
    assert_eq!(window.snapshot().map(|snapshot| snapshot.offset), Some(25));
}

#[test]
fn records_read_twice_are_taken_once() {
    let mut window = reading(POLICY, &[None, None]);
    window.read(&[seen(0, 1), seen(1, 1), seen(2, 1)], 3);
    assert_eq!(ready(&window), [0, 1, 2]);
    assert_eq!(window.figures().bytes, 3);
}

#[test]
fn only_the_attempt_of_the_current_lease_settles() {
    let mut window = reading(POLICY, &[None]);
    assert_eq!(window.ack(0, 1), Acked::Stale, "not out yet");
    lease(&mut window, 0, 0);
    assert_eq!(window.ack(0, 2), Acked::Stale);
    assert_eq!(refuse(&mut window, 0, 2, None, 0), Refused::Stale);
    assert!(!window.extend(0, 2, 90_000));
    window.tick(30_000);
    assert_eq!(window.ack(0, 1), Acked::Stale, "the lease ran out");
    window.tick(31_000);
    assert_eq!(lease(&mut window, 0, 31_000), 2);
    assert_eq!(window.ack(0, 1), Acked::Stale);
    assert_eq!(window.ack(0, 2), Acked::Done);
    assert_eq!(window.ack(0, 2), Acked::AlreadyDone);
    assert_eq!(window.ack(0, 1), Acked::AlreadyDone);
    assert_eq!(window.ack(9, 1), Acked::Stale, "never read");
    assert_eq!(refuse(&mut window, 0, 2, None, 0), Refused::Stale);
}

#[test]
fn an_ack_above_the_base_can_come_twice() {
    let mut window = reading(POLICY, &[None, None]);
    done(&mut window, 1);
    assert_eq!(window.ack(1, 1), Acked::AlreadyDone);
}

#[test]
fn a_lease_that_runs_out_is_a_failure_and_waits_its_backoff() {
    let mut window = reading(POLICY, &[None]);
    lease(&mut window, 0, 0);
    window.tick(29_999);
    assert_eq!(window.figures().outstanding, 1);
    window.tick(30_000);
    assert_eq!((window.figures().outstanding, window.figures().delayed), (0, 1));
    assert_eq!(window.wake_at(), Some(31_000));
    window.tick(30_999);
    assert_eq!(ready(&window), [] as [i64; 0]);
    window.tick(31_000);
    assert_eq!(window.ready().next().map(|record| record.attempt), Some(2));
    assert_eq!(window.wake_at(), None);
}

#[test]
fn the_backoff_doubles_up_to_its_most() {
    let mut window = reading(FOREVER, &[None]);
    let mut waits = Vec::new();
    for attempt in 1..=40 {
        assert_eq!(lease(&mut window, 0, 0), attempt);
        let Refused::Retry { at } = refuse(&mut window, 0, attempt, None, 0) else { panic!("dead") };
        waits.push(at);
        window.tick(at);
    }
    assert_eq!(waits[..4], [1_000, 2_000, 3_000, 3_000]);
    assert_eq!(waits[39], 3_000);
    assert_eq!(Policy { backoff_max_ms: i64::MAX, ..POLICY }.backoff(u32::MAX), i64::MAX);
}

#[test]
fn a_delay_that_is_asked_for_replaces_the_backoff() {
    let mut window = reading(POLICY, &[None]);
    lease(&mut window, 0, 0);
    assert_eq!(refuse(&mut window, 0, 1, Some(50_000), 10), Refused::Retry { at: 50_010 });
    window.tick(50_010);
    lease(&mut window, 0, 50_010);
    assert_eq!(refuse(&mut window, 0, 2, Some(0), 50_020), Refused::Retry { at: 50_020 });
    assert_eq!(ready(&window), [0], "at once, without a tick");
}

#[test]
fn retries_that_are_due_come_before_new_records() {
    let mut window = reading(POLICY, &[None; 4]);
    for offset in [2, 1] {
        lease(&mut window, offset, 0);
        refuse(&mut window, offset, 1, Some(0), 0);
    }
    assert_eq!(ready(&window), [1, 2, 0, 3]);
}

#[test]
fn an_extended_lease_ends_later() {
    let mut window = reading(POLICY, &[None]);
    lease(&mut window, 0, 0);
    assert!(window.extend(0, 1, 60_000));
    window.tick(30_000);
    assert_eq!(window.wake_at(), Some(60_000));
    assert_eq!(window.ack(0, 1), Acked::Done);
}

#[test]
fn a_lease_that_never_reached_its_client_does_not_count() {
    let mut window = reading(POLICY, &[Some(1), Some(1)]);
    lease(&mut window, 0, 7);
    window.unlease(0, 2);
    assert_eq!(window.figures().outstanding, 1, "another attempt");
    window.unlease(0, 1);
    assert_eq!(window.figures().oldest_unacked, None);
    assert_eq!((ready(&window), window.wake_at()), (vec![0], None));
    assert_eq!(lease(&mut window, 0, 9), 1);
    refuse(&mut window, 0, 1, Some(0), 9);
    lease(&mut window, 0, 9);
    window.unlease(0, 2);
    assert_eq!(window.ready().next().map(|record| record.attempt), Some(2));
}

#[test]
fn a_release_is_no_failure_and_the_next_delivery_has_another_number() {
    let mut window = reading(Policy { max_attempts: Some(1), ..POLICY }, &[Some(1), Some(1), None]);
    lease(&mut window, 0, 0);
    lease(&mut window, 2, 0);
    assert_eq!(window.release(0, 2, None, 5), Refused::Stale, "another attempt");
    assert_eq!(window.release(0, 1, None, 5), Refused::Retry { at: 5 });
    assert_eq!(ready(&window), [0], "in its place, before the next of its key");
    assert_eq!(lease(&mut window, 0, 5), 2);
    assert_eq!(window.release(0, 1, None, 5), Refused::Stale, "it is another's now");
    assert_eq!(window.release(0, 2, Some(1_000), 5), Refused::Retry { at: 1_005 });
    assert_eq!((ready(&window), window.wake_at()), (vec![], Some(1_005)));
    window.tick(1_005);
    assert_eq!(ready(&window), [0]);
    assert_eq!(takeover(&window).next_read(), 0, "a commit tells nothing of it");
    let attempt = lease(&mut window, 0, 1_005);
    assert_eq!(refuse(&mut window, 0, attempt, None, 1_005), Refused::Dead, "the first failure");
    assert_eq!(window.dead().next().map(|dead| dead.attempts), Some(1));
}

#[test]
fn who_releases_again_and_again_waits_and_then_fails() {
    let mut window = reading(Policy { max_attempts: Some(1), ..POLICY }, &[None]);
    let mut now = 0;
    for release in 1..=RELEASES_MAX {
        let attempt = lease(&mut window, 0, now);
        let Refused::Retry { at } = window.release(0, attempt, None, now) else { panic!("release {release}") };
        let wait = match release {
            0..=10 => 0,
            11 => 1_000,
            12 => 2_000,
            _ => 3_000,
        };
        assert_eq!(at - now, wait, "release {release}");
        now = at;
        window.tick(now);
    }
    let attempt = lease(&mut window, 0, now);
    assert_eq!(window.release(0, attempt, None, now), Refused::Dead);
}

#[test]
fn a_key_has_one_record_out_and_others_go_on() {
    let mut window = reading(POLICY, &[Some(1), Some(1), Some(2), None, Some(1)]);
    assert_eq!(ready(&window), [0, 2, 3]);
    assert_eq!(window.figures().blocked, 2);
    lease(&mut window, 0, 0);
    assert_eq!(window.lease(1, 0), None);
    refuse(&mut window, 0, 1, None, 0);
    assert_eq!(ready(&window), [2, 3], "a retry holds its key back");
    window.tick(1_000);
    done(&mut window, 0);
    assert_eq!(ready(&window), [1, 2, 3]);
    done(&mut window, 1);
    assert_eq!(ready(&window), [2, 3, 4]);
}

#[test]
fn a_key_is_free_again_once_all_its_records_are_done() {
    let mut window = reading(POLICY, &[Some(1)]);
    done(&mut window, 0);
    window.read(&[seen(1, 1), seen(2, 1)], 3);
    assert_eq!(ready(&window), [1]);
}

#[test]
fn a_dead_record_holds_its_key_until_it_is_dead_lettered() {
    let mut window = reading(Policy { max_attempts: Some(1), ..POLICY }, &[Some(1), Some(1)]);
    lease(&mut window, 0, 0);
    assert_eq!(refuse(&mut window, 0, 1, Some(0), 0), Refused::Dead);
    assert_eq!(ready(&window), [] as [i64; 0]);
    window.letter_written(0);
    assert_eq!(ready(&window), [] as [i64; 0], "nobody has begun to write its letter");
    assert!(window.begin_letter(0));
    window.letter_written(0);
    assert_eq!((ready(&window), window.base()), (vec![1], 1));
}

#[test]
fn records_without_a_key_wait_for_nobody() {
    let window = reading(POLICY, &[None, None, Some(1), None]);
    assert_eq!(ready(&window), [0, 1, 2, 3]);
}

#[test]
fn an_unordered_group_waits_for_nothing() {
    let window = reading(UNORDERED, &[Some(1), Some(1), Some(1)]);
    assert_eq!(ready(&window), [0, 1, 2]);
}

#[test]
fn the_last_failure_kills_and_the_dead_are_told_until_their_letters_are_begun() {
    let mut window = reading(POLICY, &[None]);
    for (attempt, now) in [(1, 100), (2, 10_000)] {
        assert_eq!(lease(&mut window, 0, now), attempt);
        assert!(matches!(refuse(&mut window, 0, attempt, Some(0), now), Refused::Retry { .. }));
    }
    lease(&mut window, 0, 20_000);
    window.tick(50_000);
    let dead = Dead { offset: 0, attempts: 3, first_delivery: 100, reason: DeathReason::DeadlineExceeded };
    let told = |window: &Window| window.dead().collect::<Vec<_>>();
    assert_eq!(told(&window), std::slice::from_ref(&dead));
    assert!(window.begin_letter(0) && !window.begin_letter(0), "once");
    assert_eq!(told(&window), []);
    assert_eq!((window.base(), window.figures().dead), (0, 1), "not done before it is dead-lettered");
    window.letter_failed(0);
    assert_eq!(told(&window), [dead], "its letter could not be written");
    window.begin_letter(0);
    window.letter_written(0);
    window.letter_failed(0);
    assert_eq!((window.base(), told(&window)), (1, vec![]));
}

#[test]
fn a_refusal_that_kills_tells_its_reason() {
    let mut window = reading(Policy { max_attempts: Some(1), ..POLICY }, &[None]);
    lease(&mut window, 0, 0);
    window.refuse(0, 1, None, Arc::from("bad amount"), 0);
    assert_eq!(window.dead().next().expect("dead").reason, DeathReason::Refused(Arc::from("bad amount")));
}

#[test]
fn dead_records_come_back_when_the_policy_gives_them_attempts() {
    let mut window = reading(Policy { max_attempts: Some(1), ..POLICY }, &[None, None]);
    for offset in [0, 1] {
        lease(&mut window, offset, 0);
        refuse(&mut window, offset, 1, None, 0);
    }
    assert_eq!(window.dead().count(), 2);
    assert!(window.begin_letter(1));
    window.set_policy(FOREVER);
    assert_eq!((ready(&window), window.figures().dead), (vec![0], 1), "the letter of the other is being written");
    assert!(!window.begin_letter(0), "it lives");
    assert_eq!(lease(&mut window, 0, 0), 2);
    window.letter_written(0);
    assert_eq!(window.ack(0, 2), Acked::Done, "a letter that was not begun does not end a lease");
    window.letter_failed(1);
    assert_eq!(ready(&window), [1], "its letter was not written, and now it has attempts");
    assert_eq!((lease(&mut window, 1, 0), window.ack(1, 2), window.base()), (2, Acked::Done, 2));
}

#[test]
fn what_retention_took_is_counted_and_the_next_of_its_key_does_not_wait_for_it() {
    let mut window = reading(POLICY, &[Some(1), Some(2), Some(2), None, Some(3), Some(1)]);
    lease(&mut window, 0, 0);
    assert_eq!(window.lose_below(3, 70, |_| false), 2);
    let skipped = Skipped { total: 2, from: 1, to: 3, at: 70 };
    assert_eq!(window.skipped(), Some(skipped));
    assert_eq!((ready(&window), window.base()), (vec![3, 4], 0), "the receiver of the first may still acknowledge it");
    assert_eq!(window.lose_below(3, 80, |_| false), 0, "counted once");
    assert_eq!(window.lose_below(20, 90, |offset| offset == 4), 2 + 14, "the next of the first's key, too");
    assert_eq!((ready(&window), window.next_read()), (vec![4], 20));
    assert_eq!(window.ack(0, 1), Acked::Done);
    assert_eq!(window.skipped(), Some(Skipped { total: 18, from: 3, to: 20, at: 90 }));
    let heir = takeover(&window);
    assert_eq!((heir.base(), heir.skipped()), (4, window.skipped()), "also by the next dispatcher");
}

#[test]
fn what_was_done_ahead_is_not_lost() {
    let mut window = reading(UNORDERED, &[None; 6]);
    done(&mut window, 2);
    done(&mut window, 4);
    let mut heir = takeover(&window);
    assert_eq!(heir.lose_below(5, 0, |_| false), 3);
    assert_eq!((heir.base(), heir.next_read()), (5, 5));
}

#[test]
fn a_lower_limit_of_attempts_kills_at_the_next_failure() {
    let mut window = reading(POLICY, &[None]);
    for attempt in [1, 2] {
        lease(&mut window, 0, 0);
        refuse(&mut window, 0, attempt, Some(0), 0);
    }
    window.set_policy(Policy { max_attempts: Some(1), ..POLICY });
    assert_eq!(lease(&mut window, 0, 0), 3);
    assert_eq!(refuse(&mut window, 0, 3, None, 0), Refused::Dead);
}

#[test]
fn the_ordering_of_a_window_does_not_change() {
    let mut window = reading(POLICY, &[Some(1)]);
    window.set_policy(UNORDERED);
    window.read(&[seen(1, 1)], 2);
    assert_eq!(ready(&window), [0]);
}

#[test]
fn records_of_another_group_are_done_without_a_delivery() {
    let mut window = reading(POLICY, &[Some(1), Some(1), Some(1), Some(2)]);
    window.pass(1);
    window.pass(3);
    assert_eq!(ready(&window), [0]);
    done(&mut window, 0);
    assert_eq!((ready(&window), window.base()), (vec![2], 2));
    window.pass(2);
    assert_eq!(window.base(), 4);
}

#[test]
fn a_chain_goes_on_behind_a_passed_end() {
    let mut window = reading(POLICY, &[Some(1), Some(1)]);
    window.pass(1);
    window.read(&[seen(2, 1)], 3);
    assert_eq!(ready(&window), [0]);
    done(&mut window, 0);
    assert_eq!(ready(&window), [2]);
}

#[test]
fn a_full_window_takes_no_more_offsets_and_goes_on_once_an_eighth_is_free() {
    let bounds = Bounds { offsets_max: 16, bytes_max: u64::MAX };
    let mut window = Window::start_at(0, POLICY, bounds);
    let records: Vec<Seen> = (0..40).map(|offset| seen(offset, None)).collect();
    assert!(window.has_room());
    assert_eq!(window.read(&records, 40), 16);
    assert!(!window.has_room());
    done(&mut window, 0);
    assert!(!window.has_room(), "one is too few to read for");
    done(&mut window, 1);
    assert!(window.has_room());
    assert_eq!(window.read(&records[16..], 40), 18);
}

#[test]
fn a_full_window_takes_no_more_bytes() {
    let bounds = Bounds { offsets_max: 100, bytes_max: 100 };
    let mut window = Window::start_at(0, POLICY, bounds);
    let records: Vec<Seen> = (0..9).map(|offset| Seen { offset, key: None, bytes: 40 }).collect();
    assert_eq!(window.read(&records, 9), 3, "the record that crosses the bound is taken");
    assert!(!window.has_room());
    done(&mut window, 2);
    assert_eq!((window.has_room(), window.figures().bytes), (true, 80));
    let huge = Seen { offset: 3, key: None, bytes: 1_000 };
    assert_eq!(window.read(&[huge], 4), 4);
}

#[test]
fn a_gap_wider_than_the_window_waits_for_the_base() {
    let bounds = Bounds { offsets_max: 10, bytes_max: u64::MAX };
    let mut window = Window::start_at(0, POLICY, bounds);
    assert_eq!(window.read(&[seen(0, None), seen(1_000_000, None)], 1_000_001), 10);
    assert!(!window.has_room());
    done(&mut window, 0);
    assert_eq!((window.base(), window.has_room()), (10, true));
    assert_eq!(window.read(&[seen(1_000_000, None)], 1_000_001), 1_000_001);
    assert_eq!(window.base(), 1_000_000);
}

#[test]
fn figures_tell_where_records_stand() {
    let mut window = reading(Policy { max_attempts: Some(1), ..POLICY }, &[Some(1), Some(1), None, None, None, None]);
    done(&mut window, 3);
    lease(&mut window, 2, 70);
    lease(&mut window, 4, 50);
    refuse(&mut window, 4, 1, None, 60);
    window.set_policy(POLICY);
    lease(&mut window, 4, 80);
    refuse(&mut window, 4, 2, None, 80);
    let expected = Figures {
        window_offsets: 6,
        outstanding: 1,
        delayed: 1,
        blocked: 1,
        acked_ahead: 1,
        ready: 2,
        dead: 0,
        bytes: 5,
        oldest_unacked: Some((2, 70)),
    };
    assert_eq!(window.figures(), expected);
}

#[test]
fn an_idle_window_is_tiny() {
    assert!(size_of::<Window>() <= 512, "{}", size_of::<Window>());
    assert!(size_of::<slots::Slot>() <= 40);
    let keys: Vec<Option<u64>> = (0..1_000).map(|offset| Some(offset % 500)).collect();
    let mut window = reading(POLICY, &keys);
    for offset in 0..1_000 {
        done(&mut window, offset);
    }
    assert_eq!((window.slots.capacity(), window.keys.capacity()), (0, 0));
}
