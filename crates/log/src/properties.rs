//! Any cut into spans, any delta: what readers, waits, coverage and positions see is what one uncut log would show.

use std::collections::{BTreeMap, HashMap};

use proptest::prelude::*;
use sluice_types::{ClusterUid, LogUid, TopicUid, Uid};

use crate::*;

/// A record, by a number that no other has.
type Id = u64;

/// How a partition is cut: its first offset, its closed spans and the open one.
#[derive(Debug, Clone)]
struct Plan {
    first: i64,
    spans: Vec<Piece>,
}

#[derive(Debug, Clone)]
struct Piece {
    len: i64,
    /// The physical offset of the span's first record.
    physical: i64,
    /// Records in its log that were appended behind the span's end.
    late: i64,
    /// Records of the log or the tier that retention deleted, from the first on.
    trimmed: i64,
    place: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Log,
    Tier,
    Deleted,
}

fn piece() -> impl Strategy<Value = Piece> {
    let kind = prop_oneof![6 => Just(Kind::Log), 2 => Just(Kind::Tier), 1 => Just(Kind::Deleted)];
    (1..5_i64, 0..40_i64, 0..3_i64, prop_oneof![2 => Just(0), 1 => 0..50_i64], kind)
        .prop_map(|(len, physical, late, trimmed, place)| Piece { len, physical, late, trimmed, place })
}

fn plan() -> impl Strategy<Value = Plan> {
    let open = (0..5_i64, 0..40_i64, prop_oneof![2 => Just(0), 1 => 0..50_i64])
        .prop_map(|(len, physical, trimmed)| Piece { len, physical, late: 0, trimmed, place: Kind::Log });
    (0..20_i64, prop::collection::vec(piece(), 0..6), open).prop_map(|(first, mut spans, open)| {
        spans.push(open);
        Plan { first, spans }
    })
}

fn logical(value: i64) -> LogicalOffset {
    LogicalOffset::new(value).expect("an offset")
}

fn physical(value: i64) -> PhysicalOffset {
    PhysicalOffset::new(value).expect("an offset")
}

fn cluster() -> ClusterUid {
    ClusterUid::from_uid(Uid::from_u64(1))
}

fn log_of(index: usize) -> LogUid {
    LogUid::from_uid(Uid::from_u64(index as u64))
}

/// The places with what they hold, and beside them the naive model: every record under its logical offset.
#[derive(Debug)]
struct World {
    placement: Placement,
    /// By log: what lies at which physical offset, also what is not in the topic.
    logs: HashMap<LogUid, BTreeMap<i64, Id>>,
    tier: BTreeMap<i64, Id>,
    extents: Vec<Extent>,
    /// All records that were ever in the topic.
    model: BTreeMap<i64, Id>,
    /// Those of them that are left.
    left: BTreeMap<i64, Id>,
    first: i64,
    end: i64,
}

impl World {
    fn new(plan: &Plan) -> Self {
        let (mut ids, mut start) = (1.., plan.first);
        let (mut logs, mut tier) = (HashMap::new(), BTreeMap::new());
        let (mut spans, mut extents) = (Vec::new(), Vec::new());
        let (mut model, mut left) = (BTreeMap::new(), BTreeMap::new());
        for (index, piece) in plan.spans.iter().enumerate() {
            let end = start + piece.len;
            let mine: BTreeMap<i64, Id> = (start..end).zip(ids.by_ref()).collect();
            let mut log: BTreeMap<i64, Id> = (0..piece.physical).zip(ids.by_ref()).collect();
            log.extend(mine.iter().map(|(offset, id)| (offset - start + piece.physical, *id)));
            let log_end = piece.physical + piece.len + piece.late;
            log.extend((piece.physical + piece.len..log_end).zip(ids.by_ref()));
            let log_start = piece.trimmed.min(log_end);
            log.retain(|offset, _| *offset >= log_start);
            model.extend(&mine);
            let (place, extent) = match piece.place {
                Kind::Tier => {
                    let trimmed = start + piece.trimmed.min(piece.len);
                    tier.extend(mine.range(trimmed..));
                    left.extend(mine.range(trimmed..));
                    (Place::Tier, Extent::Tier { start: logical(trimmed), end: logical(end) })
                }
                kind => {
                    let delta = start - piece.physical;
                    let extent = match kind {
                        Kind::Deleted => {
                            log.clear();
                            Extent::Gone
                        }
                        _ => Extent::Log { start: physical(log_start), end: physical(log_end) },
                    };
                    left.extend(mine.iter().filter(|(offset, _)| log.contains_key(&(*offset - delta))));
                    (Place::Cluster(ClusterLog { cluster: cluster(), log: log_of(index), delta }), extent)
                }
            };
            logs.insert(log_of(index), log);
            let is_open = index + 1 == plan.spans.len();
            spans.push(Span { start: logical(start), end: (!is_open).then(|| logical(end)), place });
            extents.push(extent);
            start = end;
        }
        let last = log_of(plan.spans.len() - 1);
        let epoch = Epoch::new(1).expect("positive");
        let placement = Placement::new(epoch, cluster(), last, vec![spans]).expect("a placement");
        Self { placement, logs, tier, extents, model, left, first: plan.first, end: start }
    }

