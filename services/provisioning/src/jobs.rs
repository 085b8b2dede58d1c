//! What provisioning does: a file per job.

pub mod forgetting;
pub mod reconcile;
pub mod resync;
pub mod topics;
