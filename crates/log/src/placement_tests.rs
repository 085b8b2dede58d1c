//! Which spans make a placement, and which placement may follow another.

use sluice_types::{ClusterUid, LogUid, TopicUid, Uid};

use crate::*;

const CLUSTER: ClusterUid = ClusterUid::from_uid(Uid::from_u64(1));
const OTHER: ClusterUid = ClusterUid::from_uid(Uid::from_u64(2));

fn log(number: u64) -> LogUid {
    LogUid::from_uid(Uid::from_u64(number))
}

fn at(offset: i64) -> LogicalOffset {
    LogicalOffset::new(offset).expect("an offset")
}

fn place(number: u64, delta: i64) -> Place {
    Place::Cluster(ClusterLog { cluster: CLUSTER, log: log(number), delta })
}

fn span(start: i64, end: impl Into<Option<i64>>, place: Place) -> Span {
    Span { start: at(start), end: end.into().map(at), place }
}

fn epoch(value: i64) -> Epoch {
    Epoch::new(value).expect("an epoch")
}

/// A topic that moved to log 9, with these spans of its first partitions.
fn placed(moved: Vec<Vec<Span>>) -> Result<Placement, PlacementError> {
    Placement::new(epoch(1), CLUSTER, log(9), moved)
}

#[test]
fn a_topic_that_never_moved_has_one_span_and_the_offsets_of_its_log() {
    let topic = TopicUid::random();
    let placement = Placement::unmoved(CLUSTER, LogUid::first_of(topic));
    assert_eq!(placement.epoch(), Epoch::FIRST);
    assert_eq!(placement.moved().len(), 0);
    for partition in [0, 1, i32::MAX] {
        let spans = placement.spans(partition);
        assert_eq!(spans.all().len(), 1);
        let span = spans.open();
        assert_eq!(span.physical(at(77)).map(PhysicalOffset::get), Some(77));
        assert_eq!(placement.appends(), (CLUSTER, LogUid::first_of(topic)));
    }
    assert_eq!(Placement::new(Epoch::FIRST, CLUSTER, LogUid::first_of(topic), vec![]), Ok(placement));
}

#[test]
fn a_partition_added_after_a_move_begins_in_the_log_that_takes_appends() {
    let placement = placed(vec![vec![span(0, 7, place(1, 0)), span(7, None, place(9, 7))]]).expect("a placement");
    let added = placement.spans(1);
    assert_eq!(added.all(), [span(0, None, place(9, 0))]);
}

#[test]
fn spans_that_make_no_placement_are_refused() {
    use PlacementError::*;
    let open = |start| span(start, None, place(9, start));
    let cases = [
        (vec![], NoSpan { partition: 0 }),
        (vec![span(0, 7, place(1, 0)), open(8)], NotContiguous { partition: 0, span: 1 }),
        (vec![span(0, 7, place(1, 0)), open(6)], NotContiguous { partition: 0, span: 1 }),
        (vec![span(4, 4, place(1, 0)), open(4)], Empty { partition: 0, span: 0 }),
        (vec![span(4, 3, place(1, 0)), open(3)], Empty { partition: 0, span: 0 }),
        (vec![span(0, None, place(1, 0)), open(0)], Open { partition: 0, span: 0 }),
        (vec![span(0, 7, place(9, 0))], Open { partition: 0, span: 0 }),
        (vec![span(0, 7, place(1, 0)), span(7, None, place(8, 0))], NotInTheLog { partition: 0 }),
        (vec![span(0, None, Place::Tier)], NotInTheLog { partition: 0 }),
        (vec![span(0, 7, place(9, 0)), open(7)], SameLog { partition: 0, span: 1 }),
        (vec![span(3, 7, place(1, 4)), open(7)], OutOfReach { partition: 0, span: 0 }),
        (vec![span(3, i64::MAX, place(1, -4)), open(i64::MAX)], OutOfReach { partition: 0, span: 0 }),
    ];
    for (spans, error) in cases {
        assert_eq!(placed(vec![spans.clone()]), Err(error), "{spans:?}");
    }
    assert_eq!(Placement::new(crate::Epoch::FIRST, CLUSTER, log(9), vec![vec![open(0)]]), Err(NeverMoved));
    let many = vec![vec![open(0)]; SPANS_MAX + 1];
    assert_eq!(placed(many), Err(TooMany(SPANS_MAX + 1)));
}

#[test]
fn an_epoch_only_grows() {
    let before = Placement::new(epoch(4), CLUSTER, log(9), vec![]).expect("a placement");
    let after = |number| Placement::new(epoch(number), CLUSTER, log(9), vec![]).expect("a placement");
    assert_eq!(before.check_next(&after(5), 1), Ok(()));
    assert_eq!(before.check_next(&before, 1), Ok(()), "the same again");
    let known = epoch(4);
    assert_eq!(before.check_next(&after(3), 1), Err(PlacementError::Epoch { known, next: epoch(3) }));
    let other = Placement::new(known, OTHER, log(9), vec![]).expect("a placement");
    assert_eq!(
        before.check_next(&other, 1),
        Err(PlacementError::Epoch { known, next: known }),
        "another of the same epoch"
    );
}

#[test]
fn a_topic_that_moves_keeps_the_meaning_of_its_offsets() {
    let before = Placement::unmoved(CLUSTER, log(1));
    let moved = |delta, end| {
        let spans = vec![span(0, end, place(1, delta)), span(end, None, place(9, end))];
        placed(vec![spans.clone(), spans]).expect("a placement")
    };
    assert_eq!(before.check_next(&moved(0, 7), 2), Ok(()));
    assert_eq!(before.check_next(&moved(-1, 7), 2), Err(PlacementError::Meaning { partition: 0 }));
    assert_eq!(before.check_next(&moved(0, 7), 3), Err(PlacementError::Unnamed { partition: 2 }));
    // Appends that went on at 7 do not go on at 6.
    let back = Placement::new(
        epoch(2),
        CLUSTER,
        log(8),
        vec![vec![
            span(0, 6, Place::Tier),
            span(6, None, Place::Cluster(ClusterLog { cluster: CLUSTER, log: log(8), delta: 6 })),
        ]],
    );
    assert_eq!(moved(0, 7).check_next(&back.expect("a placement"), 1), Err(PlacementError::Meaning { partition: 0 }));
}
