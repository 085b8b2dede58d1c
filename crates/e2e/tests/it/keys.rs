//! Keys that do not work: a clear answer, the same one for every way of being wrong, and no way to make PostgreSQL work for
//! strangers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use sluice_e2e::raw::{self, RawAnswer};
use sluice_e2e::tenant::record;
use sluice_e2e::{Installation, Options, Tenant, bad_keys, wait};
use sluice_proto::admin::v1::service_account_service_client::ServiceAccountServiceClient;
use sluice_proto::admin::v1::{ApiKey, CreateApiKeyRequest, Role};
use sluice_proto::operator::v1::{ResumeTenantRequest, SuspendTenantRequest};
use sluice_proto::wkt::Timestamp;
use sqlx::Connection;
use tonic::Code;

const WITHIN: Duration = Duration::from_secs(10);
const TOPIC: &str = "namespaces/prod/topics/orders";

async fn tenant_with_topic(it: &Installation) -> Result<Tenant> {
    let tenant = it.tenant("acme").await?;
    let api = it.api(0, &tenant.key)?;
    api.create_namespace("prod").await?;
    api.create_topic("prod", "orders", 1).await?;
    Ok(tenant)
}

/// The answers to a data call and an admin call over HTTP and to a data call over gRPC, without the date.
async fn answers(it: &Installation, authorization: Option<&str>) -> Result<Vec<RawAnswer>> {
    let mut headers = vec![("x-request-id", "keys-1")];
    headers.extend(authorization.map(|value| ("authorization", value)));
    let mut json = headers.clone();
    json.push(("content-type", "application/json"));
    let body = br#"{"records":[{"valueText":"x"}]}"#;
    let produce = raw::http(it.gateway(0), "POST", &format!("/v1/{TOPIC}/records"), &json, body, WITHIN).await?;
    let tenant = raw::http(it.gateway(0), "GET", "/v1/tenant", &headers, b"", WITHIN).await?;
    let channel = it.api(0, "none")?.channel;
    let metadata =
        raw::grpc(&channel, "/sluice.stream.v1.StreamService/GetTopicMetadata", &headers, b"", false).await?;
    let mut all = vec![produce, tenant, metadata];
    for answer in &mut all {
        answer.headers.remove("date");
    }
    Ok(all)
}

