//! The configuration file of `install`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use sluice_installation::kafka::Principals;
use sluice_runtime::config::{Faults, KafkaConfig, SecretFile, Validate};

/// All of it. At least one of `kafka` and `postgres` must be there.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    /// Where passwords are, and are put where they are missing.
    pub(super) secrets_dir: PathBuf,
    /// The cluster, with a principal that may make users, access rules and topics.
    pub(super) kafka: Option<KafkaConfig>,
    /// Names of the processes' principals.
    #[serde(default)]
    pub(super) principals: PrincipalNames,
    /// Internal topics.
    #[serde(default)]
    pub(super) topics: Topics,
    /// The database server.
    pub(super) postgres: Option<Postgres>,
}

/// Names of the processes' principals, without `User:`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct PrincipalNames {
    gateway: String,
    control_plane: String,
    provisioning: String,
    billing: String,
}

/// How internal topics are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Topics {
    /// Whether the cluster has them: true for the first cluster of an installation, false for a further one.
    pub(super) internal: bool,
    /// Replicas of each partition; absent: one on each of up to three brokers. The same as `internal_topics.replication` of the
    /// control plane.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) replication: Option<u8>,
}

impl Default for Topics {
    fn default() -> Self {
        Self { internal: true, replication: None }
    }
}

/// The database server.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Postgres {
    /// Holds the URL of a role that may make roles and databases: `postgres://user:password@host:port/postgres?sslmode=…`.
    pub(super) admin_url_file: SecretFile,
    /// The control plane's database.
    #[serde(default = "control_database")]
    pub(super) control_database: String,
    /// Billing's database.
    #[serde(default = "billing_database")]
    pub(super) billing_database: String,
}

fn control_database() -> String {
    crate::local::CONTROL_DB.to_owned()
}

fn billing_database() -> String {
    crate::local::BILLING_DB.to_owned()
}

impl Default for PrincipalNames {
    fn default() -> Self {
        let Principals { gateway, control_plane, provisioning, billing } = Principals::default();
        Self { gateway, control_plane, provisioning, billing }
    }
}

impl PrincipalNames {
    pub(super) fn principals(&self) -> Principals {
        let Self { gateway, control_plane, provisioning, billing } = self.clone();
        Principals { gateway, control_plane, provisioning, billing }
    }
}

impl Validate for Config {
    const EXAMPLE: &'static str = r#"
secrets_dir = "/etc/sluice/secrets"

[kafka]
bootstrap = ["kafka-1.example.com:9094", "kafka-2.example.com:9094"]
ca = "/etc/sluice/kafka-ca.pem"
username = "sluice-installer"
password_file = "/etc/sluice/kafka-installer"

[principals]
gateway = "sluice-gateway"
control_plane = "sluice-control-plane"
provisioning = "sluice-provisioning"
billing = "sluice-billing"

[topics]
replication = 3

[postgres]
admin_url_file = "/etc/sluice/postgres-url"
control_database = "sluice_control"
billing_database = "sluice_billing"
"#;

    fn faults(&self, faults: &mut Faults) {
        let any = self.kafka.is_some() || self.postgres.is_some();
        faults.require(any, "", "has neither [kafka] nor [postgres]: there is nothing to install");
        if let Some(kafka) = &self.kafka {
            faults.section("kafka", kafka);
        }
        faults.section("principals", &self.principals);
        let replicas = self.topics.replication.is_none_or(|replicas| (1..=9).contains(&replicas));
        faults.require(replicas, "topics.replication", "must be 1..9");
        if let Some(postgres) = &self.postgres {
            faults.section("postgres", postgres);
        }
        let ours = self.principals.principals();
        let taken =
            self.kafka.as_ref().is_some_and(|kafka| ours.by_role().iter().any(|(_, name)| *name == kafka.username));
        let what =
            "is a process's principal too: the installer's must be another, because its rules are not ours to change";
        faults.require(!taken, "kafka.username", what);
    }

    fn files(&self, faults: &mut Faults) {
        if let Some(kafka) = &self.kafka {
            faults.section_files("kafka", kafka);
        }
        if let Some(postgres) = &self.postgres {
            faults.section_files("postgres", postgres);
        }
    }
}

impl Validate for PrincipalNames {
    fn faults(&self, faults: &mut Faults) {
        let principals = self.principals();
        for (role, name) in principals.by_role() {
            let good = !name.is_empty() && !name.starts_with("User:") && !name.contains([',', '=']) && name != "*";
            faults.require(good, &role.replace('-', "_"), "must be a name without `User:`, commas and equals signs");
        }
        if let Some((one, other)) = principals.shared() {
            faults
                .add("", format_args!("{one} and {other} have the same principal: each would have the rights of both"));
        }
    }
}

impl Validate for Postgres {
    fn faults(&self, faults: &mut Faults) {
        for (key, name) in [("control_database", &self.control_database), ("billing_database", &self.billing_database)]
        {
            let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
            let good = (1..=63).contains(&name.len()) && name.bytes().all(fits);
            faults.require(good, key, "must be 1..63 characters of a-z, 0-9 and _");
        }
    }

    fn files(&self, faults: &mut Faults) {
        faults.file("admin_url_file", self.admin_url_file.read());
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use sluice_runtime::config::parse;

    use super::*;

    #[test]
    fn the_example_is_valid() {
        parse::<Config>(Config::EXAMPLE, Path::new("install.toml")).expect("valid");
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_all_faults_at_once() {
        let text =
            "secrets_dir = \"s\"\n[principals]\ngateway = \"one\"\nbilling = \"one\"\n[topics]\nreplication = 0\n";
        let error = parse::<Config>(text, Path::new("install.toml")).expect_err("faults").to_string();
        for part in ["3 faults", "neither [kafka] nor [postgres]", "the same principal", "topics.replication"] {
            assert!(error.contains(part), "{part}: {error}");
        }
    }
}
