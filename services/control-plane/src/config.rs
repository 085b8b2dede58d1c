//! The control plane's configuration file.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use sluice_process::{ClustersConfig, Common, RoleConfig, TenantDefaults, is_false};
use sluice_runtime::config::{
    ByteSize, DatabaseConfig, Faults, HumanDuration, InternalTlsConfig, KafkaConfig, ListenAddr, SecretFile, Validate,
};
use sluice_runtime::fail_point::Testing;
use sluice_runtime::telemetry::TelemetryConfig;
use sluice_types::limits::{GROUPS_PER_NAMESPACE_MAX, TOPIC_PARTITIONS_MAX};

/// Where a test can have the process die: around the commit of a change, and around its publication.
pub(crate) const FAIL_POINTS: [&str; 4] =
    ["change.before_commit", "change.after_commit", "relay.before_publish", "relay.after_publish"];

/// All of it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Which control plane this is, stable over restarts.
    pub instance: String,
    /// The environment in the text of new API keys, 1..8 of `a-z0-9`, e.g. `live`.
    pub environment: String,
    /// Hex of the 32 bytes that key secrets are hashed with; the same for all control planes and gateways.
    pub key_hash_secret_file: SecretFile,
    /// Listener of `sluice.admin.v1` and `sluice.internal.control.v1`, mutual TLS.
    pub internal_listen: ListenAddr,
    /// Listener of `sluice.operator.v1`, plain: keep it on loopback.
    pub operator_listen: ListenAddr,
    /// Lets the operator listener be reached from other machines: something in front of it speaks TLS.
    #[serde(default, skip_serializing_if = "is_false")]
    pub operator_plain: bool,
    /// The operator's token; made with mode 0600 if it is missing.
    pub operator_token_file: PathBuf,
    /// Listener of health and metrics, plain HTTP.
    pub admin_listen: ListenAddr,
    /// Lets the admin listener be reached from other machines: a network policy keeps strangers away.
    #[serde(default, skip_serializing_if = "is_false")]
    pub admin_open: bool,
    /// Who we are to the other processes.
    pub internal_tls: InternalTlsConfig,
    /// The first Kafka cluster: it has the internal topics, and the topics of tenants that were placed nowhere else.
    pub kafka: KafkaConfig,
    /// Further clusters with topics of tenants, by uid. The same clusters in the configuration of all roles.
    #[serde(default, skip_serializing_if = "ClustersConfig::is_empty")]
    pub clusters: ClustersConfig,
    /// The database.
    pub database: DatabaseConfig,
    /// What a topic gets that does not say.
    #[serde(default)]
    pub defaults: Defaults,
    /// What a tenant may have, unless the operator says otherwise.
    #[serde(default)]
    pub limits: Limits,
    /// What gateways grant a tenant that has no limits of its own: the same as in their configuration. Only to be shown.
    #[serde(default)]
    pub tenant_defaults: TenantDefaults,
    /// How internal topics are made.
    #[serde(default)]
    pub internal_topics: InternalTopics,
    /// How the control log and the database are kept agreed.
    #[serde(default)]
    pub control_log: ControlLogConfig,
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

/// What a topic gets that does not say.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Defaults {
    /// Partitions.
    pub partitions: i32,
    /// How long records are kept, 3 h or more.
    pub retention: HumanDuration,
    /// Largest batch in a topic.
    pub max_message_bytes: ByteSize,
}

/// What a tenant may have, unless the operator says otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Topics over all namespaces.
    pub topics: i64,
    /// Partitions over all topics.
    pub partitions: i64,
    /// Namespaces.
    pub namespaces: i64,
    /// Service accounts.
    pub service_accounts: i64,
    /// Working keys of one service account.
    pub keys_per_account: i64,
    /// Consumer groups of one namespace.
    pub groups_per_namespace: i64,
}

/// How internal topics are made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct InternalTopics {
    /// Replicas of each partition; absent: one on each of up to three brokers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replication: Option<u8>,
}

/// How the control log and the database are kept agreed. Where they differ the database is right.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct ControlLogConfig {
    /// What becomes of resources that are in service in the log and unknown to the database.
    pub unknown: Unknown,
}

/// What becomes of resources that are in service in the log and unknown to the database.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Unknown {
    /// They stay, and health and metrics say how many there are: the database may be the wrong one.
    #[default]
    Report,
    /// They end, as if they had been deleted: after a restore from a backup, keys made since must not work on with no row
    /// to revoke.
    End,
}

impl Default for Defaults {
    fn default() -> Self {
        Self {
            partitions: 3,
            retention: HumanDuration::from_secs(7 * 86_400),
            max_message_bytes: ByteSize::new(8 << 20),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            topics: 1_000,
            partitions: 10_000,
            namespaces: 100,
            service_accounts: 1_000,
            keys_per_account: 100,
            groups_per_namespace: GROUPS_PER_NAMESPACE_MAX,
        }
    }
}

