//! Consumer groups: what comes back, what gateways are told, and whose rights a group needs.

use prost::Message as _;
use sluice_proto::admin::v1::group::{Ordering, Start, StartPosition};
use sluice_proto::admin::v1::topic::CleanupPolicy;
use sluice_proto::admin::v1::{
    CreateGroupRequest, DeleteGroupRequest, DeleteNamespaceRequest, DeleteTopicRequest, GetGroupRequest, Group,
    ListGroupsRequest, RetryPolicy, Role, Topic, UpdateGroupRequest,
};
use sluice_proto::internal::control::v1::control_record::Resource;
use sluice_proto::internal::control::v1::{ControlRecord, GroupState, Life, ReportGroupGoneRequest, group_state};
use sluice_proto::wkt::{Duration, FieldMask, Timestamp};
use tonic::{Code, Status};

use crate::provisioner::{deleted_groups, lease};
use crate::support::{Plant, Principal, refused, response};

const REQUEST_ID: &str = "6f1c1f9e-5c0e-4b3e-9a43-0d6c7c1f2b11";

fn topic(id: &str) -> String {
    format!("namespaces/prod/topics/{id}")
}

fn of(topics: &[&str]) -> Group {
    Group { topics: topics.iter().map(|id| topic(id)).collect(), ..Group::default() }
}

fn dead(topics: &[&str], dead: &str) -> Group {
    Group { dead_letter_topic: topic(dead), ..of(topics) }
}

fn delete(name: &str) -> DeleteGroupRequest {
    DeleteGroupRequest { name: name.into(), ..Default::default() }
}

/// An owner with the namespace `prod` and these topics; they need not be in Kafka.
async fn owner_with(plant: &Plant, topics: &[&str]) -> Principal {
    let owner = plant.tenant("acme").await;
    owner.make_namespace("prod").await;
    make_topics(&owner, topics).await;
    owner
}

async fn make_topics(owner: &Principal, topics: &[&str]) {
    // Nobody provisions them, so each call would wait for its operation; together they wait once.
    let call = |id: &str| {
        let (owner, request) = (owner.clone(), owner.create_topic("prod", id, Topic::default()));
        async move { owner.topics().create_topic(request).await.map(drop) }
    };
    futures::future::try_join_all(topics.iter().map(|id| call(id))).await.unwrap();
}

async fn create(caller: &Principal, id: &str, group: Group) -> Result<Group, Status> {
    let answer = caller.groups().create_group(caller.create_group("prod", id, group)).await?;
    Ok(response(answer.get_ref()))
}

async fn update(caller: &Principal, group: Group, mask: &str) -> Result<Group, Status> {
    let update_mask = (!mask.is_empty()).then(|| FieldMask::parse(mask).unwrap());
    let request = UpdateGroupRequest { group: Some(group), update_mask, ..Default::default() };
    let answer = caller.groups().update_group(caller.call(request)).await?;
    Ok(response(answer.get_ref()))
}

async fn get(caller: &Principal, name: &str) -> Result<Group, Status> {
    caller.groups().get_group(caller.call(GetGroupRequest { name: name.into() })).await.map(|got| got.into_inner())
}

/// What gateways were told of groups, in order.
async fn told(plant: &Plant) -> Vec<(i64, GroupState)> {
    let rows = plant
        .sql(
            "SELECT string_agg(encode(payload, 'hex'), ',' ORDER BY o.id) FROM control.outbox o
             JOIN control.consumer_group g ON g.uid = o.aggregate_uid",
        )
        .await;
    let decode = |text: &str| {
        let record = ControlRecord::decode(hex::decode(text).unwrap().as_slice()).unwrap();
        match record.resource {
            Some(Resource::Group(state)) => (record.version, state),
            other => panic!("{other:?}"),
        }
    };
    rows.split(',').filter(|text| !text.is_empty()).map(decode).collect()
}

