//! Which topic is worked on next: tenants in turn, of each first come first served, each at most once at a time, failing ones
//! after a pause. Each cluster has a queue and workers of its own, so one that is down holds up its own topics only.
//!
//! It holds no truth. A topic that is refused here (running, pausing, no room) is offered again by the next poll or
//! resync, always with its newest intent. So one bad topic costs its own retries and nothing else.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use sluice_types::{ClusterUid, TenantUid, TopicUid};

use super::intent::{Intent, Want};

/// Topics that wait for a worker; more are refused and come again.
const READY_MAX: usize = 10_000;
/// Pause after the first failure; doubles with every further one.
const PAUSE_MIN: Duration = Duration::from_millis(200);
/// Longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// The queues of all clusters.
#[derive(Debug)]
pub struct Queues {
    at_once: usize,
    clusters: BTreeMap<ClusterUid, OfCluster>,
}

#[derive(Debug, Default)]
struct OfCluster {
    queue: Queue,
    /// Topics that were taken and are neither settled nor failed.
    taken: usize,
}

impl Queues {
    /// With so many workers for each cluster.
    pub fn new(at_once: usize) -> Self {
        Self { at_once, clusters: BTreeMap::new() }
    }

    /// Takes an intent in, unless its topic waits, runs or pauses. A new generation ends a pause.
    pub fn offer(&mut self, intent: Intent, now: Instant) -> bool {
        self.clusters.entry(intent.cluster).or_default().queue.offer(intent, now)
    }

    /// The next one to work on, of any cluster that has a worker free; tell [`Queues::settled`] or [`Queues::failed`] afterwards.
    pub fn take(&mut self) -> Option<Intent> {
        let at_once = self.at_once;
        self.clusters.values_mut().filter(|of| of.taken < at_once).find_map(|of| {
            let intent = of.queue.take()?;
            of.taken += 1;
            Some(intent)
        })
    }

    /// Nothing more to do for this topic now.
    pub fn settled(&mut self, cluster: ClusterUid, topic: TopicUid) {
        if let Some(of) = self.clusters.get_mut(&cluster) {
            of.taken = of.taken.saturating_sub(1);
            of.queue.settled(topic);
        }
    }

    /// It did not work; a pause begins.
    pub fn failed(&mut self, intent: &Intent, now: Instant) {
        if let Some(of) = self.clusters.get_mut(&intent.cluster) {
            of.taken = of.taken.saturating_sub(1);
            of.queue.failed(intent, now);
        }
    }

    /// Gives all waiting ones up: the lease is lost.
    pub fn clear(&mut self) {
        self.clusters.values_mut().for_each(|of| of.queue.clear());
    }

    /// Forgets pauses of topics that no intent names any more.
    pub fn retain(&mut self, intended: impl Fn(ClusterUid, TopicUid) -> bool) {
        self.clusters.iter_mut().for_each(|(cluster, of)| of.queue.retain(|topic| intended(*cluster, topic)));
    }

    /// Topics that wait or run.
    pub fn busy(&self) -> usize {
        self.clusters.values().map(|of| of.queue.busy()).sum()
    }

    /// Topics whose last attempt failed.
    pub fn failing(&self) -> usize {
        self.clusters.values().map(|of| of.queue.failing()).sum()
    }
}

/// The queue of one cluster.
#[derive(Debug, Default)]
struct Queue {
    /// Those that wait, by tenant. None is empty.
    ready: HashMap<TenantUid, VecDeque<Intent>>,
    /// Whose turn is next; each tenant with something that waits is in it once.
    turns: VecDeque<TenantUid>,
    waiting: usize,
    busy: HashSet<TopicUid>,
    pausing: HashMap<TopicUid, Pause>,
}

#[derive(Debug, Clone, Copy)]
struct Pause {
    failures: u32,
    until: Instant,
    about: (i64, Want),
}

impl Queue {
    /// Takes an intent in, unless its topic waits, runs or pauses. A new generation ends a pause.
    fn offer(&mut self, intent: Intent, now: Instant) -> bool {
        let about = (intent.generation, intent.want);
        let pauses = self.pausing.get(&intent.topic).is_some_and(|pause| pause.about == about && now < pause.until);
        if pauses || self.waiting >= READY_MAX || !self.busy.insert(intent.topic) {
            return false;
        }
        let tenant = intent.tenant;
        let of_tenant = self.ready.entry(tenant).or_default();
        if of_tenant.is_empty() {
            self.turns.push_back(tenant);
        }
        of_tenant.push_back(intent);
        self.waiting += 1;
        true
    }

    /// The next one to work on; told of by `settled` or `failed` afterwards.
    fn take(&mut self) -> Option<Intent> {
        let tenant = self.turns.pop_front()?;
        let of_tenant = self.ready.get_mut(&tenant)?;
        let intent = of_tenant.pop_front()?;
        self.waiting -= 1;
        match of_tenant.is_empty() {
            true => drop(self.ready.remove(&tenant)),
            false => self.turns.push_back(tenant),
        }
        Some(intent)
    }

    /// Nothing more to do for this topic now.
    fn settled(&mut self, topic: TopicUid) {
        self.busy.remove(&topic);
        self.pausing.remove(&topic);
    }

