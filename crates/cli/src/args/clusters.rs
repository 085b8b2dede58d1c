//! `sluice clusters`.

use clap::Subcommand;

use super::Page;
use super::values::tenant_namespace;

#[derive(Subcommand)]
pub(crate) enum Clusters {
    /// Create a cluster; its uid names its section in the configuration of the processes, [clusters.<uid>]
    Create { cluster: String },
    /// Show a cluster
    Get { cluster: String },
    /// List clusters
    List(Page),
    /// Show on which cluster the topics of a tenant's namespace are made
    Placement {
        /// tenant/namespace, or tenants/{tenant}/namespaces/{namespace}
        #[arg(value_parser = tenant_namespace)]
        namespace: String,
    },
    /// Make new topics of a tenant's namespace on a cluster; those that it has stay where they are
    Place {
        /// tenant/namespace, or tenants/{tenant}/namespaces/{namespace}
        #[arg(value_parser = tenant_namespace)]
        namespace: String,
        cluster: String,
    },
}
