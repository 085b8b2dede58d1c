//! Regular questions to what a process depends on; the answers go into its health.

use std::time::Duration;

use sluice_db::Database;
use sluice_runtime::{ComponentStatus, Health};
use sluice_wire::Client;
use tokio_util::sync::CancellationToken;

/// Between two questions, and the time that one has.
const EVERY: Duration = Duration::from_secs(2);

pub(crate) async fn kafka(kafka: Client, health: Health, stop: CancellationToken) {
    loop {
        let status = match kafka.metadata(&[], EVERY).await {
            Ok(cluster) => ComponentStatus::ok(format!("{} brokers", cluster.brokers.len())),
            Err(error) => ComponentStatus::failing(error.to_string()),
        };
        health.set_component("kafka", status);
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
