//! The loop: takes work in from polls and rounds, gives it to a bounded number of runs in each place, and remembers pauses.
//!
//! A poll answers at once while anything is due, also what already runs or pauses here; then the next poll waits a moment
//! or until a run ends, so a bad item costs ten questions a second and never holds up another.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::future::Future;
use std::time::Duration;

use sluice_runtime::{ComponentStatus, Health};
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::item::{Item, Outcome};
use crate::lease::Lease;
use crate::queue::Queue;
use crate::with_causes;

/// Pause after a poll that brought nothing new, or failed.
const IDLE: Duration = Duration::from_millis(100);
const POLL_FAILED: Duration = Duration::from_millis(500);

/// What is reconciled. Clones are the same.
pub trait Resource: Clone + Send + Sync + 'static {
    /// One of it.
    type Item: Item;
    /// Why what is to be done cannot be found out.
    type Error: std::error::Error + Send;
    /// What a round remembers for the next one.
    type Memory: Default + Send;

    /// The component of the health that tells how polls fare.
    const POLLS: &'static str;
    /// The component of the health that tells how rounds fare.
    const ROUNDS: &'static str;
    /// Between two rounds.
    const ROUND_EVERY: Duration;
    /// Between a round that failed and the next.
    const ROUND_AGAIN: Duration;

    /// Items with something to do; waits for some, bounded. For ever if only rounds find any.
    fn poll(&self) -> impl Future<Output = Result<Vec<Self::Item>, Self::Error>> + Send;

    /// Looks at everything.
    fn round(&self, memory: &mut Self::Memory) -> impl Future<Output = Result<Round<Self::Item>, Self::Error>> + Send;

    /// Works on one, bounded in time. Must begin no change without the lease.
    fn run(&self, item: Self::Item) -> impl Future<Output = Outcome> + Send;

    /// How many there are; asked to tell it after each step.
    fn tell(&self, figures: Figures);
}

/// What a round found.
#[derive(Debug)]
pub struct Round<I: Item> {
    /// Items that the world does not match, or that were never seen to match.
    pub work: Vec<I>,
    /// How many intents there are.
    pub intents: usize,
    /// It looked at a part only: nothing is known of items that are not in `work`.
    pub is_part: bool,
    /// Places that could not be looked at, and why: nothing is known of what is there.
    pub unseen: BTreeMap<I::Place, String>,
}

/// How much there is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Figures {
    /// Items waiting or worked on.
    pub busy: usize,
    /// Items whose last attempt failed.
    pub failing: usize,
}

/// Runs until the shutdown, then waits for the runs under way.
pub struct Driver<R> {
    /// What is reconciled.
    pub resource: R,
    /// Work is done only while it is ours.
    pub lease: Lease,
    /// Runs at a time in each place.
    pub at_once: usize,
    /// Told how it fares.
    pub health: Health,
}

type ItemOf<R> = <R as Resource>::Item;
type Polled<R> = Result<Vec<ItemOf<R>>, <R as Resource>::Error>;
type Looked<R> = (Result<Round<ItemOf<R>>, <R as Resource>::Error>, <R as Resource>::Memory);

struct State<I: Item> {
    queue: Queue<I>,
    runs: JoinSet<Outcome>,
    running: HashMap<Id, I>,
}