#[tokio::test]
async fn a_group_comes_back_as_it_was_sent_and_gateways_get_it_with_its_defaults() {
    let plant = Plant::start().await;
    let owner = owner_with(&plant, &["orders", "refunds", "dead"]).await;
    let plain = create(&owner, "plain", of(&["orders"])).await.unwrap();
    assert_eq!((plain.name.as_str(), plain.topics.len()), ("namespaces/prod/groups/plain", 1));
    assert!(plain.ack_deadline.is_none() && plain.retry_policy.is_none() && plain.start.is_none());
    let full = Group {
        display_name: "Billing".into(),
        labels: [("team".to_owned(), "core".to_owned())].into(),
        start: Some(Start::StartTime(Timestamp::from_micros(1_700_000_000_000_001))),
        ordering: Ordering::None as i32,
        ack_deadline: Some(Duration::from_millis(90_500)),
        retry_policy: Some(RetryPolicy {
            max_attempts: 7,
            minimum_backoff: Some(Duration::from_millis(0)),
            maximum_backoff: Some(Duration::from_millis(1_500)),
        }),
        deletion_protection: true,
        ..dead(&["refunds", "orders"], "dead")
    };
    let made = create(&owner, "Bill_ing.1", full.clone()).await.unwrap();
    let Group { name, uid, create_time, update_time, etag, .. } = made.clone();
    assert!(!uid.is_empty() && create_time.is_some() && !etag.is_empty());
    assert_eq!(made, Group { name, uid: uid.clone(), create_time, update_time, etag, ..full });
    assert_eq!(get(&owner, &made.name).await.unwrap(), made);

    let states = told(&plant).await;
    let (version, state) = &states[0];
    assert_eq!((*version, &state.uid, state.life()), (1, &plain.uid, Life::Active));
    assert_eq!((state.id.as_str(), state.namespace_id.as_str()), ("plain", "prod"));
    assert_eq!((state.start, state.key_ordered), (Some(group_state::Start::StartEarliest(true)), true));
    assert_eq!((state.ack_deadline_ms, state.max_attempts), (30_000, 0));
    assert_eq!((state.minimum_backoff_ms, state.maximum_backoff_ms), (2_000, 60_000));
    let (_, state) = &states[1];
    assert_eq!((&state.uid, &state.topic_ids), (&uid, &vec!["refunds".to_owned(), "orders".to_owned()]));
    // Rounded up: no record before the time.
    let start = Some(group_state::Start::StartTimeMs(1_700_000_000_001));
    assert_eq!((state.start, state.key_ordered), (start, false));
    assert_eq!((state.ack_deadline_ms, state.max_attempts), (90_500, 7));
    assert_eq!((state.minimum_backoff_ms, state.maximum_backoff_ms), (0, 1_500));
    assert_eq!(state.dead_letter_topic_id, "dead");
    assert_eq!(state.create_time_ms, made.create_time.unwrap().as_millis());
}

#[tokio::test]
async fn a_group_is_changed_deleted_and_made_again_as_another_one() {
    let plant = Plant::start().await;
    let owner = owner_with(&plant, &["orders", "refunds", "dead"]).await;
    let made = create(&owner, "billing", of(&["orders"])).await.unwrap();
    assert_eq!(create(&owner, "billing", of(&["orders"])).await.unwrap_err().code(), Code::AlreadyExists);

    let body = Group { name: made.name.clone(), etag: made.etag.clone(), ..dead(&["orders", "refunds"], "dead") };
    let changed = update(&owner, body.clone(), "").await.unwrap();
    assert_eq!((changed.topics.len(), changed.dead_letter_topic.as_str()), (2, "namespaces/prod/topics/dead"));
    assert!(changed.uid == made.uid && changed.etag != made.etag);
    assert_eq!(update(&owner, body, "").await.unwrap_err().code(), Code::Aborted);
    let body = Group { name: made.name.clone(), display_name: "x".into(), deletion_protection: true, ..of(&[]) };
    let changed = update(&owner, body.clone(), "deletionProtection").await.unwrap();
    assert!(changed.deletion_protection && changed.display_name.is_empty());
    for (field, mask, body) in [
        ("group.topics", "topics", body.clone()),
        ("update_mask", "ordering", body.clone()),
        ("update_mask", "start_position", body.clone()),
        ("group.ordering", "", Group { ordering: Ordering::None as i32, ..body.clone() }),
        (
            "group.start_position",
            "",
            Group { start: Some(Start::StartPosition(StartPosition::Latest as i32)), ..body.clone() },
        ),
    ] {
        let error = update(&owner, body, mask).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument);
        assert!(error.message().starts_with(&format!("{field}: ")), "{error}");
    }
    // What was deleted meanwhile does not stand in the way of other changes.
    let gone = DeleteTopicRequest { name: topic("refunds"), ..Default::default() };
    owner.topics().delete_topic(owner.call(gone)).await.unwrap();
    let faster = Group { ack_deadline: Some(Duration::from_millis(10_000)), ..body.clone() };
    update(&owner, faster, "ackDeadline").await.unwrap();

    let protected = owner.groups().delete_group(owner.call(delete(&made.name))).await;
    assert_eq!(refused(protected), Code::FailedPrecondition);
    update(&owner, Group { deletion_protection: false, ..body }, "deletion_protection").await.unwrap();
    let stale = DeleteGroupRequest { etag: made.etag.clone(), ..delete(&made.name) };
    assert_eq!(refused(owner.groups().delete_group(owner.call(stale)).await), Code::Aborted);
    let answer = owner.groups().delete_group(owner.call(delete(&made.name))).await.unwrap();
    assert!(answer.metadata().contains_key("sluice-revision"));
    assert_eq!(get(&owner, &made.name).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(refused(owner.groups().delete_group(owner.call(delete(&made.name))).await), Code::NotFound);
    let missing = DeleteGroupRequest { allow_missing: true, ..delete(&made.name) };
    assert!(owner.groups().delete_group(owner.call(missing)).await.unwrap().into_inner().done);
    let again = create(&owner, "billing", of(&["orders"])).await.unwrap();
    assert_ne!(again.uid, made.uid);

    let states: Vec<_> =
        told(&plant).await.into_iter().map(|(v, state)| (v, state.uid.clone(), state.life())).collect();
    let of_first = |version, life| (version, made.uid.clone(), life);
    let mut expected: Vec<_> = (1..=5).map(|version| of_first(version, Life::Active)).collect();
    expected.extend([of_first(6, Life::Gone), (1, again.uid.clone(), Life::Active)]);
    assert_eq!(states, expected);
}

