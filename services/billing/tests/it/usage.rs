//! GetUsage: what is counted and what is not is exactly the log; nobody sees another tenant's.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sluice_billing::api::usage::Usage;
use sluice_billing::domain::page_token::TokenKey;
use sluice_billing::domain::window::Window;
use sluice_billing::jobs::coverage_watch::CoverageWatch;
use sluice_billing::log_ends::LogEnds;
use sluice_billing::store::ingest::{Received, ingest};
use sluice_billing::store::log_position::{Log, log_position_load};
use sluice_billing::store::names::{Named, names_store};
use sluice_proto::billing::v1::usage_service_server::UsageService as _;
use sluice_proto::billing::v1::{GetUsageRequest, GetUsageResponse, OffsetRange};
use sluice_proto::internal::control::v1::Life;
use sluice_runtime::FailPoints;
use sluice_types::physical::PhysicalTopic;
use sluice_types::{
    AccountUid, ClusterUid, Credential, Grant, KeyUid, OpContext, Principal, Role, TenantScope, TenantUid,
};
use sluice_wire::{Client, ClientConfig, KafkaTopicId};
use tonic::Code;

use crate::support::{Place, SOON, TestDatabase, append, eventually, fresh_database, kafka, make_topic, window};

pub(crate) fn context(tenant: TenantUid) -> OpContext {
    let grants: Arc<[Grant]> = [Grant { role: Role::Viewer, resource: "*".into() }].into();
    OpContext {
        tenant: TenantScope::from_verified(tenant, "acme".parse().unwrap()),
        principal: Arc::new(Principal {
            account: AccountUid::from_i64(1),
            account_id: "reader".into(),
            credential: Credential::ApiKey(KeyUid::from_i64(1)),
            grants,
        }),
        deadline: Instant::now() + Duration::from_secs(20),
        request_id: "r-1".into(),
        traceparent: None,
        peer: None,
    }
}

async fn get(api: &Usage, context: &OpContext, request: GetUsageRequest) -> Result<GetUsageResponse, tonic::Status> {
    let mut request = tonic::Request::new(request);
    request.extensions_mut().insert(context.clone());
    api.get_usage(request).await.map(tonic::Response::into_inner)
}

/// Clusters, each with a client.
pub(crate) fn ends_on<const N: usize>(clusters: [(ClusterUid, Client); N]) -> LogEnds {
    LogEnds::new(clusters)
}

fn api(database: &TestDatabase, kafka: Client) -> Usage {
    Usage::new(database.database.clone(), ends_on([(ClusterUid::FIRST, kafka)]), TokenKey::new([1; 32]))
}

pub(crate) async fn name(database: &TestDatabase, place: &Place, id: &str, life: Life, partitions: i32, ends: &[i64]) {
    name_on(database, ClusterUid::FIRST, place, id, life, partitions, ends).await;
}

pub(crate) async fn name_on(
    database: &TestDatabase,
    cluster: ClusterUid,
    place: &Place,
    id: &str,
    life: Life,
    partitions: i32,
    ends: &[i64],
) {
    let log = Log { topic: "sluice.control", partition: 0 };
    let system = database.database.system();
    let at = log_position_load(system, &log, KafkaTopicId([1; 16])).await.unwrap();
    let named = Named::Topic {
        uid: place.topic.as_i64(),
        tenant_uid: place.tenant.as_i64(),
        namespace_uid: place.namespace.as_i64(),
        namespace_id: "prod".into(),
        cluster_uid: Some(cluster.as_i64()),
        id: id.into(),
        life: life.into(),
        partitions,
        final_end_offsets: ends.to_vec(),
        version: at.next + 1,
    };
    assert!(names_store(system, &log, (at, at.next + 1), 0, &[named]).await.unwrap());
}

pub(crate) async fn count(database: &TestDatabase, window: Window) {
    let log = Log { topic: "sluice.usage", partition: 0 };
    let system = database.database.system();
    let at = log_position_load(system, &log, KafkaTopicId([2; 16])).await.unwrap();
    let records = [Received { offset: at.next, appended_ms: window.close_time_ms, window: Ok(window) }];
    let done = ingest(system, &log, at, at.next + 1, &records, &FailPoints::default()).await.unwrap().unwrap();
    assert_eq!(done.added, 1);
}

fn ranges(from: &[OffsetRange]) -> Vec<(i64, i64)> {
    from.iter().map(|range| (range.start, range.end)).collect()
}

