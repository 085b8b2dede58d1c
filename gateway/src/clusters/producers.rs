//! The producers of a cluster, and how they fare.

use std::borrow::Cow;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use sluice_kafka::{KafkaSink, ProduceSink, Sasl, SinkConfig};
use sluice_process::ClusterAccess;
use sluice_runtime::{ComponentStatus, Health};
use sluice_types::ClusterUid;

use crate::clusters::second_path::WirePath;
use crate::clusters::{Cluster, SetupError, Shared};

/// The component that says whether the first cluster's producers are of use; the gateway is ready only if they are.
pub(super) const USEFUL: &str = "producers";
/// Whether brokers of the first cluster answer its producers.
const ANSWERED: &str = "produce";
const HEALTH_EVERY: Duration = Duration::from_secs(1);

/// Reads the files with which producers of the cluster are made. Done once, when the process starts: a disk that hangs must not
/// hang calls.
pub(super) fn credentials(access: &ClusterAccess) -> Result<Sasl, SetupError> {
    Ok(Sasl {
        ca_pem: std::fs::read_to_string(&access.config.ca).map_err(SetupError::Ca)?,
        username: access.config.username.clone(),
        password: access.config.password().map_err(SetupError::Password)?,
    })
}

/// Starts the producers; waits for no broker.
pub(super) fn start(
    access: &ClusterAccess,
    credentials: &Sasl,
    shared: &Shared,
) -> Result<Arc<dyn ProduceSink>, SetupError> {
    let mut config = SinkConfig::new(&access.config.bootstrap);
    config.client_id.clone_from(&shared.gateway_id);
    config.sasl = Some(credentials.clone());
    let second_path = Arc::new(WirePath::new(access.client.clone()));
    Ok(Arc::new(KafkaSink::start(config, shared.figures.of(access.uid), second_path)?))
}

/// The component under which a cluster that is not the first says how it fares.
pub(super) fn component(cluster: ClusterUid) -> Cow<'static, str> {
    match cluster {
        ClusterUid::FIRST => USEFUL.into(),
        other => format!("kafka-{other}").into(),
    }
}

/// Says how the producers fare, until the cluster is dropped or the process stops.
pub(super) async fn watch(cluster: Weak<Cluster>, health: Health, shutdown: CancellationToken) {
    let mut ticks = tokio::time::interval(HEALTH_EVERY);
    while shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
        let Some(cluster) = cluster.upgrade() else { return };
        let answered = match cluster.answers() {
            true => ComponentStatus::ok("brokers answer"),
            false => ComponentStatus::failing("no broker answers; records wait until their callers' deadlines"),
        };
        let useful = match cluster.sink().is_useless() {
            false => ComponentStatus::ok("none is without progress while the cluster serves"),
            true => ComponentStatus::failing("one makes no progress although the cluster serves; it is being replaced"),
        };
        match cluster.uid() {
            ClusterUid::FIRST => {
                health.set_component(ANSWERED, answered);
                health.set_component(USEFUL, useful);
            }
            // The others only inform: a gateway without them serves the topics of the rest.
            other if useful.ok => health.set_component(component(other), answered),
            other => health.set_component(component(other), useful),
        }
    }
}
