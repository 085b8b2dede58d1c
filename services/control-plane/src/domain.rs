//! The rules, without I/O: what is valid, who may, what follows. Everything here can be tested with values alone.

pub(crate) mod access;
pub(crate) mod escalation;
pub(crate) mod etag;
pub(crate) mod fields;
pub(crate) mod group;
pub(crate) mod intent;
pub(crate) mod mask;
pub(crate) mod page;
pub(crate) mod present;
pub(crate) mod record;
pub(crate) mod topic;
