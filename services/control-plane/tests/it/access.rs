//! Who may do what: every role on every RPC of tenants, over the wire, against the one table; and that nobody climbs.

use std::fmt::Write as _;

use sluice_proto::admin::v1::*;
use sluice_proto::{Audience, RPCS};
use sluice_types::Role as TypesRole;
use tonic::{Code, Status};

use crate::support::{Plant, Principal, refused};

const ROLES: [(Role, TypesRole); 5] = [
    (Role::Owner, TypesRole::Owner),
    (Role::Developer, TypesRole::Developer),
    (Role::Producer, TypesRole::Producer),
    (Role::Consumer, TypesRole::Consumer),
    (Role::Viewer, TypesRole::Viewer),
];

/// What a call of a method answers, on things that are there, changing nothing.
async fn answer(principal: &Principal, method: &str) -> Result<(), Status> {
    let topic = || Some(Topic { name: "namespaces/prod/topics/orders".into(), ..Default::default() });
    let group = || {
        let topics = vec!["namespaces/prod/topics/orders".into()];
        Some(Group { name: "namespaces/prod/groups/billing".into(), topics, ..Default::default() })
    };
    let namespace = || Some(Namespace { name: "namespaces/prod".into(), ..Default::default() });
    let account = || Some(ServiceAccount { name: "serviceAccounts/other".into(), ..Default::default() });
    let key = || "serviceAccounts/other/apiKeys/aaaaaaaaaaaaa".to_owned();
    let operation = || "operations/aaaaaaaaaaaaa".to_owned();
    macro_rules! call {
        ($client:ident.$method:ident($message:expr)) => {
            principal.$client().$method(principal.call($message)).await.map(drop)
        };
    }
    let validate_only = true;
    match method {
        "GetTenant" => call!(tenant.get_tenant(GetTenantRequest {})),
        "CreateNamespace" => call!(namespaces.create_namespace(CreateNamespaceRequest {
            namespace_id: "new".into(),
            validate_only,
            ..Default::default()
        })),
        "GetNamespace" => call!(namespaces.get_namespace(GetNamespaceRequest { name: "namespaces/prod".into() })),
        "ListNamespaces" => call!(namespaces.list_namespaces(ListNamespacesRequest::default())),
        "UpdateNamespace" => call!(namespaces.update_namespace(UpdateNamespaceRequest {
            namespace: namespace(),
            validate_only,
            ..Default::default()
        })),
        "DeleteNamespace" => call!(namespaces.delete_namespace(DeleteNamespaceRequest {
            name: "namespaces/prod".into(),
            validate_only,
            ..Default::default()
        })),
        "CreateTopic" => call!(topics.create_topic(CreateTopicRequest {
            parent: "namespaces/prod".into(),
            topic_id: "new".into(),
            validate_only,
            ..Default::default()
        })),
        "GetTopic" => call!(topics.get_topic(GetTopicRequest { name: "namespaces/prod/topics/orders".into() })),
        "ListTopics" => {
            call!(topics.list_topics(ListTopicsRequest { parent: "namespaces/prod".into(), ..Default::default() }))
        }
        "UpdateTopic" => {
            call!(topics.update_topic(UpdateTopicRequest { topic: topic(), validate_only, ..Default::default() }))
        }
        "DeleteTopic" => call!(topics.delete_topic(DeleteTopicRequest {
            name: "namespaces/prod/topics/orders".into(),
            validate_only,
            ..Default::default()
        })),
        "CreateGroup" => call!(groups.create_group(CreateGroupRequest {
            parent: "namespaces/prod".into(),
            group_id: "new".into(),
            group: group(),
            validate_only,
            ..Default::default()
        })),
        "GetGroup" => call!(groups.get_group(GetGroupRequest { name: "namespaces/prod/groups/billing".into() })),
        "ListGroups" => {
            call!(groups.list_groups(ListGroupsRequest { parent: "namespaces/prod".into(), ..Default::default() }))
        }
        "UpdateGroup" => {
            call!(groups.update_group(UpdateGroupRequest { group: group(), validate_only, ..Default::default() }))
        }
        "DeleteGroup" => call!(groups.delete_group(DeleteGroupRequest {
            name: "namespaces/prod/groups/billing".into(),
            validate_only,
            ..Default::default()
        })),
        "CreateServiceAccount" => call!(accounts.create_service_account(CreateServiceAccountRequest {
            service_account_id: "new".into(),
            validate_only,
            ..Default::default()
        })),
        "GetServiceAccount" => {
            call!(accounts.get_service_account(GetServiceAccountRequest { name: "serviceAccounts/other".into() }))
        }
        "ListServiceAccounts" => call!(accounts.list_service_accounts(ListServiceAccountsRequest::default())),
        "UpdateServiceAccount" => call!(accounts.update_service_account(UpdateServiceAccountRequest {
            service_account: account(),
            validate_only,
            ..Default::default()
        })),
        "DeleteServiceAccount" => call!(accounts.delete_service_account(DeleteServiceAccountRequest {
            name: "serviceAccounts/other".into(),
            validate_only,
            ..Default::default()
        })),
        "CreateApiKey" => call!(accounts.create_api_key(CreateApiKeyRequest {
            parent: "serviceAccounts/other".into(),
            validate_only,
            ..Default::default()
        })),
        "GetApiKey" => call!(accounts.get_api_key(GetApiKeyRequest { name: key() })),
        "ListApiKeys" => call!(
            accounts.list_api_keys(ListApiKeysRequest { parent: "serviceAccounts/other".into(), ..Default::default() })
        ),
        "RevokeApiKey" => {
            call!(accounts.revoke_api_key(RevokeApiKeyRequest { name: key(), validate_only, ..Default::default() }))
        }
        "GetOperation" => call!(operations.get_operation(GetOperationRequest { name: operation() })),
        "ListOperations" => call!(operations.list_operations(ListOperationsRequest::default())),
        "WaitOperation" => call!(operations.wait_operation(WaitOperationRequest { name: operation(), timeout: None })),
        other => panic!("no call for {other}"),
    }
}

