//! The loop: takes work in from polls and resyncs, gives it to a bounded number of runs, and remembers pauses.
//!
//! A poll answers at once while anything is due, also what already runs or pauses here; then the next poll waits a moment
//! or until a run ends, so a bad topic costs ten questions a second and never holds up another.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

use sluice_runtime::{ComponentStatus, Health};
use sluice_types::{ClusterUid, TopicUid};
use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use super::reconcile::{Outcome, Reconciler, took};
use super::resync::{self, Found, ResyncError};
use crate::domain::intent::Intent;
use crate::domain::orphans::Orphans;
use crate::domain::queue::Queues;
use crate::intents::CallError;

/// Pause after a poll that brought nothing new, or failed.
const IDLE: Duration = Duration::from_millis(100);
const POLL_FAILED: Duration = Duration::from_millis(500);

/// Runs until the shutdown, then waits for the runs under way.
pub struct WorkLoop {
    /// Does the work.
    pub reconciler: Reconciler,
    /// Runs at a time on each cluster.
    pub concurrency: usize,
    /// Told how it fares.
    pub health: Health,
}

type Polled = Result<Vec<Intent>, CallError>;
type Resynced = (Result<Found, ResyncError>, OrphansByCluster);
type OrphansByCluster = BTreeMap<ClusterUid, Orphans>;

struct State {
    queues: Queues,
    runs: JoinSet<(Intent, Outcome)>,
    running: HashMap<Id, (ClusterUid, TopicUid)>,
}

impl WorkLoop {
    /// The loop itself.
    pub async fn run(self, shutdown: CancellationToken) {
        let queues = Queues::new(self.concurrency);
        let mut state = State { queues, runs: JoinSet::new(), running: Default::default() };
        let mut polls: JoinSet<Polled> = JoinSet::new();
        let mut resyncs: JoinSet<Resynced> = JoinSet::new();
        let mut next_poll = Some(Instant::now());
        let mut next_resync = Some((Instant::now(), OrphansByCluster::default()));
        loop {
            let epoch = tokio::select! {
                () = shutdown.cancelled() => break,
                epoch = self.reconciler.lease.held() => epoch,
            };
            tracing::trace!(epoch, "working");
            self.start_runs(&mut state);
            if next_poll.is_some_and(|at| at <= Instant::now()) {
                next_poll = None;
                let intents = self.reconciler.intents.clone();
                polls.spawn(async move { intents.await_work().await });
            }
            if next_resync.as_ref().is_some_and(|(at, _)| *at <= Instant::now())
                && let Some((_, mut orphans)) = next_resync.take()
            {
                let reconciler = self.reconciler.clone();
                resyncs.spawn(async move { (resync::resync(&reconciler, &mut orphans).await, orphans) });
            }
            let wake = [next_poll, next_resync.as_ref().map(|(at, _)| *at)].into_iter().flatten().min();
            tokio::select! {
                () = shutdown.cancelled() => break,
                Some(done) = state.runs.join_next_with_id() => {
                    self.ended(&mut state, done);
                    if let Some(at) = &mut next_poll {
                        *at = Instant::now();
                    }
                }
                Some(polled) = polls.join_next() => {
                    let pause = self.polled(&mut state, polled);
                    next_poll = Some(Instant::now() + pause);
                }
                Some(resynced) = resyncs.join_next() => {
                    let (pause, orphans) = self.resynced(&mut state, resynced);
                    next_resync = Some((Instant::now() + pause, orphans));
                }
                () = sleep_until(wake) => {}
            }
            if self.reconciler.lease.epoch().is_none() {
                state.queues.clear();
            }
            self.tell(&state);
        }
        polls.abort_all();
        resyncs.abort_all();
        while state.runs.join_next().await.is_some() {}
    }

    fn start_runs(&self, state: &mut State) {
        while let Some(intent) = state.queues.take() {
            let (cluster, topic) = (intent.cluster, intent.topic);
            let reconciler = self.reconciler.clone();
            let run = state.runs.spawn(async move {
                let (started, generation) = (Instant::now(), intent.generation);
                let outcome = reconciler.run(intent.clone()).await;
                tracing::debug!(%topic, generation, ?outcome, ms = took(started), "run ended");
                (intent, outcome)
            });
            state.running.insert(run.id(), (cluster, topic));
        }
    }

