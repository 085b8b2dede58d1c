//! `sluiced install` on a Kafka and a PostgreSQL of its own.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use sluice_devstack::{ADMIN, Connection, Stack};
use sluice_wire::Client;

const CALL: Duration = Duration::from_secs(20);
const ROLES: [&str; 4] = ["gateway", "control-plane", "provisioning", "billing"];

fn install(config: &Path, options: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluiced"));
    command.arg("install").arg("--config").arg(config).args(options);
    command.output().unwrap()
}

#[track_caller]
fn ended(output: &Output, code: i32) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{text}{errors}");
    text
}

fn secret(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

/// A configuration with principals that the local stack does not have.
fn configure(dir: &Path, connection: &Connection) -> std::path::PathBuf {
    let kafka = connection.kafka().unwrap();
    secret(&dir.join("admin"), kafka.password(ADMIN).unwrap());
    secret(&dir.join("postgres"), &connection.postgres().unwrap().url("postgres"));
    let text = format!(
        "secrets_dir = {:?}\n[kafka]\nbootstrap = {:?}\nca = {:?}\nusername = {ADMIN:?}\npassword_file = {:?}\n\
         [principals]\ngateway = \"acme-gateway\"\ncontrol_plane = \"acme-control-plane\"\nprovisioning = \"acme-provisioning\"\n\
         billing = \"acme-billing\"\n[postgres]\nadmin_url_file = {:?}\n",
        dir.join("secrets"),
        kafka.bootstrap,
        kafka.ca_file,
        dir.join("admin"),
        dir.join("postgres"),
    );
    let config = dir.join("install.toml");
    fs::write(&config, text).unwrap();
    config
}

#[tokio::test(flavor = "multi_thread")]
async fn install_makes_an_empty_kafka_and_postgresql_ready_and_then_has_nothing_to_do() {
    let stack = Stack::builder().build().await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let config = configure(dir.path(), stack.connection());
    let secrets = dir.path().join("secrets");

    let checked = ended(&install(&config, &["--check", "--output", "json"]), 2);
    let report: serde_json::Value = serde_json::from_str(&checked).unwrap();
    let differences = report["differences"].as_array().unwrap();
    assert!(differences.len() > 20 && differences.iter().all(|one| one["by"] == "apply"), "{checked}");
    let planned = ended(&install(&config, &["--plan"]), 2);
    assert!(planned.contains("make sluice.control with 1 replicas"), "{planned}");
    assert!(!secrets.exists(), "looking makes nothing");

    fs::create_dir(&secrets).unwrap();
    secret(&secrets.join("kafka-gateway"), "a given password");
    let applied = ended(&install(&config, &["--apply"]), 0);

    for file in fs::read_dir(&secrets).unwrap().map(|file| file.unwrap().path()) {
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600, "{}", file.display());
        let text = fs::read_to_string(&file).unwrap();
        assert!(!applied.contains(text.trim()), "{} is printed", file.display());
    }
    assert!(ended(&install(&config, &["--check"]), 0).contains("nothing to do"));
    let again = ended(&install(&config, &["--apply", "--output", "json"]), 0);
    let report: serde_json::Value = serde_json::from_str(&again).unwrap();
    assert_eq!(report, serde_json::json!({"done": [], "differences": []}));

    every_secret_opens_what_it_is_for(&secrets, stack.connection()).await;
}

async fn every_secret_opens_what_it_is_for(secrets: &Path, connection: &Connection) {
    let mut kafka = connection.kafka().unwrap().clone();
    for role in ROLES {
        let user = format!("acme-{role}");
        let password = fs::read_to_string(secrets.join(format!("kafka-{role}"))).unwrap();
        kafka.users.insert(user.clone(), password.trim().to_owned());
        Client::connect(kafka.client_config(&user).unwrap(), CALL).await.unwrap();
    }
    let postgres = connection.postgres().unwrap();
    for service in ["control", "billing"] {
        for part in ["owner", "app", "system"] {
            let url = fs::read_to_string(secrets.join(format!("{service}-{part}-url"))).unwrap();
            let (_, rest) = url.split_once("://").unwrap();
            let (user, rest) = rest.split_once(':').unwrap();
            let (password, _) = rest.split_once('@').unwrap();
            let mut role = postgres.clone();
            (role.user, role.password) = (user.to_owned(), password.to_owned());
            let database = role.execute(&format!("sluice_{service}"), "SELECT current_database()").await.unwrap();
            assert_eq!(database, format!("sluice_{service}"));
        }
    }
}

#[test]
fn install_refuses_wrong_options_and_wrong_configuration_with_64_and_an_unreachable_server_with_1() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("install.toml");
    fs::write(&config, "secrets_dir = \"secrets\"\n").unwrap();
    ended(&install(&config, &[]), 64);
    ended(&install(&config, &["--check", "--apply"]), 64);
    let nothing = install(&config, &["--check"]);
    ended(&nothing, 64);
    assert!(String::from_utf8_lossy(&nothing.stderr).contains("neither [kafka] nor [postgres]"));

    secret(&dir.path().join("postgres"), "postgres://nobody:secret-word@127.0.0.1:1/postgres");
    let postgres =
        format!("secrets_dir = \"secrets\"\n[postgres]\nadmin_url_file = {:?}\n", dir.path().join("postgres"));
    fs::write(&config, postgres).unwrap();
    let unreachable = install(&config, &["--check"]);
    ended(&unreachable, 1);
    let said = String::from_utf8_lossy(&unreachable.stderr).into_owned();
    assert!(said.contains("connect to PostgreSQL") && !said.contains("secret-word"), "{said}");
}
