//! Whose rows a transaction sees, and what is left when one is dropped.

use std::time::Duration;

use sluice_db::{Database, DbError, sqlx};
use sluice_devstack::shared;
use sluice_types::TenantScope;
use tokio::sync::oneshot;

use crate::support::{fresh, open, tenant};

async fn write(database: &Database, scope: &TenantScope, body: &str) {
    let mut tx = database.tenant(scope).await.unwrap();
    let uid = tx.tenant().as_i64();
    sqlx::query("INSERT INTO dbtest.note VALUES ($1, $2)").bind(uid).bind(body).execute(tx.conn()).await.unwrap();
    tx.commit().await.unwrap();
}

async fn seen(database: &Database, scope: &TenantScope) -> Vec<String> {
    let mut tx = database.tenant(scope).await.unwrap();
    let bodies = sqlx::query_scalar("SELECT body FROM dbtest.note").fetch_all(tx.conn()).await.unwrap();
    tx.rollback().await.unwrap();
    bodies
}

#[tokio::test]
async fn a_tenant_sees_and_writes_its_own_rows_only() {
    let (_, database) = fresh(shared().await.unwrap().postgres().unwrap()).await;
    let (acme, globex) = (tenant("acme"), tenant("globex"));
    write(&database, &acme, "of acme").await;
    write(&database, &globex, "of globex").await;
    assert_eq!(seen(&database, &acme).await, ["of acme"]);
    assert_eq!(seen(&database, &globex).await, ["of globex"]);
    let mut tx = database.tenant(&acme).await.unwrap();
    let theirs = globex.uid().as_i64();
    let foreign = sqlx::query("INSERT INTO dbtest.note VALUES ($1, 'x')").bind(theirs).execute(tx.conn()).await;
    assert!(matches!(DbError::from(foreign.unwrap_err()), DbError::Denied(_)));
    drop(tx);
    let mut system = database.system().begin().await.unwrap();
    let all: i64 = sqlx::query_scalar("SELECT count(*) FROM dbtest.note").fetch_one(system.conn()).await.unwrap();
    assert_eq!(all, 2);
    system.rollback().await.unwrap();
}

#[tokio::test]
async fn a_transaction_dropped_at_any_moment_leaves_nothing_open() {
    let postgres = shared().await.unwrap().postgres().unwrap();
    let (name, database) = fresh(postgres).await;
    let one = open(postgres, &name, 1);
    let (acme, globex) = (tenant("acme"), tenant("globex"));
    write(&database, &acme, "of acme").await;
    for micros in (0..3_000).step_by(50) {
        // Cancelled before, within and after the beginning of the transaction, and within a query.
        let work = async {
            let mut tx = one.tenant(&acme).await?;
            sqlx::query("INSERT INTO dbtest.note VALUES ($1, 'half')")
                .bind(acme.uid().as_i64())
                .execute(tx.conn())
                .await?;
            sqlx::query("SELECT pg_sleep(1)").execute(tx.conn()).await?;
            tx.commit().await
        };
        let _ = tokio::time::timeout(Duration::from_micros(micros), work).await;
        // The next user of the only connection must neither work inside that transaction nor see under its tenant.
        assert_eq!(seen(&one, &globex).await, Vec::<String>::new(), "after {micros} us");
    }
    assert_eq!(seen(&one, &acme).await, ["of acme"]);
    let open =
        format!("SELECT count(*) FROM pg_stat_activity WHERE datname = '{name}' AND state LIKE 'idle in transaction%'");
    assert_eq!(postgres.execute("postgres", &open).await.unwrap(), "0");
}

#[tokio::test]
async fn work_goes_on_to_its_end_when_the_one_who_waits_goes_away() {
    let postgres = shared().await.unwrap().postgres().unwrap();
    let (name, database) = fresh(postgres).await;
    let acme = tenant("acme");
    let (begun, has_begun) = oneshot::channel();
    let (go_on, may_go_on) = oneshot::channel::<()>();
    let (worker, scope) = (database.clone(), acme.clone());
    let work = async move {
        let mut tx = worker.tenant(&scope).await?;
        sqlx::query("INSERT INTO dbtest.note VALUES ($1, 'whole')")
            .bind(scope.uid().as_i64())
            .execute(tx.conn())
            .await?;
        begun.send(()).unwrap();
        may_go_on.await.unwrap();
        tx.commit().await
    };
    let waiter = database.clone();
    let waiting = tokio::spawn(async move { waiter.run(work).await });
    has_begun.await.unwrap();
    waiting.abort();
    assert!(waiting.await.unwrap_err().is_cancelled());
    go_on.send(()).unwrap();
    // Closing waits for the work.
    database.close(Duration::from_secs(10)).await;
    assert!(matches!(database.ping().await, Err(DbError::Unavailable(_))));
    assert_eq!(seen(&open(postgres, &name, 1), &acme).await, ["whole"]);
}