    /// It did not work; a pause begins.
    fn failed(&mut self, intent: &Intent, now: Instant) {
        self.busy.remove(&intent.topic);
        let about = (intent.generation, intent.want);
        let before = self.pausing.get(&intent.topic).filter(|pause| pause.about == about);
        let failures = before.map_or(0, |pause| pause.failures) + 1;
        self.pausing.insert(intent.topic, Pause { failures, until: now + pause_after(failures), about });
    }

    /// Gives all waiting ones up: the lease is lost.
    fn clear(&mut self) {
        while let Some(intent) = self.take() {
            self.busy.remove(&intent.topic);
        }
    }

    /// Forgets pauses of topics that no intent names any more.
    fn retain(&mut self, intended: impl Fn(TopicUid) -> bool) {
        self.pausing.retain(|topic, _| intended(*topic));
    }

    /// Topics that wait or run.
    fn busy(&self) -> usize {
        self.busy.len()
    }

    /// Topics whose last attempt failed.
    fn failing(&self) -> usize {
        self.pausing.len()
    }
}

fn pause_after(failures: u32) -> Duration {
    PAUSE_MIN.saturating_mul(1 << (failures - 1).min(16)).min(PAUSE_MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use sluice_types::{ClusterUid, LogUid, NamespaceUid};

    use super::*;

    fn intent(topic: i64, generation: i64) -> Intent {
        Intent {
            tenant: TenantUid::from_i64(1),
            namespace: NamespaceUid::from_i64(1),
            topic: TopicUid::from_i64(topic),
            cluster: ClusterUid::FIRST,
            log: LogUid::first_of(TopicUid::from_i64(topic)),
            generation,
            want: Want::Present,
            partitions: 1,
            configs: BTreeMap::new(),
            create_attempted: false,
            kafka_topic_id: None,
            observed_generation: 0,
            final_end_offsets: vec![],
        }
    }

    #[test]
    fn a_topic_is_worked_on_once_at_a_time() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        assert!(queue.offer(intent(1, 1), now));
        assert!(!queue.offer(intent(1, 1), now));
        let taken = queue.take().expect("offered");
        assert!(!queue.offer(intent(1, 2), now));
        queue.settled(taken.topic);
        assert!(queue.offer(intent(1, 2), now));
    }

    #[test]
    fn tenants_take_turns_however_much_one_of_them_has() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        let of = |tenant: i64, topic: i64| Intent { tenant: TenantUid::from_i64(tenant), ..intent(topic, 1) };
        for topic in 0..100 {
            assert!(queue.offer(of(1, topic), now));
        }
        for (tenant, topic) in [(2, 200), (2, 201), (3, 300)] {
            assert!(queue.offer(of(tenant, topic), now));
        }
        let order: Vec<_> = (0..6).filter_map(|_| queue.take()).map(|intent| intent.topic.as_i64()).collect();
        assert_eq!(order, [0, 200, 300, 1, 201, 2]);
        queue.clear();
        assert!(queue.take().is_none());
        assert_eq!(queue.busy(), 6, "those that were taken");
    }

    #[test]
    fn a_bad_topic_pauses_longer_each_time_and_does_not_block_others() {
        let (mut queue, mut now) = (Queue::default(), Instant::now());
        for seconds in [0.2, 0.4, 0.8, 1.6] {
            assert!(queue.offer(intent(1, 1), now));
            let bad = queue.take().expect("offered");
            queue.failed(&bad, now);
            let pause = Duration::from_secs_f64(seconds);
            assert!(!queue.offer(intent(1, 1), now + pause - Duration::from_millis(1)));
            assert!(queue.offer(intent(2, 1), now));
            queue.take();
            queue.settled(TopicUid::from_i64(2));
            now += pause;
        }
        assert_eq!(pause_after(40), PAUSE_MAX);
    }

    #[test]
    fn a_cluster_on_which_every_run_hangs_takes_no_worker_from_another() {
        let (mut queues, now) = (Queues::new(2), Instant::now());
        let (down, up) = (ClusterUid::FIRST, ClusterUid::from_i64(9));
        let on = |cluster, topic| Intent { cluster, ..intent(topic, 1) };
        for topic in 0..100 {
            assert!(queues.offer(on(down, topic), now));
        }
        for topic in 100..103 {
            assert!(queues.offer(on(up, topic), now));
        }
        let taken: Vec<Intent> = std::iter::from_fn(|| queues.take()).collect();
        let topics: Vec<i64> = taken.iter().map(|intent| intent.topic.as_i64()).collect();
        assert_eq!(topics, [0, 1, 100, 101]);
        // Those of the first hang; the other goes on as its runs end.
        queues.settled(up, taken[2].topic);
        assert_eq!(queues.take().map(|intent| intent.topic.as_i64()), Some(102));
        assert!(queues.take().is_none());
        queues.failed(&taken[0], now);
        assert_eq!(queues.take().map(|intent| intent.topic.as_i64()), Some(2));
        assert_eq!((queues.busy(), queues.failing()), (101, 1));
        queues.retain(|cluster, _| cluster != down);
        assert_eq!(queues.failing(), 0);
    }

    #[test]
    fn a_new_generation_is_tried_at_once() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.offer(intent(1, 1), now);
        let bad = queue.take().expect("offered");
        queue.failed(&bad, now);
        assert!(queue.offer(intent(1, 2), now));
        assert_eq!(queue.failing(), 1);
        queue.retain(|_| false);
        assert_eq!(queue.failing(), 0);
    }
}