impl Validate for Config {
    const EXAMPLE: &'static str = r#"
instance = "control-plane-1"
environment = "live"
key_hash_secret_file = "/etc/sluice/key-hash.key"
internal_listen = "0.0.0.0:7200"
operator_listen = "127.0.0.1:7201"
operator_token_file = "/etc/sluice/operator.token"
admin_listen = "127.0.0.1:7202"

[internal_tls]
ca = "/etc/sluice/internal-ca.pem"
cert = "/etc/sluice/control-plane.pem"
key = "/etc/sluice/control-plane.key"

[kafka]
bootstrap = ["kafka-1:9093", "kafka-2:9093"]
ca = "/etc/sluice/kafka-ca.pem"
username = "sluice-control-plane"
password_file = "/etc/sluice/kafka-password"

[database]
owner_url_file = "/etc/sluice/control-owner-url"
app_url_file = "/etc/sluice/control-app-url"
system_url_file = "/etc/sluice/control-system-url"

[defaults]
partitions = 3
retention = "7days"
max_message_bytes = "8MiB"

[limits]
topics = 1000
partitions = 10000
namespaces = 100
service_accounts = 1000
keys_per_account = 100
groups_per_namespace = 20000

[tenant_defaults]
requests_per_second = 10000
ingress_per_second = "256MiB"
egress_per_second = "512MiB"
in_flight = "32MiB"

[internal_topics]
replication = 3

[control_log]
unknown = "report"

[telemetry]
level = "info"
format = "json"
"#;

    fn faults(&self, faults: &mut Faults) {
        let environment = (1..=8).contains(&self.environment.len())
            && self.environment.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        faults.require(environment, "environment", "must be 1..8 characters of a-z and 0-9");
        faults.require(!self.instance.is_empty(), "instance", "must not be empty");
        let because = "the operator's token would travel as clear text";
        faults.reachable("operator_listen", self.operator_listen, self.operator_plain, "operator_plain", because);
        self.common().faults(faults);
        faults.section("defaults", &self.defaults);
        faults.section("limits", &self.limits);
        faults.section("tenant_defaults", &self.tenant_defaults);
        let replicas = self.internal_topics.replication.is_none_or(|replicas| (1..=9).contains(&replicas));
        faults.require(replicas, "internal_topics.replication", "must be 1..9");
    }

    fn files(&self, faults: &mut Faults) {
        faults.file("key_hash_secret_file", self.key_hash_secret_file.read_key());
        self.common().files(faults);
    }
}

impl Validate for Defaults {
    fn faults(&self, faults: &mut Faults) {
        let partitions = (1..=TOPIC_PARTITIONS_MAX).contains(&self.partitions);
        faults.require(partitions, "partitions", format_args!("must be 1..{TOPIC_PARTITIONS_MAX}"));
        faults.require(self.retention.get().as_secs() >= 3 * 3_600, "retention", "must be 3 h or more");
        let bytes = self.max_message_bytes.bytes();
        faults.require((2 << 20..=64 << 20).contains(&bytes), "max_message_bytes", "must be 2 MiB .. 64 MiB");
    }
}

impl Validate for Limits {
    fn faults(&self, faults: &mut Faults) {
        for (key, value) in [
            ("topics", self.topics),
            ("partitions", self.partitions),
            ("namespaces", self.namespaces),
            ("service_accounts", self.service_accounts),
            ("keys_per_account", self.keys_per_account),
            ("groups_per_namespace", self.groups_per_namespace),
        ] {
            faults.require(value > 0, key, "must be 1 or more");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use sluice_runtime::config::parse;

    use super::*;

    #[test]
    fn the_example_is_right_and_every_fault_is_named() {
        let example: Config = parse(Config::EXAMPLE, Path::new("control-plane.toml")).expect("example");
        assert_eq!(example.limits, Limits::default());
        assert_eq!(example.tenant_defaults, TenantDefaults::default());
        assert_eq!(example.defaults, Defaults::default());
        let wrong = Config::EXAMPLE.replace("\"live\"", "\"LIVE\"").replace("topics = 1000", "topics = 0");
        let wrong = wrong.replace("operator_listen = \"127.0.0.1", "operator_listen = \"0.0.0.0");
        let wrong = wrong.replace("admin_listen = \"127.0.0.1", "admin_listen = \"[::]");
        let wrong = format!("{wrong}\n[testing]\ncrash_at = \"somewhere\"\n");
        let error = parse::<Config>(&wrong, Path::new("control-plane.toml")).expect_err("faults");
        let at: Vec<&str> = error.faults.iter().map(|fault| fault.at.as_str()).collect();
        assert_eq!(at, ["environment", "operator_listen", "admin_listen", "testing.crash_at", "limits.topics"]);
    }
}
