//! A database of its own for each test, with one table under row-level security.

use sluice_db::{Database, DbConfig, Migration, Migrations};
use sluice_devstack::PostgresConnection;
use sluice_installation::postgres::{Roles, bootstrap};
use sluice_types::{TenantScope, TenantUid};

const PASSWORD: &str = "for-tests";

pub(crate) static MIGRATIONS: Migrations = Migrations {
    schema: "dbtest",
    files: &[Migration {
        version: 1,
        name: "notes",
        sql: "CREATE TABLE dbtest.note (tenant_uid bigint NOT NULL, body text NOT NULL);
              GRANT USAGE ON SCHEMA dbtest TO sluice_dbtest_app, sluice_dbtest_system;
              GRANT SELECT, INSERT ON dbtest.note TO sluice_dbtest_app, sluice_dbtest_system;
              ALTER TABLE dbtest.note ENABLE ROW LEVEL SECURITY;
              ALTER TABLE dbtest.note FORCE ROW LEVEL SECURITY;
              CREATE POLICY of_tenant ON dbtest.note TO sluice_dbtest_app
                  USING (tenant_uid = nullif(current_setting('app.tenant_id', true), '')::bigint);
              CREATE POLICY of_system ON dbtest.note TO sluice_dbtest_system USING (true);",
    }],
};

pub(crate) fn roles() -> Roles {
    Roles {
        service: "dbtest",
        owner_password: PASSWORD.into(),
        app_password: PASSWORD.into(),
        system_password: PASSWORD.into(),
    }
}

pub(crate) fn url(postgres: &PostgresConnection, name: &str, part: &str) -> secrecy::SecretString {
    postgres.url_as(&format!("sluice_dbtest_{part}"), PASSWORD, name).into()
}

/// A migrated database.
pub(crate) async fn fresh(postgres: &PostgresConnection) -> (String, Database) {
    let name = postgres.fresh_name("db").unwrap();
    bootstrap(&postgres.url("postgres").into(), &name, &roles()).await.unwrap();
    assert_eq!(MIGRATIONS.apply(&url(postgres, &name, "owner")).await.unwrap(), 1);
    let database = open(postgres, &name, 4);
    (name, database)
}

pub(crate) fn open(postgres: &PostgresConnection, name: &str, connections_max: u32) -> Database {
    let mut config = DbConfig::new("test", url(postgres, name, "app"), url(postgres, name, "system"));
    config.app.connections_max = connections_max;
    Database::open(&config).unwrap()
}

pub(crate) fn tenant(id: &str) -> TenantScope {
    TenantScope::from_verified(TenantUid::random(), id.parse().unwrap())
}
