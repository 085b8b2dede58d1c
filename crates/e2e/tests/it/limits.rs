//! A tenant's limit holds exactly, tells when to come back so that coming back then is enough, and is nobody else's concern.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;
use sluice_e2e::tenant::record;
use sluice_e2e::{Api, Http, Installation, Options, Tenant};
use sluice_proto::admin::v1::TenantLimits;
use sluice_proto::operator::v1::{Tenant as OperatorTenant, UpdateTenantRequest};
use sluice_proto::stream::v1::Outcome;
use sluice_proto::wkt::FieldMask;
use tonic::Code;
use tonic_types::StatusExt;

const RATE: u64 = 1 << 20;
/// What the limiter grants at once: a quarter of a second.
const BURST: u64 = RATE / 4;
const FOR: Duration = Duration::from_secs(10);
const TOPIC: &str = "namespaces/prod/topics/orders";

/// A tenant with a topic, and perhaps a limit.
async fn tenant(it: &Installation, id: &str, limit: Option<u64>) -> Result<Tenant> {
    let tenant = it.tenant(id).await?;
    let api = it.api(0, &tenant.key)?;
    api.create_namespace("prod").await?;
    api.create_topic("prod", "orders", 4).await?;
    if let Some(limit) = limit {
        let (mut operator, token) = it.operator()?;
        let limits = TenantLimits { ingress_bytes_per_second: i64::try_from(limit)?, ..Default::default() };
        let request = UpdateTenantRequest {
            tenant: Some(OperatorTenant { name: format!("tenants/{id}"), limits: Some(limits), ..Default::default() }),
            update_mask: Some(FieldMask { paths: vec!["limits".into()] }),
            ..Default::default()
        };
        let updated = operator.update_tenant(Installation::operator_request(request, &token)?).await?.into_inner();
        let set = updated.limits.map(|limits| limits.ingress_bytes_per_second);
        ensure!(set == Some(i64::try_from(limit)?), "{set:?}");
    }
    Ok(tenant)
}

