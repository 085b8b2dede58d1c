//! An installation on this machine: what every role needs to run beside a local Kafka and PostgreSQL.
//!
//! [`Local::prepare`] writes, below one directory, secrets (mode 0600), certificates, and a configuration file per role, and makes
//! the databases. Doing it again keeps secrets and ports and renews the rest, so a second start finds its data. The files
//! are what a production installation would have, so every role runs from them as its own process or in one.

mod config;
pub(crate) mod files;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use secrecy::SecretString;
use sluice_devstack::{Connection, Stack, free_ports};
use sluice_installation::kafka::Principals;
use sluice_installation::postgres::{Roles, bootstrap};

use crate::role::Role;
use config::{Common, table, with_lines};
pub(crate) use files::write_secret;
use files::{key_ring, secret, write_config};

use crate::secrets::Secrets;

/// The databases.
pub(crate) const CONTROL_DB: &str = "sluice_control";
pub(crate) const BILLING_DB: &str = "sluice_billing";

/// What to lay out.
#[derive(Debug, Clone, Default)]
pub struct Layout {
    /// How many gateways.
    pub gateways: usize,
    /// Port of the first gateway's public listener; chosen by us if none is wanted.
    pub public_port: Option<u16>,
    /// Port of the operator listener; chosen by us if none is wanted.
    pub operator_port: Option<u16>,
    /// Lines of TOML for a role's configuration, which win, e.g. a fail point.
    pub extra: Vec<(Role, String)>,
}

/// Where one role's process listens and what it runs from.
#[derive(Debug, Clone)]
pub struct Instance {
    /// The role.
    pub role: Role,
    /// `gateway-1`, `control-plane`, …
    pub name: String,
    /// Its configuration file.
    pub config: PathBuf,
    /// `127.0.0.1:port` of health and metrics.
    pub admin: String,
    /// The configuration without lines of the layout.
    base: toml::Table,
}

impl Instance {
    /// Writes its configuration file anew: that of the installation with these lines of TOML in it, which win. Holds from the
    /// next start.
    ///
    /// # Errors
    /// The lines are no TOML, or the file cannot be written.
    pub fn configure(&self, lines: &str) -> Result<()> {
        let config = with_lines(self.base.clone(), lines)?;
        write_config(&self.config, &toml::to_string(&config).context("write a configuration as TOML")?)
    }
}

/// An installation laid out.
#[derive(Debug, Clone)]
pub struct Local {
    /// The directory of it all.
    pub dir: PathBuf,
    /// How to reach Kafka and PostgreSQL.
    pub connection: Connection,
    /// `127.0.0.1:port` of each gateway's public listener.
    pub public: Vec<String>,
    /// `127.0.0.1:port` of the operator listener.
    pub operator: String,
    /// The file that holds the operator's token.
    pub operator_token_file: PathBuf,
    /// The processes, in the order they are best started.
    pub instances: Vec<Instance>,
}

/// Ports of one installation.
struct Ports {
    control_internal: u16,
    control_admin: u16,
    operator: u16,
    provisioning_admin: u16,
    billing_internal: u16,
    billing_admin: u16,
    /// Public, internal, admin of each gateway.
    gateways: Vec<[u16; 3]>,
}

