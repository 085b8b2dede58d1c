//! What goes on beside the calls. Jobs take no input, re-read the world, and are harmless to run twice.

pub(crate) mod barrier;
pub(crate) mod comparison;
pub(crate) mod control_log;
pub(crate) mod members;
pub(crate) mod relay;
pub(crate) mod revisions;
pub(crate) mod sweep;
pub(crate) mod system_topics;
pub(crate) mod watch;
