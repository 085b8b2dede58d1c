//! A gateway with two Kafka clusters: topics of one tenant lie on both, and what happens to one is nothing to the other.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use sluice_devstack::{ADMIN, GATEWAY, Stack};
use sluice_log::Placement;
use sluice_proto::internal::control::v1::control_record::Resource;
use sluice_proto::internal::control::v1::{ControlRecord, Life};
use sluice_types::physical::PhysicalTopic;
use sluice_types::{ClusterUid, GroupUid, LogUid, TopicUid};
use sluice_wire::{Client, NewTopic};

use crate::faults::until;
use crate::world::{Gateway, PATIENCE, Tenant, World};

/// Calls for the cluster that stands still, at a time: more than it has connections, queues' workers or threads.
const STUCK_CALLS: usize = 48;
/// How long a call for the cluster that is well may take. It takes milliseconds; a machine that is busy takes longer.
const WELL_WITHIN_MS: u64 = 4_000;

/// Calls that bring so much each: together more than a tenant may have in flight, which is 32 MiB.
const WAITING_CALLS: usize = 40;
const WAITING_BYTES: usize = 900_000;
/// New topics of a cluster that is silent. Waiting 1.5 s for every 64 of them would take 15 s.
const SILENT_TOPICS: usize = 640;
const HELD_MAX: Duration = Duration::from_secs(9);

/// A gateway on two clusters, and a tenant with topics on both and a group for each.
struct Shop {
    world: World,
    /// The other cluster, unless it is one where nobody is.
    second: Option<(Stack, Client)>,
    second_uid: ClusterUid,
    gateway: Gateway,
    tenant: Tenant,
    topics: BTreeMap<&'static str, TopicUid>,
    /// Version of the next record.
    version: std::cell::Cell<i64>,
}

/// The section of a cluster in the gateway's configuration.
fn section(uid: ClusterUid, bootstrap: &[String], ca: &Path, password: &Path) -> String {
    format!(
        "[clusters.{uid}]\nbootstrap = {bootstrap:?}\nca = {ca:?}\nusername = {GATEWAY:?}\npassword_file = {password:?}\n"
    )
}

impl Shop {
    async fn open() -> Self {
        let second = Stack::builder().without_postgres().build().await.expect("a second Kafka");
        let admin = second.connection().kafka().expect("Kafka").client(ADMIN).expect("client");
        Self::with(Some((second, admin))).await
    }

    /// The second cluster is at an address where nobody is.
    async fn with_an_absent_cluster() -> Self {
        Self::with(None).await
    }

    async fn with(second: Option<(Stack, Client)>) -> Self {
        let world = World::new().await;
        let second_uid = ClusterUid::random();
        let connection = second.as_ref().map_or(&world.stack, |(stack, _)| stack).connection().kafka().expect("Kafka");
        let nobody = ["127.0.0.1:1".to_owned()];
        let bootstrap = if second.is_some() { &connection.bootstrap[..] } else { &nobody };
        let password = world.secret("second-password", connection.password(GATEWAY).expect("password"));
        let cluster = section(second_uid, bootstrap, &connection.ca_file, &password);
        let gateway = world.gateway_with("gateway-a", "", &cluster).await;
        let tenant = Tenant::new("acme");
        for record in tenant.base() {
            world.publish(&record).await;
        }
        let offset = world.publish(&tenant.key_state(1, Life::Active)).await;
        world.applied(&gateway, offset).await;
        let (topics, version) = (BTreeMap::new(), std::cell::Cell::new(1));
        Self { world, second, second_uid, gateway, tenant, topics, version }
    }

    fn next_version(&self) -> i64 {
        self.version.replace(self.version.get() + 1)
    }

    async fn publish(&self, record: &ControlRecord) {
        let offset = self.world.publish(record).await;
        self.world.applied(&self.gateway, offset).await;
    }