#[tokio::test]
async fn a_group_is_made_once_per_request_id_and_a_check_makes_none() {
    let plant = Plant::start().await;
    let owner = owner_with(&plant, &["orders"]).await;
    let request = |id: &str| CreateGroupRequest {
        request_id: REQUEST_ID.into(),
        ..owner.create_group("prod", id, of(&["orders"])).into_inner()
    };
    let check = CreateGroupRequest { validate_only: true, ..request("billing") };
    let checked = owner.groups().create_group(owner.call(check)).await.unwrap().into_inner();
    assert_eq!(response::<Group>(&checked).name, "namespaces/prod/groups/billing");
    assert_eq!(plant.sql("SELECT count(*) FROM control.consumer_group").await, "0");
    let first = owner.groups().create_group(owner.call(request("billing"))).await.unwrap().into_inner();
    let again = owner.groups().create_group(owner.call(request("billing"))).await.unwrap().into_inner();
    assert_eq!((&first.name, &first.result), (&again.name, &again.result));
    let other = owner.groups().create_group(owner.call(request("other"))).await;
    assert_eq!(refused(other), Code::InvalidArgument);
    assert_eq!(plant.sql("SELECT count(*) FROM control.consumer_group").await, "1");
}

#[tokio::test]
async fn groups_are_listed_in_pages_and_counted_against_their_limit() {
    let mut plant = Plant::prepare(sluice_devstack::shared().await.unwrap()).await;
    plant.config().limits.groups_per_namespace = 3;
    plant.run().await;
    let owner = owner_with(&plant, &["orders"]).await;
    for id in ["b", "a", "B"] {
        create(&owner, id, of(&["orders"])).await.unwrap();
    }
    let error = create(&owner, "c", of(&["orders"])).await.unwrap_err();
    assert_eq!(error.code(), Code::ResourceExhausted);
    assert!(error.message().contains("3 groups in one namespace"), "{error}");
    let list =
        |parent: &str, token: &str| ListGroupsRequest { parent: parent.into(), page_size: 2, page_token: token.into() };
    let page = |request| {
        let caller = owner.clone();
        async move { caller.groups().list_groups(caller.call(request)).await.map(|page| page.into_inner()) }
    };
    let first = page(list("namespaces/prod", "")).await.unwrap();
    let second = page(list("namespaces/prod", &first.next_page_token)).await.unwrap();
    let names: Vec<&str> = first.groups.iter().chain(&second.groups).map(|group| group.name.as_str()).collect();
    assert_eq!(names, ["namespaces/prod/groups/B", "namespaces/prod/groups/a", "namespaces/prod/groups/b"]);
    assert_eq!(second.next_page_token, "");
    // The token belongs to this list and this caller.
    owner.make_namespace("other").await;
    assert_eq!(page(list("namespaces/other", &first.next_page_token)).await.unwrap_err().code(), Code::InvalidArgument);
    let viewer = owner.colleague(&plant, "viewer", &[(Role::Viewer, "*")]).await;
    let foreign = viewer.groups().list_groups(viewer.call(list("namespaces/prod", &first.next_page_token))).await;
    assert_eq!(refused(foreign), Code::InvalidArgument);
    assert_eq!(page(list("namespaces/absent", "")).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn a_deleted_group_is_to_go_from_kafka_until_it_was_gone_twice() {
    let plant = Plant::start().await;
    let owner = owner_with(&plant, &["orders"]).await;
    let made = create(&owner, "billing", of(&["orders"])).await.unwrap();
    create(&owner, "stays", of(&["orders"])).await.unwrap();
    let mut client = plant.intents();
    let epoch = lease(&mut client, "p", 60_000).await;
    assert_eq!(deleted_groups(&plant).await, [""; 0]);
    owner.groups().delete_group(owner.call(delete(&made.name))).await.unwrap();
    let report = |lease_epoch| ReportGroupGoneRequest { lease_epoch, group_uid: made.uid.clone() };
    let old = client.report_group_gone(report(epoch - 1)).await;
    assert_eq!(refused(old), Code::Aborted);
    for _ in 0..2 {
        assert_eq!(deleted_groups(&plant).await, [made.uid.as_str()]);
        // A report that comes twice counts once.
        for _ in 0..2 {
            client.report_group_gone(report(epoch)).await.unwrap();
            assert_eq!(deleted_groups(&plant).await, [""; 0], "for a while");
        }
        plant.sql("UPDATE control.consumer_group SET kafka_look_time = now()").await;
    }
    assert_eq!(deleted_groups(&plant).await, [""; 0], "for good");
}

#[tokio::test]
async fn a_namespace_with_groups_stays() {
    let plant = Plant::start().await;
    let owner = owner_with(&plant, &["orders"]).await;
    create(&owner, "billing", of(&["orders"])).await.unwrap();
    let gone = DeleteTopicRequest { name: topic("orders"), ..Default::default() };
    owner.topics().delete_topic(owner.call(gone)).await.unwrap();
    let namespace = || DeleteNamespaceRequest { name: "namespaces/prod".into(), ..Default::default() };
    let error = owner.namespaces().delete_namespace(owner.call(namespace())).await.unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition);
    assert_eq!(error.message(), "namespaces/prod still has groups; delete them first");
    owner.groups().delete_group(owner.call(delete("namespaces/prod/groups/billing"))).await.unwrap();
    owner.namespaces().delete_namespace(owner.call(namespace())).await.unwrap();
}

#[tokio::test]
async fn a_group_needs_its_makers_rights_on_every_topic() {
    use Role::{Consumer, Developer, Producer};
    let plant = Plant::start().await;
    let owner = owner_with(&plant, &["orders", "refunds", "dead"]).await;
    owner.make_namespace("other").await;
    const PROD: &str = "namespaces/prod";
    const ORDERS: &str = "namespaces/prod/topics/orders";
    const DEAD: &str = "namespaces/prod/topics/dead";
    let consumer: &[(Role, &str)] = &[(Consumer, PROD)];
    let both: &[(Role, &str)] = &[(Consumer, PROD), (Producer, DEAD)];
    let elsewhere: &[(Role, &str)] = &[(Consumer, "namespaces/other")];
    let producer: &[(Role, &str)] = &[(Producer, PROD)];
    let developer: &[(Role, &str)] = &[(Developer, PROD)];
    let parts: &[(Role, &str)] = &[(Consumer, ORDERS), (Consumer, "namespaces/prod/groups/*")];
    for (i, (who, grants, group, code)) in [
        ("developer", developer, dead(&["orders"], "dead"), None),
        ("consumer", consumer, of(&["orders", "refunds"]), None),
        ("consumer, dead letters", consumer, dead(&["orders"], "dead"), Some(Code::PermissionDenied)),
        ("consumer, absent dead letters", consumer, dead(&["orders"], "absent"), Some(Code::PermissionDenied)),
        ("consumer and producer", both, dead(&["orders"], "dead"), None),
        ("consumer, absent topic", consumer, of(&["orders", "absent"]), Some(Code::NotFound)),
        ("developer, absent dead letters", developer, dead(&["orders"], "absent"), Some(Code::NotFound)),
        ("producer", producer, of(&["orders"]), Some(Code::PermissionDenied)),
        ("consumer of parts", parts, of(&["orders"]), Some(Code::NotFound)),
        ("consumer elsewhere", elsewhere, of(&["orders"]), Some(Code::NotFound)),
    ]
    .into_iter()
    .enumerate()
    {
        let caller = owner.colleague(&plant, &format!("c{i}"), grants).await;
        let got = create(&caller, &format!("g{i}"), group).await.err().map(|status| status.code());
        assert_eq!(got, code, "{who}");
    }

    // Only what an update changes is asked for again, and what it adds would reach the dead letters too.
    let made = create(&owner, "billing", dead(&["orders"], "dead")).await.unwrap();
    let body = |group: Group| Group { name: made.name.clone(), ..group };
    let group: (Role, &str) = (Developer, "namespaces/prod/groups/billing");
    let only = owner.colleague(&plant, "only", &[group]).await;
    let reader = owner.colleague(&plant, "reader", &[group, (Consumer, "namespaces/prod/topics/*")]).await;
    let writer = owner.colleague(&plant, "writer", &[group, (Producer, "namespaces/prod/topics/*")]).await;
    update(&only, body(Group { display_name: "mine".into(), ..Group::default() }), "").await.unwrap();
    let both = || body(of(&["orders", "refunds"]));
    assert_eq!(update(&only, both(), "topics").await.unwrap_err().code(), Code::NotFound);
    assert_eq!(update(&writer, both(), "topics").await.unwrap_err().code(), Code::PermissionDenied);
    assert_eq!(update(&reader, both(), "topics").await.unwrap_err().code(), Code::PermissionDenied);
    update(&reader, body(of(&["orders"])), "topics").await.unwrap();
    let other = || body(dead(&[], "refunds"));
    assert_eq!(update(&reader, other(), "dead_letter_topic").await.unwrap_err().code(), Code::PermissionDenied);
    update(&writer, other(), "dead_letter_topic").await.unwrap();
    update(&only, body(Group::default()), "dead_letter_topic").await.unwrap();
    update(&reader, both(), "topics").await.unwrap();
}

#[tokio::test]
async fn what_is_hidden_from_a_groups_maker_looks_absent_to_the_byte() {
    let plant = Plant::start().await;
    let owner = owner_with(&plant, &["orders", "hidden"]).await;
    let stranger = plant.tenant("globex").await;
    stranger.make_namespace("prod").await;
    make_topics(&stranger, &["secret"]).await;
    create(&stranger, "secret", of(&["secret"])).await.unwrap();
    create(&owner, "hidden", of(&["orders"])).await.unwrap();
    let grants = [(Role::Developer, "namespaces/prod/groups/mine*"), (Role::Consumer, "namespaces/prod/topics/orders")];
    let limited = owner.colleague(&plant, "limited", &grants).await;
    create(&owner, "mine", of(&["orders"])).await.unwrap();
    let masked = |status: Status, id: &str| (status.code(), status.message().replace(id, "?"), status.details().len());
    // Groups.
    let absent = masked(get(&owner, "namespaces/prod/groups/absent").await.unwrap_err(), "absent");
    assert_eq!(absent.0, Code::NotFound);
    assert_eq!(masked(get(&owner, "namespaces/prod/groups/secret").await.unwrap_err(), "secret"), absent);
    assert_eq!(masked(get(&limited, "namespaces/prod/groups/hidden").await.unwrap_err(), "hidden"), absent);
    // Topics of a group: another tenant's, one without a grant, none.
    let add = |id: &str| Group { name: "namespaces/prod/groups/mine".into(), ..of(&["orders", id]) };
    let absent = masked(update(&limited, add("absent"), "topics").await.unwrap_err(), "absent");
    assert_eq!(absent.0, Code::NotFound);
    assert_eq!(masked(update(&limited, add("hidden"), "topics").await.unwrap_err(), "hidden"), absent);
    assert_eq!(masked(update(&limited, add("secret"), "topics").await.unwrap_err(), "secret"), absent);
    assert_eq!(masked(update(&owner, add("secret"), "topics").await.unwrap_err(), "secret"), absent);
}

#[tokio::test]
async fn letters_do_not_go_where_they_would_replace_each_other() {
    let plant = Plant::start().await;
    let owner = owner_with(&plant, &["orders", "dead"]).await;
    let compacted = Topic { cleanup_policy: CleanupPolicy::Compact as i32, ..Topic::default() };
    owner.topics().create_topic(owner.create_topic("prod", "latest", compacted)).await.unwrap();
    let refused = create(&owner, "billing", dead(&["orders"], "latest")).await.expect_err("compacted");
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().starts_with("group.dead_letter_topic: is compacted"), "{}", refused.message());
    let made = create(&owner, "billing", dead(&["orders"], "dead")).await.unwrap();
    let moved = Group { dead_letter_topic: "namespaces/prod/topics/latest".into(), ..made.clone() };
    assert_eq!(update(&owner, moved, "dead_letter_topic").await.expect_err("compacted").code(), Code::InvalidArgument);
    assert_eq!(get(&owner, &made.name).await.unwrap(), made);
}
