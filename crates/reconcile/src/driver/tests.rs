//! The driver over a world in memory, in virtual time.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::*;
use crate::lease::Leases;

/// A number that something should have, in a place.
#[derive(Debug, Clone)]
struct Wanted {
    key: u32,
    place: &'static str,
    number: i64,
}

impl Item for Wanted {
    type Key = u32;
    type Turn = ();
    type Place = &'static str;
    type Want = i64;

    fn key(&self) -> u32 {
        self.key
    }

    fn turn(&self) {}

    fn place(&self) -> &'static str {
        self.place
    }

    fn want(&self) -> i64 {
        self.number
    }
}

#[derive(Clone, Default)]
struct World(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    wanted: BTreeMap<u32, Wanted>,
    is: BTreeMap<u32, i64>,
    runs: BTreeMap<u32, usize>,
    under_way: BTreeMap<&'static str, usize>,
    most: BTreeMap<&'static str, usize>,
    told: Option<Figures>,
    rounds: usize,
    cannot_look: bool,
    unseen: BTreeMap<&'static str, String>,
}

#[derive(Debug, thiserror::Error)]
#[error("cannot look")]
struct CannotLook;

impl World {
    fn want(&self, key: u32, place: &'static str, number: i64) {
        self.0.lock().wanted.insert(key, Wanted { key, place, number });
    }

    fn due(&self) -> Vec<Wanted> {
        let state = self.0.lock();
        let due = state.wanted.values().filter(|wanted| state.is.get(&wanted.key) != Some(&wanted.number));
        due.cloned().collect()
    }

    fn runs(&self, key: u32) -> usize {
        self.0.lock().runs.get(&key).copied().unwrap_or_default()
    }
}

impl Resource for World {
    type Item = Wanted;
    type Error = CannotLook;
    type Memory = usize;

    const POLLS: &'static str = "polls";
    const ROUNDS: &'static str = "rounds";
    const ROUND_EVERY: Duration = Duration::from_secs(30);
    const ROUND_AGAIN: Duration = Duration::from_secs(5);

    async fn poll(&self) -> Result<Vec<Wanted>, CannotLook> {
        for _ in 0..100 {
            match self.due() {
                due if due.is_empty() => tokio::time::sleep(Duration::from_millis(10)).await,
                due => return Ok(due),
            }
        }
        Ok(Vec::new())
    }

    async fn round(&self, memory: &mut usize) -> Result<Round<Wanted>, CannotLook> {
        *memory += 1;
        self.0.lock().rounds = *memory;
        let work = self.due();
        let state = self.0.lock();
        match state.cannot_look {
            true => Err(CannotLook),
            false => Ok(Round { work, intents: state.wanted.len(), is_part: false, unseen: state.unseen.clone() }),
        }
    }

    async fn run(&self, item: Wanted) -> Outcome {
        {
            let mut state = self.0.lock();
            *state.runs.entry(item.key).or_default() += 1;
            let under_way = state.under_way.entry(item.place).or_default();
            *under_way += 1;
            let now = *under_way;
            let most = state.most.entry(item.place).or_default();
            *most = now.max(*most);
        }
        match item.place {
            "hangs" => std::future::pending().await,
            "panics" => panic!("as it is meant to"),
            _ => tokio::time::sleep(Duration::from_millis(5)).await,
        }
        let mut state = self.0.lock();
        *state.under_way.entry(item.place).or_default() -= 1;
        if item.place == "refuses" {
            return Outcome::Failed;
        }
        state.is.insert(item.key, item.number);
        Outcome::Settled
    }

    fn tell(&self, figures: Figures) {
        self.0.lock().told = Some(figures);
    }
}

/// Grants the lease while it is told to.
struct Grantor(Arc<Mutex<Option<i64>>>);

impl Leases for Grantor {
    type Error = CannotLook;

    async fn acquire(&self, _: &str, _: Duration) -> Result<Option<i64>, CannotLook> {
        Ok(*self.0.lock())
    }

    async fn release(&self, _: &str) -> Result<(), CannotLook> {
        *self.0.lock() = None;
        Ok(())
    }
}

