//! Which item is worked on next: places apart, in each place the tenants in turn, of each first come first served, each item at most
//! once at a time, failing ones after a pause.
//!
//! It holds no truth. An item that is refused here (running, pausing, no room) is offered again by the next poll or round, always
//! with its newest intent. So one bad item costs its own retries and nothing else.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use crate::item::Item;

/// Items that wait for a run in one place; more are refused and come again.
const READY_MAX: usize = 10_000;
/// Pause after the first failure; doubles with every further one.
const PAUSE_MIN: Duration = Duration::from_millis(200);
/// Longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// The queue.
#[derive(Debug)]
pub struct Queue<I: Item> {
    places: HashMap<I::Place, Place<I>>,
    busy: HashSet<I::Key>,
    pausing: HashMap<I::Key, Pause<I>>,
}

/// Those that wait and run in one place.
#[derive(Debug)]
struct Place<I: Item> {
    /// Those that wait, by whose they are. None is empty.
    ready: HashMap<I::Turn, VecDeque<I>>,
    /// Whose turn is next; each with something that waits is in it once.
    turns: VecDeque<I::Turn>,
    waiting: usize,
    running: usize,
}

#[derive(Debug)]
struct Pause<I: Item> {
    failures: u32,
    until: Instant,
    about: I::Want,
    place: I::Place,
}

impl<I: Item> Default for Queue<I> {
    fn default() -> Self {
        Self { places: HashMap::new(), busy: HashSet::new(), pausing: HashMap::new() }
    }
}

impl<I: Item> Default for Place<I> {
    fn default() -> Self {
        Self { ready: HashMap::new(), turns: VecDeque::new(), waiting: 0, running: 0 }
    }
}

impl<I: Item> Queue<I> {
    /// Takes an item in, unless it waits, runs or pauses. Another intent ends a pause.
    pub fn offer(&mut self, item: I, now: Instant) -> bool {
        let (key, about) = (item.key(), item.want());
        let pauses = self.pausing.get(&key).is_some_and(|pause| pause.about == about && now < pause.until);
        if pauses || self.busy.contains(&key) {
            return false;
        }
        let taken = self.places.entry(item.place()).or_default().push(item);
        if taken {
            self.busy.insert(key);
        }
        taken
    }

    /// The next one to work on, in a place where fewer than `at_once` are worked on. Tell [`Queue::settled`] or
    /// [`Queue::failed`] afterwards.
    pub fn take(&mut self, at_once: usize) -> Option<I> {
        // The emptiest first: no place waits for another, whatever their order.
        let free = self.places.values_mut().filter(|place| place.running < at_once && place.waiting > 0);
        let place = free.min_by_key(|place| place.running)?;
        let item = place.pop()?;
        place.running += 1;
        Some(item)
    }

    /// Nothing more to do for this item now.
    pub fn settled(&mut self, item: &I) {
        self.ended(item);
        self.pausing.remove(&item.key());
    }

    /// It did not work; a pause begins.
    pub fn failed(&mut self, item: &I, now: Instant) {
        self.ended(item);
        let about = item.want();
        let before = self.pausing.get(&item.key()).filter(|pause| pause.about == about);
        let failures = before.map_or(0, |pause| pause.failures) + 1;
        self.pausing
            .insert(item.key(), Pause { failures, until: now + pause_after(failures), about, place: item.place() });
    }

    fn ended(&mut self, item: &I) {
        self.busy.remove(&item.key());
        if let Some(place) = self.places.get_mut(&item.place()) {
            place.running = place.running.saturating_sub(1);
            if place.running == 0 && place.waiting == 0 {
                self.places.remove(&item.place());
            }
        }
    }

    /// Gives all waiting ones up: the lease is lost.
    pub fn clear(&mut self) {
        for place in self.places.values_mut() {
            while let Some(item) = place.pop() {
                self.busy.remove(&item.key());
            }
        }
        self.places.retain(|_, place| place.running > 0);
    }

    /// Forgets pauses of items that no intent names any more.
    pub fn retain(&mut self, intended: impl Fn(I::Place, I::Key) -> bool) {
        self.pausing.retain(|key, pause| intended(pause.place, *key));
    }

    /// Items that wait or run.
    pub fn busy(&self) -> usize {
        self.busy.len()
    }

    /// Items whose last attempt failed.
    pub fn failing(&self) -> usize {
        self.pausing.len()
    }
}

impl<I: Item> Place<I> {
    fn push(&mut self, item: I) -> bool {
        if self.waiting >= READY_MAX {
            return false;
        }
        let turn = item.turn();
        let of_turn = self.ready.entry(turn).or_default();
        if of_turn.is_empty() {
            self.turns.push_back(turn);
        }
        of_turn.push_back(item);
        self.waiting += 1;
        true
    }

