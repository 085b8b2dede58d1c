//! Bootstrap and migrations may be repeated, by many at once; an applied file must not change.

use sluice_db::{DbError, Migration, Migrations, bootstrap};
use sluice_devstack::shared;

use crate::support::{MIGRATIONS, fresh, roles, url};

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