impl Local {
    /// Lays an installation out below `dir`, beside a running stack.
    ///
    /// # Errors
    /// What cannot be written, and what PostgreSQL refuses.
    pub async fn prepare(stack: &Stack, dir: &Path, layout: &Layout) -> Result<Self> {
        let connection = stack.connection().clone();
        let ports = ports(layout)?;
        for part in ["secrets", "tls", "config", "logs", "data"] {
            files::folder(&dir.join(part))?;
        }
        let secrets = Secrets::in_dir(dir.join("secrets"));
        databases(&secrets, &connection).await?;
        for (role, user) in Principals::default().by_role() {
            files::write_secret(&secrets.kafka_password(role), connection.kafka()?.password(user)?)?;
        }
        for name in ["key-hash", "page-token-billing"] {
            secret(&secrets.file(name))?;
        }
        key_ring(&secrets.file("ack-ids"))?;
        let local = Self {
            dir: dir.to_path_buf(),
            public: ports.gateways.iter().map(|gateway| address(gateway[0])).collect(),
            operator: address(ports.operator),
            operator_token_file: dir.join("operator.token"),
            instances: Vec::new(),
            connection,
        };
        let common = Common::new(&local, &ports);
        let role = |role, name: &str, admin, config| local.instance(stack, layout, role, name, admin, config);
        let (control_plane, provisioning, billing) = ("control-plane", "provisioning", "billing");
        let mut instances = vec![
            role(
                Role::ControlPlane,
                control_plane,
                ports.control_admin,
                table(&common.control_plane(control_plane)?)?,
            )?,
            role(
                Role::Provisioning,
                provisioning,
                ports.provisioning_admin,
                table(&common.provisioning(provisioning)?)?,
            )?,
            role(Role::Billing, billing, ports.billing_admin, table(&common.billing(billing)?)?)?,
        ];
        for (i, own) in ports.gateways.iter().enumerate() {
            let name = format!("gateway-{}", i + 1);
            instances.push(role(Role::Gateway, &name, own[2], table(&common.gateway(&name, *own)?)?)?);
        }
        Ok(Self { instances, ..local })
    }

    fn instance(
        &self,
        stack: &Stack,
        layout: &Layout,
        role: Role,
        name: &str,
        admin: u16,
        base: toml::Table,
    ) -> Result<Instance> {
        stack.ca().issue_role(role.as_str(), name)?.write(&self.dir.join("tls"), name)?;
        let config = self.dir.join(format!("config/{name}.toml"));
        let instance = Instance { role, name: name.to_owned(), config, admin: address(admin), base };
        let extra = layout.extra.iter().filter(|(of, _)| *of == role);
        instance.configure(&extra.map(|(_, lines)| format!("{lines}\n")).collect::<String>())?;
        Ok(instance)
    }

    fn secrets(&self) -> Secrets {
        Secrets::in_dir(self.dir.join("secrets"))
    }
}

/// Makes both databases and writes a URL per role.
async fn databases(secrets: &Secrets, connection: &Connection) -> Result<()> {
    let postgres = connection.postgres()?;
    for (service, database) in [("control", CONTROL_DB), ("billing", BILLING_DB)] {
        let password = |part: &str| secret(&secrets.database_password(service, part));
        let (owner, app, system) = (password("owner")?, password("app")?, password("system")?);
        let roles = Roles {
            service,
            owner_password: SecretString::from(owner.clone()),
            app_password: SecretString::from(app.clone()),
            system_password: SecretString::from(system.clone()),
        };
        bootstrap(&SecretString::from(postgres.url("postgres")), database, &roles)
            .await
            .with_context(|| format!("make the database {database}"))?;
        for (part, password) in [("owner", owner), ("app", app), ("system", system)] {
            let url = postgres.url_as(&roles.name(part), &password, database);
            files::write_secret(&secrets.database_url(service, part), &url)?;
        }
    }
    Ok(())
}

fn ports(layout: &Layout) -> Result<Ports> {
    let mut free = free_ports(6 + 3 * layout.gateways)?.into_iter();
    let mut next = || free.next().context("as many free ports as asked for");
    Ok(Ports {
        control_internal: next()?,
        control_admin: next()?,
        operator: layout.operator_port.map_or_else(&mut next, Ok)?,
        provisioning_admin: next()?,
        billing_internal: next()?,
        billing_admin: next()?,
        gateways: (0..layout.gateways)
            .map(|i| {
                let public = layout.public_port.filter(|_| i == 0).map_or_else(&mut next, Ok)?;
                Ok([public, next()?, next()?])
            })
            .collect::<Result<_>>()?,
    })
}

fn address(port: u16) -> String {
    format!("127.0.0.1:{port}")
}
