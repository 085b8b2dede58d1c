//! The names of uids, from the control log.

use sluice_db::sqlx::{self, postgres::PgConnection};
use sluice_db::{DbError, SystemScope};
use sluice_proto::internal::control::v1::Life;

use super::log_position::{
    Log, Position, log_position_adopted_on_conn, log_position_advance_on_conn, log_position_read_on_conn,
};

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
        /// The cluster that its log is on; `None`: it is not known, or there are several logs.
        cluster_uid: Option<i64>,
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

impl Named {
    /// The uid that it names.
    pub fn uid(&self) -> i64 {
        match self {
            Self::Tenant { uid, .. } | Self::Namespace { uid, .. } | Self::Topic { uid, .. } => *uid,
        }
    }
}

/// Which of two states of a uid stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// The one with the higher version.
    Newer,
    /// The one that the log says, whatever the versions were.
    Log,
}

/// Stores the changes read from `at` to `to` of the log, the latest appended at `read_ms`; false if another reader did.
pub async fn names_store(
    system: &SystemScope,
    log: &Log,
    (at, to): (Position, i64),
    read_ms: i64,
    changes: &[Named],
) -> Result<bool, DbError> {
    let mut tx = system.begin().await?;
    if !log_position_advance_on_conn(tx.conn(), log, at, to).await? {
        tx.rollback().await?;
        return Ok(false);
    }
    log_position_read_on_conn(tx.conn(), log, read_ms).await?;
    for change in changes {
        name_upsert_on_conn(tx.conn(), change, Rule::Newer).await?;
    }
    tx.commit().await?;
    Ok(true)
}

/// Makes some names be what a log says that was read anew; the position stays at `at`. False if another reader moved it.
pub async fn names_adopt(system: &SystemScope, log: &Log, at: Position, names: &[Named]) -> Result<bool, DbError> {
    let mut tx = system.begin().await?;
    if !log_position_advance_on_conn(tx.conn(), log, at, at.next).await? {
        tx.rollback().await?;
        return Ok(false);
    }
    for name in names {
        name_upsert_on_conn(tx.conn(), name, Rule::Log).await?;
    }
    tx.commit().await?;
    Ok(true)
}

/// Ends the adoption of a log of which all names are adopted, those of `known`: what it does not know is gone, and the position
/// moves. Rows stay, for usage outlives what was used; any later version of them counts. One statement a table over all its
/// rows; fine to some hundred thousand.
pub async fn names_adopted(
    system: &SystemScope,
    log: &Log,
    (at, to): (Position, i64),
    read_ms: i64,
    known: &[i64],
) -> Result<bool, DbError> {
    let mut tx = system.begin().await?;
    if !log_position_advance_on_conn(tx.conn(), log, at, to).await? {
        tx.rollback().await?;
        return Ok(false);
    }
    log_position_read_on_conn(tx.conn(), log, read_ms).await?;
    log_position_adopted_on_conn(tx.conn(), log).await?;
    for sql in [
        "UPDATE billing.tenant SET life = $1, version = 0 WHERE life <> $1 AND uid <> ALL($2)",
        "UPDATE billing.namespace SET life = $1, version = 0 WHERE life <> $1 AND uid <> ALL($2)",
        "UPDATE billing.topic SET life = $1, version = 0 WHERE life <> $1 AND uid <> ALL($2)",
    ] {
        sqlx::query(sql).bind(i32::from(Life::Gone)).bind(known).execute(tx.conn()).await?;
    }
    tx.commit().await?;
    Ok(true)
}

async fn name_upsert_on_conn(conn: &mut PgConnection, change: &Named, rule: Rule) -> Result<(), DbError> {
    let whatever_the_version = rule == Rule::Log;
    let query = match change {
        Named::Tenant { uid, id, life, version } => sqlx::query(
            "INSERT INTO billing.tenant AS t (uid, id, life, version) VALUES ($1, $2, $3, $4)
             ON CONFLICT (uid) DO UPDATE SET id = excluded.id, life = excluded.life, version = excluded.version
             WHERE $5 OR t.version < excluded.version",
        )
        .bind(uid)
        .bind(id)
        .bind(life)
        .bind(version)
        .bind(whatever_the_version),
        Named::Namespace { uid, tenant_uid, id, life, version } => sqlx::query(
            "INSERT INTO billing.namespace AS n (uid, tenant_uid, id, life, version) VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (uid) DO UPDATE SET id = excluded.id, life = excluded.life, version = excluded.version
             WHERE $6 OR n.version < excluded.version",
        )
        .bind(uid)
        .bind(tenant_uid)
        .bind(id)
        .bind(life)
        .bind(version)
        .bind(whatever_the_version),
        Named::Topic {
            uid,
            tenant_uid,
            namespace_uid,
            namespace_id,
            cluster_uid,
            id,
            life,
            partitions,
            final_end_offsets,
            version,
        } => sqlx::query(
            "INSERT INTO billing.topic AS t (uid, tenant_uid, namespace_uid, namespace_id, id, life, partitions,
                 final_end_offsets, version, cluster_uid)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $11)
             ON CONFLICT (uid) DO UPDATE SET life = excluded.life,
                 -- A deleted topic keeps the partitions that it had.
                 partitions = CASE WHEN $10 AND excluded.partitions > 0 THEN excluded.partitions
                     ELSE greatest(t.partitions, excluded.partitions) END,
                 final_end_offsets = excluded.final_end_offsets, version = excluded.version,
                 cluster_uid = excluded.cluster_uid
             WHERE $10 OR t.version < excluded.version",
        )
        .bind(uid)
        .bind(tenant_uid)
        .bind(namespace_uid)
        .bind(namespace_id)
        .bind(id)
        .bind(life)
        .bind(partitions)
        .bind(final_end_offsets)
        .bind(version)
        .bind(whatever_the_version)
        .bind(cluster_uid),
    };
    query.execute(conn).await?;
    Ok(())
}
