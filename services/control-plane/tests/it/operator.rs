//! The operator's door: one token, two protocols, and what becomes of tenants.

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use sluice_proto::admin::v1::{GetTenantRequest as GetOwnTenantRequest, GetTopicRequest, Group, Topic, tenant};
use sluice_proto::operator::v1::*;
use tonic::Code;

use crate::provisioner::Provisioner;
use crate::support::{Plant, eventually, refused};

async fn http(plant: &Plant, method: Method, path: &str, token: Option<&str>, body: Value) -> (StatusCode, Value) {
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let mut request = Request::builder().method(method).uri(format!("http://{}{path}", plant.addrs().operator));
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let body = if body.is_null() { Bytes::new() } else { body.to_string().into() };
    let response = client.request(request.body(Full::new(body)).unwrap()).await.unwrap();
    assert!(response.headers().contains_key("x-request-id"));
    let status = response.status();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&bytes).unwrap())
}

#[tokio::test]
async fn both_protocols_give_the_same_to_the_token_and_nothing_to_others() {
    let plant = Plant::start().await;
    let token = plant.operator_token();
    let (status, made) =
        http(&plant, Method::POST, "/v1/tenants?tenantId=acme", Some(&token), json!({ "displayName": "Acme" })).await;
    assert_eq!(
        (status, &made["name"], &made["state"]),
        (StatusCode::OK, &json!("tenants/acme"), &json!("STATE_ACTIVE"))
    );
    let get = GetTenantRequest { name: "tenants/acme".into() };
    let over_grpc = plant.operator().get_tenant(plant.as_operator(get.clone())).await.unwrap().into_inner();
    let (_, over_http) = http(&plant, Method::GET, "/v1/tenants/acme", Some(&token), Value::Null).await;
    assert_eq!(serde_json::to_value(&over_grpc).unwrap(), over_http);

    let longer = format!("{token}x");
    for wrong in [None, Some(""), Some("x"), Some(&token[1..]), Some(longer.as_str())] {
        let (status, body) = http(&plant, Method::GET, "/v1/tenants/acme", wrong, Value::Null).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{wrong:?}");
        assert_eq!(body["error"]["status"], "UNAUTHENTICATED");
    }
    assert_eq!(refused(plant.operator().get_tenant(get).await), Code::Unauthenticated);

    let (status, _) = http(&plant, Method::POST, "/v1/tenants?tenantId=acme", Some(&token), json!({})).await;
    assert_eq!(status, StatusCode::CONFLICT);
    let (status, body) = http(&plant, Method::POST, "/v1/tenants?tenantId=ACME", Some(&token), json!({})).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(body["error"]["message"].as_str().unwrap().starts_with("tenant_id: "), "{body}");
    let (status, body) = http(&plant, Method::POST, "/v1/tenants?tenantId=b", Some(&token), json!({ "plan": 1 })).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(body["error"]["message"].as_str().unwrap().contains("plan"), "{body}");
    let (status, _) = http(&plant, Method::GET, "/v1/nothing", Some(&token), Value::Null).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    let (status, _) = http(&plant, Method::PUT, "/v1/tenants", Some(&token), Value::Null).await;
    assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
    let (status, api) = http(&plant, Method::GET, "/openapi.json", Some(&token), Value::Null).await;
    assert!(status == StatusCode::OK && api["openapi"].is_string());
}

#[tokio::test]
async fn a_suspended_tenant_is_refused_until_it_is_resumed() {
    let plant = Plant::start().await;
    let owner = plant.tenant("acme").await;
    let name = "tenants/acme".to_owned();
    let suspend = SuspendTenantRequest { name: name.clone(), reason: "overdue".into(), ..Default::default() };
    let suspended = plant.operator().suspend_tenant(plant.as_operator(suspend)).await.unwrap().into_inner();
    assert_eq!(suspended.state(), tenant::State::Suspended);
    assert_eq!(refused(owner.tenant().get_tenant(owner.call(GetOwnTenantRequest {})).await), Code::PermissionDenied);
    let resume = ResumeTenantRequest { name, ..Default::default() };
    plant.operator().resume_tenant(plant.as_operator(resume)).await.unwrap();
    let own = owner.tenant().get_tenant(owner.call(GetOwnTenantRequest {})).await.unwrap().into_inner();
    assert_eq!(own.tenant, "acme");
}

