//! Topics from intent to service and back, with provisioning's reports.

use sluice_proto::admin::v1::{
    DeleteTopicRequest, GetOperationRequest, GetTopicRequest, OperationMetadata, Topic, UpdateTopicRequest,
    WaitOperationRequest, topic,
};
use sluice_proto::google::longrunning::Operation;
use sluice_proto::google::longrunning::operation::Result as Outcome;
use sluice_proto::internal::control::v1::report_topic_request::Observed;
use sluice_proto::internal::control::v1::topic_intent::Want;
use sluice_proto::internal::control::v1::{
    AcquireLeaseRequest, AwaitWorkRequest, ListIntentsRequest, RecordAttemptRequest,
};
use sluice_proto::wkt::{Duration, FieldMask};
use tonic::Code;

use crate::provisioner::{Provisioner, lease, report, work};
use crate::support::{Plant, Principal, refused, response};

fn delete(name: &str) -> DeleteTopicRequest {
    DeleteTopicRequest { name: name.into(), ..Default::default() }
}

async fn create(owner: &Principal, id: &str, topic: Topic) -> Topic {
    let answer = owner.topics().create_topic(owner.create_topic("prod", id, topic)).await.unwrap();
    assert!(answer.metadata().contains_key("sluice-revision"));
    response(answer.get_ref())
}

