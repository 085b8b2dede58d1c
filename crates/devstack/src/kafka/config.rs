//! The configuration file of one broker.
//!
//! Two listeners, both on 127.0.0.1: CLIENT (SASL_SSL, SCRAM-SHA-512; brokers talk to each other on it as the super
//! user) and CONTROLLER (mutual TLS: SCRAM cannot guard the quorum that stores the SCRAM credentials).

use std::fmt::Write as _;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sluice_installation::kafka::brokers;

use crate::error::{Error, Result};
use crate::kafka::Setup;
use crate::ports;
use crate::secrets::ADMIN;

/// The certificate name of the brokers, which is their principal on the controller listener.
pub(super) const NODE_PRINCIPAL: &str = "kafka-node";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ports {
    pub(super) client: u16,
    pub(super) controller: u16,
}

impl Ports {
    pub(super) fn are_free(&self) -> bool {
        ports::is_free(self.client) && ports::is_free(self.controller)
    }
}

/// What all brokers' files have in common.
pub(super) struct Cluster {
    ports: Vec<Ports>,
    admin_password: String,
    ca_file: String,
}

impl Cluster {
    pub(super) fn new(setup: &Setup<'_>, ports: &[Ports]) -> Result<Cluster> {
        let admin_password = setup.secrets.kafka_users.get(ADMIN).cloned();
        Ok(Cluster {
            ports: ports.to_vec(),
            admin_password: admin_password.ok_or_else(|| Error::Invalid(format!("no password is kept for {ADMIN}")))?,
            ca_file: text(&setup.ca.cert_file())?.to_owned(),
        })
    }

    /// The properties of broker `id`, whose files are in `dir`.
    pub(super) fn properties(&self, id: u32, dir: &Path) -> Result<String> {
        let ports = self.ports[id as usize - 1];
        let brokers = self.ports.len();
        let copies = brokers.min(3);
        let in_sync = if copies >= 3 { 2 } else { 1 };
        let voters: Vec<String> =
            self.ports.iter().zip(1..).map(|(ports, id)| format!("{id}@localhost:{}", ports.controller)).collect();
        let mut out = String::new();
        let mut set = |name: &str, value: &dyn std::fmt::Display| {
            writeln!(out, "{name}={value}").expect("writing to a string cannot fail");
        };

        set("process.roles", &"broker,controller");
        set("node.id", &id);
        set("controller.quorum.voters", &voters.join(","));
        set("log.dirs", &text(&dir.join("data"))?);

        set("listeners", &format!("CLIENT://127.0.0.1:{},CONTROLLER://127.0.0.1:{}", ports.client, ports.controller));
        set("advertised.listeners", &format!("CLIENT://localhost:{}", ports.client));
        set("controller.listener.names", &"CONTROLLER");
        set("inter.broker.listener.name", &"CLIENT");
        set("listener.security.protocol.map", &"CLIENT:SASL_SSL,CONTROLLER:SSL");

        set("sasl.enabled.mechanisms", &"SCRAM-SHA-512");
        set("sasl.mechanism.inter.broker.protocol", &"SCRAM-SHA-512");
        let module = "org.apache.kafka.common.security.scram.ScramLoginModule";
        let login = format!("{module} required username=\"{ADMIN}\" password=\"{}\";", self.admin_password);
        set("listener.name.client.scram-sha-512.sasl.jaas.config", &login);
        set("listener.name.controller.ssl.client.auth", &"required");
        set("ssl.principal.mapping.rules", &"RULE:^CN=([^,]+).*$/$1/");
        set("ssl.keystore.type", &"PEM");
        set("ssl.keystore.location", &text(&dir.join("node.pem"))?);
        set("ssl.truststore.type", &"PEM");
        set("ssl.truststore.location", &self.ca_file);

        set("authorizer.class.name", &"org.apache.kafka.metadata.authorizer.StandardAuthorizer");
        set("allow.everyone.if.no.acl.found", &false);
        set("super.users", &format!("User:{ADMIN};User:{NODE_PRINCIPAL}"));

        // What the product relies on.
        for setting in brokers::settings() {
            set(setting.key, &setting.value);
        }
        set("unclean.leader.election.enable", &false);
        set("default.replication.factor", &copies);
        set("min.insync.replicas", &in_sync);
        for (prefix, min_in_sync, partitions) in [
            ("offsets.topic.", None, "num.partitions"),
            ("transaction.state.log.", Some("min.isr"), "num.partitions"),
            ("share.coordinator.state.topic.", Some("min.isr"), "num.partitions"),
        ] {
            set(&format!("{prefix}replication.factor"), &copies);
            set(&format!("{prefix}{partitions}"), &4);
            if let Some(name) = min_in_sync {
                set(&format!("{prefix}{name}"), &in_sync);
            }
        }

        set("group.initial.rebalance.delay.ms", &0);

        // A broker that was killed is fenced, and may come back, after its session: 9 s by default. Alone it competes
        // with nobody for the machine; several may be starved for seconds, and must not be fenced for that.
        set("broker.session.timeout.ms", if brokers == 1 { &3_000 } else { &6_000 });
        set("broker.heartbeat.interval.ms", &500);

        // A laptop's share of threads and memory.
        set("num.network.threads", &2);
        set("num.io.threads", &4);
        set("num.recovery.threads.per.data.dir", &1);
        set("background.threads", &2);
        set("log.cleaner.dedupe.buffer.size", &(16 * 1024 * 1024));
        Ok(out)
    }
}

/// Properties files know escapes: a path with a backslash or a line break would become another one.
pub(super) fn text(path: &Path) -> Result<&str> {
    let fits = |text: &&str| !text.contains(['\\', '\n', '\r', '=', '#']) && text.trim() == *text;
    path.to_str().filter(fits).ok_or_else(|| {
        Error::Invalid(format!("the path {path:?} has characters that Kafka's configuration cannot hold"))
    })
}