#[tokio::test]
async fn counted_and_uncounted_ranges_are_exactly_the_log() {
    let (database, kafka, place) = (fresh_database().await, kafka().await, Place::fresh());
    let physical = PhysicalTopic::new(place.namespace, place.topic);
    make_topic(&kafka, physical.as_str(), 2).await;
    append(&kafka, physical.as_str(), 0, &vec![b"12345".to_vec(); 10]).await;
    name(&database, &place, "orders", Life::Active, 2, &[]).await;
    count(&database, window("gw/1", 1, 5, vec![place.produced(0, &[(2, 4, 10), (5, 9, 20)])])).await;
    count(&database, window("gw/1", 2, 7, vec![place.produced(0, &[(4, 5, 5)])])).await;

    let all = GetUsageRequest { topic: "namespaces/prod/topics/orders".into(), ..Default::default() };
    let answer = get(&api(&database, kafka.clone()), &context(place.tenant), all.clone()).await.unwrap();
    let [topic] = answer.topics.as_slice() else { panic!("{answer:?}") };
    assert_eq!((topic.topic_uid.as_str(), topic.deleted), (place.topic.to_string().as_str(), false));
    let totals = topic.totals.unwrap();
    assert_eq!((totals.ingress_bytes, totals.ingress_records), (35, 7));
    let hours: Vec<i64> = topic.hours.iter().map(|hour| hour.start_time.unwrap().seconds / 3_600).collect();
    assert_eq!(hours, [5, 7]);
    let [first, second] = topic.coverage.as_slice() else { panic!("{topic:?}") };
    assert_eq!((first.end_offset, first.end_offset_known, first.truncated), (10, true, false));
    assert_eq!((ranges(&first.covered), ranges(&first.uncovered)), (vec![(2, 9)], vec![(0, 2), (9, 10)]));
    assert_eq!((first.covered_bytes, first.covered_records), (35, 7));
    assert_eq!((second.end_offset, second.end_offset_known), (0, true));
    assert!(second.covered.is_empty() && second.uncovered.is_empty());

    // Kafka away: an answer all the same, and honest.
    let away = Client::new(ClientConfig::new(["127.0.0.1:1"])).unwrap();
    let started = Instant::now();
    let answer = get(&api(&database, away), &context(place.tenant), all).await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(5));
    let coverage = &answer.topics[0].coverage[0];
    assert_eq!((coverage.end_offset, coverage.end_offset_known), (9, false));
    assert_eq!(ranges(&coverage.uncovered), [(0, 2)]);
}

#[tokio::test]
async fn a_cluster_that_does_not_answer_leaves_the_ends_of_its_own_topics_unknown() {
    let (database, kafka, first) = (fresh_database().await, kafka().await, Place::fresh());
    let second = Place { topic: sluice_types::TopicUid::random(), ..first };
    let nowhere = Place { topic: sluice_types::TopicUid::random(), ..first };
    let physical = PhysicalTopic::new(first.namespace, first.topic);
    make_topic(&kafka, physical.as_str(), 1).await;
    append(&kafka, physical.as_str(), 0, &vec![b"12345".to_vec(); 3]).await;
    let (silent, unknown) = (ClusterUid::random(), ClusterUid::random());
    name_on(&database, ClusterUid::FIRST, &first, "c-first", Life::Active, 1, &[]).await;
    name_on(&database, unknown, &nowhere, "b-nowhere", Life::Active, 1, &[]).await;
    name_on(&database, silent, &second, "a-second", Life::Active, 1, &[]).await;
    count(&database, window("gw/1", 1, 5, vec![second.produced(0, &[(0, 4, 20)])])).await;

    // It takes connections and says nothing.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let away = Client::new(ClientConfig::new([address.as_str()])).unwrap();
    let ends = ends_on([(ClusterUid::FIRST, kafka.clone()), (silent, away)]);
    let api = Usage::new(database.database.clone(), ends.clone(), TokenKey::new([1; 32]));
    let answer = get(&api, &context(first.tenant), GetUsageRequest::default()).await.unwrap();
    let shown: Vec<_> = answer.topics.iter().map(|topic| &topic.coverage[0]).collect();
    let shown: Vec<_> = shown.iter().map(|partition| (partition.end_offset, partition.end_offset_known)).collect();
    assert_eq!(shown, [(4, false), (0, false), (3, true)]);

    // The watch over what is not counted goes on for the others, and says of which it knows nothing.
    let (mut watch, start) = (CoverageWatch::new(database.database.clone(), ends), Instant::now());
    let status = watch.look(Duration::from_secs(60), start).await.unwrap();
    assert!(!status.ok && status.detail.contains("2 clusters do not answer"), "{status:?}");
    let status = watch.look(Duration::from_secs(60), start + Duration::from_secs(60)).await.unwrap();
    assert!(!status.ok && status.detail.starts_with("3 records in 1 partitions"), "{status:?}");
}