    fn spans(&self) -> Spans<'_> {
        self.placement.spans(0)
    }

    /// What the place of `part` gives, at most `budget` records: as a fetch does, also of what lies behind the span's end.
    fn read(&self, part: &Part, budget: usize) -> Vec<(LogicalOffset, Id)> {
        match part.place {
            Place::Tier => {
                let end = part.end.expect("the tier's spans are closed").get();
                self.tier.range(part.start.get()..end).take(budget).map(|(&at, &id)| (logical(at), id)).collect()
            }
            Place::Cluster(log) => {
                let stretch = part.stretch().expect("in a log");
                let fetched = self.logs[&log.log].range(stretch.start.get()..).take(budget);
                let within = fetched.filter(|(at, _)| stretch.end.is_none_or(|end| **at < end.get()));
                within.map(|(&at, &id)| (log.logical(physical(at)).expect("an offset"), id)).collect()
            }
        }
    }

    /// Where a reader at `offset` ends that asks place after place.
    fn resolve(&self, offset: i64) -> Onward {
        let mut index = self.spans().read(logical(offset)).map_or(0, |part| part.index);
        loop {
            match self.spans().onward(index, logical(offset), self.extents[index]) {
                Onward::Ask(next) => {
                    assert!(next > index, "a reader goes on, never back");
                    index = next;
                }
                found => return found,
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn a_reader_crosses_spans_and_sees_one_log(plan in plan(), from in 0..30_i64, budget in 1..4_usize) {
        let world = World::new(&plan);
        let mut at = logical(world.first + from);
        let mut seen = Vec::new();
        while at.get() < world.end {
            match world.resolve(at.get()) {
                Onward::Here => {}
                Onward::OutOfRange { first } => { at = first; continue }
                other => prop_assert!(false, "{other:?} at {at}"),
            }
            let part = world.spans().read(at).expect("not before the first span");
            let records = world.read(&part, budget);
            prop_assert!(!records.is_empty(), "the place had it");
            for (offset, id) in records {
                prop_assert_eq!(offset, at);
                seen.push((offset.get(), id));
                at = at.checked_add(1).expect("an offset");
            }
        }
        let expected: Vec<_> = world.left.range(world.first + from..).map(|(&at, &id)| (at, id)).collect();
        prop_assert_eq!(seen, expected);
    }

    #[test]
    fn a_wait_at_the_end_gets_the_next_record(plan in plan(), id in any::<Id>()) {
        let mut world = World::new(&plan);
        let part = world.spans().read(logical(world.end)).expect("the open span");
        prop_assert_eq!(part.end, None);
        prop_assert_eq!(world.read(&part, 1), vec![]);
        let log = part.place.cluster_log().expect("appends go to a log");
        let at = part.stretch().expect("in a log").start;
        let cleared = world.logs.get_mut(&log.log).expect("a log");
        prop_assert!(cleared.last_key_value().is_none_or(|(last, _)| last + 1 == at.get()), "it waits at the log's end");
        cleared.insert(at.get(), id);
        prop_assert_eq!(world.read(&part, 1), vec![(logical(world.end), id)]);
    }

    #[test]
    fn what_is_gone_is_out_of_range_with_the_first_that_is_left(plan in plan(), ahead in 0..3_i64) {
        let world = World::new(&plan);
        for offset in 0..=world.end + ahead {
            let expected = match world.left.range(offset..).next() {
                Some((&first, _)) if first == offset => Onward::Here,
                Some((&first, _)) => Onward::OutOfRange { first: logical(first) },
                None if offset >= world.end => Onward::AtEnd { end: logical(world.end) },
                None => Onward::OutOfRange { first: logical(world.end) },
            };
            prop_assert_eq!(world.resolve(offset), expected, "at {}", offset);
        }
    }

    #[test]
    fn the_bounds_are_those_of_what_is_left(plan in plan()) {
        let world = World::new(&plan);
        let start = world.left.first_key_value().map_or(world.end, |(&first, _)| first);
        let expected = Bounds { start: logical(start), end: logical(world.end) };
        prop_assert_eq!(world.spans().bounds(&world.extents), Some(expected));
        prop_assert_eq!(world.spans().bounds(&world.extents[1..]), None);
    }

    #[test]
    fn coverage_is_cut_without_holes_and_means_the_same_records(plan in plan(), from in 0..60_i64, len in 0..40_i64) {
        let world = World::new(&plan);
        let mut at = from.max(world.first);
        for part in world.spans().cut(logical(from)..logical(from + len)) {
            prop_assert_eq!(part.start.get(), at);
            let end = part.end.expect("the range has an end");
            at = end.get();
            let (Some(log), Some(stretch)) = (part.place.cluster_log(), part.stretch()) else { continue };
            let stretch = stretch.start.get()..stretch.end.expect("the range has an end").get();
            prop_assert_eq!(stretch.end - stretch.start, end.get() - part.start.get());
            let there: BTreeMap<i64, Id> =
                world.logs[&log.log].range(stretch).map(|(&at, &id)| (at + log.delta, id)).collect();
            let expected: BTreeMap<i64, Id> =
                world.left.range(part.start.get()..end.get()).map(|(&at, &id)| (at, id)).collect();
            prop_assert_eq!(there, expected);
        }
        prop_assert_eq!(at, (from + len).max(from.max(world.first)));
    }

    #[test]
    fn an_acknowledgement_counts_only_inside_its_span(plan in plan()) {
        let world = World::new(&plan);
        for (&log, records) in &world.logs {
            let known = world.spans().all().iter().any(|s| s.place.cluster_log().is_some_and(|at| at.log == log));
            for (&at, id) in records {
                let inside = world.model.iter().find(|(_, known)| *known == id);
                let expected = match inside {
                    _ if !known => Acknowledged::Unknown,
                    Some((&offset, _)) => Acknowledged::Inside(logical(offset)),
                    None => Acknowledged::Outside,
                };
                prop_assert_eq!(world.spans().acknowledged(cluster(), log, physical(at)), expected);
            }
        }
    }

    #[test]
    fn a_position_is_the_same_after_both_translations(plan in plan()) {
        let world = World::new(&plan);
        for offset in (world.first..=world.end).map(logical) {
            let part = world.spans().read(offset).expect("not before the first span");
            let span = &world.spans().all()[part.index];
            prop_assert!(span.holds(offset));
            let Some(there) = span.physical(offset) else {
                prop_assert_eq!(part.place, Place::Tier);
                continue;
            };
            prop_assert_eq!(Some(there), part.stretch().map(|stretch| stretch.start));
            prop_assert_eq!(span.logical(there), Some(offset));
        }
    }

    #[test]
    fn a_placement_is_read_from_the_control_log_as_it_was_written(plan in plan()) {
        let world = World::new(&plan);
        let record = world.placement.record();
        prop_assert_eq!(Placement::of_record(Some(&record), TopicUid::from_uid(Uid::from_u64(1))), Ok(world.placement));
    }

    #[test]
    fn no_number_overflows(delta in any::<i64>(), offset in 0..=i64::MAX, start in 0..=i64::MAX, end in 0..=i64::MAX) {
        let log = ClusterLog { cluster: cluster(), log: log_of(0), delta };
        let wide = i128::from(offset) - i128::from(delta);
        let expected = i64::try_from(wide).ok().filter(|wide| *wide >= 0);
        prop_assert_eq!(log.physical(logical(offset)).map(PhysicalOffset::get), expected);
        let wide = i128::from(offset) + i128::from(delta);
        let expected = i64::try_from(wide).ok().filter(|wide| *wide >= 0);
        prop_assert_eq!(log.logical(physical(offset)).map(LogicalOffset::get), expected);
        let spans = [Span { start: LogicalOffset::ZERO, end: None, place: Place::Cluster(log) }];
        let extent = Extent::Log { start: physical(start.min(end)), end: physical(end) };
        let bounds = Spans::new(&spans).bounds(&[extent]).expect("one answer for one span");
        let nearest = |at: i64| (i128::from(at) + i128::from(delta)).clamp(0, i128::from(i64::MAX));
        let seen = (i128::from(bounds.start.get()), i128::from(bounds.end.get()));
        prop_assert_eq!(seen, (nearest(start.min(end)), nearest(end)));
    }
}
