//! Bootstrap and migrations may be repeated, by many at once; an applied file must not change.

use std::time::Duration;

use sluice_db::sqlx::{self, Connection as _, PgConnection};
use sluice_db::{DbError, Migration, Migrations};
use sluice_devstack::shared;
use sluice_installation::postgres::bootstrap;

use secrecy::ExposeSecret as _;
use tokio_util::sync::CancellationToken;

use crate::support::{MIGRATIONS, fresh, roles, url};

static WITH_INDEX: Migrations = Migrations {
    schema: "dbtest",
    files: &[
        MIGRATIONS.files[0],
        Migration { version: 2, name: "wider", sql: "ALTER TABLE dbtest.note ADD COLUMN wide text" },
        Migration {
            version: 3,
            name: "index",
            sql: "-- outside a transaction\n-- so that writers go on; all of them\n\
                  CREATE INDEX CONCURRENTLY IF NOT EXISTS note_body ON dbtest.note (body);\n\
                  CREATE INDEX CONCURRENTLY IF NOT EXISTS note_wide ON dbtest.note (wide);\n",
        },
    ],
};

#[tokio::test]
async fn many_starts_at_once_make_one_database() {
    let postgres = shared().await.unwrap().postgres().unwrap();
    let name = postgres.fresh_name("db").unwrap();
    let start = || {
        let name = name.clone();
        tokio::spawn(async move {
            bootstrap(&postgres.url("postgres").into(), &name, &roles()).await?;
            MIGRATIONS.apply(&url(postgres, &name, "owner")).await
        })
    };
    let mut applied = 0;
    for started in [start(), start(), start(), start(), start()] {
        applied += started.await.unwrap().unwrap();
    }
    assert_eq!(applied, 1);
}

#[tokio::test]
async fn a_changed_migration_is_refused() {
    let postgres = shared().await.unwrap().postgres().unwrap();
    let (name, _) = fresh(postgres).await;
    static CHANGED: Migrations =
        Migrations { schema: "dbtest", files: &[Migration { version: 1, name: "notes", sql: "SELECT 1" }] };
    let refused = CHANGED.apply(&url(postgres, &name, "owner")).await.unwrap_err();
    assert!(matches!(refused, DbError::MigrationChanged { schema: "dbtest", version: 1 }), "{refused}");
}

#[tokio::test]
async fn a_migration_that_must_wait_keeps_nobody_waiting_behind_it() {
    let postgres = shared().await.unwrap().postgres().unwrap();
    let (name, _) = fresh(postgres).await;
    let mut holder = PgConnection::connect(url(postgres, &name, "system").expose_secret()).await.unwrap();
    let mut open = holder.begin().await.unwrap();
    sqlx::query("SELECT FROM dbtest.note").fetch_all(&mut *open).await.unwrap();
    let (owner, all) = (url(postgres, &name, "owner"), &WITH_INDEX);
    let migrating = tokio::spawn(async move { all.apply(&owner).await });
    // A reader that comes behind the waiting migration waits for no longer than the migration does.
    let mut reader = PgConnection::connect(url(postgres, &name, "system").expose_secret()).await.unwrap();
    let waits = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'dbtest.note'::regclass";
    let mut seen = 0;
    while seen == 0 {
        seen = sqlx::query_scalar::<_, i64>(waits).fetch_one(&mut reader).await.unwrap();
    }
    tokio::time::timeout(Duration::from_secs(20), sqlx::query("SELECT FROM dbtest.note").fetch_all(&mut reader))
        .await
        .expect("the migration gives way")
        .unwrap();
    assert!(!migrating.is_finished());
    open.commit().await.unwrap();
    assert_eq!(migrating.await.unwrap().unwrap(), 2);
}

#[tokio::test]
async fn a_start_waits_for_locks_of_others_until_the_shutdown() {
    let postgres = shared().await.unwrap().postgres().unwrap();
    let (name, _) = fresh(postgres).await;
    let mut holder = PgConnection::connect(url(postgres, &name, "owner").expose_secret()).await.unwrap();
    let mut open = holder.begin().await.unwrap();
    sqlx::query("LOCK TABLE dbtest.migration IN ACCESS EXCLUSIVE MODE").execute(&mut *open).await.unwrap();
    let (owner, shutdown) = (url(postgres, &name, "owner"), CancellationToken::new());
    // The one that is told to end while it waits, and the one that has its turn after that.
    let waited = || shutdown.cancel();
    assert!(!MIGRATIONS.apply_when_possible(&owner, &shutdown, waited).await.unwrap());
    let (waited, mut told) = tokio::sync::mpsc::unbounded_channel();
    let start = async move {
        let waiting = || {
            let _ = waited.send(());
        };
        WITH_INDEX.apply_when_possible(&owner, &CancellationToken::new(), waiting).await
    };
    let starting = tokio::spawn(start);
    told.recv().await.expect("it waits");
    open.commit().await.unwrap();
    assert!(starting.await.unwrap().unwrap());
    let versions = "SELECT count(*) FROM dbtest.migration";
    assert_eq!(sqlx::query_scalar::<_, i64>(versions).fetch_one(&mut holder).await.unwrap(), 3);
}

#[tokio::test]
async fn an_index_whose_building_was_cut_off_is_built_again_while_writers_go_on() {
    let postgres = shared().await.unwrap().postgres().unwrap();
    let (name, _) = fresh(postgres).await;
    let owner = url(postgres, &name, "owner");
    let mut connection = PgConnection::connect(owner.expose_secret()).await.unwrap();
    sqlx::query("CREATE INDEX note_body ON dbtest.note (body)").execute(&mut connection).await.unwrap();
    // As a building that was cut off leaves it.
    let cut = "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'dbtest.note_body'::regclass";
    postgres.execute(&name, cut).await.unwrap();
    // A writer in the middle of its transaction: the index waits for it, and it for nothing.
    let mut writer = PgConnection::connect(url(postgres, &name, "system").expose_secret()).await.unwrap();
    let mut open = writer.begin().await.unwrap();
    sqlx::query("INSERT INTO dbtest.note (tenant_uid, body) VALUES (1, 'a')").execute(&mut *open).await.unwrap();
    let (again, all) = (owner.clone(), &WITH_INDEX);
    let migrating = tokio::spawn(async move { all.apply(&again).await });
    sqlx::query("INSERT INTO dbtest.note (tenant_uid, body) VALUES (1, 'b')").execute(&mut *open).await.unwrap();
    open.commit().await.unwrap();
    assert_eq!(migrating.await.unwrap().unwrap(), 2);
    let valid = "SELECT count(*) FROM pg_index WHERE indisvalid AND indrelid = 'dbtest.note'::regclass";
    assert_eq!(sqlx::query_scalar::<_, i64>(valid).fetch_one(&mut connection).await.unwrap(), 2);
}