impl<R: Resource> Driver<R> {
    /// The loop itself.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut state = State { queue: Queue::default(), runs: JoinSet::new(), running: HashMap::new() };
        let mut polls: JoinSet<Polled<R>> = JoinSet::new();
        let mut rounds: JoinSet<Looked<R>> = JoinSet::new();
        let mut next_poll = Some(Instant::now());
        let mut next_round = Some((Instant::now(), R::Memory::default()));
        loop {
            let epoch = tokio::select! {
                () = shutdown.cancelled() => break,
                epoch = self.lease.held() => epoch,
            };
            tracing::trace!(epoch, "working");
            self.start_runs(&mut state);
            if next_poll.is_some_and(|at| at <= Instant::now()) {
                next_poll = None;
                let resource = self.resource.clone();
                polls.spawn(async move { resource.poll().await });
            }
            if next_round.as_ref().is_some_and(|(at, _)| *at <= Instant::now())
                && let Some((_, mut memory)) = next_round.take()
            {
                let resource = self.resource.clone();
                rounds.spawn(async move { (resource.round(&mut memory).await, memory) });
            }
            let wake = [next_poll, next_round.as_ref().map(|(at, _)| *at)].into_iter().flatten().min();
            tokio::select! {
                () = shutdown.cancelled() => break,
                Some(done) = state.runs.join_next_with_id() => {
                    ended(&mut state, done);
                    if let Some(at) = &mut next_poll {
                        *at = Instant::now();
                    }
                }
                Some(polled) = polls.join_next() => {
                    let pause = self.polled(&mut state.queue, polled);
                    next_poll = Some(Instant::now() + pause);
                }
                Some(looked) = rounds.join_next() => {
                    let (pause, memory) = self.looked(&mut state.queue, looked);
                    next_round = Some((Instant::now() + pause, memory));
                }
                () = sleep_until(wake) => {}
            }
            if self.lease.epoch().is_none() {
                state.queue.clear();
            }
            self.resource.tell(Figures { busy: state.queue.busy(), failing: state.queue.failing() });
        }
        polls.abort_all();
        rounds.abort_all();
        while state.runs.join_next().await.is_some() {}
    }

    fn start_runs(&self, state: &mut State<R::Item>) {
        while let Some(item) = state.queue.take(self.at_once) {
            let (resource, given) = (self.resource.clone(), item.clone());
            let run = state.runs.spawn(async move {
                let (key, want, started) = (given.key(), given.want(), Instant::now());
                let outcome = resource.run(given).await;
                tracing::debug!(%key, ?want, ?outcome, took = ?started.elapsed(), "run ended");
                outcome
            });
            state.running.insert(run.id(), item);
        }
    }

    /// Takes a poll's answer in; how long until the next.
    fn polled(&self, queue: &mut Queue<R::Item>, polled: Result<Polled<R>, JoinError>) -> Duration {
        match polled {
            Ok(Ok(items)) => {
                self.health.set_component(R::POLLS, ComponentStatus::ok("answers"));
                let (all, now) = (items.len(), Instant::now());
                let new = items.into_iter().filter(|item| queue.offer(item.clone(), now)).count();
                if all == 0 || new > 0 { Duration::ZERO } else { IDLE }
            }
            Ok(Err(error)) => {
                self.health.set_component(R::POLLS, ComponentStatus::failing(with_causes(&error)));
                POLL_FAILED
            }
            Err(error) => {
                tracing::error!(%error, "a poll panicked");
                POLL_FAILED
            }
        }
    }

    /// Takes a round's findings in; how long until the next, and what it must remember.
    fn looked(&self, queue: &mut Queue<R::Item>, looked: Result<Looked<R>, JoinError>) -> (Duration, R::Memory) {
        let (found, memory) = match looked {
            Ok(looked) => looked,
            Err(error) => {
                tracing::error!(%error, "a round panicked");
                return (R::ROUND_AGAIN, R::Memory::default());
            }
        };
        match found {
            Ok(round) => {
                let (status, pause) = judged::<R>(&round);
                self.health.set_component(R::ROUNDS, status);
                let intended: HashSet<_> = round.work.iter().map(Item::key).collect();
                // What was not looked at is not known to be as wanted.
                queue
                    .retain(|place, key| round.is_part || round.unseen.contains_key(&place) || intended.contains(&key));
                let now = Instant::now();
                for item in round.work {
                    queue.offer(item, now);
                }
                (pause, memory)
            }
            Err(error) => {
                let error = with_causes(&error);
                tracing::info!(error, round = R::ROUNDS, "a round failed");
                self.health.set_component(R::ROUNDS, ComponentStatus::failing(error));
                (R::ROUND_AGAIN, memory)
            }
        }
    }
}

fn ended<I: Item>(state: &mut State<I>, done: Result<(Id, Outcome), JoinError>) {
    let (id, outcome) = match done {
        Ok(done) => done,
        Err(error) => {
            tracing::error!(%error, "a run panicked");
            // As one that failed: it must not be tried without a pause.
            (error.id(), Outcome::Failed)
        }
    };
    let Some(item) = state.running.remove(&id) else { return };
    match outcome {
        Outcome::Settled => state.queue.settled(&item),
        Outcome::Failed => state.queue.failed(&item, Instant::now()),
    }
}

/// What health says of a round, and how soon the next one is.
fn judged<R: Resource>(round: &Round<R::Item>) -> (ComponentStatus, Duration) {
    if round.unseen.is_empty() {
        return (ComponentStatus::ok(format!("{} intents", round.intents)), R::ROUND_EVERY);
    }
    let unseen: Vec<String> = round.unseen.iter().map(|(place, why)| format!("{place}: {why}")).collect();
    let unseen = unseen.join("; ");
    tracing::info!(unseen, round = R::ROUNDS, "a round did not see everything");
    (ComponentStatus::failing(unseen), R::ROUND_AGAIN)
}

async fn sleep_until(wake: Option<Instant>) {
    match wake {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
