//! Which broker coordinates a group, and calls that follow it when it moves.
//!
//! Lookups of many groups at the same time become one request: whoever has the turn asks for all who wait.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::client::Client;
use crate::codec::{FindCoordinatorRequestData, OffsetCommitRequestData, Request, text};
use crate::deadline::Deadline;
use crate::error::{Error, KafkaError, Result, code};
use crate::pool::Lane;

/// Groups asked for in one lookup.
const GROUPS_PER_REQUEST: usize = 1_000;
/// Coordinators remembered; beyond it all are forgotten and asked for again.
const KNOWN_MAX: usize = 200_000;
/// Connections per broker for each kind of a group's requests.
pub(crate) const LANES: u32 = 4;
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_millis(250);

/// What is known of coordinators, and who waits to know.
#[derive(Default)]
pub(crate) struct Coordinators {
    known: Mutex<HashMap<String, i32>>,
    wanted: Mutex<HashMap<String, Vec<oneshot::Sender<Result<i32>>>>>,
    turn: tokio::sync::Mutex<()>,
    /// Groups with a commit of which nobody knows what became of it.
    in_doubt: Mutex<HashSet<String>>,
}

/// Where a group's requests go among [`LANES`].
pub(crate) fn lane_of(group: &str) -> u32 {
    crc32c::crc32c(group.as_bytes()) % LANES
}

impl Client {
    /// The broker that coordinates a group now, or did when it was last asked.
    pub async fn group_coordinator(&self, group: &str, timeout: Duration) -> Result<i32> {
        self.coordinator(group, Deadline::after(timeout)).await
    }

