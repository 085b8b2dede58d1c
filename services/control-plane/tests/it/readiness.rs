//! Ready only when it is known which gateways there are.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Empty;
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::rt::TokioExecutor;
use sluice_control_plane::App;
use sluice_devstack::{ADMIN, CONTROL_PLANE, Stack};
use sluice_installation::kafka::topics;
use sluice_types::physical::MEMBERS_TOPIC;
use sluice_wire::{
    AclBinding, AclOperation, Client, LogTail, OffsetAt, PatternType, Permission, ResourceType, TailOptions, TailState,
};
use tokio_util::sync::CancellationToken;

use crate::support::{Plant, eventually};

const CALL: Duration = Duration::from_secs(10);

/// The status of `/readyz`.
async fn readyz(app: std::net::SocketAddr) -> u16 {
    let client = HttpClient::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
    client.get(format!("http://{app}/readyz").parse().unwrap()).await.unwrap().status().as_u16()
}

async fn is_readable(kafka: &Client) -> bool {
    let mut tail = LogTail::new(kafka.clone(), MEMBERS_TOPIC, 0, OffsetAt::Earliest, TailOptions::default());
    let batch = tail.next(Duration::from_secs(2)).await;
    batch.is_ok_and(|batch| matches!(batch.state, TailState::Reading) && batch.is_caught_up())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plane_is_not_ready_before_it_knows_its_gateways() {
    let stack = Stack::builder().build().await.unwrap();
    let connection = stack.connection().kafka().unwrap();
    let kafka = connection.client(ADMIN).unwrap();
    for name in topics::NAMES {
        topics::create(&kafka, name, 1, CALL).await.unwrap();
    }
    // Nothing is away but this one log.
    let denied = [AclBinding {
        permission: Permission::Deny,
        ..AclBinding::allow(CONTROL_PLANE, AclOperation::Read, ResourceType::Topic, PatternType::Literal, MEMBERS_TOPIC)
    }];
    kafka.create_acls(&denied, CALL).await.unwrap();
    let as_plane = connection.client(CONTROL_PLANE).unwrap();
    eventually("the members cannot be read", || async { !is_readable(&as_plane).await }).await;

    let plant = Plant::prepare(stack.connection()).await;
    let app: App = plant.sibling("control-plane-1").await;
    let (admin, health, shutdown) = (app.addrs().admin, app.health(), CancellationToken::new());
    let running = tokio::spawn(app.run(shutdown.clone()));
    for component in ["database", "control_log", "relay"] {
        eventually(component, || async { health.component(component).is_some_and(|status| status.ok) }).await;
    }
    eventually("the failure is told", || async { health.component("members").is_some_and(|status| !status.ok) }).await;
    assert_eq!(readyz(admin).await, 503, "{}", health.to_json());

    assert_eq!(kafka.delete_acl_bindings(&denied, CALL).await.unwrap(), 1);
    eventually("it is ready", || async { readyz(admin).await == 200 }).await;
    assert!(health.component("members").is_some_and(|status| status.ok));
    shutdown.cancel();
    running.await.unwrap().unwrap();
    stack.stop().await;
}
