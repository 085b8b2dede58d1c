//! PostgreSQL away: who is known works on, what needs it says UNAVAILABLE and never that a key is wrong, and a gateway can
//! even start.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use sluice_e2e::tenant::record;
use sluice_e2e::{Api, Installation, Options, bad_keys, wait};
use tonic::{Code, Status};

const TOPIC: &str = "namespaces/prod/topics/orders";
const BACK_WITHIN: Duration = Duration::from_secs(15);

/// A tenant's work on one gateway: everything must succeed. Counts the calls.
async fn work(api: Api, stop: Arc<AtomicBool>, calls: Arc<AtomicU64>) -> Result<()> {
    while !stop.load(Ordering::Acquire) {
        let results = api.produce_all(TOPIC, vec![record(Some(b"k"), b"v")]).await?;
        let (partition, offset) = (results[0].partition, results[0].offset.context("an offset")?);
        let read = api.fetch(TOPIC, partition, offset, Duration::from_secs(1)).await?;
        ensure!(read.records.first().is_some_and(|record| record.offset == offset), "{read:?}");
        calls.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

fn unavailable<T>(what: &str, answer: Result<T, Status>) -> Result<()> {
    match answer {
        Err(status) if status.code() == Code::Unavailable => {
            ensure!(status.metadata().contains_key("retry-after"), "{what}: when to come back? {status:?}");
            let text = format!("{status:?}").to_lowercase();
            for inside in ["postgres", "sqlx", "pool", "127.0.0.1", "connection refused"] {
                ensure!(!text.contains(inside), "{what} tells of the inside: {status:?}");
            }
            Ok(())
        }
        Err(status) => bail!("{what}: {status:?}"),
        Ok(_) => bail!("{what} succeeded"),
    }
}

/// What needs PostgreSQL says so, in time, on this gateway.
async fn refusals(it: &Installation, gateway: usize, key: &str, round: &str) -> Result<()> {
    let mut api = it.api(gateway, key)?;
    api.timeout = Duration::from_secs(10);
    let started = Instant::now();
    unavailable("create topic", api.create_topic_call("prod", &format!("new-{round}"), 1).await)?;
    let status = |error: anyhow::Error| -> Status {
        error.downcast::<Status>().unwrap_or_else(|other| Status::unknown(format!("{other:#}")))
    };
    unavailable("create key", api.create_key("writer").await.map_err(status))?;
    unavailable("delete topic", api.delete_topic(TOPIC).await.map_err(status))?;
    let stranger = it.api(gateway, &bad_keys::unknown())?;
    unavailable("an unknown key", stranger.produce(TOPIC, vec![record(None, b"x")]).await)?;
    let answer = it.http(gateway, Some(&bad_keys::unknown())).get("/v1/tenant").await?;
    ensure!(
        answer.status == 503 && answer.headers.contains_key("retry-after"),
        "{} {}",
        answer.status,
        answer.message()
    );
    // As an unknown key: the answer must not tell that the id exists.
    let wrong = it.api(gateway, &bad_keys::with_other_secret(key)?)?;
    let code = wrong.produce(TOPIC, vec![record(None, b"x")]).await.err().map(|status| status.code());
    ensure!(code == Some(Code::Unavailable), "a wrong secret of a known key: {code:?}");
    println!("gateway {gateway}, {round}: refusals took {:?}", started.elapsed());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn known_tenants_notice_nothing_and_the_rest_is_unavailable() -> Result<()> {
    let it = Installation::start(Options::default()).await?;
    let tenant = it.tenant("acme").await?;
    let api = it.api(0, &tenant.key)?;
    api.create_namespace("prod").await?;
    api.create_topic("prod", "orders", 2).await?;
    api.create_account("writer", sluice_proto::admin::v1::Role::Producer, "*").await?;
    let postgres = it.stack.postgres()?;
    let stop = Arc::new(AtomicBool::new(false));
    let calls = [Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default()];
    let mut workers = Vec::new();
    for (gateway, calls) in calls.iter().enumerate() {
        workers.push(tokio::spawn(work(it.api(gateway, &tenant.key)?, stop.clone(), calls.clone())));
    }

    // Gone: connections are refused. Then frozen: connections stay open and nothing answers.
    for round in ["stopped", "frozen"] {
        let before: Vec<u64> = calls.iter().map(|calls| calls.load(Ordering::Relaxed)).collect();
        match round {
            "stopped" => postgres.stop().await,
            _ => postgres.pause().await?,
        }
        for gateway in 0..2 {
            refusals(&it, gateway, &tenant.key, round).await?;
        }
        wait::until("work on both gateways", Duration::from_secs(10), async || {
            let more = calls.iter().zip(&before).all(|(calls, before)| calls.load(Ordering::Relaxed) > before + 50);
            Ok(more.then_some(()))
        })
        .await?;
        match round {
            "stopped" => postgres.start_server().await?,
            _ => postgres.resume(),
        }
        let name = format!("after-{round}");
        wait::until("mutations to work again", BACK_WITHIN, async || {
            Ok(Some(api.create_topic("prod", &name, 1).await?))
        })
        .await?;
        for gateway in 0..2 {
            it.api(gateway, &tenant.key)?
                .produce_all(&format!("namespaces/prod/topics/{name}"), vec![record(None, b"x")])
                .await?;
        }
    }
    stop.store(true, Ordering::Release);
    for worker in workers {
        worker.await?.context("a known tenant met an error")?;
    }
    for name in ["control-plane", "provisioning", "billing", "gateway-1", "gateway-2"] {
        ensure!(it.process(name)?.exit_status().is_none(), "{name} ended");
    }
    // A strange key is known to be wrong again.
    let stranger = it.api(0, &bad_keys::unknown())?;
    wait::until("unknown keys to be told so", BACK_WITHIN, async || {
        let code = stranger.produce(TOPIC, vec![record(None, b"x")]).await.err().map(|status| status.code());
        Ok((code == Some(Code::Unauthenticated)).then_some(()))
    })
    .await?;
    it.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_restarted_meanwhile_serves_known_tenants() -> Result<()> {
    let it = Installation::start(Options::default()).await?;
    let tenant = it.tenant("acme").await?;
    let api = it.api(0, &tenant.key)?;
    api.create_namespace("prod").await?;
    api.create_topic("prod", "orders", 2).await?;
    api.create_account("writer", sluice_proto::admin::v1::Role::Producer, "*").await?;
    let revoked = api.create_key("writer").await?;
    it.api(1, &revoked.key)?.produce_all(TOPIC, vec![record(None, b"x")]).await?;
    api.revoke_key(&revoked.name).await?;
    it.stack.postgres()?.stop().await;
    for end in ["killed", "stopped"] {
        let process = it.process("gateway-2")?;
        match end {
            "killed" => process.kill9().await,
            _ => process.stop(Duration::from_secs(35)).await,
        };
        it.restart("gateway-2").await?;
        let restarted = it.api(1, &tenant.key)?;
        let results = restarted.produce_all(TOPIC, vec![record(Some(b"k"), b"v")]).await?;
        let offset = results[0].offset.context("an offset")?;
        let read = restarted.fetch(TOPIC, results[0].partition, offset, Duration::from_secs(1)).await?;
        ensure!(read.records.len() == 1, "{end}: {read:?}");
        // What was revoked stays revoked.
        let code =
            it.api(1, &revoked.key)?.produce(TOPIC, vec![record(None, b"x")]).await.err().map(|status| status.code());
        ensure!(code == Some(Code::Unauthenticated), "{end}: a revoked key: {code:?}");
        refusals(&it, 1, &tenant.key, end).await?;
    }
    it.stack.postgres()?.start_server().await?;
    let restarted = it.api(1, &tenant.key)?;
    wait::until("mutations to work again", BACK_WITHIN, async || {
        Ok(Some(restarted.create_topic("prod", "after", 1).await?))
    })
    .await?;
    it.stop().await
}
