//! kill -9 of the services behind the gateways: the bill stays exact, no change is lost, Kafka matches intent again.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use parking_lot::Mutex;
use sluice_e2e::tenant::{finished, metadata, record};
use sluice_e2e::{Api, Installation, Options, Tenant, kafka_reader, long, wait};
use sluice_proto::admin::v1::operation_service_client::OperationServiceClient;
use sluice_proto::admin::v1::topic::State;
use sluice_proto::admin::v1::topic_service_client::TopicServiceClient;
use sluice_proto::admin::v1::{CreateTopicRequest, GetOperationRequest, ListTopicsRequest, Topic};
use sluice_proto::google::longrunning::Operation;
use sluice_provisioning::FAIL_POINTS;
use tonic::{Code, Status};

use crate::kill_gateway;

const WRITERS: u64 = 4;

/// Writers on both gateways until told to stop; what each value was told.
struct Load {
    told: Arc<Mutex<HashMap<String, kill_gateway::Reported>>>,
    stop: Arc<AtomicBool>,
    writers: Vec<tokio::task::JoinHandle<Result<()>>>,
}

impl Load {
    fn start(it: &Installation, tenant: &Tenant, topic: &str) -> Result<Self> {
        let mut load = Self { told: Arc::default(), stop: Arc::default(), writers: Vec::new() };
        for writer in 0..WRITERS {
            let apis = [it.api(0, &tenant.key)?, it.api(1, &tenant.key)?];
            let task = kill_gateway::write(writer, apis, topic.to_owned(), load.told.clone(), load.stop.clone());
            load.writers.push(tokio::spawn(task));
        }
        Ok(load)
    }

    async fn more(&self, records: usize) -> Result<()> {
        let wanted = self.told.lock().len() + records;
        wait::until("more records", Duration::from_secs(60), async || {
            Ok((self.told.lock().len() >= wanted).then_some(()))
        })
        .await
    }

