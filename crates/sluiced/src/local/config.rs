//! The configuration of each role of a local installation, as the types that the roles read.
//!
//! What two processes must agree on is said once, in [`Common`]: a file or an address in one configuration cannot differ from
//! that in another.

use anyhow::{Context, Result};
use serde::Serialize;
use sluice_installation::kafka::Principals;
use sluice_process::TenantDefaults;
use sluice_runtime::config::{DatabaseConfig, InternalTlsConfig, KafkaConfig, ListenAddr, SecretFile};

use super::{Local, Ports, files};
use crate::role::Role;
use crate::secrets::Secrets;

/// What the processes have in common.
pub(super) struct Common<'a> {
    local: &'a Local,
    ports: &'a Ports,
    secrets: Secrets,
    principals: Principals,
    /// Hashes the secrets of API keys: the control plane makes them, gateways check them.
    key_hash: SecretFile,
    /// Gateways grant them, the control plane shows them.
    tenant_defaults: TenantDefaults,
    /// Where the others reach the control plane.
    control_plane: String,
    /// Where gateways reach billing.
    billing: String,
}

impl<'a> Common<'a> {
    pub(super) fn new(local: &'a Local, ports: &'a Ports) -> Self {
        let secrets = local.secrets();
        Self {
            local,
            ports,
            principals: Principals::default(),
            key_hash: SecretFile::new(secrets.file("key-hash")),
            tenant_defaults: TenantDefaults::default(),
            control_plane: reached_at(ports.control_internal),
            billing: reached_at(ports.billing_internal),
            secrets,
        }
    }

    pub(super) fn control_plane(&self, name: &str) -> Result<sluice_control_plane::Config> {
        Ok(sluice_control_plane::Config {
            instance: name.to_owned(),
            environment: "dev".to_owned(),
            key_hash_secret_file: self.key_hash.clone(),
            internal_listen: ListenAddr::loopback(self.ports.control_internal),
            operator_listen: ListenAddr::loopback(self.ports.operator),
            operator_plain: false,
            operator_token_file: self.local.operator_token_file.clone(),
            admin_listen: ListenAddr::loopback(self.ports.control_admin),
            admin_open: false,
            internal_tls: self.internal_tls(name),
            kafka: self.kafka(Role::ControlPlane)?,
            clusters: Default::default(),
            database: self.database("control"),
            defaults: Default::default(),
            limits: Default::default(),
            tenant_defaults: self.tenant_defaults,
            internal_topics: Default::default(),
            control_log: Default::default(),
            telemetry: Default::default(),
            testing: Default::default(),
        })
    }

    pub(super) fn provisioning(&self, name: &str) -> Result<sluice_provisioning::Config> {
        Ok(sluice_provisioning::Config {
            instance: name.to_owned(),
            admin_listen: ListenAddr::loopback(self.ports.provisioning_admin),
            admin_open: false,
            control_plane: self.control_plane.clone(),
            replication: None,
            concurrency: sluice_provisioning::config::CONCURRENCY,
            internal_tls: self.internal_tls(name),
            kafka: self.kafka(Role::Provisioning)?,
            clusters: Default::default(),
            telemetry: Default::default(),
            testing: Default::default(),
        })
    }

    pub(super) fn billing(&self, name: &str) -> Result<sluice_billing::Config> {
        Ok(sluice_billing::Config {
            internal_listen: ListenAddr::loopback(self.ports.billing_internal),
            admin_listen: ListenAddr::loopback(self.ports.billing_admin),
            admin_open: false,
            page_token_key_file: SecretFile::new(self.secrets.file("page-token-billing")),
            internal_tls: self.internal_tls(name),
            kafka: self.kafka(Role::Billing)?,
            clusters: Default::default(),
            database: self.database("billing"),
            telemetry: Default::default(),
            testing: Default::default(),
        })
    }

    pub(super) fn gateway(&self, name: &str, ports: [u16; 3]) -> Result<sluice_gateway::Config> {
        let [public, internal, admin] = ports;
        let data_dir = self.local.dir.join("data").join(name);
        files::folder(&data_dir)?;
        Ok(sluice_gateway::Config {
            id: name.to_owned(),
            data_dir,
            public_listen: ListenAddr::loopback(public),
            public_plain: false,
            internal_listen: ListenAddr::loopback(internal),
            internal_advertise: Some(reached_at(internal)),
            admin_listen: ListenAddr::loopback(admin),
            admin_open: false,
            control_plane: self.control_plane.clone(),
            billing: self.billing.clone(),
            key_hash_file: self.key_hash.clone(),
            ack_keys_file: SecretFile::new(self.secrets.file("ack-ids")),
            tls: None,
            browser_origins: Vec::new(),
            internal_tls: self.internal_tls(name),
            kafka: self.kafka(Role::Gateway)?,
            clusters: Default::default(),
            limits: Default::default(),
            tenant_defaults: self.tenant_defaults,
            telemetry: Default::default(),
        })
    }

    fn internal_tls(&self, name: &str) -> InternalTlsConfig {
        let tls = self.local.dir.join("tls");
        InternalTlsConfig {
            ca: self.local.connection.ca_file.clone(),
            cert: tls.join(format!("{name}.pem")),
            key: tls.join(format!("{name}.key")),
        }
    }

    fn kafka(&self, role: Role) -> Result<KafkaConfig> {
        let kafka = self.local.connection.kafka()?;
        let principal = self.principals.of(role.as_str()).context("each role has a principal")?;
        Ok(KafkaConfig {
            bootstrap: kafka.bootstrap.clone(),
            ca: kafka.ca_file.clone(),
            username: principal.to_owned(),
            password_file: SecretFile::new(self.secrets.kafka_password(role.as_str())),
        })
    }

    fn database(&self, service: &str) -> DatabaseConfig {
        let url = |part: &str| SecretFile::new(self.secrets.database_url(service, part));
        DatabaseConfig { owner_url_file: Some(url("owner")), app_url_file: url("app"), system_url_file: url("system") }
    }
}

/// By the name in the certificates.
fn reached_at(port: u16) -> String {
    format!("localhost:{port}")
}

/// A configuration as its file holds it.
pub(super) fn table(config: &impl Serialize) -> Result<toml::Table> {
    toml::Table::try_from(config).context("write a configuration as TOML")
}

/// The configuration with these lines of TOML in it: they win, key by key.
pub(super) fn with_lines(mut config: toml::Table, lines: &str) -> Result<toml::Table> {
    merge(&mut config, lines.parse().context("read the lines to be added to a configuration")?);
    Ok(config)
}

fn merge(into: &mut toml::Table, from: toml::Table) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(toml::Value::Table(into)), toml::Value::Table(from)) => merge(into, from),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn added_lines_win_key_by_key_and_the_rest_stays() {
        let config = "id = \"one\"\n[limits]\ncalls = 1\nstreams = 2\n".parse().expect("TOML");
        let merged = with_lines(config, "[limits]\ncalls = 3\n[tls]\ncert = \"c\"\n").expect("merged");
        let expected = "id = \"one\"\n[limits]\ncalls = 3\nstreams = 2\n[tls]\ncert = \"c\"\n";
        assert_eq!(merged, expected.parse().expect("TOML"));
    }
}