#[tokio::test]
async fn two_lives_of_a_name_are_apart_and_the_deleted_one_keeps_its_end() {
    let (database, kafka) = (fresh_database().await, kafka().await);
    let old = Place::fresh();
    let new = Place { topic: sluice_types::TopicUid::random(), ..old };
    name(&database, &old, "orders", Life::Gone, 1, &[7]).await;
    name(&database, &new, "orders", Life::Active, 1, &[]).await;
    let produced = vec![old.produced(0, &[(0, 6, 60)]), new.produced(0, &[(0, 1, 1)])];
    count(&database, window("gw/1", 1, 5, produced)).await;
    let request = GetUsageRequest { topic: "namespaces/prod/topics/orders".into(), ..Default::default() };
    let answer = get(&api(&database, kafka.clone()), &context(old.tenant), request.clone()).await.unwrap();
    assert_eq!(answer.topics.len(), 2);
    let life = |uid: String| answer.topics.iter().find(|topic| topic.topic_uid == uid).unwrap();
    let gone = life(old.topic.to_string());
    assert!(gone.deleted);
    assert_eq!((gone.coverage[0].end_offset, gone.coverage[0].end_offset_known), (7, true));
    assert_eq!(ranges(&gone.coverage[0].uncovered), [(6, 7)]);
    assert_eq!(life(new.topic.to_string()).totals.unwrap().ingress_bytes, 1);
    let only = GetUsageRequest { topic_uid: old.topic.to_string(), ..request };
    let answer = get(&api(&database, kafka), &context(old.tenant), only).await.unwrap();
    assert_eq!(answer.topics.len(), 1);
}

#[tokio::test]
async fn pages_go_on_for_their_caller_alone() {
    let (database, kafka) = (fresh_database().await, kafka().await);
    let first = Place::fresh();
    for id in ["a", "b", "c"] {
        let place = Place { topic: sluice_types::TopicUid::random(), ..first };
        name(&database, &place, id, Life::Gone, 1, &[0]).await;
    }
    let other = Place::fresh();
    name(&database, &other, "a", Life::Gone, 1, &[0]).await;
    let api = api(&database, kafka);
    let mine = context(first.tenant);
    let mut seen = Vec::new();
    let mut request = GetUsageRequest { page_size: 2, ..Default::default() };
    loop {
        let answer = get(&api, &mine, request.clone()).await.unwrap();
        seen.extend(answer.topics.into_iter().map(|topic| topic.topic));
        if answer.next_page_token.is_empty() {
            break;
        }
        request.page_token = answer.next_page_token;
    }
    assert_eq!(seen, ["a", "b", "c"].map(|id| format!("namespaces/prod/topics/{id}")));

    let stolen = get(&api, &context(other.tenant), request.clone()).await.unwrap_err();
    let made_up = GetUsageRequest { page_token: "AAAA".into(), ..request };
    let made_up = get(&api, &context(other.tenant), made_up).await.unwrap_err();
    assert_eq!((stolen.code(), stolen.message()), (Code::InvalidArgument, made_up.message()));
}

#[tokio::test]
async fn another_tenants_topic_is_absent() {
    let (database, kafka) = (fresh_database().await, kafka().await);
    let (mine, theirs) = (Place::fresh(), Place::fresh());
    name(&database, &theirs, "orders", Life::Gone, 1, &[3]).await;
    let api = api(&database, kafka);
    let ask = |topic: &str| GetUsageRequest { topic: topic.into(), ..Default::default() };
    let hidden = get(&api, &context(mine.tenant), ask("namespaces/prod/topics/orders")).await.unwrap_err();
    let absent = get(&api, &context(mine.tenant), ask("namespaces/prod/topics/absent")).await.unwrap_err();
    assert_eq!(hidden.code(), Code::NotFound);
    assert_eq!(hidden.message().replace("orders", "absent"), absent.message());
    let by_uid = GetUsageRequest { topic_uid: theirs.topic.to_string(), ..Default::default() };
    assert!(get(&api, &context(mine.tenant), by_uid).await.unwrap().topics.is_empty());
    assert!(get(&api, &context(mine.tenant), GetUsageRequest::default()).await.unwrap().topics.is_empty());
}