/// What an operation says of the order of keys: reason, and whether it names both numbers of partitions.
fn key_order(operation: &Operation) -> Vec<(String, bool)> {
    let metadata: OperationMetadata = operation.metadata.as_ref().unwrap().unpack().unwrap().unwrap();
    let of_keys = metadata.conditions.into_iter().filter(|condition| condition.r#type == "KeyOrderBroken");
    of_keys.map(|condition| (condition.reason, condition.message.contains("from 3 to "))).collect()
}

#[tokio::test]
async fn a_topic_is_made_grown_deleted_and_made_again_within_its_calls() {
    let plant = Plant::start().await;
    let _provisioner = Provisioner::start(&plant).await;
    let owner = plant.tenant("acme").await;
    owner.make_namespace("prod").await;
    let made = create(&owner, "orders", Topic::default()).await;
    assert_eq!((made.state(), made.effective_partition_count), (topic::State::Active, 3));
    assert_eq!((made.partition_count, made.retention, made.reconciling), (None, None, false));
    let taken = owner.topics().create_topic(owner.create_topic("prod", "orders", Topic::default())).await;
    assert_eq!(refused(taken), Code::AlreadyExists);
    // Names that Kafka itself would not take side by side.
    create(&owner, "a.b", Topic::default()).await;
    create(&owner, "a_b", Topic::default()).await;

    let update = UpdateTopicRequest {
        topic: Some(Topic {
            name: made.name.clone(),
            partition_count: Some(6),
            retention: Some(Duration::from_millis(86_400_000)),
            ..Default::default()
        }),
        update_mask: FieldMask::parse("partitionCount,retention").ok(),
        ..Default::default()
    };
    let operation = owner.topics().update_topic(owner.call(update)).await.unwrap().into_inner();
    let grown: Topic = response(&operation);
    assert_eq!(key_order(&operation), [("PartitionsAdded".to_owned(), true)], "it is the point at which it breaks");
    let get = GetOperationRequest { name: operation.name };
    let later = owner.operations().get_operation(owner.call(get)).await.unwrap().into_inner();
    assert_eq!(key_order(&later).len(), 1, "also for who looks later");
    assert_eq!((grown.state(), grown.effective_partition_count), (topic::State::Active, 6));
    assert_eq!((grown.generation, grown.observed_generation), (2, 2));

    let gone = owner.topics().delete_topic(owner.call(delete(&made.name))).await.unwrap();
    assert_eq!(response::<Topic>(gone.get_ref()).state(), topic::State::Deleting);
    let get = GetTopicRequest { name: made.name.clone() };
    assert_eq!(refused(owner.topics().get_topic(owner.call(get)).await), Code::NotFound);
    let again = create(&owner, "orders", Topic::default()).await;
    assert_ne!(again.uid, made.uid);
}

#[tokio::test]
async fn without_provisioning_the_operation_runs_on_and_a_wait_sees_its_end() {
    let plant = Plant::start().await;
    let owner = plant.tenant("acme").await;
    owner.make_namespace("prod").await;
    let begun = std::time::Instant::now();
    let answer = owner.topics().create_topic(owner.create_topic("prod", "orders", Topic::default())).await.unwrap();
    assert!(begun.elapsed() < std::time::Duration::from_secs(5), "{:?}", begun.elapsed());
    let operation = answer.into_inner();
    let metadata: OperationMetadata = operation.metadata.clone().unwrap().unpack().unwrap().unwrap();
    assert!(!operation.done && metadata.phase == "PROVISIONING" && metadata.poll_after.is_some(), "{metadata:?}");
    let get = GetTopicRequest { name: "namespaces/prod/topics/orders".into() };
    let listed = owner.topics().get_topic(owner.call(get)).await.unwrap().into_inner();
    assert!(listed.state() == topic::State::Creating && listed.reconciling);
    let waiting = WaitOperationRequest { name: operation.name.clone(), timeout: Some(Duration::from_millis(20_000)) };
    let (waiter, call) = (owner.clone(), owner.call(waiting));
    let waiter = tokio::spawn(async move { waiter.operations().wait_operation(call).await.unwrap().into_inner() });
    let _provisioner = Provisioner::start(&plant).await;
    let made: Topic = response(&waiter.await.unwrap());
    assert_eq!(made.state(), topic::State::Active);
}

#[tokio::test]
async fn a_topic_that_cannot_be_made_fails_with_its_reason_and_can_be_deleted() {
    let plant = Plant::start().await;
    let owner = plant.tenant("acme").await;
    owner.make_namespace("prod").await;
    let mut client = plant.intents();
    let epoch = lease(&mut client, "p", 60_000).await;
    let call = owner.create_topic("prod", "orders", Topic::default());
    let caller = owner.clone();
    let creating = tokio::spawn(async move { caller.topics().create_topic(call).await.unwrap().into_inner() });
    let intent = work(&mut client).await.remove(0);
    assert_eq!((intent.want(), intent.create_attempted), (Want::Present, false));
    // Seven days, and three hours for a record that was seven days old when it came.
    assert_eq!(intent.configs["retention.ms"], "615600000");
    client.report_topic(report(epoch, &intent, Observed::Foreign)).await.unwrap();
    let operation = creating.await.unwrap();
    let Some(Outcome::Error(error)) = &operation.result else { panic!("{operation:?}") };
    assert_eq!(error.code, Code::FailedPrecondition as i32);
    let get = || GetTopicRequest { name: "namespaces/prod/topics/orders".into() };
    let failed = owner.topics().get_topic(owner.call(get())).await.unwrap().into_inner();
    assert_eq!((failed.state(), failed.conditions[0].reason.as_str()), (topic::State::Failed, "ForeignTopic"));
    let answer =
        owner.operations().get_operation(owner.call(GetOperationRequest { name: operation.name.clone() })).await;
    assert_eq!(answer.unwrap().into_inner(), operation);
    owner.topics().delete_topic(owner.call(delete(&failed.name))).await.unwrap();
    assert_eq!(refused(owner.topics().get_topic(owner.call(get())).await), Code::NotFound);
}

#[tokio::test]
async fn only_the_holder_of_the_lease_is_believed() {
    let plant = Plant::start().await;
    let owner = plant.tenant("acme").await;
    owner.make_namespace("prod").await;
    let mut client = plant.intents();
    let old = lease(&mut client, "first", 500).await;
    assert_eq!(lease(&mut client, "first", 500).await, old);
    let held = AcquireLeaseRequest { holder: "second".into(), ttl: Some(Duration::from_millis(60_000)) };
    let epoch = loop {
        match client.acquire_lease(held.clone()).await {
            Ok(answer) => break answer.into_inner().epoch,
            Err(status) => assert_eq!(status.code(), Code::FailedPrecondition),
        }
    };
    assert!(epoch > old);
    let check = sluice_proto::admin::v1::CreateTopicRequest {
        parent: "namespaces/prod".into(),
        topic_id: "orders".into(),
        ..Default::default()
    };
    let caller = owner.clone();
    let creating =
        tokio::spawn(async move { caller.topics().create_topic(caller.call(check)).await.unwrap().into_inner() });
    let intent = work(&mut client).await.remove(0);
    let attempt = |lease_epoch| RecordAttemptRequest { lease_epoch, topic_uid: intent.topic_uid.clone() };
    let lost = client.record_attempt(attempt(old)).await.unwrap_err();
    assert_eq!(sluice_runtime::statuses::from_tonic(&lost).reason, sluice_types::Reason::LeaseLost);
    assert_eq!(refused(client.report_topic(report(old, &intent, Observed::Ready)).await), Code::Aborted);
    client.record_attempt(attempt(epoch)).await.unwrap();
    let known = client.list_intents(ListIntentsRequest { limit: 10, ..Default::default() }).await.unwrap().into_inner();
    assert!(known.topics[0].create_attempted);
    client.report_topic(report(epoch, &intent, Observed::Retrying)).await.unwrap();
    client.report_topic(report(epoch, &intent, Observed::Ready)).await.unwrap();
    client.report_topic(report(epoch, &intent, Observed::Ready)).await.unwrap();
    assert!(creating.await.unwrap().done);
    // A create that was deleted meanwhile must not begin.
    owner.topics().delete_topic(owner.call(delete("namespaces/prod/topics/orders"))).await.unwrap();
    assert_eq!(refused(client.record_attempt(attempt(epoch)).await), Code::FailedPrecondition);
}

#[tokio::test]
async fn who_waits_for_work_is_answered_when_the_process_ends() {
    let mut plant = Plant::start().await;
    let mut client = plant.intents();
    let mut waiting = client.clone();
    let request = AwaitWorkRequest { wait: Some(Duration::from_millis(30_000)), limit: 1 };
    let asked = tokio::spawn(async move { waiting.await_work(request).await });
    // On the same connection, behind it.
    lease(&mut client, "provisioner", 60_000).await;
    plant.stop().await;
    let answer = asked.await.unwrap().expect("answered, not cut off at the end of the drain");
    assert!(answer.into_inner().topics.is_empty());
}

#[tokio::test]
async fn a_refused_increase_is_tried_again_when_it_is_repeated_and_can_be_taken_back() {
    let plant = Plant::start().await;
    let owner = plant.tenant("acme").await;
    owner.make_namespace("prod").await;
    let mut client = plant.intents();
    let epoch = lease(&mut client, "p", 60_000).await;
    let name = "namespaces/prod/topics/orders";
    // Asks, and answers as provisioning would: how the operation ends.
    let mut asked = async |partitions: Option<i32>, observed: Observed| {
        let caller = owner.clone();
        let exists = caller.topics().get_topic(caller.call(GetTopicRequest { name: name.into() })).await.is_ok();
        let call = tokio::spawn(async move {
            if !exists {
                let create = caller.create_topic("prod", "orders", Topic::default());
                return caller.topics().create_topic(create).await.unwrap().into_inner();
            }
            let update = UpdateTopicRequest {
                topic: Some(Topic { name: name.into(), partition_count: partitions, ..Default::default() }),
                update_mask: FieldMask::parse("partitionCount").ok(),
                ..Default::default()
            };
            caller.topics().update_topic(caller.call(update)).await.unwrap().into_inner()
        });
        let intent = work(&mut client).await.remove(0);
        client.report_topic(report(epoch, &intent, observed)).await.unwrap();
        let operation = call.await.unwrap();
        let told = key_order(&operation).len();
        (operation.result, intent.partitions, told)
    };
    let (made, ..) = asked(None, Observed::Ready).await;
    assert!(matches!(made, Some(Outcome::Response(_))));
    for _ in 0..2 {
        let (refused, wanted, told) = asked(Some(6), Observed::Failed).await;
        assert!(matches!(refused, Some(Outcome::Error(_))), "{refused:?}");
        assert_eq!((wanted, told), (6, 0), "the order of keys holds");
    }
    let (lowered, wanted, told) = asked(Some(4), Observed::Ready).await;
    assert!(matches!(lowered, Some(Outcome::Response(_))), "{lowered:?}");
    assert_eq!((wanted, told), (4, 1), "more than the three there were");
    let topic = owner.topics().get_topic(owner.call(GetTopicRequest { name: name.into() })).await.unwrap().into_inner();
    assert_eq!(
        (topic.state(), topic.effective_partition_count, topic.partition_count),
        (topic::State::Active, 4, Some(4))
    );
}
