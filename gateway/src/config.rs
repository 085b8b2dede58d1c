//! The gateway's configuration file.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use sluice_edge::browsers::is_origin;
use sluice_process::{Common, RoleConfig, TenantDefaults, is_false};
use sluice_runtime::config::{
    ByteSize, Faults, HumanDuration, InternalTlsConfig, KafkaConfig, ListenAddr, SecretFile, TlsFiles, Validate,
};
use sluice_runtime::telemetry::TelemetryConfig;
use sluice_runtime::tls::ReloadingTls;
use sluice_types::limits::BODY_BYTES_MAX;

use crate::groups::keyring::Keys;

/// All of it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Its name among the gateways, stable over restarts: 1..64 characters of `a-z0-9-`.
    pub id: String,
    /// Where the snapshot of the view lives; made if absent.
    pub data_dir: PathBuf,
    /// Listener for tenants: gRPC and HTTP.
    pub public_listen: ListenAddr,
    /// Lets the public listener be reached from other machines without TLS: a proxy in front of it speaks TLS.
    #[serde(default, skip_serializing_if = "is_false")]
    pub public_plain: bool,
    /// Listener for other gateways, mutual TLS.
    pub internal_listen: ListenAddr,
    /// `host:port` under which other gateways reach it; absent: the bound address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub internal_advertise: Option<String>,
    /// Listener of health and metrics, plain HTTP.
    pub admin_listen: ListenAddr,
    /// Lets the admin listener be reached from other machines: a network policy keeps strangers away.
    #[serde(default, skip_serializing_if = "is_false")]
    pub admin_open: bool,
    /// `host:port` of the control plane's internal listener.
    pub control_plane: String,
    /// `host:port` of billing's internal listener.
    pub billing: String,
    /// Hex of the 32 bytes that hash the secrets of API keys; the same for the control plane and all gateways.
    pub key_hash_file: SecretFile,
    /// The keys of ack ids, the same for all gateways: lines `{number 0..255} {64 hexadecimal digits}`; the first signs, all
    /// verify. Read again when it changes.
    pub ack_keys_file: SecretFile,
    /// Certificate of the public listener; absent: no TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsFiles>,
    /// Origins whose pages may call from a browser: `https://console.example.com`, or `*` for all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub browser_origins: Vec<String>,
    /// Who we are to the other processes.
    pub internal_tls: InternalTlsConfig,
    /// The cluster with the internal topics and the tenants' topics.
    pub kafka: KafkaConfig,
    /// Bounds of the process.
    #[serde(default)]
    pub limits: LimitsConfig,
    /// Limits of tenants that have none of their own.
    #[serde(default)]
    pub tenant_defaults: TenantDefaults,
    /// Logs.
    #[serde(default)]
    pub telemetry: TelemetryConfig,
}

impl RoleConfig for Config {
    fn common(&self) -> Common<'_> {
        Common {
            admin_listen: self.admin_listen,
            admin_open: self.admin_open,
            internal_tls: &self.internal_tls,
            kafka: &self.kafka,
            database: None,
            telemetry: &self.telemetry,
            testing: None,
        }
    }
}

/// Bounds of the process.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsConfig {
    /// Connections on the public listener.
    pub connections: usize,
    /// Of these, connections of one peer address. Behind a proxy that hides its clients' addresses: as many as `connections`.
    pub connections_per_peer: usize,
    /// Calls at a time.
    pub calls: usize,
    /// Calls at a time of one peer address.
    pub calls_per_peer: usize,
    /// Streams of consumers at a time.
    pub streams: usize,
    /// Of these, streams of one tenant.
    pub streams_per_tenant: usize,
    /// HTTP/2: a peer is asked so often whether it is still there. One that does not answer within half of this is gone.
    pub ping_interval: HumanDuration,
    /// Bytes of a request body, before and after inflation.
    pub body: ByteSize,
    /// Bytes of all request bodies at a time: about a quarter of the memory the process may use.
    pub in_flight: ByteSize,
    /// Failed authentications a second of one peer address.
    pub failed_authentications_per_second: u64,
    /// As many at once.
    pub failed_authentications_burst: u64,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            connections: 10_000,
            connections_per_peer: 2_500,
            calls: 8_192,
            calls_per_peer: 4_096,
            streams: 20_000,
            streams_per_tenant: 12_000,
            ping_interval: HumanDuration::from_secs(20),
            body: ByteSize::new(BODY_BYTES_MAX as u64),
            in_flight: ByteSize::new(256 << 20),
            failed_authentications_per_second: 50,
            failed_authentications_burst: 1_000,
        }
    }
}

