//! Two Kafka clusters under one tenant: each serves its own topics and groups, and what happens to one is nothing that those of
//! the other notice.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use parking_lot::Mutex;
use sluice_e2e::consumer::{ack_ids, group_of, text};
use sluice_e2e::second_cluster::{SECOND, SecondCluster};
use sluice_e2e::tenant::{namespace_uid, record};
use sluice_e2e::{Api, Installation, Options, kafka_reader, wait};
use sluice_proto::admin::v1::{Group, Topic};
use sluice_proto::stream::v1::{DeliveryState, Outcome, RecordResult};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

const BROKER: u32 = 1;
const PARTITIONS: i32 = 2;
/// What a call to the cluster that serves may take.
const NEAR: Duration = Duration::from_secs(10);
/// What a call to the other one is given.
const FAR: Duration = Duration::from_secs(3);
/// So soon it says that the cluster is not available.
const TOLD_WITHIN: Duration = Duration::from_secs(40);
const BACK_WITHIN: Duration = Duration::from_secs(60);
/// Rounds of the steady worker that must go on in each state of the other cluster.
const ROUNDS: u64 = 10;

/// A namespace with a topic and a group, on one of the clusters.
struct Place {
    topic: Topic,
    physical: String,
    group: Group,
}

struct World {
    it: Installation,
    /// One for each gateway.
    apis: Vec<Api>,
    near: Place,
    far: Place,
}

impl World {
    async fn start() -> Result<Self> {
        let it = Installation::start(Options { second_cluster: true, ..Options::default() }).await?;
        let tenant = it.tenant("acme").await?;
        let apis = vec![it.api(0, &tenant.key)?, it.api(1, &tenant.key)?];
        let near = Place::make(&it, &apis[0], "near", "first").await?;
        let far = Place::make(&it, &apis[0], "far", SECOND).await?;
        Ok(Self { it, apis, near, far })
    }

    fn second(&self) -> Result<&SecondCluster> {
        self.it.second.as_ref().context("the second cluster")
    }

    /// Both gateways' clients with a deadline for each call.
    fn within(&self, timeout: Duration) -> Vec<Api> {
        let with = |mut api: Api| {
            api.timeout = timeout;
            api
        };
        self.apis.iter().cloned().map(with).collect()
    }
}

impl Place {
    async fn make(it: &Installation, api: &Api, namespace: &str, cluster: &str) -> Result<Self> {
        api.create_namespace(namespace).await?;
        it.place("acme", namespace, cluster).await?;
        let topic = api.create_topic(namespace, "orders", PARTITIONS).await?;
        let physical = it.physical(&namespace_uid(api, namespace).await?, &topic.uid)?;
        let group = api.create_group(namespace, "billing", group_of(namespace, &["orders"])).await?;
        Ok(Self { topic, physical, group })
    }

    /// Publishes some records, and pulls and acknowledges until they have come.
    async fn round(&self, api: &Api, name: &str) -> Result<()> {
        let values: Vec<String> = (0..4).map(|i| format!("{name}/{i}")).collect();
        api.produce_all(&self.topic.name, values.iter().map(|value| record(None, value.as_bytes())).collect()).await?;
        let mut left = values.clone();
        let begun = Instant::now();
        while !left.is_empty() {
            ensure!(begun.elapsed() < NEAR * 2, "{left:?} did not come");
            let pulled = api.pull(&self.group.name, 100, Duration::from_millis(500)).await?;
            left.retain(|value| !pulled.records.iter().any(|record| text(record) == *value));
            if !pulled.records.is_empty() {
                api.ack(&self.group.name, ack_ids(&pulled.records)).await?;
            }
        }
        Ok(())
    }
}

fn is_unavailable(status: &Status) -> bool {
    let reason = status.get_details_error_info().map(|info| info.reason).unwrap_or_default();
    status.code() == Code::Unavailable && reason == "CLUSTER_UNAVAILABLE"
}

