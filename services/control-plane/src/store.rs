//! SQL, a file per aggregate. Functions that touch a tenant's rows take a [`sluice_db::TenantTx`], so they run inside its
//! row-level security; only what is the system's own takes a [`sluice_db::SystemTx`]. No rules here: see `domain`.

pub(crate) mod account;
pub(crate) mod audit;
pub(crate) mod caller;
pub(crate) mod cluster;
pub(crate) mod comparison;
#[cfg(test)]
pub(crate) mod fixture;
pub(crate) mod group;
pub(crate) mod idempotency;
pub(crate) mod key;
pub(crate) mod lease;
pub(crate) mod lookup;
pub(crate) mod namespace;
pub(crate) mod operation;
pub(crate) mod outbox;
pub(crate) mod sweep;
pub(crate) mod tenant;
pub(crate) mod topic;
pub(crate) mod work;

pub(crate) type Result<T> = std::result::Result<T, sluice_db::DbError>;

/// A value stored as JSON.
pub(crate) use sqlx::types::Json;

/// Labels as stored.
pub(crate) type Labels = Json<std::collections::BTreeMap<String, String>>;