    fn record_of(&self, id: &str, uid: TopicUid, cluster: ClusterUid) -> ControlRecord {
        let mut record = self.tenant.topic(uid, self.next_version(), Life::Active, 1);
        if let Some(Resource::Topic(topic)) = &mut record.resource {
            topic.id = id.into();
            topic.placement = Some(Placement::unmoved(cluster, LogUid::first_of(uid)).record());
        }
        record
    }

    /// Makes a topic of one partition on a cluster and publishes it.
    async fn topic(&mut self, id: &'static str, cluster: ClusterUid) {
        let uid = TopicUid::random();
        if cluster == ClusterUid::FIRST {
            self.world.create_topic(&self.tenant, uid, 1).await;
        } else if let Some((_, admin)) = self.second.as_ref().filter(|_| cluster == self.second_uid) {
            let name = PhysicalTopic::new(self.tenant.namespace, uid).as_str().to_owned();
            let topic = NewTopic { name, partitions: 1, replication: 1, configs: BTreeMap::new() };
            admin.create_topic(&topic, PATIENCE).await.expect("topic");
        }
        self.publish(&self.record_of(id, uid, cluster)).await;
        self.topics.insert(id, uid);
    }

    /// Publishes a group of these topics.
    async fn group(&self, uid: GroupUid, id: &str, topics: &[&str], dead_letters: &str) {
        let mut record = self.tenant.group(uid, self.next_version(), Life::Active);
        if let Some(Resource::Group(group)) = &mut record.resource {
            group.id = id.into();
            group.topic_ids = topics.iter().map(|id| (*id).to_owned()).collect();
            group.dead_letter_topic_id = dead_letters.into();
            group.max_attempts = i32::from(!dead_letters.is_empty());
        }
        self.publish(&record).await;
    }

    async fn call(&self, method: reqwest::Method, path: &str, timeout_ms: u64, body: Option<&Value>) -> (u16, Value) {
        let request = reqwest::Client::new().request(method, self.gateway.url(&format!("/v1/namespaces/prod/{path}")));
        let request = request.bearer_auth(self.tenant.key.expose()).header("x-request-timeout-ms", timeout_ms);
        let request = body.iter().fold(request, |request, body| request.json(body));
        let answer = request.send().await.expect("an answer");
        (answer.status().as_u16(), answer.json().await.expect("JSON"))
    }

    async fn produce(&self, topic: &str, value: &str, timeout_ms: u64) -> (u16, Value) {
        let body = json!({"records": [{"valueText": value}]});
        self.call(reqwest::Method::POST, &format!("topics/{topic}/records"), timeout_ms, Some(&body)).await
    }

    async fn fetch(&self, topic: &str, timeout_ms: u64) -> (u16, Value) {
        let path = format!("topics/{topic}/records?offset=earliest&encoding=TEXT&maxRecords=1");
        self.call(reqwest::Method::GET, &path, timeout_ms, None).await
    }

    async fn pull(&self, group: &str, timeout_ms: u64) -> (u16, Value) {
        let body = json!({"maxRecords": 1, "wait": "2s", "encoding": "PAYLOAD_ENCODING_TEXT"});
        self.call(reqwest::Method::POST, &format!("groups/{group}:pull"), timeout_ms, Some(&body)).await
    }

    async fn ack(&self, group: &str, id: &Value, timeout_ms: u64) -> (u16, Value) {
        let body = json!({"ackIds": [id]});
        self.call(reqwest::Method::POST, &format!("groups/{group}:ack"), timeout_ms, Some(&body)).await
    }

    /// Pulls records and acknowledges each, until this one came. Others may come before it: those of calls whose outcome is not known.
    async fn delivers(&self, group: &str, value: &str) {
        let delivered = async {
            loop {
                let (status, answer) = self.pull(group, WELL_WITHIN_MS).await;
                assert_eq!(status, 200, "{value}: {answer}");
                let Some(record) = answer["records"].get(0) else { continue };
                let (status, answer) = self.ack(group, &record["ackId"], WELL_WITHIN_MS).await;
                let outcome = &answer["results"][0]["outcome"];
                assert_eq!((status, outcome), (200, &json!("SETTLE_OUTCOME_OK")), "{value}: {answer}");
                if record["record"]["valueText"] == json!(value) {
                    return;
                }
            }
        };
        tokio::time::timeout(PATIENCE, delivered).await.expect("the record comes")
    }