impl Validate for Config {
    const EXAMPLE: &'static str = r#"
id = "gateway-a"
data_dir = "/var/lib/sluice/gateway"
public_listen = "0.0.0.0:8080"
internal_listen = "0.0.0.0:7100"
internal_advertise = "gateway-a.internal:7100"
admin_listen = "127.0.0.1:7101"
control_plane = "control-plane.internal:7200"
billing = "billing.internal:7300"
key_hash_file = "/etc/sluice/key-hash.key"
ack_keys_file = "/etc/sluice/ack-ids.keys"
browser_origins = ["https://console.example.com"]

[tls]
cert = "/etc/sluice/public.pem"
key = "/etc/sluice/public.key"

[internal_tls]
ca = "/etc/sluice/internal-ca.pem"
cert = "/etc/sluice/gateway.pem"
key = "/etc/sluice/gateway.key"

[kafka]
bootstrap = ["kafka-1:9093", "kafka-2:9093"]
ca = "/etc/sluice/kafka-ca.pem"
username = "sluice-gateway"
password_file = "/etc/sluice/kafka-password"

[limits]
connections = 10000
connections_per_peer = 2500
calls = 8192
calls_per_peer = 4096
streams = 20000
streams_per_tenant = 12000
ping_interval = "20s"
body = "8MiB"
in_flight = "256MiB"
failed_authentications_per_second = 50
failed_authentications_burst = 1000

[tenant_defaults]
requests_per_second = 10000
ingress_per_second = "256MiB"
egress_per_second = "512MiB"
in_flight = "32MiB"

[telemetry]
level = "info"
format = "json"
"#;

    fn faults(&self, faults: &mut Faults) {
        let good = (1..=64).contains(&self.id.len())
            && self.id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        faults.require(good, "id", "must be 1..64 characters of a-z, 0-9 and '-'");
        for (key, address) in [("control_plane", &self.control_plane), ("billing", &self.billing)] {
            let port = address.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port);
            faults.require(port.is_some_and(|p| p.parse::<u16>().is_ok()), key, "must be \"host:port\"");
        }
        for origin in self.browser_origins.iter().filter(|origin| !is_origin(origin)) {
            faults.add(
                "browser_origins",
                format_args!("`{origin}` is not \"https://host\", with a port if need be, or \"*\""),
            );
        }
        if self.tls.is_none() {
            let because = "API keys would travel as clear text without [tls]";
            faults.reachable("public_listen", self.public_listen, self.public_plain, "public_plain", because);
        }
        self.common().faults(faults);
        faults.section("limits", &self.limits);
        faults.section("tenant_defaults", &self.tenant_defaults);
    }

    fn files(&self, faults: &mut Faults) {
        faults.file("key_hash_file", self.key_hash_file.read_key());
        faults.file("ack_keys_file", Keys::load(self.ack_keys_file.clone()).map_err(described));
        if let Some(tls) = &self.tls {
            faults.file("tls", ReloadingTls::load(tls));
        }
        self.common().files(faults);
    }
}

