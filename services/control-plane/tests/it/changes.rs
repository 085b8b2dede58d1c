//! One transaction per change: all of it or nothing, once per request id, with answers that come back as they were.

use sluice_proto::admin::v1::{
    ApiKey, CreateApiKeyRequest, CreateNamespaceRequest, DeleteNamespaceRequest, DeleteServiceAccountRequest,
    GetApiKeyRequest, GetNamespaceRequest, GetServiceAccountRequest, ListApiKeysRequest, ListNamespacesRequest,
    Namespace, RevokeApiKeyRequest, Role, RoleGrant, ServiceAccount, UpdateNamespaceRequest,
    UpdateServiceAccountRequest, api_key, namespace,
};
use sluice_proto::operator::v1::IssueOwnerKeyRequest;
use sluice_proto::wkt::{FieldMask, Timestamp};
use sluice_types::Reason;
use tonic::Code;

use crate::support::{Plant, Principal, eventually, refused, response};

const REQUEST_ID: &str = "6f1c1f9e-5c0e-4b3e-9a43-0d6c7c1f2b11";

fn create(id: &str) -> CreateNamespaceRequest {
    CreateNamespaceRequest { namespace_id: id.into(), namespace: Some(Namespace::default()), ..Default::default() }
}

#[tokio::test]
async fn a_change_writes_its_whole_bundle_and_a_check_writes_nothing() {
    let plant = Plant::start().await;
    let owner = plant.tenant("acme").await;
    let counts = "SELECT (SELECT count(*) FROM control.namespace), (SELECT count(*) FROM control.operation),
                  (SELECT count(*) FROM control.audit_event), (SELECT count(*) FROM control.outbox),
                  (SELECT count(*) FROM control.idempotency)";
    let before = plant.sql(counts).await;
    let only_check = CreateNamespaceRequest { validate_only: true, request_id: REQUEST_ID.into(), ..create("prod") };
    let checked = owner.namespaces().create_namespace(owner.call(only_check)).await.unwrap().into_inner();
    assert_eq!(response::<Namespace>(&checked).name, "namespaces/prod");
    assert_eq!(plant.sql(counts).await, before);

    let sent = Namespace {
        display_name: "Pröd".into(),
        labels: [("team".to_owned(), "core".to_owned())].into(),
        deletion_protection: true,
        ..Namespace::default()
    };
    let request =
        CreateNamespaceRequest { namespace: Some(sent.clone()), request_id: REQUEST_ID.into(), ..create("prod") };
    let answer = owner.namespaces().create_namespace(owner.call(request)).await.unwrap();
    assert!(answer.metadata().contains_key("sluice-revision"));
    let made: Namespace = response(answer.get_ref());
    assert_eq!((&made.display_name, &made.labels), (&sent.display_name, &sent.labels));
    assert_eq!(made.state(), namespace::State::Active);
    let difference = |before: &str, after: &str| -> Vec<i64> {
        let numbers = |text: &str| text.split('|').map(|n| n.parse().unwrap()).collect::<Vec<i64>>();
        numbers(after).iter().zip(numbers(before)).map(|(after, before)| after - before).collect()
    };
    assert_eq!(difference(&before, &plant.sql(counts).await), [1, 1, 1, 1, 1]);
    let get = GetNamespaceRequest { name: made.name.clone() };
    assert_eq!(owner.namespaces().get_namespace(owner.call(get)).await.unwrap().into_inner(), made);
}

