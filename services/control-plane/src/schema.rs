//! The schema's migrations, and the check that what is served may be served.

use sluice_db::{Migration, Migrations};
use sluice_process::Error;
use sluice_proto::{Audience, RPCS};

/// Migrations of the schema `control`, applied by its owner.
pub static MIGRATIONS: Migrations = Migrations {
    schema: "control",
    files: &[
        Migration {
            version: 1,
            name: "roles_and_helpers",
            sql: include_str!("../../../migrations/control/0001_roles_and_helpers.sql"),
        },
        Migration {
            version: 2,
            name: "resources",
            sql: include_str!("../../../migrations/control/0002_resources.sql"),
        },
        Migration { version: 3, name: "changes", sql: include_str!("../../../migrations/control/0003_changes.sql") },
        Migration { version: 4, name: "fences", sql: include_str!("../../../migrations/control/0004_fences.sql") },
        Migration { version: 5, name: "groups", sql: include_str!("../../../migrations/control/0005_groups.sql") },
        Migration {
            version: 6,
            name: "owner_and_purge",
            sql: include_str!("../../../migrations/control/0006_owner_and_purge.sql"),
        },
        Migration {
            version: 7,
            name: "replaced_changes",
            sql: include_str!("../../../migrations/control/0007_replaced_changes.sql"),
        },
        Migration {
            version: 8,
            name: "sweeping_indexes",
            sql: include_str!("../../../migrations/control/0008_sweeping_indexes.sql"),
        },
        Migration {
            version: 9,
            name: "comparison",
            sql: include_str!("../../../migrations/control/0009_comparison.sql"),
        },
        Migration {
            version: 10,
            name: "timestamp_policy",
            sql: include_str!("../../../migrations/control/0010_timestamp_policy.sql"),
        },
        Migration {
            version: 11,
            name: "partitions_and_groups",
            sql: include_str!("../../../migrations/control/0011_partitions_and_groups.sql"),
        },
        Migration { version: 12, name: "clusters", sql: include_str!("../../../migrations/control/0012_clusters.sql") },
        Migration {
            version: 13,
            name: "placement",
            sql: include_str!("../../../migrations/control/0013_placement.sql"),
        },
    ],
};

/// Refuses to start when an RPC of a served service has no authorization, or one for another listener.
pub(crate) fn check_served(services: &[(&str, Audience)]) -> Result<(), Error> {
    for (service, audience) in services {
        let mut rpcs = RPCS.iter().filter(|rpc| rpc.service == *service).peekable();
        if rpcs.peek().is_none() {
            return Err(refused(service));
        }
        if let Some(rpc) = rpcs.find(|rpc| rpc.audience != *audience || rpc.permission.is_empty()) {
            return Err(refused(rpc.path));
        }
    }
    Ok(())
}

fn refused(what: &str) -> Error {
    Error::Refused(format!("{what} may not be served here: it has no fitting authorization option"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_on_the_wrong_listener_is_refused() {
        let topics = "sluice.admin.v1.TopicService";
        assert!(check_served(&[(topics, Audience::Tenant)]).is_ok());
        assert!(check_served(&[(topics, Audience::Operator)]).is_err());
        assert!(check_served(&[("sluice.admin.v1.NoSuchService", Audience::Tenant)]).is_err());
    }
}