struct Running {
    world: World,
    health: Health,
    lease: Lease,
    granted: Arc<Mutex<Option<i64>>>,
    stop: CancellationToken,
}

/// A driver of three runs a place, with the lease if it is granted.
fn start(world: &World, granted: Option<i64>) -> Running {
    let (lease, health, stop) = (Lease::default(), Health::new(), CancellationToken::new());
    let granted = Arc::new(Mutex::new(granted));
    let leases = Grantor(Arc::clone(&granted));
    tokio::spawn(lease.clone().keep("me".into(), leases, health.clone(), |_| {}, stop.clone()));
    let driver = Driver { resource: world.clone(), lease: lease.clone(), at_once: 3, health: health.clone() };
    tokio::spawn(driver.run(stop.clone()));
    Running { world: world.clone(), health, lease, granted, stop }
}

impl Running {
    /// Waits in virtual time, so the bound costs nothing.
    async fn until(&self, what: &str, fits: impl Fn(&State) -> bool) {
        for _ in 0..100_000 {
            if fits(&self.world.0.lock()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("{what} never came");
    }
}

#[tokio::test(start_paused = true)]
async fn what_hangs_fails_or_panics_in_one_place_holds_up_no_other() {
    let world = World::default();
    for key in 0..20 {
        world.want(key, "hangs", 1);
        world.want(100 + key, "refuses", 1);
        world.want(200 + key, "works", 1);
    }
    world.want(300, "panics", 1);
    let it = start(&world, Some(1));
    it.until("everything that works", |state| (200..220).all(|key| state.is.get(&key) == Some(&1))).await;
    assert!(it.world.0.lock().most.values().all(|most| *most <= 3), "three at a time in each place");
    assert_eq!(it.world.0.lock().most["works"], 3);
    assert!((200..220).all(|key| world.runs(key) == 1), "what is settled is not worked on again");
    tokio::time::sleep(Duration::from_secs(60)).await;
    let tries = world.runs(100);
    assert!((5..12).contains(&tries), "pauses double: {tries}");
    assert!(world.runs(300) < 12, "a panic has pauses, too: {}", world.runs(300));
    // Another intent is no reason to wait.
    world.want(201, "works", 2);
    it.until("the change", |state| state.is.get(&201) == Some(&2)).await;
    it.stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn nothing_is_begun_without_the_lease() {
    let world = World::default();
    world.want(1, "works", 1);
    let it = start(&world, None);
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(world.runs(1), 0);
    *it.granted.lock() = Some(7);
    it.until("the first", |state| state.is.contains_key(&1)).await;
    assert_eq!(it.lease.epoch(), Some(7));
    // Taken by somebody else, and told so at the next question.
    *it.granted.lock() = None;
    tokio::time::sleep(crate::lease::TTL).await;
    assert_eq!(it.lease.epoch(), None);
    world.want(2, "works", 1);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(world.runs(2), 0);
    *it.granted.lock() = Some(9);
    it.until("the second", |state| state.is.contains_key(&2)).await;
    it.stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn a_round_that_fails_is_told_and_comes_again_sooner_with_what_the_last_one_remembered() {
    let world = World::default();
    world.0.lock().cannot_look = true;
    let it = start(&world, Some(1));
    tokio::time::sleep(Duration::from_secs(11)).await;
    assert_eq!(world.0.lock().rounds, 3, "at once, after 5 s, after 10 s");
    assert_eq!(it.health.component("rounds").map(|status| status.detail), Some("cannot look".into()));
    world.0.lock().cannot_look = false;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(it.health.component("rounds").map(|status| status.detail), Some("0 intents".into()));
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(world.0.lock().rounds, 4);
    world.0.lock().unseen.insert("there", "no answer".into());
    tokio::time::sleep(Duration::from_secs(16)).await;
    assert_eq!(world.0.lock().rounds, 6, "after 30 s, and 5 s after one that did not see everything");
    let told = it.health.component("rounds").expect("told");
    assert_eq!((told.ok, told.detail.as_str()), (false, "there: no answer"));
    it.stop.cancel();
}
