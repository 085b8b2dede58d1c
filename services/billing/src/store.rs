//! PostgreSQL, schema `billing`: a file per aggregate. All that changes rows runs as the system, all that answers a tenant
//! runs under row-level security as that tenant.

pub mod ingest;
pub mod log_position;
pub mod migrations;
pub mod names;
pub mod sources;
pub mod uncovered;
pub mod usage;
