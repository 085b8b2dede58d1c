//! What a Kafka cluster and a PostgreSQL server need to be ours, in one place: principals, access rules, internal topics, broker
//! settings, database roles, databases.
//!
//! What must be is data ([`kafka::Wanted`], [`postgres::Wanted`]). `observe` looks at the real thing, `plan` is pure and says what
//! differs, `apply` removes one difference. `sluiced install`, the control plane (internal topics) and the local stack use it.
//!
//! Promises:
//! - nothing is touched that carries no name of ours: other topics, other principals' rules, other roles and databases; rules that
//!   deny; settings of brokers, which belong to everybody on the cluster, are only told;
//! - applying twice changes nothing the second time;
//! - what may not be seen is told with the right that is missing, and the rest is looked at all the same.

mod difference;
pub mod kafka;
pub mod postgres;
mod setting;

pub use difference::{Difference, Remedy, State};
pub use setting::{Rule, Setting};