fn reason(answer: &RawAnswer) -> (String, String) {
    let json: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let details = json["error"]["details"].as_array().cloned().unwrap_or_default();
    let reason = details.iter().find_map(|detail| detail["reason"].as_str()).unwrap_or_default().to_owned();
    (reason, json["error"]["message"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_wrong_key_gets_one_and_the_same_answer() -> Result<()> {
    let it = Installation::start(Options { gateways: 1, ..Options::default() }).await?;
    let tenant = tenant_with_topic(&it).await?;
    let api = it.api(0, &tenant.key)?;
    api.create_account("writer", Role::Owner, "*").await?;
    let revoked = api.create_key("writer").await?;
    let good = format!("Bearer {}", revoked.key);
    ensure!(answers(&it, Some(&good)).await?[1].status == 200, "the key works before it is revoked");
    api.revoke_key(&revoked.name).await?;
    let expired = expiring_key(&api, "writer", Duration::from_secs(2)).await?;
    let expired = format!("Bearer {expired}");
    ensure!(answers(&it, Some(&expired)).await?[1].status == 200, "the key works before it expires");
    wait::until("the key to expire", Duration::from_secs(10), async || {
        Ok((answers(&it, Some(&expired)).await?[1].status == 401).then_some(()))
    })
    .await?;

    let end_before = end_offset(&it, &tenant).await?;
    let bearer = |key: &str| format!("Bearer {key}");
    let wrong = [
        ("unknown id", bearer(&bad_keys::unknown())),
        ("wrong secret", bearer(&bad_keys::with_other_secret(&tenant.key)?)),
        ("wrong secret of a revoked key", bearer(&bad_keys::with_other_secret(&revoked.key)?)),
        ("revoked", bearer(&revoked.key)),
        ("expired", expired),
        ("bad checksum", bearer(&bad_keys::with_bad_checksum(&tenant.key)?)),
        ("malformed", bearer("sl_dev_x")),
        ("too long", bearer(&"x".repeat(5_000))),
        ("another scheme", format!("Basic {}", tenant.key)),
    ];
    let first = answers(&it, Some(&wrong[0].1)).await?;
    for answer in &first[..2] {
        ensure!(answer.status == 401, "{}", answer.shown());
        ensure!(answer.header("www-authenticate") == Some("Bearer"), "{}", answer.shown());
        let (reason, message) = reason(answer);
        ensure!(reason == "CREDENTIAL_INVALID" && message.contains("key"), "{reason}: {message}");
        ensure!(answer.header("sluice-revision").is_none(), "a stranger is told the revision: {}", answer.shown());
    }
    ensure!(first[2].grpc_code() == Some(16), "{}", first[2].shown());
    let mut faults = Vec::new();
    for (what, authorization) in &wrong[1..] {
        for (answer, wanted) in answers(&it, Some(authorization)).await?.iter().zip(&first) {
            if answer != wanted {
                faults.push(format!("{what}:\n  {}\n  {}", answer.shown(), wanted.shown()));
            }
        }
    }
    ensure!(faults.is_empty(), "{}", faults.join("\n"));

    for missing in answers(&it, None).await? {
        match missing.grpc_code() {
            Some(code) => ensure!(code == 16, "{}", missing.shown()),
            None => {
                let (reason, message) = reason(&missing);
                ensure!(missing.status == 401 && reason == "CREDENTIAL_MISSING", "{}", missing.shown());
                ensure!(message.contains("authorization"), "no word of the remedy: {message}");
            }
        }
    }
    let end = end_offset(&it, &tenant).await?;
    ensure!(end_before >= 2 && end == end_before, "{} records were written with wrong keys", end - end_before);
    it.stop().await
}

/// A key that ends soon.
async fn expiring_key(api: &sluice_e2e::Api, account: &str, after: Duration) -> Result<String> {
    let at = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)? + after;
    let request = CreateApiKeyRequest {
        parent: format!("serviceAccounts/{account}"),
        api_key: Some(ApiKey {
            expire_time: Some(Timestamp { seconds: i64::try_from(at.as_secs())?, nanos: 0 }),
            ..Default::default()
        }),
        ..Default::default()
    };
    let mut client = ServiceAccountServiceClient::new(api.channel.clone());
    Ok(client.create_api_key(api.request(request)).await?.into_inner().key)
}

async fn end_offset(it: &Installation, tenant: &Tenant) -> Result<i64> {
    Ok(it.api(0, &tenant.key)?.fetch(TOPIC, 0, 0, Duration::ZERO).await?.end_offset)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_tenants_keys_are_refused_with_a_clear_word_until_it_is_resumed() -> Result<()> {
    let it = Installation::start(Options::default()).await?;
    let tenant = tenant_with_topic(&it).await?;
    let other = it.tenant("bolt").await?;
    let (mut operator, token) = it.operator()?;
    let request = SuspendTenantRequest { name: "tenants/acme".into(), reason: "a test".into(), ..Default::default() };
    operator.suspend_tenant(Installation::operator_request(request, &token)?).await?;
    let authorization = format!("Bearer {}", tenant.key);
    for gateway in 0..2 {
        let api = it.api(gateway, &tenant.key)?;
        let status = api.produce(TOPIC, vec![record(None, b"x")]).await.err().context("a suspended tenant wrote")?;
        ensure!(status.code() == Code::PermissionDenied && status.message().contains("suspended"), "{status:?}");
        let headers = [("authorization", authorization.as_str())];
        let answer = raw::http(it.gateway(gateway), "GET", "/v1/tenant", &headers, b"", WITHIN).await?;
        ensure!(answer.status == 403 && reason(&answer).0 == "TENANT_SUSPENDED", "{}", answer.shown());
        // Only who has the key learns of it.
        let stranger = format!("Bearer {}", bad_keys::with_other_secret(&tenant.key)?);
        let answer =
            raw::http(it.gateway(gateway), "GET", "/v1/tenant", &[("authorization", &stranger)], b"", WITHIN).await?;
        ensure!(answer.status == 401, "{}", answer.shown());
        ensure!(
            it.http(gateway, Some(&other.key)).get("/v1/tenant").await?.status == 200,
            "another tenant is refused, too"
        );
    }
    let request = ResumeTenantRequest { name: "tenants/acme".into(), ..Default::default() };
    operator.resume_tenant(Installation::operator_request(request, &token)?).await?;
    for gateway in 0..2 {
        let results = it.api(gateway, &tenant.key)?.produce_all(TOPIC, vec![record(None, b"x")]).await?;
        ensure!(results[0].offset == Some(i64::try_from(gateway)?), "something was written meanwhile: {results:?}");
    }
    it.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_unknown_keys_costs_postgresql_next_to_nothing_and_good_keys_work_on() -> Result<()> {
    const FLOOD: Duration = Duration::from_secs(6);
    let it = Installation::start(Options { gateways: 1, ..Options::default() }).await?;
    let tenant = tenant_with_topic(&it).await?;
    let idle = commits_over(&it, async {
        tokio::time::sleep(FLOOD).await;
        Ok(())
    })
    .await?
    .0;
    let stop = Arc::new(AtomicBool::new(false));
    let (tried, good) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let asked_before = it.metric("gateway-1", "sluice_gateway_key_lookups_total").await?;
    let started = Instant::now();
    let mut strangers = Vec::new();
    for _ in 0..8 {
        let (stop, tried) = (stop.clone(), tried.clone());
        let address = it.gateway(0).to_owned();
        strangers.push(tokio::spawn(async move {
            let http = sluice_e2e::Http::new(&address, None);
            while !stop.load(Ordering::Acquire) {
                let answer = http.with_key(Some(&bad_keys::unknown())).get("/v1/tenant").await?;
                tried.fetch_add(1, Ordering::Relaxed);
                ensure!(matches!(answer.status, 401 | 429 | 503), "{} {}", answer.status, answer.message());
                ensure!(answer.status == 401 || answer.headers.contains_key("retry-after"), "{answer:?}");
            }
            Ok(())
        }));
    }
    let owner = {
        let (stop, good, api) = (stop.clone(), good.clone(), it.api(0, &tenant.key)?);
        tokio::spawn(async move {
            while !stop.load(Ordering::Acquire) {
                api.produce_all(TOPIC, vec![record(None, b"x")]).await?;
                good.fetch_add(1, Ordering::Relaxed);
            }
            Ok::<_, anyhow::Error>(())
        })
    };
    let (commits, ()) = commits_over(&it, async {
        tokio::time::sleep(FLOOD).await;
        stop.store(true, Ordering::Release);
        for stranger in strangers {
            stranger.await??;
        }
        owner.await?
    })
    .await?;
    let took = started.elapsed();
    let asked = it.metric("gateway-1", "sluice_gateway_key_lookups_total").await? - asked_before;
    let (tried, good) = (tried.load(Ordering::Relaxed), good.load(Ordering::Relaxed));
    println!(
        "{tried} unknown keys and {good} good calls in {took:?}: {asked} look-ups, {commits} commits, {idle} when idle"
    );
    ensure!(tried > 1_000, "no flood: {tried}");
    ensure!(good > 20, "the good key hardly worked: {good}");
    // One address: 5 at once, then 5 a second. The metric is per flood, so nothing else counts in it.
    let budget = 5.0 + 5.0 * took.as_secs_f64();
    ensure!(asked >= 1.0, "unknown keys are not asked about at all");
    ensure!(asked <= budget, "{asked} look-ups, budget {budget}");
    let allowed = idle + idle / 2 + 3 * budget as i64 + 20;
    ensure!(commits <= allowed, "{commits} commits, {allowed} allowed");
    it.stop().await
}

/// Commits and rollbacks in the control plane's database while something goes on.
async fn commits_over<T>(it: &Installation, work: impl Future<Output = Result<T>>) -> Result<(i64, T)> {
    let url = it.stack.postgres()?.connection().url("postgres");
    let count = async || -> Result<i64> {
        let mut connection = sqlx::PgConnection::connect(&url).await?;
        let sql = "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = 'sluice_control'";
        // Sessions report at most once a second; only then is the count whole.
        let mut last: i64 = -1;
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_millis(1_100)).await;
            last = sqlx::query_scalar(sql).fetch_one(&mut connection).await?;
        }
        Ok(last)
    };
    let before = count().await?;
    let done = work.await?;
    Ok((count().await? - before, done))
}