/// Works on the first cluster until it is told to stop. Every call must succeed.
struct Steady {
    stop: Arc<AtomicBool>,
    rounds: Arc<AtomicU64>,
    fault: Arc<Mutex<Option<String>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Steady {
    fn start(world: &World) -> Self {
        let (stop, rounds) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let fault = Arc::<Mutex<Option<String>>>::default();
        let place = Place { topic: world.near.topic.clone(), physical: String::new(), group: world.near.group.clone() };
        let apis = world.within(NEAR);
        let (told, counted, failed) = (stop.clone(), rounds.clone(), Arc::clone(&fault));
        let task = tokio::spawn(async move {
            for round in 0.. {
                if told.load(Ordering::Acquire) {
                    return;
                }
                let api = &apis[round % apis.len()];
                if let Err(error) = place.round(api, &format!("steady/{round}")).await {
                    *failed.lock() = Some(format!("round {round}: {error:#}"));
                    return;
                }
                counted.fetch_add(1, Ordering::Release);
            }
        });
        Self { stop, rounds, fault, task }
    }

    /// Waits for some more rounds.
    async fn goes_on(&self, when: &str) -> Result<()> {
        let before = self.rounds.load(Ordering::Acquire);
        let more = wait::until(when, Duration::from_secs(60), async || {
            if let Some(fault) = self.fault.lock().clone() {
                return Ok(Some(Err(fault)));
            }
            Ok((self.rounds.load(Ordering::Acquire) >= before + ROUNDS).then_some(Ok(())))
        });
        match more.await? {
            Ok(()) => Ok(()),
            Err(fault) => bail!("{when}: {fault}"),
        }
    }

    async fn end(self) -> Result<()> {
        self.stop.store(true, Ordering::Release);
        self.task.await?;
        let fault = self.fault.lock().clone();
        ensure!(fault.is_none(), "{fault:?}");
        Ok(())
    }
}

/// Asks the second cluster by each kind of call until it is told as not available. No call may outlast its deadline.
async fn is_told(world: &World) -> Result<()> {
    let far = &world.far;
    for api in world.within(FAR) {
        let begun = Instant::now();
        let (mut produced, mut fetched, mut pulled) = (false, false, false);
        while !(produced && fetched && pulled) {
            ensure!(begun.elapsed() < TOLD_WITHIN, "told to {produced}, {fetched}, {pulled} only");
            let asked = Instant::now();
            let answer = api.produce(&far.topic.name, vec![record(None, b"away")]).await;
            ensure!(asked.elapsed() < FAR + Duration::from_secs(1), "{:?}: {answer:?}", asked.elapsed());
            produced |= match &answer {
                // Per record: not sent, or sent and not answered.
                Ok(results) => {
                    ensure!(results.iter().all(|result| result.outcome() != Outcome::Persisted), "{results:?}");
                    true
                }
                Err(status) => is_unavailable(status),
            };
            let asked = Instant::now();
            let answer = api.fetch(&far.topic.name, 0, 0, Duration::ZERO).await;
            ensure!(asked.elapsed() < FAR + Duration::from_secs(1), "{:?}: {answer:?}", asked.elapsed());
            fetched |= answer.as_ref().is_err_and(is_unavailable);
            let asked = Instant::now();
            let answer = api.pull(&far.group.name, 10, Duration::from_millis(500)).await;
            ensure!(asked.elapsed() < FAR + Duration::from_secs(1), "{:?}: {answer:?}", asked.elapsed());
            pulled |= match &answer {
                Ok(answer) => answer.records.is_empty() && answer.state() == DeliveryState::ClusterUnavailable,
                Err(status) => is_unavailable(status),
            };
        }
    }
    Ok(())
}

/// Makes and deletes a topic on the first cluster, and sees that all of its records are counted.
async fn is_provisioned_and_billed(world: &World, id: &str) -> Result<()> {
    let api = &world.apis[0];
    let made = api.create_topic("near", id, 1).await?;
    let results = api.produce_all(&made.name, vec![record(None, b"x"), record(None, b"y")]).await?;
    is_counted(world, &made.name, &results).await?;
    api.delete_topic(&made.name).await?;
    Ok(())
}

/// Waits until the records of these results are counted, and the end of the log is known.
async fn is_counted(world: &World, topic: &str, results: &[RecordResult]) -> Result<()> {
    wait::until("usage", Duration::from_secs(60), async || {
        let usage = world.apis[0].usage(topic).await?.into_iter().next().context("no usage")?;
        let counted = results.iter().all(|result| {
            let of = usage.coverage.iter().find(|of| of.partition == result.partition);
            let offset = result.offset.unwrap_or(i64::MAX);
            of.is_some_and(|of| of.covered.iter().any(|range| (range.start..range.end).contains(&offset)))
        });
        let known = usage.coverage.iter().all(|partition| partition.end_offset_known);
        Ok((counted && known).then_some(()))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_of_a_tenant_lie_on_two_clusters_and_a_group_reads_one_of_them() -> Result<()> {
    let world = World::start().await?;
    for (i, api) in world.apis.iter().enumerate() {
        world.near.round(api, &format!("near/{i}")).await.context("near")?;
        world.far.round(api, &format!("far/{i}")).await.context("far")?;
    }
    let (first, second) = (world.it.kafka()?.clone(), world.second()?.connection()?.clone());
    let names = tokio::task::spawn_blocking(move || {
        Ok::<_, anyhow::Error>((kafka_reader::topics(&first)?, kafka_reader::topics(&second)?))
    });
    let (first, second) = names.await??;
    ensure!(first.contains(&world.near.physical) && !first.contains(&world.far.physical), "{first:?}");
    ensure!(second.contains(&world.far.physical) && !second.contains(&world.near.physical), "{second:?}");
    ensure!(!second.iter().any(|name| name.starts_with("sluice.")), "internal topics are on the first: {second:?}");

    // A namespace that was placed elsewhere between two topics.
    let api = &world.apis[0];
    api.create_namespace("mixed").await?;
    api.create_topic("mixed", "a", 1).await?;
    world.it.place("acme", "mixed", SECOND).await?;
    api.create_topic("mixed", "b", 1).await?;
    let Err(refused) = api.create_group("mixed", "both", group_of("mixed", &["a", "b"])).await else {
        bail!("a group over two clusters");
    };
    let status = refused.downcast_ref::<Status>().context("a status")?;
    let reason = status.get_details_error_info().map(|info| info.reason).unwrap_or_default();
    ensure!(status.code() == Code::FailedPrecondition && reason == "TOPICS_ON_SEVERAL_CLUSTERS", "{status:?}");
    // Dead letters may go to the other cluster.
    let dead = Group { dead_letter_topic: "namespaces/mixed/topics/b".into(), ..group_of("mixed", &["a"]) };
    api.create_group("mixed", "one", dead).await?;
    world.it.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_stands_still_or_is_dead_is_told_and_the_other_goes_on() -> Result<()> {
    let world = World::start().await?;
    let second = world.second()?.kafka()?;
    for api in &world.apis {
        world.far.round(api, "before").await?;
    }
    let steady = Steady::start(&world);
    steady.goes_on("before").await?;

    second.pause(BROKER).await?;
    is_told(&world).await.context("stopped")?;
    steady.goes_on("while the second cluster stands still").await?;
    is_provisioned_and_billed(&world, "while-stopped").await.context("stopped")?;
    let later = world.apis[0].create_topic_call("far", "later", 1).await?.into_inner();
    ensure!(!later.done, "made on a cluster that stands still? {later:?}");

    second.kill9(BROKER).await?;
    is_told(&world).await.context("dead")?;
    steady.goes_on("while the second cluster is dead").await?;
    is_provisioned_and_billed(&world, "while-dead").await.context("dead")?;

    second.start_broker(BROKER).await?;
    for api in world.within(NEAR) {
        wait::until("the second cluster to be served", BACK_WITHIN, async || {
            Ok(Some(world.far.round(&api, &format!("back/{}", rand::random::<u32>())).await?))
        })
        .await?;
    }
    let results = world.apis[0].produce_all(&world.far.topic.name, vec![record(None, b"counted")]).await?;
    is_counted(&world, &world.far.topic.name, &results).await.context("the second cluster")?;
    wait::until("the topic to be made", BACK_WITHIN, async || {
        let topic = world.apis[0].get_topic("namespaces/far/topics/later").await?;
        Ok((topic.state() == sluice_proto::admin::v1::topic::State::Active).then_some(()))
    })
    .await?;
    steady.goes_on("after it").await?;
    steady.end().await?;
    world.it.stop().await
}