#[tokio::test]
async fn a_tenant_that_asks_for_usage_all_the_time_keeps_nobody_else_waiting() {
    const CROWD: usize = 40;
    let (database, kafka) = (fresh_database().await, kafka().await);
    let (busy, quiet) = (Place::fresh(), Place::fresh());
    for place in [&busy, &quiet] {
        name(&database, place, "orders", Life::Gone, 1, &[0]).await;
    }
    // What the busy one asks for takes the database long.
    database
        .sql(&format!(
            "CREATE POLICY slow ON billing.topic AS RESTRICTIVE TO sluice_billing_app USING
                 (billing.current_tenant() <> {} OR pg_sleep(1) IS NOT NULL)",
            busy.tenant.as_i64()
        ))
        .await;
    let api = api(&database, kafka);
    let ask = |place: &Place| {
        let (api, context) = (api.clone(), context(place.tenant));
        async move { get(&api, &context, GetUsageRequest::default()).await }
    };
    let crowd: Vec<_> = (0..CROWD).map(|_| tokio::spawn(ask(&busy))).collect();
    let at_work = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'";
    let at_work = || async { database.sql(at_work).await.parse::<i64>().unwrap() };
    eventually("the busy one is at work", SOON, || async { at_work().await >= 4 }).await;
    let mut most = 0;
    while crowd.iter().filter(|call| call.is_finished()).count() < 8 {
        assert_eq!(ask(&quiet).await.unwrap().topics.len(), 1);
        most = at_work().await.max(most);
    }
    assert!(most <= 4, "{most} at work: the others wait without a connection");
    for call in crowd {
        // Those that were too late for their turn are told to come back.
        if let Err(status) = call.await.unwrap() {
            assert_eq!(status.code(), Code::Unavailable, "{status:?}");
        }
    }
}

#[tokio::test]
async fn a_page_of_many_topics_has_of_each_what_is_its_own() {
    const TOPICS: i64 = 300;
    let (database, kafka) = (fresh_database().await, kafka().await);
    let first = Place::fresh();
    let log = Log { topic: "sluice.control", partition: 0 };
    let system = database.database.system();
    let at = log_position_load(system, &log, KafkaTopicId([1; 16])).await.unwrap();
    let places: Vec<Place> = (0..TOPICS).map(|_| Place { topic: sluice_types::TopicUid::random(), ..first }).collect();
    let named = |(number, place): (i64, &Place)| Named::Topic {
        uid: place.topic.as_i64(),
        tenant_uid: place.tenant.as_i64(),
        namespace_uid: place.namespace.as_i64(),
        namespace_id: "prod".into(),
        cluster_uid: Some(0),
        id: format!("t{number:03}"),
        life: Life::Gone.into(),
        partitions: 2,
        final_end_offsets: vec![number, 1_000],
        version: 1,
    };
    let all: Vec<Named> = (0..).zip(&places).map(named).collect();
    assert!(names_store(system, &log, (at, 1), 0, &all).await.unwrap());
    let produced = (1..).zip(&places[1..]).map(|(number, place)| place.produced(0, &[(0, number, number as u64 * 10)]));
    count(&database, window("gw/1", 1, 5, produced.collect())).await;
    count(&database, window("gw/1", 2, 6, vec![places[7].produced(1, &[(0, 2, 1), (4, 5, 1)])])).await;

    let request = GetUsageRequest { page_size: 1_000, ..Default::default() };
    let answer = get(&api(&database, kafka), &context(first.tenant), request).await.unwrap();
    assert_eq!((answer.topics.len() as i64, answer.next_page_token.as_str()), (TOPICS, ""));
    for (number, topic) in (0_u64..).zip(&answer.topics) {
        assert_eq!(topic.topic, format!("namespaces/prod/topics/t{number:03}"));
        let more = if number == 7 { 3 } else { 0 };
        assert_eq!(topic.totals.unwrap().ingress_records, number + more, "{}", topic.topic);
        assert_eq!(topic.hours.len(), if number == 7 { 2 } else { usize::from(number > 0) });
        assert_eq!((topic.coverage[0].covered_records, topic.coverage[0].end_offset), (number, number as i64));
        assert_eq!(ranges(&topic.coverage[1].covered), if number == 7 { vec![(0, 2), (4, 5)] } else { vec![] });
    }
}
