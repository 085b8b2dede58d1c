//! Provisioning's configuration file.

use serde::{Deserialize, Serialize};
use sluice_process::{ClustersConfig, Common, RoleConfig, is_false};
use sluice_runtime::config::{Faults, InternalTlsConfig, KafkaConfig, ListenAddr, Validate};
use sluice_runtime::fail_point::Testing;
use sluice_runtime::telemetry::TelemetryConfig;

/// Topics of one cluster worked on at a time, at most.
const CONCURRENCY_MAX: usize = 64;
/// Topics of one cluster worked on at a time, unless the configuration says otherwise.
pub const CONCURRENCY: usize = 8;

/// Where a test can have the process die, before and after each thing that changes the world: making, growing, closing,
/// deleting, reporting.
pub const FAIL_POINTS: [&str; 7] = [
    "create.before",
    "create.after",
    "extend.after",
    "closing.reported",
    "delete.before",
    "delete.after",
    "report.before",
];

/// All of it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Which provisioning this is, stable over restarts and different for each: a restarted one takes its own lease over
    /// at once.
    pub instance: String,
    /// Listener of health and metrics, plain HTTP.
    pub admin_listen: ListenAddr,
    /// Lets the admin listener be reached from other machines: a network policy keeps strangers away.
    #[serde(default, skip_serializing_if = "is_false")]
    pub admin_open: bool,
    /// `host:port` of the control plane's internal listener.
    pub control_plane: String,
    /// Replicas of each partition; absent: the cluster's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replication: Option<i16>,
    /// Topics of one cluster worked on at a time.
    #[serde(default = "concurrency")]
    pub concurrency: usize,
    /// Who we are to the other processes.
    pub internal_tls: InternalTlsConfig,
    /// The first Kafka cluster: it has the internal topics, and the topics of tenants that were placed nowhere else.
    pub kafka: KafkaConfig,
    /// Further clusters with topics of tenants, by uid. The same clusters in the configuration of all roles.
    #[serde(default, skip_serializing_if = "ClustersConfig::is_empty")]
    pub clusters: ClustersConfig,
    /// Logs.
    #[serde(default)]
    pub telemetry: TelemetryConfig,
    /// For tests only.
    #[serde(default)]
    pub testing: Testing,
}

impl RoleConfig for Config {
    fn common(&self) -> Common<'_> {
        Common {
            admin_listen: self.admin_listen,
            admin_open: self.admin_open,
            internal_tls: &self.internal_tls,
            kafka: &self.kafka,
            clusters: &self.clusters,
            database: None,
            telemetry: &self.telemetry,
            testing: Some((&self.testing, &FAIL_POINTS)),
        }
    }
}

fn concurrency() -> usize {
    CONCURRENCY
}

impl Validate for Config {
    const EXAMPLE: &'static str = r#"
instance = "provisioning-1"
admin_listen = "127.0.0.1:7401"
control_plane = "control-plane:7200"
replication = 3
concurrency = 8

[internal_tls]
ca = "/etc/sluice/internal-ca.pem"
cert = "/etc/sluice/provisioning.pem"
key = "/etc/sluice/provisioning.key"

[kafka]
bootstrap = ["kafka-1:9093", "kafka-2:9093"]
ca = "/etc/sluice/kafka-ca.pem"
username = "sluice-provisioning"
password_file = "/etc/sluice/kafka-password"

[telemetry]
level = "info"
format = "json"
"#;

    fn faults(&self, faults: &mut Faults) {
        faults.require((1..=128).contains(&self.instance.len()), "instance", "must have 1..128 bytes");
        let concurrency = (1..=CONCURRENCY_MAX).contains(&self.concurrency);
        faults.require(concurrency, "concurrency", format_args!("must be 1..{CONCURRENCY_MAX}"));
        faults.require(self.replication.is_none_or(|n| n >= 1), "replication", "must be at least 1");
        self.common().faults(faults);
    }

    fn files(&self, faults: &mut Faults) {
        self.common().files(faults);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use sluice_runtime::config::parse;

    use super::*;

    #[test]
    fn the_example_is_right_and_wrong_values_are_named() {
        let example: Config = parse(Config::EXAMPLE, Path::new("provisioning.toml")).expect("example");
        assert_eq!(example.testing, Testing::default());
        let wrong = Config::EXAMPLE.replace("concurrency = 8", "concurrency = 0");
        let wrong = format!("{wrong}\n[testing]\ncrash_at = \"somewhere\"\n");
        let error = parse::<Config>(&wrong, Path::new("provisioning.toml")).expect_err("two faults");
        let at: Vec<&str> = error.faults.iter().map(|fault| fault.at.as_str()).collect();
        assert_eq!(at, ["concurrency", "testing.crash_at"]);
    }
}
