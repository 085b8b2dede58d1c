//! Two consumers of one group, one on each gateway: over gRPC `Consume` and over HTTP `Pull`. Meanwhile the gateway that
//! dispatches the group is killed with -9 and started again.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use indicatif::ProgressBar;
use parking_lot::Mutex;
use serde_json::{Value, json};
use sluice_e2e::consumer::{ConsumeStream, ack_ids, group_of};
use sluice_e2e::digest::Digest;
use sluice_e2e::{Api, Http, Installation, Tenant, wait};
use sluice_proto::stream::v1::consume_response::Message;
use sluice_proto::stream::v1::{ReceivedRecord, SettleOutcome, record};
use tonic::{Code, Status};

use super::{NAMESPACE, TOPIC};
use crate::flights::seq;

pub(super) const GROUP: &str = "delays";
const CREDIT: i32 = 5_000;
const PULL_RECORDS: u32 = 1_000;
/// Without a single record or answer for so long, something is wrong.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// What the group's consumers saw.
#[derive(Default)]
pub(crate) struct Grouped {
    /// First deliveries.
    pub(crate) delivered: Digest,
    /// Records whose acknowledgement was answered OK.
    pub(crate) acked: u64,
    /// Deliveries beyond the first.
    pub(crate) redelivered: u64,
    /// Deliveries after an acknowledgement was answered OK.
    pub(crate) after_ack: u64,
    /// First deliveries of a key that came before an earlier one.
    pub(crate) inversions: u64,
    /// Records that the gRPC consumer got first.
    pub(crate) by_stream: u64,
    /// Not acknowledged at the end, as the group's status tells.
    pub(crate) lag: i64,
    /// From the kill to the next record, if this tenant's dispatcher was killed.
    pub(crate) takeover: Option<Duration>,
}

/// What both consumers share.
#[derive(Default)]
struct Seen {
    /// By (partition, offset): whether it was acknowledged.
    records: HashMap<(i32, i64), bool>,
    last: HashMap<Bytes, u64>,
    grouped: Grouped,
    last_at: Option<Instant>,
}

struct Shared {
    seen: Mutex<Seen>,
    total: u64,
    stop: AtomicBool,
    bar: ProgressBar,
    group: String,
}

/// A record as either protocol brings it.
struct Arrived {
    place: (i32, i64),
    key: Option<Bytes>,
    value: Bytes,
}

/// Consumes the whole topic with two consumers; with `kill` the group's dispatcher dies after a third.
pub(super) async fn run(
    installation: &Installation,
    tenant: &Tenant,
    apis: &[Api],
    total: u64,
    kill: bool,
    bar: ProgressBar,
) -> Result<Grouped> {
    let group = apis[0].create_group(NAMESPACE, GROUP, group_of(NAMESPACE, &[TOPIC])).await?.name;
    let stop = AtomicBool::new(false);
    let shared = Arc::new(Shared { seen: Mutex::default(), total, stop, bar, group });
    let http = installation.http(1, Some(&tenant.key));
    let control = async {
        let takeover = if kill { Some(kill_dispatcher(installation, &shared, apis).await?) } else { None };
        wait::until("all records acknowledged", Duration::from_secs(600), async || {
            let seen = shared.seen.lock();
            // Silence is told by the table, not here.
            let silent = seen.last_at.is_some_and(|at| at.elapsed() > SILENCE_MAX);
            Ok((silent || seen.grouped.acked >= shared.total).then_some(()))
        })
        .await?;
        shared.stop.store(true, Ordering::Release);
        anyhow::Ok(takeover)
    };
    let consumers = (by_stream(Arc::clone(&shared), apis[0].clone()), by_pull(Arc::clone(&shared), http));
    let ((), (), takeover) = tokio::try_join!(consumers.0, consumers.1, control)?;
    shared.bar.finish();
    let lag = wait::until("the group's status", Duration::from_secs(20), async || {
        Ok(Some(apis[1].group_status(&shared.group).await?.lag))
    });
    let lag = lag.await?;
    let grouped = std::mem::take(&mut shared.seen.lock().grouped);
    Ok(Grouped { lag, takeover, ..grouped })
}

