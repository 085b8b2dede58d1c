//! Batches as a tail gives them, and what readers are told.

use bytes::Bytes;
use prost::Message as _;
use sluice_proto::internal::control::v1::control_record::Resource;
use sluice_proto::internal::control::v1::{ControlRecord, TenantState};
use sluice_wire::{Record, TailState, TimestampType};
use tokio::time::Instant;

use super::*;
use crate::marker::tests::{LOG, OTHER, answering, said_of};

/// A reader of tenants' ids.
type Id = String;

impl Carried for Id {
    fn read(_: &Bytes, record: Option<ControlRecord>) -> Option<Self> {
        match record?.resource? {
            Resource::Tenant(tenant) => Some(tenant.id),
            _ => None,
        }
    }
}

fn state(uid: &str, version: i64, id: &str) -> Record {
    let resource = Some(Resource::Tenant(TenantState { id: id.into(), ..TenantState::default() }));
    let value = ControlRecord { version, resource, ..ControlRecord::default() }.encode_to_vec();
    Record {
        offset: 0,
        timestamp_ms: 1,
        timestamp_type: TimestampType::LogAppendTime,
        key: Some(uid.to_owned().into()),
        value: Some(value.into()),
        headers: Vec::new(),
    }
}

/// All that is in the log, from this offset on.
fn batch(from: i64, records: Vec<Record>) -> TailBatch {
    let records: Vec<Record> = (from..).zip(records).map(|(offset, record)| Record { offset, ..record }).collect();
    let end = from + records.len() as i64;
    TailBatch {
        records,
        position: end,
        end_offset: end,
        log_start_offset: 0,
        as_of: Some(Instant::now()),
        state: TailState::Reading,
    }
}

fn following(log: Option<KafkaTopicId>) -> Following<Id> {
    Following::new(log, Marker::default())
}

fn ids(changes: &[Change<Id>]) -> Vec<(&str, i64, Option<&str>)> {
    changes.iter().map(|change| (change.uid.as_str(), change.offset, change.now.as_deref())).collect()
}

fn held(whole: Option<WholeLog<Id>>) -> Vec<(String, i64, Id)> {
    let mut held: Vec<_> = whole.expect("a whole log").into_states().collect();
    held.sort();
    held
}

#[test]
fn records_are_given_out_as_they_come_and_what_is_of_no_use_is_passed_over() {
    let mut reader = following(None);
    let unreadable = Record { value: Some(Bytes::from_static(b"\xff")), ..state("c", 1, "") };
    let gone = Record { value: None, ..state("a", 0, "") };
    let nameless = Record { key: None, ..state("", 1, "d") };
    let step = reader.take(Some(LOG), batch(4, vec![state("a", 1, "x"), unreadable, nameless, gone]));
    assert_eq!(ids(&step.changes), [("a", 4, Some("x")), ("a", 7, None)]);
    assert_eq!((step.new_log, step.whole.is_none(), step.batch.records.len()), (Some(LOG), true, 0));
    assert_eq!(step.batch.position, 8);
    let step = reader.take(Some(LOG), batch(8, vec![state("b", 1, "y")]));
    assert_eq!((step.new_log, ids(&step.changes)), (None, vec![("b", 8, Some("y"))]));
}

#[test]
fn a_log_is_complete_from_its_record_until_that_is_gone() {
    let mut reader = following(Some(LOG));
    reader.take(Some(LOG), batch(0, vec![said_of(OTHER, 1)]));
    assert_eq!(reader.complete, None, "said of another log");
    reader.take(Some(LOG), batch(1, vec![said_of(LOG, 1), said_of(OTHER, 1)]));
    assert_eq!(reader.complete, Some(1), "what does not count takes nothing back");
    reader.lost_before(1);
    assert_eq!(reader.complete, Some(1));
    reader.lost_before(2);
    assert_eq!(reader.complete, None, "it was cut off at its beginning");
    reader.take(Some(LOG), batch(3, vec![said_of(LOG, 1)]));
    assert_eq!(reader.complete, Some(3));
    reader.take(Some(LOG), batch(4, vec![Record { value: None, ..said_of(LOG, 1) }]));
    assert_eq!(reader.complete, None);
}

#[test]
fn a_log_that_is_read_anew_comes_all_at_once_when_it_was_read_to_its_end_and_is_complete() {
    let mut reader = following(Some(LOG));
    reader.take(Some(LOG), batch(0, vec![state("a", 7, "newer"), said_of(LOG, 5)]));
    reader.begin_again(false);
    let step = reader.take(Some(OTHER), batch(0, vec![state("a", 2, "x"), state("b", 1, "y"), state("c", 1, "z")]));
    assert_eq!(step.new_log, Some(OTHER));
    assert!(step.changes.is_empty() && step.whole.is_none(), "it may be filled still");
    let later = vec![
        state("a", 1, "late"),
        state("b", 2, "y2"),
        Record { value: None, ..state("c", 0, "") },
        said_of(OTHER, 6),
    ];
    let behind = TailBatch { end_offset: 9, ..batch(3, later) };
    assert!(reader.take(Some(OTHER), behind).whole.is_none(), "it was not read to its end");
    let step = reader.take(Some(OTHER), batch(7, vec![state("d", 1, "w")]));
    let all = [("a", 2, "x"), ("b", 2, "y2"), ("d", 1, "w")].map(|(uid, v, id)| (uid.to_owned(), v, id.to_owned()));
    assert_eq!(held(step.whole), all);
    let step = reader.take(Some(OTHER), batch(8, vec![state("a", 3, "x3")]));
    assert_eq!(ids(&step.changes), [("a", 8, Some("x3"))], "and it is followed from there on");
}

#[test]
fn after_a_loss_what_was_said_before_does_not_count() {
    let mut reader = following(Some(LOG));
    reader.take(Some(LOG), batch(0, vec![said_of(LOG, 5), Record { timestamp_ms: 9, ..state("a", 2, "x") }]));
    reader.begin_again(true);
    let wait = reader.marker.wait().expect("a wait").to_owned();
    let old = || vec![state("a", 1, "w"), said_of(LOG, 5)];
    assert!(reader.take(Some(LOG), batch(0, old())).whole.is_none());
    assert!(reader.take(Some(LOG), batch(2, vec![said_of(LOG, 9)])).whole.is_none());
    let whole = reader.take(Some(LOG), batch(3, vec![answering(vec![wait], LOG, 2)])).whole;
    assert_eq!(held(whole), [("a".to_owned(), 1, "w".to_owned())]);
    assert_eq!(reader.marker.wait(), None);

    reader.begin_again(true);
    assert!(reader.take(Some(LOG), batch(0, old())).whole.is_none());
    assert!(
        reader.take(Some(LOG), batch(2, vec![said_of(LOG, 10)])).whole.is_some(),
        "appended after all that was read"
    );
}

#[test]
fn losses_of_a_log_do_not_matter_for_the_one_that_replaces_it() {
    let mut reader = following(Some(LOG));
    reader.take(Some(LOG), batch(0, vec![Record { timestamp_ms: 9, ..state("a", 2, "x") }]));
    reader.begin_again(true);
    let step = reader.take(Some(OTHER), batch(0, vec![said_of(OTHER, 3)]));
    assert_eq!((step.new_log, held(step.whole)), (Some(OTHER), vec![]));
}
