//! How a process that owns a schema finds its database.

use serde::{Deserialize, Serialize};

use super::{Faults, SecretFile, Validate};

/// URLs of the database, one per role of the schema `…` (`control`, `billing`), each in a file: they hold passwords.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct DatabaseConfig {
    /// As `sluice_…_owner`: migrates at start. Absent: somebody else migrates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner_url_file: Option<SecretFile>,
    /// As `sluice_…_app`: serves tenants, one at a time.
    pub app_url_file: SecretFile,
    /// As `sluice_…_system`: what is done for all tenants.
    pub system_url_file: SecretFile,
}

impl Validate for DatabaseConfig {
    fn files(&self, faults: &mut Faults) {
        if let Some(owner) = &self.owner_url_file {
            faults.file("owner_url_file", owner.read());
        }
        faults.file("app_url_file", self.app_url_file.read());
        faults.file("system_url_file", self.system_url_file.read());
    }
}
