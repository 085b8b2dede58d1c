//! The whole process, in this one: configuration, mutual TLS, the caller's token, the feeds, the shutdown.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use prost::Message as _;
use sluice_billing::{App, Config, ROLE};
use sluice_devstack::{BILLING, Ca};
use sluice_proto::billing::v1::GetUsageRequest;
use sluice_proto::billing::v1::usage_service_client::UsageServiceClient;
use sluice_proto::internal::control::v1::{ControlRecord, Life, TopicState, control_record::Resource};
use sluice_runtime::config::{DatabaseConfig, InternalTlsConfig, KafkaConfig, ListenAddr, SecretFile};
use sluice_runtime::fail_point::Testing;
use sluice_runtime::internal::{CallerClaims, CallerSigner, SignedChannel, call_as, internal_channel};
use sluice_runtime::telemetry::TelemetryConfig;
use sluice_runtime::tls::InternalTls;
use sluice_types::Uid;
use sluice_types::physical::{CONTROL_TOPIC, USAGE_TOPIC};
use sluice_wire::OutRecord;
use tokio_util::sync::CancellationToken;

use crate::support::{
    Place, SOON, append, append_records, encode, eventually, fresh_database, kafka, make_topic, stack, url, window,
};
use crate::usage::context;

fn secret(dir: &Path, name: &str, text: &str) -> SecretFile {
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    SecretFile::new(path)
}

fn identity(ca: &Ca, dir: &Path, role: &str) -> InternalTlsConfig {
    let files = ca.issue_role(role, "1").unwrap().write(dir, role).unwrap();
    InternalTlsConfig { ca: ca.cert_file(), cert: files.cert_file, key: files.key_file }
}

async fn config(database: &str, ca: &Ca, dir: &Path) -> Config {
    let kafka = stack().await.kafka().unwrap();
    Config {
        internal_listen: ListenAddr::loopback(0),
        admin_listen: ListenAddr::loopback(0),
        admin_open: false,
        page_token_key_file: secret(dir, "page-token", &"000102030405060708090a0b0c0d0e0f".repeat(2)),
        internal_tls: identity(ca, dir, ROLE),
        kafka: KafkaConfig {
            bootstrap: kafka.bootstrap.clone(),
            ca: kafka.ca_file.clone(),
            username: BILLING.into(),
            password_file: secret(dir, "kafka", kafka.password(BILLING).unwrap()),
        },
        clusters: Default::default(),
        database: DatabaseConfig {
            owner_url_file: Some(secret(dir, "owner", &url(database, "owner").await)),
            app_url_file: secret(dir, "app", &url(database, "app").await),
            system_url_file: secret(dir, "system", &url(database, "system").await),
        },
        telemetry: TelemetryConfig::default(),
        testing: Testing::default(),
    }
}

fn temp() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_path_buf();
    (dir, path)
}

#[tokio::test]
async fn a_window_in_the_log_is_usage_for_its_tenant_over_mutual_tls() {
    let (database, kafka, place) = (fresh_database().await, kafka().await, Place::fresh());
    let (_dir, dir) = temp();
    let ca = Ca::load_or_create(&dir.join("ca")).unwrap();
    make_topic(&kafka, CONTROL_TOPIC, 1).await;
    make_topic(&kafka, USAGE_TOPIC, 4).await;
    let app = App::build(config(&database.name, &ca, &dir).await).await.unwrap();
    let (addrs, health, shutdown) = (app.addrs(), app.health(), CancellationToken::new());
    let running = tokio::spawn(app.run(shutdown.clone()));

    let topic = TopicState {
        uid: place.topic.to_string(),
        id: "orders".into(),
        namespace_uid: place.namespace.to_string(),
        namespace_id: "prod".into(),
        life: Life::Active.into(),
        partitions: 1,
        ..Default::default()
    };
    let record = ControlRecord {
        version: 1,
        tenant_uid: place.tenant.to_string(),
        resource: Some(Resource::Topic(topic)),
        ..Default::default()
    };
    let (key, value) = (Some(place.topic.to_string().into()), Some(record.encode_to_vec().into()));
    append_records(&kafka, CONTROL_TOPIC, 0, &[OutRecord { key, value, ..Default::default() }]).await;
    let source = format!("gw/{}", Uid::random());
    append(&kafka, USAGE_TOPIC, 3, &[encode(&window(&source, 1, 9, vec![place.produced(0, &[(0, 2, 64)])]))]).await;

    let gateway = InternalTls::load(&identity(&ca, &dir, "gateway")).unwrap();
    let channel = internal_channel(&addrs.internal.to_string(), &gateway, ROLE).unwrap();
    let signed = SignedChannel::new(channel.clone(), CallerSigner::from(&gateway), ROLE);
    let ask = || async {
        let caller = context(place.tenant);
        let mut request = call_as(&caller, GetUsageRequest::default()).unwrap();
        let claims = CallerClaims::from_context(&caller).unwrap().with_grants_on(&caller.principal.grants, "");
        request.extensions_mut().insert(claims);
        UsageServiceClient::new(signed.clone()).get_usage(request).await.map(tonic::Response::into_inner)
    };
    eventually("usage is counted", SOON, || async {
        ask().await.is_ok_and(|answer| {
            answer.topics.first().is_some_and(|topic| topic.totals.is_some_and(|totals| totals.ingress_bytes == 64))
        })
    })
    .await;
    eventually("ready", SOON, || async { health.is_ready() }).await;

    let unsigned = UsageServiceClient::new(channel).get_usage(GetUsageRequest::default()).await.unwrap_err();
    assert_eq!(unsigned.code(), tonic::Code::Unauthenticated);

    shutdown.cancel();
    tokio::time::timeout(Duration::from_secs(25), running).await.unwrap().unwrap().unwrap();
}