#[tokio::test]
async fn a_repetition_gets_the_stored_answer_and_another_request_is_refused() {
    let plant = Plant::start().await;
    let owner = plant.tenant("acme").await;
    let request = CreateNamespaceRequest { request_id: REQUEST_ID.into(), ..create("prod") };
    let first = owner.namespaces().create_namespace(owner.call(request.clone())).await.unwrap().into_inner();
    let again = owner.namespaces().create_namespace(owner.call(request)).await.unwrap().into_inner();
    assert_eq!(first.name, again.name);
    let other = CreateNamespaceRequest { request_id: REQUEST_ID.into(), ..create("staging") };
    let error = owner.namespaces().create_namespace(owner.call(other)).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    assert!(error.message().contains("request_id"), "{error}");
    // Another principal's is another request; another method's is this one, used again.
    let stranger = plant.tenant("globex").await;
    let theirs = CreateNamespaceRequest { request_id: REQUEST_ID.into(), ..create("theirs") };
    stranger.namespaces().create_namespace(stranger.call(theirs)).await.unwrap();

    let mut key = CreateApiKeyRequest {
        parent: "serviceAccounts/owner".into(),
        api_key: Some(ApiKey::default()),
        request_id: REQUEST_ID.into(),
        ..Default::default()
    };
    let elsewhere = owner.accounts().create_api_key(owner.call(key.clone())).await.unwrap_err();
    let elsewhere = sluice_runtime::statuses::from_tonic(&elsewhere);
    assert_eq!((elsewhere.reason, elsewhere.field.as_deref()), (Reason::RequestIdReused, Some("request_id")));
    // It was refused before it took the id for its own method; a new one is good.
    key.request_id = "0b6a4c0e-93a5-4f0a-8a52-6b2f3f1d9a10".into();
    let first = owner.accounts().create_api_key(owner.call(key.clone())).await.unwrap().into_inner();
    let again = owner.accounts().create_api_key(owner.call(key)).await.unwrap().into_inner();
    assert!(first.key.starts_with("sl_test_") && again.key.is_empty());
    assert_eq!(first.uid, again.uid);
    // Nowhere in the database, in no form.
    let secret = first.key.split('_').nth(3).unwrap();
    let dumped = plant.sql("SELECT string_agg(x::text, '') FROM (SELECT k::text FROM control.api_key k UNION ALL SELECT encode(payload, 'escape') FROM control.outbox UNION ALL SELECT encode(answer, 'escape') FROM control.idempotency UNION ALL SELECT e::text FROM control.audit_event e) AS all_rows (x)").await;
    assert!(dumped.contains(&first.uid) && !dumped.contains(secret));
}

#[tokio::test]
async fn two_equal_requests_at_once_make_one_change() {
    let plant = Plant::start().await;
    let owner = plant.tenant("acme").await;
    let same = |owner: Principal| async move {
        let request = CreateNamespaceRequest { request_id: REQUEST_ID.into(), ..create("prod") };
        owner.namespaces().create_namespace(owner.call(request)).await.map(|answer| answer.into_inner().name)
    };
    let calls: Vec<_> = (0..8).map(|_| tokio::spawn(same(owner.clone()))).collect();
    let mut names = std::collections::BTreeSet::new();
    for call in calls {
        names.insert(call.await.unwrap().unwrap());
    }
    assert_eq!(names.len(), 1);
}

#[tokio::test]
async fn etags_masks_protection_and_contents_are_kept() {
    let plant = Plant::start().await;
    let owner = plant.tenant("acme").await;
    let made = owner.make_namespace("prod").await;
    let update = |namespace: Namespace, mask: &str| UpdateNamespaceRequest {
        namespace: Some(namespace),
        update_mask: (!mask.is_empty()).then(|| FieldMask::parse(mask).unwrap()),
        ..Default::default()
    };
    let changed = Namespace { deletion_protection: true, display_name: "x".into(), ..made.clone() };
    let answer = owner.namespaces().update_namespace(owner.call(update(changed.clone(), "deletionProtection"))).await;
    let now: Namespace = response(answer.unwrap().get_ref());
    assert!(now.deletion_protection && now.display_name.is_empty() && now.etag != made.etag);
    let stale = owner.namespaces().update_namespace(owner.call(update(changed, ""))).await;
    assert_eq!(refused(stale), Code::Aborted);
    let empty = UpdateNamespaceRequest {
        update_mask: Some(FieldMask::default()),
        ..update(Namespace { display_name: "y".into(), ..now.clone() }, "")
    };
    let untouched: Namespace =
        response(owner.namespaces().update_namespace(owner.call(empty)).await.unwrap().get_ref());
    assert_eq!(untouched.display_name, "", "a mask that names nothing changes nothing");
    let now = Namespace { etag: untouched.etag, ..now };
    let unknown = owner.namespaces().update_namespace(owner.call(update(now.clone(), "uid"))).await;
    assert_eq!(refused(unknown), Code::InvalidArgument);
    let delete = |name: &str| DeleteNamespaceRequest { name: name.into(), ..Default::default() };
    let protected = owner.namespaces().delete_namespace(owner.call(delete("namespaces/prod"))).await;
    assert_eq!(refused(protected), Code::FailedPrecondition);
    let off = Namespace { deletion_protection: false, etag: String::new(), ..now };
    owner.namespaces().update_namespace(owner.call(update(off, "deletion_protection"))).await.unwrap();
    owner.topics().create_topic(owner.create_topic("prod", "orders", Default::default())).await.unwrap();
    let full = owner.namespaces().delete_namespace(owner.call(delete("namespaces/prod"))).await;
    assert_eq!(refused(full), Code::FailedPrecondition);
    let missing = DeleteNamespaceRequest { allow_missing: true, ..delete("namespaces/nothing") };
    assert!(owner.namespaces().delete_namespace(owner.call(missing)).await.unwrap().into_inner().done);
    assert_eq!(
        refused(owner.namespaces().delete_namespace(owner.call(delete("namespaces/nothing"))).await),
        Code::NotFound
    );
}