    /// Publishes a record, reads the topic, and lets the group have the record: every call succeeds in its time.
    async fn serves(&self, topic: &str, group: &str, value: &str) {
        let (status, answer) = self.produce(topic, value, WELL_WITHIN_MS).await;
        assert_eq!((status, &answer["results"][0]["outcome"]), (200, &json!("OUTCOME_PERSISTED")), "{value}: {answer}");
        let (status, answer) = self.fetch(topic, WELL_WITHIN_MS).await;
        assert_eq!((status, answer["records"].as_array().map(Vec::len)), (200, Some(1)), "{value}: {answer}");
        self.delivers(group, value).await;
    }

    /// The same, once its cluster is back.
    async fn serves_again(&self, topic: &str, group: &str, value: &str) {
        until("the cluster takes records", async || self.produce(topic, "try", 1_000).await.0 == 200).await;
        until("its records are read", async || self.fetch(topic, 1_000).await.0 == 200).await;
        until("its group delivers", async || {
            let (status, answer) = self.pull(group, WELL_WITHIN_MS).await;
            let ids = answer["records"].as_array().filter(|records| status == 200 && !records.is_empty());
            match ids {
                Some(records) => self.ack(group, &records[0]["ackId"], WELL_WITHIN_MS).await.0 == 200,
                None => false,
            }
        })
        .await;
        self.serves(topic, group, value).await;
    }

    /// Calls for the topic of a cluster that does not answer, in rounds, until they are stopped. Each is answered by its deadline,
    /// and says that the cluster is to blame or that nothing was stored.
    async fn calls_in_vain(&self, topic: &str, group: &str) {
        loop {
            let calls = (0..STUCK_CALLS).map(|at| async move {
                let (status, answer) = match at % 3 {
                    0 => self.produce(topic, "in vain", 1_500).await,
                    1 => self.fetch(topic, 1_500).await,
                    _ => self.pull(group, 1_500).await,
                };
                assert!(matches!(status, 200 | 207 | 503 | 504), "{status} {answer}");
            });
            futures::future::join_all(calls).await;
        }
    }

    /// Calls for the topic of a silent cluster hold what they bring. They never hold so much that the other topic's calls, which bring
    /// as much, are refused.
    async fn serves_beside_waiting_bytes(&self, topic: &str, silent: &str) {
        let waiting = (0..WAITING_CALLS).map(|_| Box::pin(self.produce_bytes(silent)));
        let (refused, _, _others) = futures::future::select_all(waiting).await;
        assert_eq!((refused.0, reason(&refused.1)), (503, "CLUSTER_UNAVAILABLE"), "{}", refused.1);
        let (status, answer) = self.produce_bytes(topic).await;
        assert_eq!(status, 200, "{answer}");
    }

    async fn produce_bytes(&self, topic: &str) -> (u16, Value) {
        let url = self.gateway.url(&format!("/v1/namespaces/prod/topics/{topic}/records"));
        let request = reqwest::Client::new().post(url).bearer_auth(self.tenant.key.expose());
        let request = request.header("content-type", "application/octet-stream").body(vec![0; WAITING_BYTES]);
        let answer = request.send().await.expect("an answer");
        (answer.status().as_u16(), answer.json().await.expect("JSON"))
    }

    fn component(&self, name: &str) -> Option<bool> {
        self.gateway.health.component(name).map(|status| status.ok)
    }

    async fn metrics(&self) -> String {
        let metrics = reqwest::get(format!("http://{}/metrics", self.gateway.addrs.admin)).await.expect("metrics");
        metrics.text().await.expect("text")
    }
}

