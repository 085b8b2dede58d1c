//! The settings that every role has. A role's configuration lends them to the frame, which checks and uses them.

use serde::de::DeserializeOwned;

use sluice_runtime::config::{DatabaseConfig, Faults, InternalTlsConfig, KafkaConfig, ListenAddr, Validate};
use sluice_runtime::fail_point::Testing;
use sluice_runtime::telemetry::TelemetryConfig;
use sluice_runtime::tls::InternalTls;

use crate::clusters::ClustersConfig;

/// The configuration of a role.
pub trait RoleConfig: DeserializeOwned + Validate + Send {
    /// What it shares with those of all other roles.
    fn common(&self) -> Common<'_>;
}

/// What the configurations of all roles share.
#[derive(Debug, Clone, Copy)]
pub struct Common<'a> {
    /// Listener of health and metrics, plain HTTP.
    pub admin_listen: ListenAddr,
    /// Lets it be reached from other machines.
    pub admin_open: bool,
    /// Who we are to the other processes.
    pub internal_tls: &'a InternalTlsConfig,
    /// The first Kafka cluster, which has the internal topics.
    pub kafka: &'a KafkaConfig,
    /// The other ones.
    pub clusters: &'a ClustersConfig,
    /// The database, for the owner of a schema.
    pub database: Option<&'a DatabaseConfig>,
    /// Logs.
    pub telemetry: &'a TelemetryConfig,
    /// For tests only, with the fail points that the role has.
    pub testing: Option<(&'a Testing, &'static [&'static str])>,
}

impl Common<'_> {
    /// What is wrong with the values.
    pub fn faults(&self, faults: &mut Faults) {
        let because = "health and metrics answer whoever asks";
        faults.reachable("admin_listen", self.admin_listen, self.admin_open, "admin_open", because);
        faults.section("kafka", self.kafka);
        faults.section("clusters", self.clusters);
        faults.section("telemetry", self.telemetry);
        if let Some((testing, places)) = self.testing {
            testing.check(places, faults);
        }
    }

    /// What is wrong with the files that they name.
    pub fn files(&self, faults: &mut Faults) {
        faults.file("internal_tls", InternalTls::load(self.internal_tls));
        faults.section_files("kafka", self.kafka);
        faults.section_files("clusters", self.clusters);
        if let Some(database) = self.database {
            faults.section_files("database", database);
        }
    }
}

/// For `skip_serializing_if`: what is not set is not written.
pub fn is_false(value: &bool) -> bool {
    !value
}
