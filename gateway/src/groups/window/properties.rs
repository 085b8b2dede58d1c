//! Random histories of a partition, with crashes, commits that may have arrived, and metadata of any kind.
//! `PROPTEST_CASES` makes the run longer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::Index;

use super::history::{History, Step};
use super::model::{Log, Record, START};
use super::*;

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let pick = any::<Index>;
    let step = prop_oneof![
        6 => (1..30i64).prop_map(Step::Read),
        20 => pick().prop_map(Step::Lease),
        1 => pick().prop_map(Step::LeaseAny),
        1 => pick().prop_map(Step::Unlease),
        14 => pick().prop_map(Step::Ack),
        6 => (pick(), option::of(0..300i64)).prop_map(|(lease, delay)| Step::Refuse(lease, delay)),
        6 => (pick(), option::of(0..300i64)).prop_map(|(lease, delay)| Step::Release(lease, delay)),
        1 => (pick(), 1..400i64).prop_map(|(lease, time)| Step::Extend(lease, time)),
        6 => (0..250i64).prop_map(Step::Wait),
        2 => Just(Step::BeginLetters),
        2 => pick().prop_map(Step::WriteLetter),
        1 => pick().prop_map(Step::FailLetter),
        1 => option::of(1..4u32).prop_map(Step::SetMaxAttempts),
        4 => Just(Step::Snapshot),
        3 => pick().prop_map(Step::Committed),
        1 => pick().prop_map(Step::Crash),
    ];
    vec(step, 1..200)
}

fn logs() -> impl Strategy<Value = Log> {
    let record = (option::weighted(0.8, 0..4u64), 0..100u32, prop::bool::weighted(0.1))
        .prop_map(|(key, bytes, foreign)| vec![Some(Record { key, bytes, foreign })]);
    let gap = (1..40usize).prop_map(|length| vec![None; length]);
    vec(prop_oneof![12 => record, 1 => gap], 1..80).prop_map(|parts| Log(parts.concat()))
}

fn policies() -> impl Strategy<Value = Policy> {
    (any::<bool>(), option::of(1..4u32), 0..100i64).prop_map(|(key_ordered, max_attempts, backoff_min_ms)| Policy {
        key_ordered,
        ack_deadline_ms: 200,
        max_attempts,
        backoff_min_ms,
        backoff_max_ms: 150,
    })
}

fn bounds() -> impl Strategy<Value = Bounds> {
    let narrow = (1..60i64, 1..2_000u64).prop_map(|(offsets_max, bytes_max)| Bounds { offsets_max, bytes_max });
    prop_oneof![Just(Bounds::default()), narrow]
}

/// Metadata before it is sealed, near enough to ours to be read now and then.
fn bodies() -> impl Strategy<Value = Vec<u8>> {
    vec(prop_oneof![4 => 0..6u8, 1 => any::<u8>()], 0..60)
}

proptest! {
    #[test]
    fn any_history_keeps_the_promises(log in logs(), policy in policies(), bounds in bounds(), steps in steps()) {
        let mut history = History::new(log, policy, bounds);
        for step in &steps {
            history.step(step)?;
        }
        history.drain()?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases.div_ceil(16)))]

    #[test]
    fn the_widest_window_survives_a_takeover(
        acked in 0..100u32,
        failed in 0..100u32,
        seed: u64,
        most in 1..12u32,
    ) {
        let policy =
            Policy { key_ordered: false, ack_deadline_ms: 1, max_attempts: None, backoff_min_ms: 0, backoff_max_ms: 0 };
        let mut window = Window::start_at(START, policy, Bounds::default());
        let end = START + Bounds::default().offsets_max;
        let records: Vec<Seen> = (START..end).map(|offset| Seen { offset, key: None, bytes: 1 }).collect();
        prop_assert_eq!(window.read(&records, end), end);
        prop_assert!(!window.has_room());
        let (mut done, mut failures) = (BTreeSet::new(), BTreeMap::new());
        // The first record is never done: the window stays where it is.
        for offset in START..end {
            let random = blend(seed ^ offset as u64);
            if offset > START && (random % 100) < u64::from(acked) {
                window.lease(offset, 0);
                window.ack(offset, 1);
                done.insert(offset);
            } else if (random >> 8) % 100 < u64::from(failed) {
                let times = 1 + ((random >> 16) % u64::from(most)) as u32;
                for attempt in 1..=times {
                    window.lease(offset, 0);
                    window.refuse(offset, attempt, Some(0), Arc::from(""), 0);
                }
                failures.insert(offset, times);
            }
        }
        let Snapshot { offset, metadata, .. } = window.current();
        prop_assert!(metadata.len() <= 4_096);
        let (mut heir, restored) = Window::restore(offset, &metadata, policy, Bounds::default(), 0);
        let Restored::Read { acks, attempts } = restored else { panic!("unreadable") };
        prop_assert_eq!(acks, done.len());
        prop_assert!(attempts == failures.len() || metadata.len() > 4_080, "room was left");
        heir.read(&records, end);
        let kept: BTreeMap<i64, u32> = failures.into_iter().take(attempts).collect();
        let mut offered = BTreeSet::new();
        for record in heir.ready() {
            prop_assert_eq!(record.attempt, kept.get(&record.offset).map_or(1, |failures| failures + 1));
            offered.insert(record.offset);
        }
        prop_assert!(offered.is_disjoint(&done));
        prop_assert_eq!(offered.len() + done.len(), records.len());
    }

    #[test]
    fn any_metadata_leaves_a_window_that_works(offset in 0..i64::MAX / 2, text: String, body in bodies()) {
        for text in [text, metadata::seal(1, offset, &body), metadata::seal(2, offset, &body)] {
            let policy = Policy {
                key_ordered: true, ack_deadline_ms: 1, max_attempts: None, backoff_min_ms: 0, backoff_max_ms: 0,
            };
            let (mut window, _) = Window::restore(offset, &text, policy, Bounds::default(), 0);
            let end = offset + 25_000;
            while window.base() < end {
                let from = window.next_read();
                let is_there = |distance| distance < 100 || distance % 500 == 0;
                let records: Vec<Seen> = (from..end)
                    .filter(|place| is_there(place - offset))
                    .map(|offset| Seen { offset, key: Some(offset as u64 % 3), bytes: 1 })
                    .collect();
                window.read(&records, end);
                window.tick(i64::MAX);
                let ready: Vec<Ready> = window.ready().collect();
                for record in ready {
                    window.lease(record.offset, 0);
                    prop_assert_eq!(window.ack(record.offset, record.attempt), Acked::Done);
                }
            }
            prop_assert!(window.base() >= end);
        }
    }
}

/// A cheap hash (the finalizer of splitmix64).
fn blend(seed: u64) -> u64 {
    let seed = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let seed = (seed ^ (seed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    seed ^ (seed >> 31)
}