#[tokio::test]
async fn lists_go_on_where_they_stopped_for_their_caller_alone() {
    let plant = Plant::start().await;
    let (owner, stranger) = (plant.tenant("acme").await, plant.tenant("globex").await);
    for id in ["a", "b", "c"] {
        owner.make_namespace(id).await;
        stranger.make_namespace(id).await;
    }
    let list = |token: &str| ListNamespacesRequest { page_size: 2, page_token: token.into() };
    let first = owner.namespaces().list_namespaces(owner.call(list(""))).await.unwrap().into_inner();
    assert_eq!(first.namespaces.iter().map(|n| n.name.as_str()).collect::<Vec<_>>(), ["namespaces/a", "namespaces/b"]);
    let second =
        owner.namespaces().list_namespaces(owner.call(list(&first.next_page_token))).await.unwrap().into_inner();
    assert_eq!((second.namespaces.len(), second.next_page_token.as_str()), (1, ""));
    let foreign = stranger.namespaces().list_namespaces(stranger.call(list(&first.next_page_token))).await.unwrap_err();
    let made_up = stranger.namespaces().list_namespaces(stranger.call(list("AAAA"))).await.unwrap_err();
    assert_eq!((foreign.code(), foreign.message()), (Code::InvalidArgument, made_up.message()));
    let colleague = owner.colleague(&plant, "viewer", &[(Role::Viewer, "")]).await;
    let of_another = colleague.namespaces().list_namespaces(colleague.call(list(&first.next_page_token))).await;
    assert_eq!(refused(of_another), Code::InvalidArgument);
}

#[tokio::test]
async fn keys_live_as_long_as_they_should() {
    let plant = Plant::start().await;
    let owner = plant.tenant("acme").await;
    let past = CreateApiKeyRequest {
        parent: "serviceAccounts/owner".into(),
        api_key: Some(ApiKey { expire_time: Some(Timestamp::from_millis(1_000)), ..Default::default() }),
        ..Default::default()
    };
    assert_eq!(refused(owner.accounts().create_api_key(owner.call(past)).await), Code::InvalidArgument);
    let viewer = owner.colleague(&plant, "viewer", &[(Role::Viewer, "*")]).await;
    viewer.namespaces().list_namespaces(viewer.call(Default::default())).await.unwrap();
    let revoke = RevokeApiKeyRequest { name: viewer.key.name.clone(), ..Default::default() };
    let revoked = owner.accounts().revoke_api_key(owner.call(revoke.clone())).await.unwrap();
    assert!(revoked.metadata().contains_key("sluice-revision"));
    assert_eq!(revoked.get_ref().state(), api_key::State::Revoked);
    assert_eq!(
        refused(viewer.namespaces().list_namespaces(viewer.call(Default::default())).await),
        Code::Unauthenticated
    );
    owner.accounts().revoke_api_key(owner.call(revoke)).await.unwrap();

    let other = plant.principal(&owner.make_key("viewer").await.unwrap()).await;
    let name = other.key.name.clone();
    let delete = DeleteServiceAccountRequest { name: "serviceAccounts/viewer".into(), ..Default::default() };
    owner.accounts().delete_service_account(owner.call(delete)).await.unwrap();
    assert_eq!(
        refused(other.namespaces().list_namespaces(other.call(Default::default())).await),
        Code::Unauthenticated
    );
    assert_eq!(refused(owner.accounts().get_api_key(owner.call(GetApiKeyRequest { name })).await), Code::NotFound);
    let built_in = DeleteServiceAccountRequest { name: "serviceAccounts/owner".into(), ..Default::default() };
    assert_eq!(refused(owner.accounts().delete_service_account(owner.call(built_in)).await), Code::FailedPrecondition);
}