/// Runs `work` while calls for `topic` hang.
async fn beside<T>(shop: &Shop, topic: &str, group: &str, work: impl Future<Output = T>) -> T {
    tokio::select! {
        done = work => done,
        () = shop.calls_in_vain(topic, group) => unreachable!("they go on until they are stopped"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_stands_still_or_is_gone_takes_nothing_from_the_topics_and_groups_of_the_other() {
    let mut shop = Shop::open().await;
    let second = shop.second_uid;
    shop.topic("near", ClusterUid::FIRST).await;
    shop.topic("far", second).await;
    shop.group(GroupUid::random(), "readers-near", &["near"], "").await;
    shop.group(GroupUid::random(), "readers-far", &["far"], "").await;
    shop.serves("near", "readers-near", "n0").await;
    shop.serves("far", "readers-far", "f0").await;
    let metrics = shop.metrics().await;
    let (first, second_label) = (ClusterUid::FIRST.to_string(), second.to_string());
    for cluster in [&first, &second_label] {
        let line = format!("sluice_produce_records_total{{cluster=\"{cluster}\",outcome=\"persisted\"}} 1");
        assert!(metrics.contains(&line), "{line} in {metrics}");
    }

    // The second one stands still.
    let kafka = shop.second.as_ref().expect("two").0.kafka().expect("Kafka");
    kafka.pause(1).await.expect("paused");
    let rounds = async {
        for round in 1..=4 {
            shop.serves("near", "readers-near", &format!("n{round}")).await;
        }
        until("its health says so", async || shop.component(&format!("kafka-{second}")) == Some(false)).await;
        assert!(shop.gateway.health.is_ready(), "the gateway is the right place for the topics of the other cluster");
    };
    beside(&shop, "far", "readers-far", rounds).await;
    shop.serves_beside_waiting_bytes("near", "far").await;
    // What is new on the other cluster is served, and topics of the one that is silent hold nothing up.
    let silent = |at| shop.record_of(&format!("silent-{at}"), TopicUid::random(), second);
    let silent: Vec<ControlRecord> = (0..SILENT_TOPICS).map(silent).collect();
    let begun = Instant::now();
    let offset = shop.world.publish_all(&silent).await;
    shop.world.applied(&shop.gateway, offset).await;
    let held = begun.elapsed();
    assert!(held < HELD_MAX, "the topics of the silent cluster were waited for: {held:?}");
    kafka.resume(1).expect("resumed");
    shop.serves_again("far", "readers-far", "f1").await;

    // It is gone.
    kafka.kill_all().await;
    let rounds = async {
        for round in 5..=8 {
            shop.serves("near", "readers-near", &format!("n{round}")).await;
        }
    };
    beside(&shop, "far", "readers-far", rounds).await;
    kafka.start_all().await.expect("started");
    shop.serves_again("far", "readers-far", "f2").await;

    // The first one, with the control log, stands still: who is served on the other one does not notice.
    let kafka = shop.world.stack.kafka().expect("Kafka");
    kafka.pause(1).await.expect("paused");
    let rounds = async {
        for round in 3..=6 {
            shop.serves("far", "readers-far", &format!("f{round}")).await;
        }
    };
    beside(&shop, "near", "readers-near", rounds).await;
    kafka.resume(1).expect("resumed");
    shop.serves_again("near", "readers-near", "n9").await;
    let Shop { gateway, .. } = shop;
    gateway.stop().await.expect("an orderly end");
}

/// The reason of a refusal.
fn reason(answer: &Value) -> &str {
    answer["error"]["details"][0]["reason"].as_str().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_reads_topics_of_one_cluster_and_its_dead_letters_may_lie_on_another() {
    let mut shop = Shop::open().await;
    let second = shop.second_uid;
    shop.topic("near", ClusterUid::FIRST).await;
    shop.topic("far", second).await;
    shop.topic("dead", ClusterUid::FIRST).await;
    let readers = GroupUid::random();
    shop.group(readers, "readers", &["near"], "").await;
    shop.serves("near", "readers", "n0").await;

    // Dispatched, its topics come to lie on two clusters: no call for it is served.
    shop.group(readers, "readers", &["near", "far"], "").await;
    let refused = async || {
        let (status, answer) = shop.pull("readers", WELL_WITHIN_MS).await;
        (status, reason(&answer)) == (400, "TOPICS_ON_SEVERAL_CLUSTERS")
    };
    until("the group is refused", refused).await;
    let (status, answer) = shop.call(reqwest::Method::GET, "groups/readers:status", WELL_WITHIN_MS, None).await;
    assert_eq!((status, reason(&answer)), (400, "TOPICS_ON_SEVERAL_CLUSTERS"), "{answer}");

    // On one again, the other one: it is dispatched there.
    shop.group(readers, "readers", &["far"], "dead").await;
    let (status, answer) = shop.produce("far", "f0", WELL_WITHIN_MS).await;
    assert_eq!(status, 200, "{answer}");
    let mut pulled = Value::Null;
    let pulls = async {
        while pulled["records"].get(0).is_none() {
            (_, pulled) = shop.pull("readers", WELL_WITHIN_MS).await;
        }
    };
    tokio::time::timeout(PATIENCE, pulls).await.expect("the record comes");
    let nack = json!({"ackIds": [pulled["records"][0]["ackId"]], "reason": "bad"});
    let (status, answer) = shop.call(reqwest::Method::POST, "groups/readers:nack", WELL_WITHIN_MS, Some(&nack)).await;
    assert_eq!(status, 200, "{answer}");

    // Its letter is on the first cluster; redriven, it comes again from the second.
    until("the letter is there", async || {
        let (_, listed) = shop.call(reqwest::Method::GET, "groups/readers/deadLetters", WELL_WITHIN_MS, None).await;
        listed["deadLetters"].as_array().is_some_and(|letters| letters.len() == 1)
    })
    .await;
    let (status, answer) = shop
        .call(reqwest::Method::POST, "groups/readers/deadLetters:redrive", WELL_WITHIN_MS, Some(&json!({"all": true})))
        .await;
    assert_eq!((status, &answer["redriven"]), (200, &json!("1")), "{answer}");
    shop.delivers("readers", "f0").await;
    let (status, listed) = shop.call(reqwest::Method::GET, "groups/readers/deadLetters", WELL_WITHIN_MS, None).await;
    assert_eq!((status, listed["deadLetters"].as_array().map_or(0, Vec::len)), (200, 0), "{listed}");
    let Shop { gateway, .. } = shop;
    gateway.stop().await.expect("an orderly end");
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_of_a_cluster_that_nobody_finds_or_knows_are_refused_and_the_others_are_served() {
    let mut shop = Shop::with_an_absent_cluster().await;
    let absent = shop.second_uid;
    shop.topic("near", ClusterUid::FIRST).await;
    shop.topic("absent", absent).await;
    shop.topic("unknown", ClusterUid::random()).await;
    shop.group(GroupUid::random(), "readers-near", &["near"], "").await;
    shop.serves("near", "readers-near", "n0").await;
    let (status, answer) = shop.fetch("absent", 1_000).await;
    assert_eq!((status, reason(&answer)), (503, "CLUSTER_UNAVAILABLE"), "{answer}");
    let (status, answer) = shop.produce("absent", "lost", 1_000).await;
    assert_eq!((status, &answer["results"][0]["outcome"]), (207, &json!("OUTCOME_NOT_PERSISTED")), "{answer}");
    let (status, answer) = shop.fetch("unknown", 1_000).await;
    assert_eq!((status, reason(&answer)), (503, "RESOURCE_PENDING"), "{answer}");
    assert!(shop.gateway.health.is_ready());
    let Shop { gateway, .. } = shop;
    gateway.stop().await.expect("an orderly end");
}
