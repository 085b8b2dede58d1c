//! SIGTERM under load: the gateway finishes what it began and goes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::json;
use sluice_e2e::tenant::record;
use sluice_e2e::{Installation, Options, wait};
use sluice_proto::stream::v1::Outcome;
use tonic::Code;

#[derive(Default)]
struct Counts {
    persisted: AtomicU64,
    refused: AtomicU64,
    bad: parking_lot::Mutex<Vec<String>>,
    stop: AtomicBool,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_told_to_end_answers_everything_and_exits_in_time() -> Result<()> {
    let it = Installation::start(Options { gateways: 1, ..Options::default() }).await?;
    let tenant = it.tenant("acme").await?;
    let api = it.api(0, &tenant.key)?;
    api.create_namespace("prod").await?;
    let topic = api.create_topic("prod", "orders", 4).await?;
    let topic_name = topic.name.clone();
    let counts = Arc::new(Counts::default());
    let mut clients = Vec::new();
    for client in 0..4 {
        let for_http = counts.clone();
        let (api, counts, topic) = (it.api(0, &tenant.key)?, counts.clone(), topic.name.clone());
        clients.push(tokio::spawn(async move {
            while !counts.stop.load(Ordering::Acquire) {
                match api.produce(&topic, (0..50).map(|_| record(None, &[7; 200])).collect()).await {
                    Ok(results) => {
                        for result in results {
                            match result.outcome() {
                                Outcome::Persisted => counts.persisted.fetch_add(1, Ordering::Relaxed),
                                Outcome::NotPersisted => counts.refused.fetch_add(1, Ordering::Relaxed),
                                _ => {
                                    counts.bad.lock().push(format!("client {client}: {result:?}"));
                                    0
                                }
                            };
                        }
                    }
                    // Nobody listens any more, or the gateway said so: a clean refusal, nothing was taken.
                    Err(status) if is_clean(&status) => return,
                    Err(status) => {
                        counts.bad.lock().push(format!("client {client}: {status:?}"));
                        return;
                    }
                }
            }
        }));
        let (http, counts) = (it.http(0, Some(&tenant.key)), for_http);
        let path = format!("/v1/{topic_name}/records");
        clients.push(tokio::spawn(async move {
            while !counts.stop.load(Ordering::Acquire) {
                match http.post(&path, &json!({"records": [{"valueText": "x"}]})).await {
                    Ok(answer) if answer.status == 200 => {
                        let outcome = answer.json()["results"][0]["outcome"].as_str().unwrap_or_default().to_owned();
                        if outcome == "OUTCOME_POSSIBLY_PERSISTED" {
                            counts.bad.lock().push(format!("http client {client}: {outcome}"));
                        }
                        counts.persisted.fetch_add(1, Ordering::Relaxed);
                    }
                    Ok(answer) if answer.status == 503 => return,
                    Ok(answer) => {
                        counts.bad.lock().push(format!("http client {client}: {} {}", answer.status, answer.message()));
                        return;
                    }
                    Err(error) if error.chain().any(|cause| cause.to_string().contains("onnection refused")) => return,
                    Err(error) => {
                        counts.bad.lock().push(format!("http client {client}: {error:#}"));
                        return;
                    }
                }
            }
        }));
    }
    wait::until("load", Duration::from_secs(30), async || {
        Ok((counts.persisted.load(Ordering::Relaxed) > 5_000).then_some(()))
    })
    .await?;
    let started = Instant::now();
    let status = it.process("gateway-1")?.stop(Duration::from_secs(35)).await;
    let took = started.elapsed();
    counts.stop.store(true, Ordering::Release);
    for client in clients {
        client.await?;
    }
    println!("exit {status} after {took:?}, {} persisted", counts.persisted.load(Ordering::Relaxed));
    ensure!(status.success(), "exit {status}");
    ensure!(took < Duration::from_secs(30), "it took {took:?}");
    let bad = counts.bad.lock().clone();
    ensure!(bad.is_empty(), "{bad:#?}");
    it.stop().await
}

/// A refusal that took nothing: our own UNAVAILABLE, a connection that could not be made, or a call that the client's own
/// library never sent because the connection was closing in good order (hyper's `Canceled`).
fn is_clean(status: &tonic::Status) -> bool {
    let text = format!("{status:?}").to_lowercase();
    let never_sent = status.code() == Code::Cancelled && text.contains("canceled, \"connection closed\"");
    never_sent || (status.code() == Code::Unavailable && !text.contains("reset") && !text.contains("broken pipe"))
}