    async fn end(self) -> Result<HashMap<String, kill_gateway::Reported>> {
        self.stop.store(true, Ordering::Release);
        for writer in self.writers {
            writer.await??;
        }
        let told = std::mem::take(&mut *self.told.lock());
        // No gateway was touched, so nothing may be unknown or refused.
        let odd = told.iter().find(|(_, what)| !matches!(what, kill_gateway::Reported::Persisted { .. }));
        ensure!(odd.is_none(), "with all gateways up: {odd:?}");
        Ok(told)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bill_is_the_log_after_billing_was_killed_five_times() -> Result<()> {
    let it = Installation::start(Options::default()).await?;
    let tenant = it.tenant("acme").await?;
    let api = it.api(0, &tenant.key)?;
    let namespace = api.create_namespace("prod").await?;
    let topic = api.create_topic("prod", "orders", 4).await?;
    let load = Load::start(&it, &tenant, &topic.name)?;
    for _ in 0..if long() { 25 } else { 5 } {
        load.more(2_000).await?;
        it.process("billing")?.kill9().await;
        // It stays away for a while, and what is sent to it waits.
        load.more(500).await?;
        it.restart("billing").await?;
    }
    load.more(1_000).await?;
    let told = load.end().await?;
    let log = kill_gateway::read_log(it.kafka()?.clone(), it.physical(&namespace.uid, &topic.uid)?).await?;
    kill_gateway::check_answers(&log, &told)?;
    let usage = kill_gateway::settled_usage(&api, &topic.name).await?;
    kill_gateway::check_coverage(&log, &usage)?;
    let uncovered: usize = usage.coverage.iter().map(|partition| partition.uncovered.len()).sum();
    ensure!(uncovered == 0, "no gateway died, yet ranges are not covered: {:?}", usage.coverage);
    ensure!(usage.totals.is_some_and(|totals| totals.ingress_records == log.len() as u64), "{:?}", usage.totals);

    // Killed at rest: the same to the last byte.
    for _ in 0..2 {
        it.process("billing")?.kill9().await;
        it.restart("billing").await?;
        let again = kill_gateway::settled_usage(&api, &topic.name).await?;
        ensure!(again == usage, "totals changed over a restart:\n{usage:?}\n{again:?}");
    }
    it.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn no_change_is_lost_when_the_control_plane_is_killed_under_load() -> Result<()> {
    let it = Installation::start(Options::default()).await?;
    let tenant = it.tenant("acme").await?;
    let api = it.api(0, &tenant.key)?;
    let namespace = api.create_namespace("prod").await?;
    let topic = api.create_topic("prod", "orders", 4).await?;
    let load = Load::start(&it, &tenant, &topic.name)?;
    let stop = Arc::new(AtomicBool::new(false));
    let created = Arc::new(AtomicU64::new(0));
    let mut makers = Vec::new();
    for maker in 0..3_usize {
        let (api, stop, created) = (it.api(maker % 2, &tenant.key)?, stop.clone(), created.clone());
        makers.push(tokio::spawn(async move { make_topics(maker, api, &stop, &created).await }));
    }
    for _ in 0..if long() { 10 } else { 3 } {
        load.more(1_000).await?;
        let wanted = created.load(Ordering::Relaxed) + 5;
        wait::until("topics being made", Duration::from_secs(60), async || {
            Ok((created.load(Ordering::Relaxed) >= wanted).then_some(()))
        })
        .await?;
        it.process("control-plane")?.kill9().await;
        load.more(500).await?;
        it.restart("control-plane").await?;
    }
    let wanted = created.load(Ordering::Relaxed) + 5;
    wait::until("topics being made", Duration::from_secs(60), async || {
        Ok((created.load(Ordering::Relaxed) >= wanted).then_some(()))
    })
    .await?;
    stop.store(true, Ordering::Release);
    let (mut answered, mut failed) = (BTreeSet::new(), BTreeSet::new());
    for maker in makers {
        let (of_maker, of_maker_failed) = maker.await??;
        answered.extend(of_maker);
        failed.extend(of_maker_failed);
    }
    load.end().await?;

    // All that was answered is there; of what was not, each is there whole or not at all.
    let listed = wait::until("all topics in service", Duration::from_secs(60), async || {
        let listed = list_topics(&api, &namespace.name).await?;
        let late = listed.iter().find(|topic| topic.state() != State::Active);
        match late {
            Some(late) => bail!("{} is {:?}", late.name, late.state()),
            None => Ok(Some(listed)),
        }
    })
    .await?;
    let names: BTreeSet<String> = listed.iter().map(|topic| topic.name.clone()).collect();
    let lost: Vec<_> = answered.iter().filter(|name| !names.contains(*name)).collect();
    ensure!(lost.is_empty(), "answered and lost: {lost:?}");
    let strange: Vec<_> = names
        .iter()
        .filter(|name| **name != topic.name && !answered.contains(*name) && !failed.contains(*name))
        .collect();
    ensure!(strange.is_empty(), "nobody asked for {strange:?}");
    println!("{} topics answered, {} calls failed, {} topics there", answered.len(), failed.len(), names.len());
    for gateway in 0..2 {
        let api = it.api(gateway, &tenant.key)?;
        for topic in &listed {
            api.produce_all(&topic.name, vec![record(None, b"in service")])
                .await
                .with_context(|| topic.name.clone())?;
        }
    }
    physical_is(&it, &namespace.uid, &listed).await?;
    it.stop().await
}

/// Makes topics until told to stop: those whose operation was answered, and those whose call failed, cleanly.
async fn make_topics(
    maker: usize,
    mut api: Api,
    stop: &AtomicBool,
    created: &AtomicU64,
) -> Result<(BTreeSet<String>, BTreeSet<String>)> {
    api.timeout = Duration::from_secs(10);
    let (mut answered, mut failed) = (BTreeSet::new(), BTreeSet::new());
    for i in 0.. {
        if stop.load(Ordering::Acquire) {
            break;
        }
        let id = format!("made-{maker}-{i}");
        let name = format!("namespaces/prod/topics/{id}");
        // The second half repeats a call that failed with its request id: the promise is that this is harmless.
        let request = CreateTopicRequest {
            parent: "namespaces/prod".into(),
            topic_id: id,
            topic: Some(Topic { partition_count: Some(1), ..Default::default() }),
            request_id: uuid::Uuid::new_v4().to_string(),
            ..Default::default()
        };
        let mut client = TopicServiceClient::new(api.channel.clone());
        match client.create_topic(api.request(request.clone())).await {
            Ok(_) => {
                answered.insert(name);
                created.fetch_add(1, Ordering::Relaxed);
            }
            Err(status) => {
                ensure!(is_clean(&status), "{name}: {status:?}");
                if i % 2 == 0 {
                    failed.insert(name);
                    continue;
                }
                let started = Instant::now();
                while let Err(status) = client.create_topic(api.request(request.clone())).await {
                    ensure!(is_clean(&status), "{name}, again: {status:?}");
                    ensure!(started.elapsed() < Duration::from_secs(60), "{name}, for a minute: {status:?}");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                answered.insert(name);
            }
        }
    }
    Ok((answered, failed))
}

/// A failure that asks to try again and tells nothing of the inside.
fn is_clean(status: &Status) -> bool {
    let text = status.message().to_lowercase();
    matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded)
        && !["tcp", "127.0.0.1", "h2", "broken pipe", "transport"].iter().any(|inside| text.contains(inside))
}

async fn list_topics(api: &Api, namespace: &str) -> Result<Vec<Topic>> {
    let mut client = TopicServiceClient::new(api.channel.clone());
    let (mut topics, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListTopicsRequest { parent: namespace.into(), page_size: 1_000, page_token };
        let answer = client.list_topics(api.request(request)).await?.into_inner();
        topics.extend(answer.topics);
        page_token = answer.next_page_token;
        if page_token.is_empty() {
            return Ok(topics);
        }
    }
}

/// Kafka has exactly these topics of tenants, with these partitions: no orphan, none missing.
async fn physical_is(it: &Installation, namespace_uid: &str, topics: &[Topic]) -> Result<()> {
    let mut wanted = BTreeSet::new();
    for topic in topics {
        wanted.insert((it.physical(namespace_uid, &topic.uid)?, topic.effective_partition_count));
    }
    wait::until("Kafka as intended", Duration::from_secs(60), async || {
        let kafka = it.kafka()?.clone();
        let found = tokio::task::spawn_blocking(move || kafka_reader::partitions(&kafka)).await??;
        let found: BTreeSet<(String, i32)> =
            found.into_iter().filter(|(name, _)| !name.starts_with("sluice.") && !name.starts_with("__")).collect();
        if found == wanted {
            return Ok(Some(()));
        }
        let orphans: Vec<_> = found.difference(&wanted).collect();
        let missing: Vec<_> = wanted.difference(&found).collect();
        bail!("orphans {orphans:?}, missing {missing:?}")
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn provisioning_converges_after_dying_at_each_fail_point() -> Result<()> {
    let it = Installation::start(Options::default()).await?;
    let tenant = it.tenant("acme").await?;
    let api = it.api(0, &tenant.key)?;
    let namespace = api.create_namespace("prod").await?;
    let mut expected: HashMap<String, i32> = HashMap::new();
    for point in FAIL_POINTS {
        let id = |what: &str| format!("{what}-{}", point.replace('.', "-"));
        // Beforehand, with nothing armed: something to extend and something to delete.
        // Whoever was killed may have done the last change, and has the lease until it runs out.
        let extend = done(&api, &api.create_topic_call("prod", &id("extend"), 1).await?.into_inner()).await?;
        let delete = done(&api, &api.create_topic_call("prod", &id("delete"), 2).await?.into_inner()).await?;
        api.produce_all(&delete.name, vec![record(None, b"gone soon"); 5]).await?;
        api.produce_all(&extend.name, vec![record(None, b"stays"); 5]).await?;

        let stopped = it.process("provisioning")?.stop(Duration::from_secs(35)).await;
        ensure!(stopped.success(), "{point}: {stopped}");
        it.set_extra("provisioning", &format!("[testing]\ncrash_at = \"{point}\""))?;
        let armed = it.spawn("provisioning")?;
        let operations = mutate(&api, &id("create"), &extend.name, &delete.name).await?;
        let died = tokio::time::timeout(Duration::from_secs(30), armed.wait()).await;
        let died = died.with_context(|| format!("{point} was never reached"))?;
        ensure!(!died.success(), "{point}: it ended with {died}");
        // It dies there again and again: that must not make it worse.
        let again = it.spawn("provisioning")?;
        let _ = tokio::time::timeout(Duration::from_secs(4), again.wait()).await;
        again.kill9().await;

        it.set_extra("provisioning", "")?;
        it.restart("provisioning").await?;
        for operation in &operations {
            done(&api, operation).await.with_context(|| format!("{point}: {}", metadata(operation).target))?;
        }
        expected.insert(format!("namespaces/prod/topics/{}", id("create")), 3);
        expected.insert(extend.name.clone(), 4);
        let listed = list_topics(&api, &namespace.name).await?;
        let found: HashMap<String, i32> =
            listed.iter().map(|topic| (topic.name.clone(), topic.effective_partition_count)).collect();
        ensure!(found == expected, "{point}: {found:?}, wanted {expected:?}");
        ensure!(listed.iter().all(|topic| topic.state() == State::Active && !topic.reconciling), "{point}: {listed:?}");
        physical_is(&it, &namespace.uid, &listed).await.with_context(|| point.to_owned())?;
        // They work, and what was in them is in them.
        for gateway in 0..2 {
            let api = it.api(gateway, &tenant.key)?;
            for (name, partitions) in
                [(format!("namespaces/prod/topics/{}", id("create")), 3), (extend.name.clone(), 4)]
            {
                let mut last = record(None, b"into the last partition");
                last.partition = Some(partitions - 1);
                api.produce_all(&name, vec![last]).await.with_context(|| format!("{point}: {name}"))?;
            }
            let code = api.produce(&delete.name, vec![record(None, b"x")]).await.err().map(|status| status.code());
            ensure!(code == Some(Code::NotFound), "{point}: the deleted topic: {code:?}");
        }
        let kept = api.fetch(&extend.name, 0, 0, Duration::ZERO).await?;
        ensure!(kept.end_offset == 5, "{point}: {kept:?}");
        println!("{point}: converged");
    }
    it.stop().await
}

/// Begins a creation, an extension and a deletion.
async fn mutate(api: &Api, create: &str, extend: &str, delete: &str) -> Result<Vec<Operation>> {
    let (created, extended, deleted) = tokio::join!(
        api.create_topic_call("prod", create, 3),
        api.set_partitions_call(extend, 4),
        api.delete_topic(delete),
    );
    Ok(vec![created?.into_inner(), extended?.into_inner(), deleted?])
}

/// Waits until an operation has succeeded.
async fn done(api: &Api, operation: &Operation) -> Result<Topic> {
    let mut client = OperationServiceClient::new(api.channel.clone());
    let done = wait::until("the operation", Duration::from_secs(60), async || {
        let request = GetOperationRequest { name: operation.name.clone() };
        let now = client.get_operation(api.request(request)).await?.into_inner();
        if now.done { Ok(Some(now)) } else { bail!("{:?}", metadata(&now)) }
    })
    .await?;
    finished(done)
}
