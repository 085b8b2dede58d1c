//! Changes: each function is one transaction that writes the resource, its operation, the audit event, the outbox row and
//! the remembered answer, or nothing of it. Authorization happens inside, on grants read in the same transaction.

pub(crate) mod account;
pub(crate) mod answer;
mod call;
pub(crate) mod cascade;
pub(crate) mod cluster;
mod finish;
pub(crate) mod group;
pub(crate) mod key;
pub(crate) mod namespace;
pub(crate) mod report;
pub(crate) mod tenant;
pub(crate) mod topic;
pub(crate) mod transaction;

pub(crate) use answer::{Answer, Started};
pub(crate) use call::Call;
pub(crate) use transaction::{Committed, Envelope, Txn, change, read};
