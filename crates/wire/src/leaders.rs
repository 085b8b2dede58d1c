//! Questions about many partitions of a topic, each to its leader: a result per partition, so that one without a leader,
//! or whose leader is silent, fails alone.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::{BoxFuture, join_all};

use crate::client::Client;
use crate::deadline::Deadline;
use crate::error::{Error, Result};

/// Tries per partition: leaders move, and metadata follows a moment later.
const ATTEMPTS: u32 = 4;
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// A partition, and the epoch of its leader.
pub(crate) type Led = (i32, i32);
/// What one leader answered.
pub(crate) type Answers<T> = Vec<(i32, Result<T>)>;

impl Client {
    /// Asks with `ask(leader, partitions)`; again for partitions whose failure may pass.
    pub(crate) async fn ask_leaders<'a, T>(
        &'a self,
        topic: &'a str,
        partitions: &[i32],
        ask: impl Fn(i32, Vec<Led>) -> BoxFuture<'a, Result<Answers<T>>>,
        deadline: Deadline,
    ) -> Result<BTreeMap<i32, Result<T>>> {
        let mut done: BTreeMap<i32, Result<T>> = BTreeMap::new();
        let mut open = partitions.to_vec();
        for attempt in 1..=ATTEMPTS {
            match self.ask_leaders_once(topic, &open, &ask, attempt > 1, deadline).await {
                Ok(answers) => done.extend(answers),
                // What is known of the others holds all the same.
                Err(_) if done.values().any(Result::is_ok) => {}
                Err(error) => return Err(error),
            }
            open.retain(|partition| matches!(done.get(partition), Some(Err(error)) if error.is_retriable()));
            if open.is_empty() || attempt == ATTEMPTS || deadline.pause(RETRY_PAUSE * attempt).await.is_err() {
                break;
            }
        }
        for error in open.iter().filter_map(|partition| done.get(partition)?.as_ref().err()) {
            self.doubt_leader(topic, error);
        }
        Ok(done)
    }

    async fn ask_leaders_once<'a, T>(
        &'a self,
        topic: &'a str,
        partitions: &[i32],
        ask: &impl Fn(i32, Vec<Led>) -> BoxFuture<'a, Result<Answers<T>>>,
        refresh: bool,
        deadline: Deadline,
    ) -> Result<BTreeMap<i32, Result<T>>> {
        let mut metadata = match refresh {
            true => self.refresh_topic(topic, deadline).await?,
            false => self.cached_topic(topic, deadline).await?,
        };
        // What is cached may be from before the topic grew.
        if !refresh && partitions.iter().any(|partition| !metadata.partitions.contains_key(partition)) {
            metadata = self.refresh_topic(topic, deadline).await?;
        }
        let mut answers = BTreeMap::new();
        let mut by_leader: BTreeMap<i32, Vec<Led>> = BTreeMap::new();
        for &partition in partitions {
            match metadata.leader(partition) {
                Ok((leader, epoch)) => by_leader.entry(leader).or_default().push((partition, epoch)),
                Err(error) => drop(answers.insert(partition, Err(error))),
            }
        }
        let asked = by_leader.into_iter().map(|(leader, led)| {
            let partitions: Vec<i32> = led.iter().map(|(partition, _)| *partition).collect();
            let answer = ask(leader, led);
            async move { (partitions, answer.await) }
        });
        for (partitions, answer) in join_all(asked).await {
            let failure = match answer {
                Ok(answer) => {
                    answers.extend(answer);
                    Error::Protocol("answer lacks the partition".to_owned())
                }
                Err(error) => error,
            };
            for partition in partitions {
                answers.entry(partition).or_insert_with(|| Err(failure.clone()));
            }
        }
        Ok(answers)
    }
}
