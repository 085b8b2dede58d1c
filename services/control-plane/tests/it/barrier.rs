//! The barrier with gateways that follow, lag, or have left, and what is answered when Kafka or PostgreSQL is away. On a stack
//! of its own: it stops both.

use std::time::{Duration, Instant};

use prost::Message as _;
use sluice_devstack::{GATEWAY, Stack};
use sluice_proto::admin::v1::{
    CreateNamespaceRequest, DeleteGroupRequest, Group, ListNamespacesRequest, OperationMetadata, RevokeApiKeyRequest,
    Topic,
};
use sluice_proto::google::longrunning::Operation;
use sluice_proto::internal::control::v1::{LookupKeyRequest, MemberHeartbeat, MemberPhase};
use sluice_types::Revision;
use sluice_types::physical::MEMBERS_TOPIC;
use sluice_wire::{Client, OutRecord};
use tonic::{Code, Response};

use crate::provisioner::deleted_groups;
use crate::support::{Plant, Principal, refused};

const CALL: Duration = Duration::from_secs(10);
const PENDING: &str = "sluice-propagation-pending";

async fn beat(kafka: &Client, id: &str, log: &Revision, applied: i64, phase: MemberPhase) {
    let heartbeat = MemberHeartbeat {
        gateway_id: id.into(),
        applied_offset: applied,
        control_topic_id: sluice_wire::KafkaTopicId(log.topic_id).to_string(),
        phase: phase as i32,
        ..Default::default()
    };
    let record = OutRecord {
        key: Some(id.to_owned().into()),
        value: Some(heartbeat.encode_to_vec().into()),
        ..Default::default()
    };
    kafka.produce_batch(MEMBERS_TOPIC, 0, &[record], CALL).await.unwrap();
}

async fn make(owner: &Principal, id: &str) -> (Response<Operation>, Duration) {
    let request = CreateNamespaceRequest { namespace_id: id.into(), ..Default::default() };
    let begun = Instant::now();
    let answer = owner.namespaces().create_namespace(owner.call(request)).await.unwrap();
    (answer, begun.elapsed())
}

fn metadata(operation: &Operation) -> OperationMetadata {
    operation.metadata.clone().unwrap().unpack().unwrap().unwrap()
}

fn revision(answer: &Response<Operation>) -> Revision {
    answer.metadata().get("sluice-revision").unwrap().to_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_mutation_waits_for_live_gateways_within_its_bound_and_survives_what_is_away() {
    let stack = Stack::builder().build().await.unwrap();
    let mut plant = Plant::prepare(stack.connection()).await;
    plant.run().await;
    let kafka = stack.connection().kafka().unwrap().client(GATEWAY).unwrap();
    let owner = plant.tenant("acme").await;

    // No gateway: it ends at the publication.
    let (answer, took) = make(&owner, "alone").await;
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert!(answer.get_ref().done && metadata(answer.get_ref()).conditions.is_empty());
    let log = revision(&answer);
    // Nobody provisions it, so the call ends when its time is over.
    owner.topics().create_topic(owner.create_topic("alone", "orders", Topic::default())).await.unwrap();
    let group = Group { topics: vec!["namespaces/alone/topics/orders".into()], ..Group::default() };
    owner.groups().create_group(owner.create_group("alone", "billing", group)).await.unwrap();

    // One that is ahead, and one that lags.
    beat(&kafka, "ahead", &log, i64::MAX, MemberPhase::Serving).await;
    let (answer, took) = make(&owner, "followed").await;
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert!(metadata(answer.get_ref()).conditions.is_empty());
    assert!(revision(&answer).offset > log.offset);
    beat(&kafka, "behind", &log, log.offset, MemberPhase::Serving).await;
    let (answer, took) = make(&owner, "lagged").await;
    assert!((Duration::from_millis(1_900)..Duration::from_millis(2_500)).contains(&took), "{took:?}");
    let told = metadata(answer.get_ref());
    assert!(answer.get_ref().done, "{answer:?}");
    assert_eq!(
        (told.conditions[0].r#type.as_str(), told.conditions[0].reason.as_str()),
        ("PropagationPending", "GatewaysBehind")
    );
    assert_eq!(answer.metadata().get(PENDING).unwrap(), "1");
    // Plain mutations, too.
    let spare = owner.make_key("owner").await.unwrap();
    let revoke = RevokeApiKeyRequest { name: spare.name, ..Default::default() };
    let revoked = owner.accounts().revoke_api_key(owner.call(revoke)).await.unwrap();
    assert_eq!(revoked.get_ref().conditions[0].r#type, "PropagationPending");

    // A gateway that has not heard of it may still dispatch a group that was deleted.
    let request = DeleteGroupRequest { name: "namespaces/alone/groups/billing".into(), ..Default::default() };
    owner.groups().delete_group(owner.call(request)).await.unwrap();
    assert_eq!(deleted_groups(&plant).await.len(), 0, "a gateway lags");

    // It confirms while a mutation waits.
    let (caller, started) = (owner.clone(), Instant::now());
    let waiting = tokio::spawn(async move { make(&caller, "confirmed").await });
    while plant.sql("SELECT count(*) FROM control.namespace WHERE id = 'confirmed'").await == "0" {
        assert!(started.elapsed() < Duration::from_secs(10));
    }
    beat(&kafka, "behind", &log, i64::MAX, MemberPhase::Serving).await;
    let (answer, took) = waiting.await.unwrap();
    assert!(took < Duration::from_millis(1_900), "{took:?}");
    assert!(metadata(answer.get_ref()).conditions.is_empty());
    assert_eq!(deleted_groups(&plant).await.len(), 1, "all have heard of it");
    // One that left is not waited for.
    beat(&kafka, "behind", &log, log.offset, MemberPhase::Left).await;
    let (_, took) = make(&owner, "left").await;
    assert!(took < Duration::from_secs(1), "{took:?}");

    // Kafka is away: the change stands, and says that it is not published.
    stack.kafka().unwrap().pause(1).await.unwrap();
    let (answer, took) = make(&owner, "unpublished").await;
    assert!(took < Duration::from_millis(2_900), "{took:?}");
    assert_eq!(metadata(answer.get_ref()).conditions[0].reason, "NotPublished");
    stack.kafka().unwrap().resume(1).unwrap();
    beat(&kafka, "ahead", &log, i64::MAX, MemberPhase::Serving).await;
    crate::support::eventually("published after all", || async {
        plant.sql("SELECT count(*) FROM control.outbox WHERE published_offset IS NULL").await == "0"
    })
    .await;

    // PostgreSQL is away: UNAVAILABLE, fast, for mutations, reads and unknown keys alike; never UNAUTHENTICATED.
    stack.postgres().unwrap().kill9().await;
    let begun = Instant::now();
    let request = CreateNamespaceRequest { namespace_id: "never".into(), ..Default::default() };
    assert_eq!(refused(owner.namespaces().create_namespace(owner.call(request)).await), Code::Unavailable);
    let list = ListNamespacesRequest::default();
    assert_eq!(refused(owner.namespaces().list_namespaces(owner.call(list)).await), Code::Unavailable);
    let key = LookupKeyRequest { key_id: "aaaaaaaaaaaaa".into() };
    assert_eq!(refused(plant.lookup().lookup_key(key).await), Code::Unavailable);
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    stack.postgres().unwrap().start_server().await.unwrap();
    crate::support::eventually("well again", || async {
        let request = CreateNamespaceRequest { namespace_id: "back".into(), ..Default::default() };
        owner.namespaces().create_namespace(owner.call(request)).await.is_ok()
    })
    .await;
    plant.stop().await;
    stack.stop().await;
}
