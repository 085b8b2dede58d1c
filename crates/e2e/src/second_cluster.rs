//! A second Kafka cluster for an installation: of a stack of its own, with users and a CA that the first one does not know.
//!
//! It is added as an operator adds one: the control plane makes it, and its uid goes into the configuration of every role.

use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::Result;
use sluice_devstack::{BILLING, CONTROL_PLANE, DataDir, GATEWAY, Kafka, KafkaConnection, PROVISIONING, Stack, Tuning};
use sluice_types::ClusterUid;
use sluiced::role::Role;

/// The id under which the operator knows it.
pub const SECOND: &str = "second";

/// A second cluster that runs.
pub struct SecondCluster {
    stack: Stack,
    secrets: PathBuf,
    /// Its uid, as the control plane gave it.
    pub uid: ClusterUid,
}

impl SecondCluster {
    /// Starts one broker.
    ///
    /// # Errors
    /// If it cannot be started.
    pub(crate) async fn start(tuning: Tuning) -> Result<Stack> {
        Ok(Stack::builder().data_dir(DataDir::Temporary).tuning(tuning).without_postgres().build().await?)
    }

    /// Writes the passwords of the roles into a folder below `dir`.
    ///
    /// # Errors
    /// If they cannot be written.
    pub(crate) fn new(stack: Stack, uid: ClusterUid, dir: &Path) -> Result<Self> {
        let secrets = dir.join("secrets-second");
        std::fs::DirBuilder::new().mode(0o700).create(&secrets)?;
        let second = Self { stack, secrets, uid };
        for role in [Role::Gateway, Role::ControlPlane, Role::Provisioning, Role::Billing] {
            let password = second.connection()?.password(user(role))?;
            let mut file = std::fs::OpenOptions::new();
            let mut file = file.create_new(true).write(true).mode(0o600).open(second.password_file(role))?;
            std::io::Write::write_all(&mut file, password.as_bytes())?;
        }
        Ok(second)
    }

    /// The lines of a role's configuration that name it.
    pub(crate) fn section(&self, role: Role) -> Result<String> {
        let kafka = self.connection()?;
        Ok(format!(
            "[clusters.{}]\nbootstrap = {:?}\nca = {:?}\nusername = {:?}\npassword_file = {:?}\n",
            self.uid,
            kafka.bootstrap,
            kafka.ca_file,
            user(role),
            self.password_file(role),
        ))
    }

    fn password_file(&self, role: Role) -> PathBuf {
        self.secrets.join(role.as_str())
    }

    /// Its Kafka, to be stopped and killed. It has one broker, number 1.
    ///
    /// # Errors
    /// Never; the stack has a Kafka.
    pub fn kafka(&self) -> Result<&Kafka> {
        Ok(self.stack.kafka()?)
    }

    /// How to reach it past us.
    ///
    /// # Errors
    /// Never; the stack has a Kafka.
    pub fn connection(&self) -> Result<&KafkaConnection> {
        Ok(self.stack.connection().kafka()?)
    }

    pub(crate) async fn stop(self) {
        self.stack.stop().await;
    }
}

fn user(role: Role) -> &'static str {
    match role {
        Role::Gateway => GATEWAY,
        Role::ControlPlane => CONTROL_PLANE,
        Role::Provisioning => PROVISIONING,
        Role::Billing => BILLING,
    }
}