#[tokio::test]
async fn grants_come_back_as_they_were_sent_and_change_what_is_allowed_at_once() {
    let plant = Plant::start().await;
    let owner = plant.tenant("acme").await;
    let colleague = owner.colleague(&plant, "worker", &[(Role::Viewer, ""), (Role::Producer, "namespaces/a")]).await;
    let get = || GetServiceAccountRequest { name: "serviceAccounts/worker".into() };
    let account = owner.accounts().get_service_account(owner.call(get())).await.unwrap().into_inner();
    let resources: Vec<&str> = account.grants.iter().map(|grant| grant.resource.as_str()).collect();
    assert_eq!(resources, ["", "namespaces/a"]);
    assert_eq!(
        refused(colleague.namespaces().create_namespace(colleague.call(create("x"))).await),
        Code::PermissionDenied
    );
    let grants = vec![RoleGrant { role: Role::Developer as i32, resource: "*".into() }];
    let request = UpdateServiceAccountRequest {
        service_account: Some(ServiceAccount { grants, ..account }),
        update_mask: FieldMask::parse("grants").ok(),
        ..Default::default()
    };
    owner.accounts().update_service_account(owner.call(request)).await.unwrap();
    colleague.namespaces().create_namespace(colleague.call(create("x"))).await.unwrap();
}

#[tokio::test]
async fn limits_name_themselves() {
    let mut plant = Plant::prepare(sluice_devstack::shared().await.unwrap()).await;
    plant.config().limits.namespaces = 1;
    plant.config().limits.partitions = 4;
    plant.run().await;
    let owner = plant.tenant("acme").await;
    owner.make_namespace("one").await;
    let error = owner.namespaces().create_namespace(owner.call(create("two"))).await.unwrap_err();
    assert_eq!(error.code(), Code::ResourceExhausted);
    owner.topics().create_topic(owner.create_topic("one", "a", Default::default())).await.unwrap();
    let error = owner.topics().create_topic(owner.create_topic("one", "b", Default::default())).await.unwrap_err();
    assert_eq!(error.code(), Code::ResourceExhausted);
    assert!(error.message().contains("3 partitions and may have 4"), "{error}");
}