    fn ended(&self, state: &mut State, done: Result<(Id, (Intent, Outcome)), JoinError>) {
        match done {
            Ok((id, (intent, outcome))) => {
                state.running.remove(&id);
                match outcome {
                    Outcome::Settled => state.queues.settled(intent.cluster, intent.topic),
                    Outcome::Failed => state.queues.failed(&intent, Instant::now()),
                }
            }
            Err(error) => {
                tracing::error!(%error, "a run panicked");
                if let Some((cluster, topic)) = state.running.remove(&error.id()) {
                    state.queues.settled(cluster, topic);
                }
            }
        }
    }

    /// Takes a poll's answer in; how long until the next.
    fn polled(&self, state: &mut State, polled: Result<Polled, JoinError>) -> Duration {
        match polled {
            Ok(Ok(intents)) => {
                self.health.set_component("control-plane", ComponentStatus::ok("answers"));
                let (all, now) = (intents.len(), Instant::now());
                let new = intents.into_iter().filter(|intent| state.queues.offer(intent.clone(), now)).count();
                if all == 0 || new > 0 { Duration::ZERO } else { IDLE }
            }
            Ok(Err(error)) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
                self.health.set_component("control-plane", ComponentStatus::failing(format!("{error}: {cause}")));
                POLL_FAILED
            }
            Err(error) => {
                tracing::error!(%error, "a poll panicked");
                POLL_FAILED
            }
        }
    }

    /// Takes a resync's findings in; how long until the next, and what it must remember.
    fn resynced(&self, state: &mut State, resynced: Result<Resynced, JoinError>) -> (Duration, OrphansByCluster) {
        let (found, orphans) = match resynced {
            Ok(resynced) => resynced,
            Err(error) => {
                tracing::error!(%error, "a resync panicked");
                return (resync::AGAIN, OrphansByCluster::default());
            }
        };
        let pause = match found {
            Ok(found) => {
                let (status, pause) = judged(&found);
                self.health.set_component("resync", status);
                let metrics = &self.reconciler.metrics;
                metrics.drifted.inc_by(found.drifted);
                metrics.orphans.set(i64::try_from(found.orphans).unwrap_or(i64::MAX));
                let intended: HashSet<TopicUid> = found.work.iter().map(|intent| intent.topic).collect();
                // What was not looked at is not known to be as wanted.
                state.queues.retain(|cluster, topic| found.unseen.contains_key(&cluster) || intended.contains(&topic));
                let now = Instant::now();
                for intent in found.work {
                    state.queues.offer(intent, now);
                }
                pause
            }
            Err(error) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
                tracing::info!(%error, cause, "resync failed");
                self.health.set_component("resync", ComponentStatus::failing(format!("{error}: {cause}")));
                resync::AGAIN
            }
        };
        (pause, orphans)
    }

    fn tell(&self, state: &State) {
        let metrics = &self.reconciler.metrics;
        metrics.busy.set(i64::try_from(state.queues.busy()).unwrap_or(i64::MAX));
        metrics.failing.set(i64::try_from(state.queues.failing()).unwrap_or(i64::MAX));
    }
}

/// What health says of a resync, and how soon the next one is.
fn judged(found: &Found) -> (ComponentStatus, Duration) {
    if found.unseen.is_empty() {
        return (ComponentStatus::ok(format!("{} intents", found.intents)), resync::EVERY);
    }
    let mut unseen = Vec::new();
    for (cluster, error) in &found.unseen {
        tracing::info!(%cluster, %error, "the topics of a cluster cannot be listed");
        unseen.push(format!("cluster {cluster}: {error}"));
    }
    (ComponentStatus::failing(unseen.join("; ")), resync::AGAIN)
}

async fn sleep_until(wake: Option<Instant>) {
    match wake {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
