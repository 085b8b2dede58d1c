//! Tells which usage windows are missing, for health and metrics: what they said of produce is found in the log, what they said
//! of reading is nowhere else. A window that has not come for so long is declared lost, so that nobody waits for it for ever;
//! it still counts if it comes.

use std::time::Duration;

use sluice_db::{Database, DbError};
use sluice_runtime::{ComponentStatus, Health};
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;
use crate::store::sources::{Missing, hole_count, hole_declare_lost};

const EVERY: Duration = Duration::from_secs(5);
/// How long a window may be missing before it is declared lost.
pub const LOST_AFTER: Duration = Duration::from_secs(600);
/// The name in health.
pub const COMPONENT: &str = "usage-sources";

/// Looks every 5 s until the shutdown.
pub async fn run(database: Database, health: Health, metrics: Metrics, shutdown: CancellationToken) {
    loop {
        match look(&database).await {
            Ok(missing) => {
                metrics.windows_missing.set(missing.windows);
                metrics.windows_lost.set(missing.lost);
                health.set_component(COMPONENT, status(missing));
            }
            Err(error) => tracing::debug!(%error, "count missing windows"),
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}

async fn look(database: &Database) -> Result<Missing, DbError> {
    let lost = hole_declare_lost(database.system(), LOST_AFTER).await?;
    if lost > 0 {
        tracing::error!(windows = lost, "usage windows did not come and are declared lost");
    }
    hole_count(database.system()).await
}

fn status(missing: Missing) -> ComponentStatus {
    let lost = match missing.lost {
        0 => String::new(),
        lost => format!("; {lost} windows are lost (table billing.source_hole)"),
    };
    match missing.windows {
        0 => ComponentStatus::ok(format!("no window is missing{lost}")),
        windows => {
            let sources = missing.sources;
            ComponentStatus::failing(format!("{windows} windows of {sources} sources are missing{lost}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_window_is_an_alarm_and_a_lost_one_is_told() {
        let missing = |windows, lost| status(Missing { sources: 1, windows, lost });
        assert_eq!(missing(0, 0), ComponentStatus::ok("no window is missing"));
        assert_eq!(missing(2, 0), ComponentStatus::failing("2 windows of 1 sources are missing"));
        assert!(
            missing(0, 3)
                == ComponentStatus::ok("no window is missing; 3 windows are lost (table billing.source_hole)")
        );
    }
}