/// Kills the gateway that dispatches the group and starts it again: the time until the next record came.
async fn kill_dispatcher(installation: &Installation, shared: &Shared, apis: &[Api]) -> Result<Duration> {
    wait::until("a third of the records", Duration::from_secs(300), async || {
        Ok((shared.seen.lock().grouped.acked * 3 >= shared.total).then_some(()))
    })
    .await?;
    let dispatcher = apis[0].group_status(&shared.group).await?.dispatcher;
    ensure!(!dispatcher.is_empty(), "the group has no dispatcher");
    installation.process(&dispatcher)?.kill9().await;
    let killed = Instant::now();
    let took = wait::until("a record after the kill", Duration::from_secs(30), async || {
        let at = shared.seen.lock().last_at;
        // What the dead one had sent may still arrive.
        let fresh = at.filter(|at| *at > killed + Duration::from_millis(200));
        Ok(fresh.map(|at| at.duration_since(killed)))
    });
    let took = took.await?;
    installation.restart(&dispatcher).await?;
    Ok(took)
}

impl Shared {
    fn arrived(&self, arrived: &[Arrived], by_stream: bool) {
        let mut seen = self.seen.lock();
        let seen = &mut *seen;
        seen.last_at = Some(Instant::now());
        for one in arrived {
            match seen.records.get(&one.place) {
                Some(acked) => {
                    seen.grouped.redelivered += 1;
                    seen.grouped.after_ack += u64::from(*acked);
                }
                None => {
                    seen.records.insert(one.place, false);
                    seen.grouped.delivered.add(one.key.as_deref(), Some(&one.value), 0);
                    seen.grouped.by_stream += u64::from(by_stream);
                    if let (Some(key), Some(seq)) = (&one.key, seq(&one.value)) {
                        let before = seen.last.insert(key.clone(), seq);
                        seen.grouped.inversions += u64::from(before.is_some_and(|before| before >= seq));
                    }
                }
            }
        }
    }

    fn acked(&self, places: &[(i32, i64)], ok: impl Iterator<Item = bool>) {
        let mut seen = self.seen.lock();
        let seen = &mut *seen;
        for (place, ok) in places.iter().zip(ok) {
            if let Some(acked) = seen.records.get_mut(place).filter(|acked| ok && !**acked) {
                *acked = true;
                seen.grouped.acked += 1;
                self.bar.inc(1);
            }
        }
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }
}

