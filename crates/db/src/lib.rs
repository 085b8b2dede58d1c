//! PostgreSQL as our services use it: roles, migrations, and transactions that know whose they are.
//!
//! Promises:
//! - a tenant's rows are reached only through a [`TenantTx`], which carries the tenant into row-level security for exactly
//!   the length of one transaction; work of the system goes through [`SystemScope`], another PostgreSQL role;
//! - a transaction that is dropped, however and whenever, closes its connection: no connection goes back to its pool with a
//!   transaction open (sqlx's own `begin()` can do that when it is cancelled);
//! - work given to [`Database::run`] is not cut in half when the request that wanted it goes away;
//! - a tenant whose work waits keeps no connection from others, if its calls take [`Turns`];
//! - a database that is down or hangs is [`DbError::Unavailable`] within a bound, never a hanging call.
//!
//! Every database has three roles, made by the crate `sluice-installation`: an owner that migrates, an application role without DDL and
//! under row-level security, and a system role whose policies see all tenants.

mod config;
mod database;
mod error;
mod listen;
mod migrate;
mod transaction;
mod turns;

pub use config::{DbConfig, PoolConfig};
pub use database::{Database, RUN_LIMIT, SystemScope};
pub use error::DbError;
pub use listen::{Notification, listen};
pub use migrate::{Migration, Migrations};
/// For the owners of a schema: queries, rows, types.
pub use sqlx;
pub use transaction::{SystemTx, TenantTx};
pub use turns::{Kind, Turn, Turns};
