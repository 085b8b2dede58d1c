//! The schema's migrations, embedded.

use sluice_db::{Migration, Migrations};

macro_rules! migration {
    ($version:literal, $name:literal, $file:literal) => {
        Migration {
            version: $version,
            name: $name,
            sql: include_str!(concat!("../../../../migrations/billing/", $file)),
        }
    };
}

/// All of schema `billing`.
pub const MIGRATIONS: Migrations = Migrations {
    schema: "billing",
    files: &[
        migration!(1, "roles and helpers", "0001_roles_and_helpers.sql"),
        migration!(2, "ingest", "0002_ingest.sql"),
        migration!(3, "usage", "0003_usage.sql"),
        migration!(4, "names", "0004_names.sql"),
        migration!(5, "fences", "0005_fences.sql"),
        migration!(6, "holes", "0006_holes.sql"),
        migration!(7, "control log anew", "0007_control_log_anew.sql"),
        migration!(8, "clusters", "0008_clusters.sql"),
    ],
};