#[tokio::test]
async fn every_role_may_do_on_every_rpc_what_the_table_says() {
    let plant = Plant::start().await;
    let owner = plant.tenant("acme").await;
    owner.make_namespace("prod").await;
    owner.topics().create_topic(owner.create_topic("prod", "orders", Topic::default())).await.unwrap();
    let group = Group { topics: vec!["namespaces/prod/topics/orders".into()], ..Group::default() };
    owner.groups().create_group(owner.create_group("prod", "billing", group)).await.unwrap();
    owner.colleague(&plant, "other", &[]).await;
    let mut table = format!("{:<22} {:<24}", "# RPC", "permission");
    let mut principals = Vec::new();
    for (api, role) in ROLES {
        principals.push((role, owner.colleague(&plant, &format!("as-{role}"), &[(api, "*")]).await));
        write!(table, " {:<9}", role.as_str()).unwrap();
    }
    for rpc in RPCS.iter().filter(|rpc| rpc.audience == Audience::Tenant && rpc.service.starts_with("sluice.admin.")) {
        write!(table, "\n{:<22} {:<24}", rpc.method, rpc.permission).unwrap();
        for (role, principal) in &principals {
            let code = answer(principal, rpc.method).await.err().map(|status| status.code());
            let allowed = role.permits(rpc.permission);
            assert_eq!(code == Some(Code::PermissionDenied), !allowed, "{role} {}: {code:?}", rpc.method);
            let broken = matches!(code, Some(Code::Internal | Code::Unauthenticated | Code::Unavailable));
            assert!(!broken, "{role} {}: {code:?}", rpc.method);
            write!(table, " {:<9}", if allowed { "yes" } else { "-" }).unwrap();
        }
    }
    table = table.lines().map(|line| format!("{}\n", line.trim_end())).collect();
    let golden = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/access.golden");
    let known = std::fs::read_to_string(&golden).unwrap_or_default();
    if known != table {
        let seen = golden.with_extension("golden.new");
        std::fs::write(&seen, &table).unwrap();
        panic!("the table changed: review {} and put it in the place of {}", seen.display(), golden.display());
    }
}

#[tokio::test]
async fn what_is_not_covered_looks_absent_to_the_byte() {
    let plant = Plant::start().await;
    let (owner, stranger) = (plant.tenant("acme").await, plant.tenant("globex").await);
    owner.make_namespace("prod").await;
    stranger.make_namespace("secret").await;
    let limited = owner.colleague(&plant, "limited", &[(Role::Developer, "namespaces/prod")]).await;
    owner.make_namespace("hidden").await;
    let get = |principal: &Principal, name: &str| {
        let (principal, name) = (principal.clone(), name.to_owned());
        async move {
            let error =
                principal.namespaces().get_namespace(principal.call(GetNamespaceRequest { name })).await.unwrap_err();
            (
                error.code(),
                error.message().replace("hidden", "?").replace("absent", "?").replace("secret", "?"),
                error.details().len(),
            )
        }
    };
    let absent = get(&limited, "namespaces/absent").await;
    assert_eq!(absent.0, Code::NotFound);
    assert_eq!(get(&limited, "namespaces/hidden").await, absent);
    assert_eq!(get(&owner, "namespaces/secret").await, absent);
    assert_eq!(
        refused(limited.topics().create_topic(limited.create_topic("hidden", "a", Topic::default())).await),
        Code::NotFound
    );
    assert_eq!(
        refused(limited.topics().create_topic(limited.create_topic("absent", "a", Topic::default())).await),
        Code::NotFound
    );
    // Another tenant's operations and keys, too.
    let operations =
        stranger.operations().list_operations(stranger.call(Default::default())).await.unwrap().into_inner();
    let name = operations.operations[0].name.clone();
    assert_eq!(
        refused(owner.operations().get_operation(owner.call(GetOperationRequest { name })).await),
        Code::NotFound
    );
    let name = stranger.key.name.clone();
    assert_eq!(refused(owner.accounts().get_api_key(owner.call(GetApiKeyRequest { name })).await), Code::NotFound);
}

