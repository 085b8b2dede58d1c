//! One transaction per change: all of it or nothing, once per request id, with answers that come back as they were.

use sluice_proto::admin::v1::{
    ApiKey, CreateApiKeyRequest, CreateNamespaceRequest, DeleteNamespaceRequest, DeleteServiceAccountRequest,
    GetApiKeyRequest, GetNamespaceRequest, GetServiceAccountRequest, ListNamespacesRequest, Namespace,
    RevokeApiKeyRequest, Role, RoleGrant, ServiceAccount, UpdateNamespaceRequest, UpdateServiceAccountRequest, api_key,
    namespace,
};
use sluice_proto::wkt::{FieldMask, Timestamp};
use tonic::Code;

use crate::support::{Plant, Principal, refused, response};

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
    // Another principal's, and another method's, are other requests.
    let stranger = plant.tenant("globex").await;
    let theirs = CreateNamespaceRequest { request_id: REQUEST_ID.into(), ..create("theirs") };
    stranger.namespaces().create_namespace(stranger.call(theirs)).await.unwrap();

    let key = CreateApiKeyRequest {
        parent: "serviceAccounts/owner".into(),
        api_key: Some(ApiKey::default()),
        request_id: REQUEST_ID.into(),
        ..Default::default()
    };
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