/// The exact wait that a refusal asks for; both of its forms must agree.
fn wait_of(status: &tonic::Status) -> Result<Duration> {
    ensure!(status.code() == Code::ResourceExhausted, "{status:?}");
    let header = status.metadata().get("retry-after-ms").context("no retry-after-ms")?.to_str()?.parse()?;
    let header = Duration::from_millis(header);
    let details = status.get_error_details();
    let detail = details.retry_info().and_then(|info| info.retry_delay).context("no RetryInfo")?;
    ensure!(header == detail, "retry-after-ms {header:?}, RetryInfo {detail:?}");
    let seconds: u64 = status.metadata().get("retry-after").context("no retry-after")?.to_str()?.parse()?;
    ensure!(Duration::from_secs(seconds) >= header, "retry-after {seconds} s is before {header:?}");
    Ok(header)
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_times_the_limit_gets_the_limit_and_a_quiet_tenant_notices_nothing() -> Result<()> {
    const CLIENTS: u64 = 8;
    const BATCH: u64 = 64 << 10;
    let it = Installation::start(Options { gateways: 1, ..Options::default() }).await?;
    let loud = tenant(&it, "loud", Some(RATE)).await?;
    let quiet = tenant(&it, "quiet", None).await?;
    let (offered, accepted, refused) =
        (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
    let stop = Arc::new(AtomicBool::new(false));
    // Connections are made before the clock runs.
    let mut apis = Vec::new();
    for _ in 0..CLIENTS {
        let api = it.api(0, &loud.key)?;
        api.fetch(TOPIC, 0, 0, Duration::ZERO).await?;
        apis.push(api);
    }
    let beside = tokio::spawn(work_quietly(it.api(0, &quiet.key)?, stop.clone()));
    let started = Instant::now();
    let mut clients = Vec::new();
    for (number, api) in apis.into_iter().enumerate() {
        let (offered, accepted, refused) = (offered.clone(), accepted.clone(), refused.clone());
        clients.push(tokio::spawn(async move {
            // Ten times the rate over all clients, evenly spread.
            let every = Duration::from_secs_f64((BATCH * CLIENTS) as f64 / (10 * RATE) as f64);
            let mut ticks =
                tokio::time::interval_at((started + every.mul_f64(number as f64 / CLIENTS as f64)).into(), every);
            while started.elapsed() < FOR {
                ticks.tick().await;
                let records = (0..16).map(|_| record(None, &vec![b'v'; (BATCH / 16) as usize])).collect();
                offered.fetch_add(BATCH, Ordering::Relaxed);
                match api.produce(TOPIC, records).await {
                    Ok(results) => {
                        let persisted = results.iter().filter(|result| result.outcome() == Outcome::Persisted).count();
                        ensure!(persisted == 16, "{results:?}");
                        accepted.fetch_add(BATCH, Ordering::Relaxed);
                    }
                    Err(status) => {
                        wait_of(&status)?;
                        ensure!(status.message().contains("ingress"), "which limit? {status:?}");
                        refused.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
            Ok::<_, anyhow::Error>(())
        }));
    }
    for client in clients {
        client.await??;
    }
    let took = started.elapsed();
    stop.store(true, Ordering::Release);
    let (calls, slowest) = beside.await??;
    let (offered, accepted) = (offered.load(Ordering::Relaxed), accepted.load(Ordering::Relaxed));
    let wanted = RATE as f64 * took.as_secs_f64() + BURST as f64;
    let ratio = accepted as f64 / wanted;
    println!(
        "offered {offered}, accepted {accepted} in {took:?}: {ratio:.4} of the limit with its burst; {} refused; quiet: {calls} calls, slowest {slowest:?}",
        refused.load(Ordering::Relaxed)
    );
    ensure!(offered as f64 > 9.0 * RATE as f64 * took.as_secs_f64(), "only {offered} bytes were offered");
    ensure!((0.98..=1.02).contains(&ratio), "{ratio:.4} of the limit");
    ensure!(calls > 100, "the quiet tenant made {calls} calls only");
    it.stop().await
}

/// Small calls, one after another; none may be refused. How many, and the slowest.
async fn work_quietly(api: Api, stop: Arc<AtomicBool>) -> Result<(u64, Duration)> {
    let (mut calls, mut slowest) = (0, Duration::ZERO);
    while !stop.load(Ordering::Acquire) {
        let started = Instant::now();
        match api.produce(TOPIC, vec![record(None, &[1; 1_000])]).await {
            Ok(results) => ensure!(results[0].outcome() == Outcome::Persisted, "{results:?}"),
            Err(status) => bail!("the quiet tenant: {status:?}"),
        }
        slowest = slowest.max(started.elapsed());
        calls += 1;
    }
    Ok((calls, slowest))
}

/// How often a call that came back when it was told to was taken at once.
#[derive(Debug, Default)]
struct Obedience {
    refused: u32,
    taken_at_once: u32,
}

impl Obedience {
    fn check(&self) -> Result<()> {
        println!("{self:?}");
        ensure!(self.refused >= 20, "the limit was hardly met: {self:?}");
        ensure!(f64::from(self.taken_at_once) >= 0.95 * f64::from(self.refused), "{self:?}");
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lone_client_that_comes_back_when_told_is_taken_at_once() -> Result<()> {
    let it = Installation::start(Options { gateways: 1, ..Options::default() }).await?;
    let grpc = tenant(&it, "grpc", Some(RATE)).await?;
    let http = tenant(&it, "http", Some(RATE)).await?;
    // Two tenants, so two limits, at the same time.
    let (over_grpc, over_http) =
        tokio::try_join!(obey_over_grpc(it.api(0, &grpc.key)?), obey_over_http(it.http(0, Some(&http.key))))?;
    over_grpc.check()?;
    over_http.check()?;
    it.stop().await
}

/// Sizes around the burst: smaller ones and one that goes into debt.
const SIZES: [usize; 4] = [100_000, 30_000, 300_000, 7];

async fn obey_over_grpc(api: Api) -> Result<Obedience> {
    let mut obedience = Obedience::default();
    let started = Instant::now();
    for size in SIZES.iter().cycle() {
        if started.elapsed() > FOR {
            break;
        }
        let records = || vec![record(None, &vec![b'v'; *size])];
        let Err(status) = api.produce(TOPIC, records()).await else { continue };
        obedience.refused += 1;
        tokio::time::sleep(wait_of(&status)?).await;
        match api.produce(TOPIC, records()).await {
            Ok(_) => obedience.taken_at_once += 1,
            Err(status) => println!("gRPC, again: {}", status.message()),
        }
    }
    Ok(obedience)
}

/// As a client that knows only the standard header, in whole seconds, and one that reads the exact one.
async fn obey_over_http(http: Http) -> Result<Obedience> {
    let mut obedience = Obedience::default();
    let started = Instant::now();
    let path = format!("/v1/{TOPIC}/records");
    for (turn, size) in SIZES.iter().cycle().enumerate() {
        if started.elapsed() > FOR {
            break;
        }
        let body = json!({"records": [{"valueText": "v".repeat(*size)}]});
        let answer = http.post(&path, &body).await?;
        if answer.status == 200 {
            continue;
        }
        ensure!(answer.status == 429, "{} {}", answer.status, answer.message());
        obedience.refused += 1;
        let header = |name: &str| -> Result<u64> {
            Ok(answer.headers.get(name).with_context(|| format!("no {name}"))?.to_str()?.parse()?)
        };
        let (seconds, millis) = (header("retry-after")?, header("retry-after-ms")?);
        ensure!(seconds * 1_000 >= millis, "{seconds} s is before {millis} ms");
        for name in ["ratelimit-limit", "ratelimit-remaining", "ratelimit-reset"] {
            header(name)?;
        }
        let wait = if turn % 8 == 0 { seconds * 1_000 } else { millis };
        tokio::time::sleep(Duration::from_millis(wait)).await;
        let again = http.post(&path, &body).await?;
        if again.status == 200 {
            obedience.taken_at_once += 1;
        } else {
            println!("HTTP, again: {}", again.message());
        }
    }
    Ok(obedience)
}
