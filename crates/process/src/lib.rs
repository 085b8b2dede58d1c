//! The life of a process: what every role needs, each once, around what is the role's own.
//!
//! A role is a type with a name, a configuration, a `build` and a list of stops ([`Role`]). The frame does the rest, in this order:
//! read the configuration and start the logs ([`run`]); make the Kafka client, health, metrics, fail points and tasks ([`Frame`]);
//! build the role; bind the admin listener; bring the schema up to date; start the role; wait for the shutdown; do the role's
//! stops ([`Stops`]); and last of all close the admin listener.
//!
//! Promises: nothing is served before all of it could be built; a critical task that ends shuts the process down and is its reason;
//! every stop has a name and a time, and one that runs over does not keep the next one from its turn; health and metrics can be read
//! to the end.

mod checks;
mod clusters;
mod config;
mod error;
mod frame;
mod listener;
pub mod page_token;
mod process;
mod role;
mod run;
mod stops;
mod tenant_defaults;

pub use clusters::{ClusterAccess, Clusters, ClustersConfig};
pub use config::{Common, RoleConfig, is_false};
pub use error::Error;
pub use frame::{Frame, secret};
pub use listener::{Listener, Manner, Serving};
pub use process::Process;
pub use role::{Life, Role};
pub use run::{Logs, run};
pub use stops::Stops;
pub use tenant_defaults::TenantDefaults;
