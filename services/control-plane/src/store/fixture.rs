//! A migrated database of one test's own.

use sluice_db::{Database, DbConfig};
use sluice_devstack::{PostgresConnection, shared};
use sluice_installation::postgres::{Roles, bootstrap};

use crate::schema::MIGRATIONS;

const PASSWORD: &str = "for-tests";

pub(crate) struct TestDatabase {
    postgres: &'static PostgresConnection,
    name: String,
    pub(crate) database: Database,
}

impl TestDatabase {
    pub(crate) async fn prepare() -> Self {
        let postgres = shared().await.expect("stack").postgres().expect("postgres");
        let name = postgres.fresh_name("control").expect("name");
        let password = || PASSWORD.into();
        let roles = Roles {
            service: "control",
            owner_password: password(),
            app_password: password(),
            system_password: password(),
        };
        bootstrap(&postgres.url("postgres").into(), &name, &roles).await.expect("bootstrap");
        let url = |part: &str| postgres.url_as(&format!("sluice_control_{part}"), PASSWORD, &name).into();
        MIGRATIONS.apply(&url("owner")).await.expect("migrate");
        let database = Database::open(&DbConfig::new("test", url("app"), url("system"))).expect("open");
        Self { postgres, name, database }
    }

    /// Rows as the super user sees them, columns parted by `|`.
    pub(crate) async fn sql(&self, sql: &str) -> String {
        self.postgres.execute(&self.name, sql).await.expect("query")
    }
}
