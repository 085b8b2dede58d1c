//! Billing's configuration file.

use serde::{Deserialize, Serialize};
use sluice_process::{ClustersConfig, Common, RoleConfig, is_false};
use sluice_runtime::config::{
    DatabaseConfig, Faults, InternalTlsConfig, KafkaConfig, ListenAddr, SecretFile, Validate,
};
use sluice_runtime::fail_point::Testing;
use sluice_runtime::telemetry::TelemetryConfig;

/// Where a test can have the process die: before and after the commit that adds usage.
pub const FAIL_POINTS: [&str; 2] = ["ingest.before_commit", "ingest.after_commit"];

/// All of it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Listener of `sluice.billing.v1`, mutual TLS.
    pub internal_listen: ListenAddr,
    /// Listener of health and metrics, plain HTTP.
    pub admin_listen: ListenAddr,
    /// Lets the admin listener be reached from other machines: a network policy keeps strangers away.
    #[serde(default, skip_serializing_if = "is_false")]
    pub admin_open: bool,
    /// Hex of 32 random bytes that page tokens are made with; the same for all instances.
    pub page_token_key_file: SecretFile,
    /// Who we are to the other processes.
    pub internal_tls: InternalTlsConfig,
    /// The first Kafka cluster: it has the internal topics, and the topics of tenants that were placed nowhere else.
    pub kafka: KafkaConfig,
    /// Further clusters with topics of tenants, by uid. The same clusters in the configuration of all roles.
    #[serde(default, skip_serializing_if = "ClustersConfig::is_empty")]
    pub clusters: ClustersConfig,
    /// The database.
    pub database: DatabaseConfig,
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
            database: Some(&self.database),
            telemetry: &self.telemetry,
            testing: Some((&self.testing, &FAIL_POINTS)),
        }
    }
}

impl Validate for Config {
    const EXAMPLE: &'static str = r#"
internal_listen = "0.0.0.0:7300"
admin_listen = "127.0.0.1:7301"
page_token_key_file = "/etc/sluice/page-token.key"

[internal_tls]
ca = "/etc/sluice/internal-ca.pem"
cert = "/etc/sluice/billing.pem"
key = "/etc/sluice/billing.key"

[kafka]
bootstrap = ["kafka-1:9093", "kafka-2:9093"]
ca = "/etc/sluice/kafka-ca.pem"
username = "sluice-billing"
password_file = "/etc/sluice/kafka-password"

[database]
owner_url_file = "/etc/sluice/billing-owner-url"
app_url_file = "/etc/sluice/billing-app-url"
system_url_file = "/etc/sluice/billing-system-url"

[telemetry]
level = "info"
format = "json"
"#;

    fn faults(&self, faults: &mut Faults) {
        self.common().faults(faults);
    }

    fn files(&self, faults: &mut Faults) {
        faults.file("page_token_key_file", self.page_token_key_file.read_key());
        self.common().files(faults);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use sluice_runtime::config::parse;

    use super::*;

    #[test]
    fn the_example_is_right_and_an_unknown_fail_point_is_not() {
        let example: Config = parse(Config::EXAMPLE, Path::new("billing.toml")).expect("example");
        assert_eq!(example.testing, Testing::default());
        let wrong = format!("{}\n[testing]\ncrash_at = \"somewhere\"\n", Config::EXAMPLE);
        let error = parse::<Config>(&wrong, Path::new("billing.toml")).expect_err("fail point");
        assert_eq!(error.faults[0].at, "testing.crash_at");
    }
}
