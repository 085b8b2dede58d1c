//! A persistent stack: the second start finds data, ports, users and CA; two at once are refused; a crash is no obstacle.

use std::path::Path;
use std::time::Instant;

use sluice_devstack::{ADMIN, Connection, DataDir, Error, Stack};

use crate::support::{CALL, START_WITHIN, devstack, eventually, open_temp_dir, produce, topic};

async fn start(dir: &Path) -> Stack {
    let start = Instant::now();
    let data_dir = DataDir::Persistent(dir.to_path_buf());
    let stack = Stack::builder().data_dir(data_dir).build().await.unwrap();
    println!("started in {:?}", start.elapsed());
    stack
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_start_finds_everything_as_it_was_after_a_stop_and_after_a_drop() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("stack");
    let stack = start(&dir).await;
    let first = stack.connection().clone();
    let (kafka, postgres) = (first.kafka().unwrap().clone(), first.postgres().unwrap().clone());
    let ca = stack.ca().cert_pem().to_owned();
    let client = kafka.client(ADMIN).unwrap();
    client.create_topic(&topic("kept", 1), CALL).await.unwrap();
    assert_eq!(produce(&client, "kept", "0", CALL).await, 0);
    postgres.database("kept").await.unwrap();
    postgres.execute("kept", "CREATE TABLE t AS SELECT 1 AS n").await.unwrap();
    stack.stop().await;

    let stack = start(&dir).await;
    let second = stack.connection().clone();
    assert_eq!(second.kafka().unwrap().bootstrap, kafka.bootstrap);
    assert_eq!(second.kafka().unwrap().users, kafka.users);
    assert_eq!(second.postgres().unwrap().port, postgres.port);
    assert_eq!(stack.ca().cert_pem(), ca);
    let client = second.kafka().unwrap().client(ADMIN).unwrap();
    assert_eq!(produce(&client, "kept", "1", CALL).await, 1);
    assert_eq!(second.postgres().unwrap().execute("kept", "SELECT n FROM t").await.unwrap(), "1");
    drop(stack);

    let stack = start(&dir).await;
    let client = stack.connection().kafka().unwrap().client(ADMIN).unwrap();
    assert_eq!(produce(&client, "kept", "2", CALL).await, 2);
    assert_eq!(stack.connection().postgres().unwrap().execute("kept", "SELECT n FROM t").await.unwrap(), "1");
    assert!(dir.join("stack.json").exists(), "a persistent directory stays");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_stacks_in_one_directory_are_refused_and_secrets_are_private() {
    use std::os::unix::fs::PermissionsExt;
    let home = tempfile::tempdir().unwrap();
    let dir = DataDir::Persistent(home.path().join("stack"));
    let stack = Stack::builder().without_kafka().data_dir(dir.clone()).build().await.unwrap();

    let refused = Stack::builder().without_kafka().data_dir(dir).build().await.map(drop);

    assert!(matches!(refused, Err(Error::InUse(_))), "{refused:?}");
    for secret in ["stack.json", "secrets.json", "ca/ca.key"] {
        let mode = stack.dir().join(secret).metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{secret}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_right_after_the_owner_was_killed_waits_for_the_old_processes_and_finds_the_data() {
    let home = open_temp_dir();
    let dir = home.path().join("stack");
    let mut owner = devstack(home.path(), &["serve", "--dir", dir.to_str().unwrap()]);
    eventually("the stack serves", START_WITHIN, async || dir.join("stack.json").exists()).await;
    let kafka = Connection::read(&dir.join("stack.json")).unwrap().kafka.unwrap();
    let client = kafka.client(ADMIN).unwrap();
    client.create_topic(&topic("kept", 1), CALL).await.unwrap();
    assert_eq!(produce(&client, "kept", "0", CALL).await, 0);

    owner.kill().unwrap();
    owner.wait().unwrap();
    let stack = start(&dir).await;

    let client = stack.connection().kafka().unwrap().client(ADMIN).unwrap();
    assert_eq!(produce(&client, "kept", "1", CALL).await, 1);
    stack.stop().await;
}
