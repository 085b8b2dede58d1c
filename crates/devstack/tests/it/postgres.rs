//! PostgreSQL: databases, templates, faults.

use std::sync::atomic::{AtomicUsize, Ordering};

use sluice_devstack::{Error, Stack};

#[tokio::test(flavor = "multi_thread")]
async fn a_template_is_filled_once_and_copies_are_apart() {
    let stack = Stack::builder().without_kafka().build().await.unwrap();
    let postgres = stack.connection().postgres().unwrap();
    let filled = AtomicUsize::new(0);
    let ask = async || {
        let fill = async |url: String| {
            filled.fetch_add(1, Ordering::SeqCst);
            let database = url.rsplit_once('/').unwrap().1.split('?').next().unwrap().to_owned();
            postgres.execute(&database, "CREATE TABLE t (n int); INSERT INTO t VALUES (1)").await.map(drop)
        };
        postgres.template("suite", fill).await
    };

    let (a, b, c) = tokio::join!(ask(), ask(), ask());
    a.and(b).and(c).unwrap();

    assert_eq!(filled.load(Ordering::SeqCst), 1);
    for name in ["one", "two"] {
        postgres.database_from("suite", name).await.unwrap();
        postgres.execute(name, "INSERT INTO t VALUES (2)").await.unwrap();
        assert_eq!(postgres.execute(name, "SELECT count(*), sum(n) FROM t").await.unwrap(), "2|3");
    }
    postgres.drop_database("two").await.unwrap();
    assert!(postgres.execute("two", "SELECT 1").await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_template_that_fails_to_fill_is_not_a_template() {
    let stack = Stack::builder().without_kafka().build().await.unwrap();
    let postgres = stack.connection().postgres().unwrap();

    let failed = postgres.template("suite", async |_| Err("no such column")).await;

    assert!(matches!(&failed, Err(Error::Command { detail, .. }) if detail == "no such column"), "{failed:?}");
    assert!(postgres.database_from("suite", "copy").await.is_err());
    postgres.template("suite", async |_| Ok::<(), &str>(())).await.unwrap();
    postgres.database_from("suite", "copy").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_committed_survives_every_fault() {
    let stack = Stack::builder().without_kafka().build().await.unwrap();
    let (server, postgres) = (stack.postgres().unwrap(), stack.connection().postgres().unwrap());
    postgres.database("data").await.unwrap();
    postgres.execute("data", "CREATE TABLE t (n int)").await.unwrap();
    let count = async || postgres.execute("data", "INSERT INTO t VALUES (1); SELECT count(*) FROM t").await.unwrap();
    assert_eq!(count().await, "1");

    server.pause().await.unwrap();
    let asked = tokio::time::timeout(std::time::Duration::from_millis(500), postgres.execute("data", "SELECT 1")).await;
    assert!(asked.is_err(), "a paused server does not answer");
    server.resume();
    assert_eq!(count().await, "2");

    server.stop().await;
    assert!(postgres.execute("data", "SELECT 1").await.is_err());
    server.start_server().await.unwrap();
    assert_eq!(count().await, "3");

    server.kill9().await;
    server.start_server().await.unwrap();
    assert_eq!(count().await, "4");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_refused_on_both_ways_in() {
    let stack = Stack::builder().without_kafka().build().await.unwrap();
    let mut stranger = stack.connection().postgres().unwrap().clone();
    stranger.password = "wrong".to_owned();
    assert!(stranger.execute("postgres", "SELECT 1").await.is_err());
    stranger.host = stranger.socket_dir.clone().unwrap().to_str().unwrap().to_owned();
    let refusal = stranger.execute("postgres", "SELECT 1").await.unwrap_err().to_string();
    assert!(refusal.contains("password authentication failed"), "{refusal}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_database_works_below_a_directory_that_only_its_owner_may_enter() {
    // tempfile makes it with mode 0700: for root this is the home directory of root.
    let home = tempfile::tempdir().unwrap();
    let dir = sluice_devstack::DataDir::Persistent(home.path().join(".sluice"));
    let stack = Stack::builder().without_kafka().data_dir(dir).build().await.unwrap();
    let postgres = stack.connection().postgres().unwrap();
    assert_eq!(postgres.execute("postgres", "SELECT 1").await.unwrap(), "1");
    stack.stop().await;
}