    fn pop(&mut self) -> Option<I> {
        let turn = self.turns.pop_front()?;
        let of_turn = self.ready.get_mut(&turn)?;
        let item = of_turn.pop_front()?;
        self.waiting -= 1;
        match of_turn.is_empty() {
            true => drop(self.ready.remove(&turn)),
            false => self.turns.push_back(turn),
        }
        Some(item)
    }
}

fn pause_after(failures: u32) -> Duration {
    PAUSE_MIN.saturating_mul(1 << (failures - 1).min(16)).min(PAUSE_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Clone, PartialEq, Eq)]
    struct Thing {
        key: u32,
        turn: u8,
        place: u8,
        generation: i64,
    }

    impl Item for Thing {
        type Key = u32;
        type Turn = u8;
        type Place = u8;
        type Want = i64;

        fn key(&self) -> u32 {
            self.key
        }

        fn turn(&self) -> u8 {
            self.turn
        }

        fn place(&self) -> u8 {
            self.place
        }

        fn want(&self) -> i64 {
            self.generation
        }
    }

    fn thing(key: u32, generation: i64) -> Thing {
        Thing { key, turn: 1, place: 1, generation }
    }

    fn at_once(queue: &mut Queue<Thing>) -> Option<Thing> {
        queue.take(usize::MAX)
    }

    #[test]
    fn an_item_is_worked_on_once_at_a_time() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        assert!(queue.offer(thing(1, 1), now));
        assert!(!queue.offer(thing(1, 1), now));
        let taken = at_once(&mut queue).expect("offered");
        assert!(!queue.offer(thing(1, 2), now));
        queue.settled(&taken);
        assert!(queue.offer(thing(1, 2), now));
    }

    #[test]
    fn tenants_take_turns_however_much_one_of_them_has() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        let of = |turn, key| Thing { turn, ..thing(key, 1) };
        for key in 0..100 {
            assert!(queue.offer(of(1, key), now));
        }
        for (turn, key) in [(2, 200), (2, 201), (3, 300)] {
            assert!(queue.offer(of(turn, key), now));
        }
        let order: Vec<_> = (0..6).filter_map(|_| at_once(&mut queue)).map(|thing| thing.key).collect();
        assert_eq!(order, [0, 200, 300, 1, 201, 2]);
        queue.clear();
        assert!(at_once(&mut queue).is_none());
        assert_eq!(queue.busy(), 6, "those that were taken");
    }

    #[test]
    fn a_place_where_everything_hangs_takes_no_run_from_another() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        let at = |place, key| Thing { place, ..thing(key, 1) };
        for key in 0..10 {
            assert!(queue.offer(at(1, key), now));
        }
        let hanging: Vec<_> = (0..3).filter_map(|_| queue.take(2)).collect();
        assert_eq!(hanging.len(), 2, "no more than two hang");
        assert!(queue.offer(at(2, 20), now));
        assert_eq!(queue.take(2).map(|thing| thing.key), Some(20));
        queue.settled(&hanging[0]);
        assert_eq!(queue.take(2).map(|thing| thing.key), Some(2));
        queue.clear();
        assert_eq!((queue.take(2), queue.busy()), (None, 3));
    }

    #[test]
    fn a_full_place_refuses_and_forgets_what_it_refused() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        let keys = 0..u32::try_from(READY_MAX).expect("fits");
        assert!(keys.clone().all(|key| queue.offer(thing(key, 1), now)));
        assert!(!queue.offer(thing(keys.end, 1), now));
        assert!(queue.offer(Thing { place: 2, ..thing(keys.end, 1) }, now), "another place has room");
        assert_eq!(queue.busy(), READY_MAX + 1);
    }

    #[test]
    fn a_bad_item_pauses_longer_each_time_and_does_not_block_others() {
        let (mut queue, mut now) = (Queue::default(), Instant::now());
        for seconds in [0.2, 0.4, 0.8, 1.6] {
            assert!(queue.offer(thing(1, 1), now));
            let bad = at_once(&mut queue).expect("offered");
            queue.failed(&bad, now);
            let pause = Duration::from_secs_f64(seconds);
            assert!(!queue.offer(thing(1, 1), now + pause - Duration::from_millis(1)));
            assert!(queue.offer(thing(2, 1), now));
            let good = at_once(&mut queue).expect("offered");
            queue.settled(&good);
            now += pause;
        }
        assert_eq!(pause_after(40), PAUSE_MAX);
    }

    #[test]
    fn another_intent_is_tried_at_once() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.offer(thing(1, 1), now);
        let bad = at_once(&mut queue).expect("offered");
        queue.failed(&bad, now);
        assert!(queue.offer(thing(1, 2), now));
        assert_eq!(queue.failing(), 1);
        queue.retain(|place, key| (place, key) == (1, 1));
        assert_eq!(queue.failing(), 1);
        queue.retain(|_, _| false);
        assert_eq!(queue.failing(), 0);
    }
}