#[tokio::test]
async fn a_deleted_tenant_takes_everything_with_it_and_its_id_stays_taken() {
    let plant = Plant::start().await;
    let _provisioner = Provisioner::start(&plant).await;
    let owner = plant.tenant("acme").await;
    owner.make_namespace("prod").await;
    owner.topics().create_topic(owner.create_topic("prod", "orders", Topic::default())).await.unwrap();
    let group = Group { topics: vec!["namespaces/prod/topics/orders".into()], ..Group::default() };
    owner.groups().create_group(owner.create_group("prod", "billing", group)).await.unwrap();
    // More than one step's worth.
    plant
        .sql(
            "INSERT INTO control.consumer_group (uid, tenant_uid, namespace_uid, namespace_id, id, display_name, topic_ids,
                                                 ordering, state)
             SELECT 5000 + i, tenant_uid, uid, id, 'g' || i, '', '{orders}', 0, 'ACTIVE'
             FROM control.namespace, generate_series(1, 150) i",
        )
        .await;
    plant
        .sql(
            "INSERT INTO control.namespace (uid, tenant_uid, id, display_name, state)
             SELECT 1000 + i, (SELECT uid FROM control.tenant), 'n' || i, '', 'ACTIVE' FROM generate_series(1, 250) i",
        )
        .await;
    plant.sql("UPDATE control.consumer_group SET deletion_protection = true WHERE id = 'g7'").await;
    let mut delete = DeleteTenantRequest { name: "tenants/acme".into(), ..Default::default() };
    let protected = plant.operator().delete_tenant(plant.as_operator(delete.clone())).await.unwrap_err();
    assert_eq!(protected.code(), Code::FailedPrecondition);
    assert!(protected.message().contains("namespaces/prod/groups/g7"), "{protected}");
    delete.force = true;
    let deleted = plant.operator().delete_tenant(plant.as_operator(delete.clone())).await.unwrap().into_inner();
    assert_eq!(deleted.state(), tenant::State::Deleting);
    let get = GetTopicRequest { name: "namespaces/prod/topics/orders".into() };
    assert_eq!(refused(owner.topics().get_topic(owner.call(get)).await), Code::Unauthenticated);
    eventually("the tenant is deleted", || async { plant.sql("SELECT state FROM control.tenant").await == "DELETED" })
        .await;
    let left = "SELECT (SELECT count(*) FROM control.api_key WHERE state = 'ACTIVE')
                     + (SELECT count(*) FROM control.topic WHERE state <> 'DELETED')
                     + (SELECT count(*) FROM control.consumer_group WHERE state <> 'DELETED')
                     + (SELECT count(*) FROM control.namespace WHERE state <> 'DELETED')
                     + (SELECT count(*) FROM control.service_account WHERE state <> 'DELETED')";
    assert_eq!(plant.sql(left).await, "0");
    let told =
        "SELECT count(DISTINCT aggregate_uid) FROM control.outbox JOIN control.consumer_group ON uid = aggregate_uid
                WHERE gone";
    assert_eq!(plant.sql(told).await, "151");
    assert_eq!(refused(plant.operator().delete_tenant(plant.as_operator(delete.clone())).await), Code::NotFound);
    let missing = DeleteTenantRequest { allow_missing: true, ..delete };
    plant.operator().delete_tenant(plant.as_operator(missing)).await.unwrap();
    let again = CreateTenantRequest { tenant_id: "acme".into(), ..Default::default() };
    assert_eq!(refused(plant.operator().create_tenant(plant.as_operator(again)).await), Code::AlreadyExists);
}

#[tokio::test]
async fn tenants_are_listed_in_pages_and_their_limits_changed_one_by_one() {
    let plant = Plant::start().await;
    for id in ["c", "a", "b"] {
        let request = CreateTenantRequest { tenant_id: id.into(), ..Default::default() };
        plant.operator().create_tenant(plant.as_operator(request)).await.unwrap();
    }
    let mut names = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = ListTenantsRequest { page_size: 2, page_token };
        let page = plant.operator().list_tenants(plant.as_operator(request)).await.unwrap().into_inner();
        names.extend(page.tenants.into_iter().map(|tenant| tenant.name));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(names, ["tenants/a", "tenants/b", "tenants/c"]);
    let token = plant.operator_token();
    let patch = "/v1/tenants/a?updateMask=limits.topics";
    let body = json!({ "limits": { "topics": "7", "partitions": "9" } });
    let (status, changed) = http(&plant, Method::PATCH, patch, Some(&token), body).await;
    assert_eq!((status, &changed["limits"]["topics"]), (StatusCode::OK, &json!("7")));
    assert_eq!(changed["limits"]["partitions"], json!("0"));
    // The tenant itself sees what holds.
    let owner = plant.owner("a").await;
    let own = owner.tenant().get_tenant(owner.call(GetOwnTenantRequest {})).await.unwrap().into_inner();
    let limits = own.limits.unwrap();
    assert_eq!((limits.topics, limits.partitions, limits.namespaces), (7, 10_000, 100));
    let default = sluice_types::limits::TenantLimits::default();
    let shown = [limits.requests_per_second, limits.ingress_bytes_per_second, limits.bytes_in_flight];
    let expected = [default.requests_per_second, default.ingress_bytes_per_second, default.bytes_in_flight];
    assert_eq!(shown.map(|limit| u64::try_from(limit).unwrap()), expected);
}
