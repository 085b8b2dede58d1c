//! The names of uids, from the control log.

use sluice_db::sqlx::{self, postgres::PgConnection};
use sluice_db::{DbError, SystemScope};

use super::log_position::{Log, log_position_advance_on_conn};

/// One change of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Named {
    /// A tenant.
    Tenant {
        /// Its uid.
        uid: i64,
        /// Its id.
        id: String,
        /// Its life, as the control log numbers it.
        life: i32,
        /// Its version.
        version: i64,
    },
    /// A namespace.
    Namespace {
        /// Its uid.
        uid: i64,
        /// Its tenant.
        tenant_uid: i64,
        /// Its id.
        id: String,
        /// Its life.
        life: i32,
        /// Its version.
        version: i64,
    },
    /// A topic.
    Topic {
        /// Its uid.
        uid: i64,
        /// Its tenant.
        tenant_uid: i64,
        /// Its namespace.
        namespace_uid: i64,
        /// The namespace's id.
        namespace_id: String,
        /// Its id.
        id: String,
        /// Its life.
        life: i32,
        /// Partitions it has.
        partitions: i32,
        /// End offsets before it was deleted.
        final_end_offsets: Vec<i64>,
        /// Its version.
        version: i64,
    },
}

/// Stores the changes read from `[from, to)` of the log; false if another reader did.
pub async fn names_store(
    system: &SystemScope,
    log: &Log,
    from: i64,
    to: i64,
    changes: &[Named],
) -> Result<bool, DbError> {
    let mut tx = system.begin().await?;
    if !log_position_advance_on_conn(tx.conn(), log, from, to).await? {
        tx.rollback().await?;
        return Ok(false);
    }
    for change in changes {
        name_upsert_on_conn(tx.conn(), change).await?;
    }
    tx.commit().await?;
    Ok(true)
}

async fn name_upsert_on_conn(conn: &mut PgConnection, change: &Named) -> Result<(), DbError> {
    let query = match change {
        Named::Tenant { uid, id, life, version } => sqlx::query(
            "INSERT INTO billing.tenant AS t (uid, id, life, version) VALUES ($1, $2, $3, $4)
             ON CONFLICT (uid) DO UPDATE SET id = excluded.id, life = excluded.life, version = excluded.version
             WHERE t.version < excluded.version",
        )
        .bind(uid)
        .bind(id)
        .bind(life)
        .bind(version),
        Named::Namespace { uid, tenant_uid, id, life, version } => sqlx::query(
            "INSERT INTO billing.namespace AS n (uid, tenant_uid, id, life, version) VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (uid) DO UPDATE SET id = excluded.id, life = excluded.life, version = excluded.version
             WHERE n.version < excluded.version",
        )
        .bind(uid)
        .bind(tenant_uid)
        .bind(id)
        .bind(life)
        .bind(version),
        Named::Topic {
            uid,
            tenant_uid,
            namespace_uid,
            namespace_id,
            id,
            life,
            partitions,
            final_end_offsets,
            version,
        } => sqlx::query(
            "INSERT INTO billing.topic AS t (uid, tenant_uid, namespace_uid, namespace_id, id, life, partitions,
                 final_end_offsets, version)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
             ON CONFLICT (uid) DO UPDATE SET life = excluded.life,
                 -- A deleted topic keeps the partitions that it had.
                 partitions = greatest(t.partitions, excluded.partitions),
                 final_end_offsets = excluded.final_end_offsets, version = excluded.version
             WHERE t.version < excluded.version",
        )
        .bind(uid)
        .bind(tenant_uid)
        .bind(namespace_uid)
        .bind(namespace_id)
        .bind(id)
        .bind(life)
        .bind(partitions)
        .bind(final_end_offsets)
        .bind(version),
    };
    query.execute(conn).await?;
    Ok(())
}