#[tokio::test]
async fn a_page_is_cut_to_its_limits_and_goes_on() {
    let plant = Plant::start().await;
    let owner = plant.tenant("acme").await;
    // Each with labels of 16 KB, so that a thousand of them would be no answer.
    let labels =
        "SELECT jsonb_object_agg(lpad(n::text, 63, 'k'), repeat('\u{1F600}', 63)) FROM generate_series(1, 32) n";
    let many = format!(
        "INSERT INTO control.namespace (uid, tenant_uid, id, display_name, labels, state)
         SELECT 1000 + i, (SELECT uid FROM control.tenant), 'n' || lpad(i::text, 4, '0'), '',
                CASE WHEN i <= 900 THEN ({labels}) ELSE '{{}}' END, 'ACTIVE' FROM generate_series(1, 2100) i"
    );
    plant.sql(&many).await;
    let mut pages = Vec::new();
    let mut ids = Vec::new();
    let mut token = String::new();
    loop {
        let list = ListNamespacesRequest { page_size: 1_001, page_token: token };
        let page = owner.namespaces().list_namespaces(owner.call(list)).await.unwrap().into_inner();
        pages.push(page.namespaces.len());
        ids.extend(page.namespaces.into_iter().map(|namespace| namespace.name));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    let expected: Vec<String> = (1..=2_100).map(|i| format!("namespaces/n{i:04}")).collect();
    assert_eq!(ids, expected);
    assert!(pages[0] < 1_000 && pages.contains(&1_000), "{pages:?}");
    let negative = ListNamespacesRequest { page_size: -1, ..Default::default() };
    assert_eq!(refused(owner.namespaces().list_namespaces(owner.call(negative)).await), Code::InvalidArgument);
}

#[tokio::test]
async fn a_key_that_was_only_checked_cannot_be_taken_for_one() {
    let plant = Plant::start().await;
    let owner = plant.tenant("acme").await;
    let check = CreateApiKeyRequest {
        parent: "serviceAccounts/owner".into(),
        api_key: Some(ApiKey { display_name: "x".into(), ..Default::default() }),
        validate_only: true,
        ..Default::default()
    };
    let checked = owner.accounts().create_api_key(owner.call(check)).await.unwrap().into_inner();
    assert_eq!((checked.display_name.as_str(), checked.state()), ("x", api_key::State::Active));
    let issue = IssueOwnerKeyRequest { name: "tenants/acme".into(), validate_only: true, ..Default::default() };
    let issued = plant.operator().issue_owner_key(plant.as_operator(issue)).await.unwrap().into_inner();
    for key in [checked, issued] {
        assert_eq!([key.key, key.uid, key.name, key.prefix], [""; 4]);
    }
}

#[tokio::test]
async fn expired_keys_take_no_room_and_are_put_away() {
    let mut plant = Plant::prepare(sluice_devstack::shared().await.unwrap()).await;
    plant.config().limits.keys_per_account = 2;
    plant.run().await;
    let owner = plant.tenant("acme").await;
    owner.make_key("owner").await.unwrap();
    assert_eq!(refused(owner.make_key("owner").await), Code::ResourceExhausted);
    let expire = format!(
        "UPDATE control.api_key SET expire_time = now() - interval '2 hours' WHERE uid <> {}",
        owner.key.uid.parse::<sluice_types::KeyUid>().unwrap().as_i64()
    );
    let expired = plant.sql("SELECT count(*) FROM control.api_key").await;
    assert_eq!(expired, "2");
    plant.sql(&expire).await;
    owner.make_key("owner").await.unwrap();
    // As a revoked one goes: told to gateways, so that it gets its tombstone in time.
    let gone = "SELECT count(*) FROM control.outbox o JOIN control.api_key k ON k.uid = o.aggregate_uid
                WHERE o.gone AND k.state = 'REVOKED'";
    eventually("the expired key is put away", || async { plant.sql(gone).await == "1" }).await;
    let list = ListApiKeysRequest { parent: "serviceAccounts/owner".into(), ..Default::default() };
    let keys = owner.accounts().list_api_keys(owner.call(list)).await.unwrap().into_inner().api_keys;
    let expired: Vec<_> = keys.iter().filter(|key| key.state() == api_key::State::Expired).collect();
    assert!(expired.len() == 1 && expired[0].revoke_time.is_none(), "{keys:?}");
}

#[tokio::test]
async fn topics_that_are_still_to_be_removed_do_not_pile_up() {
    let mut plant = Plant::prepare(sluice_devstack::shared().await.unwrap()).await;
    plant.config().limits.topics = 2;
    plant.run().await;
    let owner = plant.tenant("acme").await;
    owner.make_namespace("prod").await;
    plant
        .sql(
            "INSERT INTO control.topic (uid, tenant_uid, namespace_uid, namespace_id, id, display_name, cleanup_policy,
                                        effective_partitions, effective_retention_ms, state)
             SELECT 100 + i, tenant_uid, uid, id, 't' || i, '', 0, 1, 1, 'DELETING'
             FROM control.namespace, generate_series(1, 4) i",
        )
        .await;
    let error = owner.topics().create_topic(owner.create_topic("prod", "a", Default::default())).await.unwrap_err();
    assert_eq!(error.code(), Code::ResourceExhausted);
    assert!(error.message().contains("4 deleted topics of the tenant are still being removed"), "{error}");
    plant.sql("UPDATE control.topic SET state = 'DELETED' WHERE uid = 101").await;
    owner.topics().create_topic(owner.create_topic("prod", "a", Default::default())).await.unwrap();
}