/// An error with what caused it.
fn described(error: impl std::error::Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

impl Validate for LimitsConfig {
    fn faults(&self, faults: &mut Faults) {
        faults.require(self.connections > 0, "connections", "must be at least 1");
        let of_peer = (1..=self.connections.max(1)).contains(&self.connections_per_peer);
        faults.require(of_peer, "connections_per_peer", "must be 1 .. `connections`");
        faults.require(self.calls > 0, "calls", "must be at least 1");
        faults.require(self.calls_per_peer > 0, "calls_per_peer", "must be at least 1");
        faults.require(self.streams > 0, "streams", "must be at least 1");
        faults.require(self.streams_per_tenant > 0, "streams_per_tenant", "must be at least 1");
        let interval = Duration::from_secs(1)..=Duration::from_secs(600);
        faults.require(interval.contains(&self.ping_interval.get()), "ping_interval", "must be 1 s to 10 min");
        faults.require((1..=1 << 30).contains(&self.body.bytes()), "body", "must be 1 byte to 1 GiB");
        faults.require(self.in_flight.bytes() >= self.body.bytes(), "in_flight", "must be at least `body`");
        let (rate, burst) = (self.failed_authentications_per_second, self.failed_authentications_burst);
        faults.require(rate > 0, "failed_authentications_per_second", "must be at least 1");
        faults.require(burst > 0, "failed_authentications_burst", "must be at least 1");
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use sluice_runtime::config::parse;
    use sluice_types::limits::TenantLimits;

    use super::*;

    #[test]
    fn the_example_is_right_and_shows_the_defaults() {
        let example: Config = parse(Config::EXAMPLE, Path::new("gateway.toml")).expect("example");
        assert_eq!(example.limits, LimitsConfig::default());
        assert_eq!(example.tenant_defaults, TenantDefaults::default());
        assert_eq!(TenantLimits::from(example.tenant_defaults), TenantLimits::default());
    }

    #[test]
    fn what_would_expose_tenants_is_refused_unless_it_is_meant() {
        let open = Config::EXAMPLE
            .replace("admin_listen = \"127.0.0.1:7101\"", "admin_listen = \"0.0.0.0:7101\"")
            .replace("[tls]\ncert = \"/etc/sluice/public.pem\"\nkey = \"/etc/sluice/public.key\"\n", "");
        let error = parse::<Config>(&open, Path::new("gateway.toml")).expect_err("two faults");
        let at: Vec<_> = error.faults.iter().map(|fault| fault.at.as_str()).collect();
        assert_eq!(at, ["public_listen", "admin_listen"]);
        assert!(error.to_string().contains("set `public_plain = true`"), "{error}");
        parse::<Config>(&format!("public_plain = true\nadmin_open = true\n{open}"), Path::new("gateway.toml"))
            .expect("meant");
        let laptop = open.replace("\"0.0.0.0:", "\"127.0.0.1:");
        parse::<Config>(&laptop, Path::new("gateway.toml")).expect("only this machine reaches it");
    }

    #[test]
    fn keys_that_anybody_can_guess_are_named_beside_all_other_faults() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().expect("directory");
        let secret = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).expect("write");
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("chmod");
            path.to_string_lossy().into_owned()
        };
        let text = Config::EXAMPLE
            .replace("/etc/sluice/key-hash.key", &secret("hash", &"0".repeat(64)))
            .replace("/etc/sluice/ack-ids.keys", &secret("ack", &format!("1 {}\n", "0".repeat(64))))
            .replace("/etc/sluice/kafka-password", &secret("password", "hush"))
            .replace("admin_listen = \"127.0.0.1", "admin_listen = \"0.0.0.0");
        let error = sluice_runtime::config::load::<Config>(Path::new(&secret("gateway.toml", &text)));
        let error = error.expect_err("zeros are no keys");
        let at: Vec<_> = error.faults.iter().map(|fault| fault.at.as_str()).collect();
        // The certificates of the example are not there, either.
        assert_eq!(at, ["admin_listen", "key_hash_file", "ack_keys_file", "tls", "internal_tls", "kafka.ca"]);
        assert_eq!(error.to_string().matches("is not random").count(), 2, "{error}");
    }

    #[test]
    fn all_faults_come_together() {
        let wrong = Config::EXAMPLE
            .replace("id = \"gateway-a\"", "id = \"Gateway A\"")
            .replace("billing.internal:7300", "billing")
            .replace("calls = 8192", "calls = 0");
        let error = parse::<Config>(&wrong, Path::new("gateway.toml")).expect_err("three faults");
        let at: Vec<_> = error.faults.iter().map(|fault| fault.at.as_str()).collect();
        assert_eq!(at, ["id", "billing", "limits.calls"]);
    }
}
