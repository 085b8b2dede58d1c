//! Clients that write and read all the time, hold every answer against its deadline, and remember what they were told.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use parking_lot::Mutex;
use serde_json::{Value, json};
use sluice_e2e::{Api, Http};
use sluice_proto::stream::v1::{Outcome, RecordResult};

use crate::kill_gateway::{self, Reported};

const BATCH: usize = 10;

/// What goes on with Kafka.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Phase {
    Up,
    Stopped,
    /// Killed, and long enough ago for nothing to be on its way.
    Down,
}

/// What writers and the test share.
#[derive(Default)]
pub(super) struct Shared {
    pub(super) phase: AtomicU8,
    pub(super) stop: AtomicBool,
    pub(super) told: Mutex<HashMap<String, Reported>>,
    /// Results by phase in which their call began and ended.
    pub(super) seen: Mutex<HashMap<(Phase, &'static str), u64>>,
    pub(super) faults: Mutex<Vec<String>>,
}

impl Shared {
    pub(super) fn set(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Release);
    }

    pub(super) fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Up,
            1 => Phase::Stopped,
            _ => Phase::Down,
        }
    }

    fn fault(&self, text: String) {
        let mut faults = self.faults.lock();
        if faults.len() < 20 {
            faults.push(text);
        }
    }

    /// Takes in the answer to one call.
    pub(super) fn took(
        &self,
        who: &str,
        began: Phase,
        took: Duration,
        deadline: Duration,
        values: Vec<String>,
        answer: Result<Vec<Reported>, String>,
    ) {
        if took >= deadline {
            self.fault(format!("{who}: {took:?} for a deadline of {deadline:?} ({began:?})"));
        }
        let results = match answer {
            Ok(results) => results,
            Err(text) => {
                self.fault(format!("{who}: no result per record but {text} ({began:?} to {:?})", self.phase()));
                vec![Reported::Unknown; values.len()]
            }
        };
        if results.len() != values.len() {
            self.fault(format!("{who}: {} results for {} records", results.len(), values.len()));
        }
        if began == self.phase() {
            let mut seen = self.seen.lock();
            for result in &results {
                let word = match result {
                    Reported::Persisted { .. } => "persisted",
                    Reported::NotPersisted => "not persisted",
                    Reported::Unknown => "possibly persisted",
                };
                *seen.entry((began, word)).or_default() += 1;
            }
        }
        self.told.lock().extend(values.into_iter().zip(results));
    }

    pub(super) fn seen(&self, phase: Phase, word: &'static str) -> u64 {
        self.seen.lock().get(&(phase, word)).copied().unwrap_or_default()
    }
}

pub(super) fn told(result: &RecordResult) -> Reported {
    match result.outcome() {
        Outcome::Persisted => Reported::Persisted { partition: result.partition, offset: result.offset },
        Outcome::NotPersisted => Reported::NotPersisted,
        _ => Reported::Unknown,
    }
}

fn values(writer: &str, batch: u64) -> Vec<String> {
    (0..BATCH).map(|i| format!("{writer}/{batch}/{i}")).collect()
}

pub(super) async fn write_over_grpc(
    shared: Arc<Shared>,
    writer: String,
    mut api: Api,
    topic: String,
    deadline: Duration,
) {
    api.timeout = deadline;
    for batch in 0.. {
        if shared.stop.load(Ordering::Acquire) {
            return;
        }
        let values = values(&writer, batch);
        let records = values.iter().map(|value| kill_gateway::one(value)).collect();
        let (began, started) = (shared.phase(), Instant::now());
        let answer = api.produce(&topic, records).await;
        let answer = answer.map(|results| results.iter().map(told).collect()).map_err(|status| format!("{status:?}"));
        shared.took(&writer, began, started.elapsed(), deadline, values, answer);
    }
}

pub(super) async fn write_over_http(
    shared: Arc<Shared>,
    writer: String,
    http: Http,
    topic: String,
    deadline: Duration,
) {
    let path = format!("/v1/{topic}/records");
    for batch in 0.. {
        if shared.stop.load(Ordering::Acquire) {
            return;
        }
        let values = values(&writer, batch);
        // The same record as over gRPC.
        let one = |value: &String| json!({"keyText": value, "valueText": value, "headers": [{"name": "h", "text": value}, {"name": "h", "bytes": "AP8="}]});
        let body = json!({"records": values.iter().map(one).collect::<Vec<_>>()});
        let request = http
            .request(reqwest::Method::POST, &path)
            .header("x-request-timeout-ms", deadline.as_millis() as u64)
            .json(&body);
        let (began, started) = (shared.phase(), Instant::now());
        let answer = match http.send(request).await {
            Ok(answer) if matches!(answer.status, 200 | 207) => Ok(http_results(&answer.json())),
            Ok(answer) => Err(format!("{} {}", answer.status, answer.message())),
            Err(error) => Err(format!("{error:#}")),
        };
        shared.took(&writer, began, started.elapsed(), deadline, values, answer);
    }
}

fn http_results(json: &Value) -> Vec<Reported> {
    let results = json["results"].as_array().cloned().unwrap_or_default();
    let number = |value: &Value| value.as_str().map_or(value.as_i64(), |text| text.parse().ok());
    let one = |result: &Value| match result["outcome"].as_str() {
        Some("OUTCOME_PERSISTED") => Reported::Persisted {
            partition: number(&result["partition"]).and_then(|partition| i32::try_from(partition).ok()).unwrap_or(-1),
            offset: number(&result["offset"]),
        },
        Some("OUTCOME_NOT_PERSISTED") => Reported::NotPersisted,
        _ => Reported::Unknown,
    };
    results.iter().map(one).collect()
}

/// Reads all the time; the answer must come in time, whatever it is.
pub(super) async fn read(shared: Arc<Shared>, mut api: Api, topic: String) {
    api.timeout = Duration::from_secs(3);
    while !shared.stop.load(Ordering::Acquire) {
        let started = Instant::now();
        let answer = api.fetch(&topic, 0, 0, Duration::from_millis(500)).await;
        if started.elapsed() >= api.timeout {
            shared.fault(format!("a read took {:?}: {:?}", started.elapsed(), answer.map(|read| read.next_offset)));
        }
    }
}