    /// Sends to the group's coordinator, again if it moved or cannot be reached, until the deadline. `errors` lists the
    /// answer's error codes. Requests must be safe to repeat.
    pub(crate) async fn call_coordinator<R: Request>(
        &self,
        group: &str,
        lane: Lane,
        request: &R,
        errors: impl Fn(&R::Response) -> Vec<i16>,
        deadline: Deadline,
    ) -> Result<R::Response> {
        let mut pause = PAUSE_MIN;
        loop {
            let outcome = self.call_coordinator_once(group, lane, request, &errors, deadline).await;
            let again = match &outcome {
                Ok(response) => errors(response).into_iter().any(may_pass),
                Err(Error::Connect { .. } | Error::Disconnected { .. } | Error::UnknownBroker { .. }) => true,
                Err(Error::Kafka(error)) => may_pass(error.code),
                Err(_) => false,
            };
            if !again || deadline.pause(pause).await.is_err() {
                return outcome;
            }
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// One try; forgets the coordinator if it proves to be the wrong one, so that the next try looks it up.
    pub(crate) async fn call_coordinator_once<R: Request>(
        &self,
        group: &str,
        lane: Lane,
        request: &R,
        errors: impl Fn(&R::Response) -> Vec<i16>,
        deadline: Deadline,
    ) -> Result<R::Response> {
        let node = self.coordinator(group, deadline).await?;
        let call = async {
            let connection = self.connection(node, lane, deadline).await?;
            connection.call(request, Duration::ZERO, deadline).await
        };
        let outcome = call.await;
        let wrong = match &outcome {
            Ok(response) => errors(response).into_iter().any(has_moved),
            Err(_) => true,
        };
        if wrong {
            self.inner.coordinators.forget(group, node);
        }
        if R::API == OffsetCommitRequestData::API && matches!(&outcome, Err(error) if error.is_outcome_unknown()) {
            self.inner.coordinators.doubt(group);
        }
        outcome
    }

    async fn coordinator(&self, group: &str, deadline: Deadline) -> Result<i32> {
        let coordinators = &self.inner.coordinators;
        if let Some(&node) = coordinators.known.lock().get(group) {
            return Ok(node);
        }
        let (tell, mut told) = oneshot::channel();
        coordinators.wanted.lock().entry(group.to_owned()).or_default().push(tell);
        deadline
            .bound(async {
                loop {
                    tokio::select! {
                        biased;
                        answer = &mut told => match answer {
                            Ok(answer) => return answer,
                            // Who asked for us went away: wait for a turn of our own.
                            Err(_) => {
                                let (tell, again) = oneshot::channel();
                                coordinators.wanted.lock().entry(group.to_owned()).or_default().push(tell);
                                told = again;
                            }
                        },
                        _turn = coordinators.turn.lock() => Box::pin(self.look_up_wanted(deadline)).await,
                    }
                }
            })
            .await
    }

    /// Looks up groups that somebody waits for, and tells all who do.
    async fn look_up_wanted(&self, deadline: Deadline) {
        let waiting = self.inner.coordinators.take_wanted();
        if waiting.is_empty() {
            return;
        }
        let request = FindCoordinatorRequestData {
            coordinator_keys: waiting.keys().map(|group| text(group.as_str())).collect(),
            ..Default::default()
        };
        let mut found = match self.call_any(&request, Lane::Control, deadline).await {
            // Our deadline is not theirs: by dropping their senders they ask again.
            Err(Error::DeadlineExceeded) => return,
            Err(error) => Err(error),
            Ok(response) => {
                let answers = response.coordinators.into_iter().map(|answer| {
                    let message = answer.error_message.map(|text| text.to_string());
                    let checked = KafkaError::check(answer.error_code, message).map_err(Error::Kafka);
                    (answer.key.to_string(), checked.map(|()| answer.node_id))
                });
                Ok(answers.collect::<HashMap<_, _>>())
            }
        };
        let lacking = || Err(Error::Protocol("answer lacks a group asked for".to_owned()));
        for (group, tell) in waiting {
            let answer = match &mut found {
                Ok(found) => found.remove(&group).unwrap_or_else(lacking),
                Err(error) => Err(error.clone()),
            };
            if let Ok(node) = answer {
                self.inner.coordinators.remember(group, node);
            }
            for tell in tell {
                let _gone = tell.send(answer.clone());
            }
        }
    }
}

impl Coordinators {
    fn take_wanted(&self) -> HashMap<String, Vec<oneshot::Sender<Result<i32>>>> {
        let mut wanted = self.wanted.lock();
        // Those who gave up meanwhile are not asked for.
        wanted.retain(|_, tell| tell.iter().any(|tell| !tell.is_closed()));
        let groups: Vec<String> = wanted.keys().take(GROUPS_PER_REQUEST).cloned().collect();
        groups.into_iter().filter_map(|group| wanted.remove_entry(&group)).collect()
    }

    fn remember(&self, group: String, node: i32) {
        let mut known = self.known.lock();
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        known.insert(group, node);
    }

    fn doubt(&self, group: &str) {
        let mut in_doubt = self.in_doubt.lock();
        if in_doubt.len() >= KNOWN_MAX {
            in_doubt.clear();
        }
        in_doubt.insert(group.to_owned());
    }

    /// Whether a commit of this group is in doubt; from now on none is.
    pub(super) fn take_doubt(&self, group: &str) -> bool {
        self.in_doubt.lock().remove(group)
    }

    fn forget(&self, group: &str, node: i32) {
        let mut known = self.known.lock();
        if known.get(group) == Some(&node) {
            known.remove(group);
        }
    }
}

/// True if another broker, or none yet, coordinates the group.
fn has_moved(error: i16) -> bool {
    matches!(error, code::NOT_COORDINATOR | code::COORDINATOR_NOT_AVAILABLE)
}

/// True if waiting mends it: the coordinator moved or loads, or a transaction's offsets are not decided.
pub(super) fn may_pass(error: i16) -> bool {
    has_moved(error) || matches!(error, code::COORDINATOR_LOAD_IN_PROGRESS | code::UNSTABLE_OFFSET_COMMIT)
}
