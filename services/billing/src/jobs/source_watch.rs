//! Counts the sources that stand still behind a missing window, for health and metrics: their usage is not lost, what they
//! produced stays uncovered and visible, but a person should know.

use std::time::Duration;

use sluice_db::Database;
use sluice_runtime::{ComponentStatus, Health};
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;
use crate::store::sources::source_count_stopped;

const EVERY: Duration = Duration::from_secs(5);
/// The name in health.
pub const COMPONENT: &str = "usage-sources";

/// Looks every 5 s until the shutdown.
pub async fn run(database: Database, health: Health, metrics: Metrics, shutdown: CancellationToken) {
    loop {
        match source_count_stopped(database.system()).await {
            Ok(0) => {
                metrics.sources_stopped.set(0);
                health.set_component(COMPONENT, ComponentStatus::ok("no gaps"));
            }
            Ok(count) => {
                metrics.sources_stopped.set(count);
                let detail = format!("{count} sources stand still behind a missing window");
                health.set_component(COMPONENT, ComponentStatus::failing(detail));
            }
            Err(error) => tracing::debug!(%error, "count stopped sources"),
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}