/// Connects again whenever the gateway is away; acknowledgements decide what comes again.
async fn by_stream(shared: Arc<Shared>, api: Api) -> Result<()> {
    while !shared.stopped() {
        match api.consume(&shared.group, CREDIT).await {
            Ok(stream) => {
                let mut waiting = HashMap::new();
                let ended = follow(&shared, &api, stream, &mut waiting).await;
                // Acknowledgements that nobody answered are sent again: whoever dispatches now knows what became of them.
                for (ids, places) in waiting.into_values() {
                    ask_again(&shared, &api, ids, &places).await?;
                }
                match ended {
                    Ok(()) => {}
                    Err(status) if again(&status) => {}
                    Err(status) => bail!("consume: {status:?}"),
                }
            }
            Err(status) if again(&status) => {}
            Err(status) => bail!("consume: {status:?}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

async fn ask_again(shared: &Shared, api: &Api, ids: Vec<String>, places: &[(i32, i64)]) -> Result<()> {
    wait::until("an answer to an acknowledgement", Duration::from_secs(30), async || {
        match api.ack(&shared.group, ids.clone()).await {
            Ok(results) if results.iter().any(|result| result.outcome() == SettleOutcome::Unavailable) => Ok(None),
            Ok(results) => {
                shared.acked(places, results.iter().map(|result| result.outcome() == SettleOutcome::Ok));
                Ok(Some(()))
            }
            Err(status) if again(&status) => Ok(None),
            Err(status) => bail!("ack: {status:?}"),
        }
    })
    .await
}

/// Acknowledgements on their way: ids and places.
type Waiting = HashMap<i64, (Vec<String>, Vec<(i32, i64)>)>;

async fn follow(shared: &Shared, api: &Api, mut stream: ConsumeStream, waiting: &mut Waiting) -> Result<(), Status> {
    let ended = |_| Status::unavailable("the stream has ended");
    loop {
        let message = match tokio::time::timeout(Duration::from_millis(500), stream.next()).await {
            Ok(message) => message?,
            Err(_) if shared.stopped() => return Ok(()),
            Err(_) => continue,
        };
        let Some(message) = message else { return Ok(()) };
        match message.message {
            Some(Message::Records(records)) => {
                let records = records.records;
                let arrived: Vec<Arrived> = records.iter().map(typed).collect();
                shared.arrived(&arrived, true);
                let places = arrived.into_iter().map(|one| one.place).collect();
                let ids = ack_ids(&records);
                let sequence = stream.ack(ids.clone()).await.map_err(ended)?;
                waiting.insert(sequence, (ids, places));
                stream.credit(i32::try_from(records.len()).unwrap_or(CREDIT)).await.map_err(ended)?;
            }
            Some(Message::Settled(settled)) => {
                let (ids, places) = waiting.remove(&settled.sequence).unwrap_or_default();
                if settled.results.iter().any(|result| result.outcome() == SettleOutcome::Unavailable) {
                    // The dispatcher went away before it answered.
                    let asked = ask_again(shared, api, ids, &places).await;
                    asked.map_err(|error| Status::internal(format!("{error:#}")))?;
                } else {
                    shared.acked(&places, settled.results.iter().map(|result| result.outcome() == SettleOutcome::Ok));
                }
            }
            Some(Message::Notice(_)) | None => {}
        }
        if shared.stopped() && waiting.is_empty() {
            return Ok(());
        }
    }
}

fn again(status: &Status) -> bool {
    matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Cancelled | Code::ResourceExhausted)
}

fn typed(received: &ReceivedRecord) -> Arrived {
    let record = received.record.clone().unwrap_or_default();
    let key = match record.key_kind {
        Some(record::KeyKind::Key(key)) => Some(key),
        _ => None,
    };
    let value = match record.value_kind {
        Some(record::ValueKind::Value(value)) => value,
        _ => Bytes::new(),
    };
    Arrived { place: (record.partition, record.offset), key, value }
}

async fn by_pull(shared: Arc<Shared>, http: Http) -> Result<()> {
    let path = |verb: &str| format!("/v1/{}:{verb}", shared.group);
    let request = json!({"maxRecords": PULL_RECORDS, "maxBytes": 4 << 20, "wait": "1s"});
    while !shared.stopped() {
        // A connection that breaks under a killed gateway is tried again, as is 503 and 429.
        let Some(answer) = good(http.post(&path("pull"), &request).await)? else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let records = answer["records"].as_array().cloned().unwrap_or_default();
        if records.is_empty() {
            continue;
        }
        let arrived: Vec<Arrived> = records.iter().map(from_json).collect::<Result<_>>()?;
        shared.arrived(&arrived, false);
        let ids: Vec<&Value> = records.iter().map(|record| &record["ackId"]).collect();
        let body = json!({"ackIds": ids});
        let answer = wait::until("an answer to an acknowledgement", Duration::from_secs(30), async || {
            let answer = good(http.post(&path("ack"), &body).await)?;
            let open = |answer: &Value| answer["results"].to_string().contains("SETTLE_OUTCOME_UNAVAILABLE");
            Ok(answer.filter(|answer| !open(answer)))
        });
        let answer = answer.await?;
        let results = answer["results"].as_array().cloned().unwrap_or_default();
        let places: Vec<(i32, i64)> = arrived.iter().map(|one| one.place).collect();
        shared.acked(&places, results.iter().map(|result| result["outcome"] == "SETTLE_OUTCOME_OK"));
    }
    Ok(())
}

/// The body of a good answer; `None` if the call is to be made again.
fn good(answer: Result<sluice_e2e::http::Answer>) -> Result<Option<Value>> {
    match answer {
        Ok(answer) if matches!(answer.status, 200 | 207) => Ok(Some(answer.json())),
        Ok(answer) if matches!(answer.status, 429 | 503 | 504) => Ok(None),
        Ok(answer) => bail!("{}: {}", answer.status, String::from_utf8_lossy(&answer.body)),
        Err(_) => Ok(None),
    }
}

fn from_json(received: &Value) -> Result<Arrived> {
    let record = &received["record"];
    let bytes = |value: &Value| -> Result<Option<Bytes>> {
        let Some(text) = value.as_str() else { return Ok(None) };
        Ok(Some(STANDARD.decode(text).context("base64")?.into()))
    };
    let offset = record["offset"].as_str().and_then(|text| text.parse().ok()).context("an offset")?;
    let partition = record["partition"].as_i64().context("a partition")?;
    Ok(Arrived {
        place: (i32::try_from(partition)?, offset),
        key: bytes(&record["key"])?,
        value: bytes(&record["value"])?.unwrap_or_default(),
    })
}
