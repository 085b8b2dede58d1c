//! Regular questions to what a process depends on; the answers go into its health.

use std::borrow::Cow;
use std::time::Duration;

use sluice_db::Database;
use sluice_runtime::{ComponentStatus, Health};
use sluice_types::ClusterUid;
use tokio_util::sync::CancellationToken;

use crate::clusters::ClusterAccess;

/// Between two questions, and the time that one has.
const EVERY: Duration = Duration::from_secs(2);

pub(crate) async fn kafka(cluster: ClusterAccess, health: Health, stop: CancellationToken) {
    let component: Cow<'static, str> = match cluster.uid {
        ClusterUid::FIRST => "kafka".into(),
        other => format!("kafka-{other}").into(),
    };
    loop {
        let status = match cluster.client.metadata(&[], EVERY).await {
            Ok(known) => ComponentStatus::ok(format!("{} brokers", known.brokers.len())),
            Err(error) => ComponentStatus::failing(error.to_string()),
        };
        health.set_component(component.clone(), status);
        if stop.run_until_cancelled(tokio::time::sleep(EVERY)).await.is_none() {
            return;
        }
    }
}

pub(crate) async fn database(database: Database, health: Health, stop: CancellationToken) {
    loop {
        let status = match database.ping().await {
            Ok(()) => ComponentStatus::ok("answers"),
            Err(error) => ComponentStatus::failing(error.to_string()),
        };
        health.set_component("database", status);
        if stop.run_until_cancelled(tokio::time::sleep(EVERY)).await.is_none() {
            return;
        }
    }
}