#[tokio::test]
async fn nobody_climbs_above_their_own_rights() {
    let plant = Plant::start().await;
    let owner = plant.tenant("acme").await;
    owner.make_namespace("prod").await;
    // An owner of one namespace cannot even see accounts; a developer cannot make any.
    let partial = owner.colleague(&plant, "partial", &[(Role::Owner, "namespaces/prod")]).await;
    assert_eq!(refused(partial.make_key("owner").await), Code::NotFound);
    let developer = owner.colleague(&plant, "developer", &[(Role::Developer, "*")]).await;
    assert_eq!(refused(developer.make_key("owner").await), Code::PermissionDenied);
    assert_eq!(refused(developer.make_key("developer").await), Code::PermissionDenied);
    // What the gateway claims of grants does not count: all principals here claim none, and the owner acts all the same.
    owner.make_key("owner").await.unwrap();
}

#[tokio::test]
async fn refusals_stand_in_the_audit_log_but_do_not_fill_it() {
    let plant = Plant::start().await;
    let owner = plant.tenant("acme").await;
    let viewer = owner.colleague(&plant, "viewer", &[(Role::Viewer, "*")]).await;
    let create = || CreateNamespaceRequest { namespace_id: "new".into(), ..Default::default() };
    let key = || ListApiKeysRequest { parent: "serviceAccounts/owner".into(), ..Default::default() };
    assert_eq!(refused(viewer.namespaces().create_namespace(viewer.call(create())).await), Code::PermissionDenied);
    assert_eq!(refused(viewer.accounts().list_api_keys(viewer.call(key())).await), Code::PermissionDenied);
    let told = "SELECT string_agg(concat_ws(' ', split_part(method, '/', 3), resource, detail->>'permission'), ', ' ORDER BY id)
                FROM control.audit_event WHERE outcome = 'DENIED' AND credential = 'apiKey/' || ";
    let told = format!("{told}'{}'", viewer.key.uid);
    assert_eq!(
        plant.sql(&told).await,
        "CreateNamespace  namespaces.create, ListApiKeys serviceAccounts/owner apiKeys.list"
    );
    // One who sees nothing of it was not refused: it is not there.
    let elsewhere = owner.colleague(&plant, "elsewhere", &[(Role::Viewer, "namespaces/other")]).await;
    let get = GetNamespaceRequest { name: "namespaces/prod".into() };
    assert_eq!(refused(elsewhere.namespaces().get_namespace(elsewhere.call(get)).await), Code::NotFound);
    let kept = || plant.sql("SELECT count(*) FROM control.audit_event WHERE outcome = 'DENIED'");
    assert_eq!(kept().await, "2");
    // All but one of those that are kept of a minute, which does not end before the test does.
    plant
        .sql(
            "UPDATE control.audit_event SET time = now() + interval '1 hour' WHERE outcome = 'DENIED';
             INSERT INTO control.audit_event (tenant_uid, actor, credential, method, resource, resource_uid, request_id,
                                              detail, outcome, time)
                 SELECT tenant_uid, actor, credential, method, resource, resource_uid, request_id, detail, outcome, time
                 FROM (SELECT * FROM control.audit_event WHERE outcome = 'DENIED' LIMIT 1) refused, generate_series(1, 97)",
        )
        .await;
    for _ in 0..5 {
        assert_eq!(refused(viewer.accounts().list_api_keys(viewer.call(key())).await), Code::PermissionDenied);
    }
    assert_eq!(kept().await, "100");
}

#[tokio::test]
async fn processes_pass_only_with_their_role() {
    use sluice_proto::internal::control::v1::intent_service_client::IntentServiceClient;
    use sluice_proto::internal::control::v1::key_lookup_service_client::KeyLookupServiceClient;
    use sluice_proto::internal::control::v1::{AcquireLeaseRequest, LookupKeyRequest};
    let plant = Plant::start().await;
    let key = LookupKeyRequest { key_id: "aaaaaaaaaaaaa".into() };
    assert_eq!(refused(plant.lookup().lookup_key(key.clone()).await), Code::NotFound);
    for role in ["provisioning", "billing"] {
        let mut lookup = KeyLookupServiceClient::new(plant.channel(role));
        assert_eq!(refused(lookup.lookup_key(key.clone()).await), Code::Unauthenticated, "{role}");
    }
    for role in ["gateway", "billing"] {
        let mut intents = IntentServiceClient::new(plant.channel(role));
        let lease = AcquireLeaseRequest { holder: "x".into(), ttl: None };
        assert_eq!(refused(intents.acquire_lease(lease).await), Code::Unauthenticated, "{role}");
    }
    let mut tenants =
        sluice_proto::admin::v1::tenant_service_client::TenantServiceClient::new(plant.channel("gateway"));
    assert_eq!(refused(tenants.get_tenant(GetTenantRequest {}).await), Code::Unauthenticated);
}
