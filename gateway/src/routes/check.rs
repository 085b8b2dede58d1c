//! Before anything is served: every RPC that would be has an authorization for tenants.

use prost::Message;
use prost_types::FileDescriptorSet;

use sluice_proto::{Audience, FILE_DESCRIPTOR_SET, rpc_by_path};

use crate::error::BuildError;

/// The services that tenants reach with a credential.
pub const SERVED: &[&str] = &[
    "sluice.stream.v1.StreamService",
    "sluice.stream.v1.ConsumerService",
    "sluice.admin.v1.TenantService",
    "sluice.admin.v1.NamespaceService",
    "sluice.admin.v1.TopicService",
    "sluice.admin.v1.GroupService",
    "sluice.admin.v1.ServiceAccountService",
    "sluice.admin.v1.OperationService",
    "sluice.billing.v1.UsageService",
    "sluice.server.v1.ServerService",
];

/// Fails for the first RPC of a served service that the access table does not give to tenants with a permission.
pub(super) fn authorizations() -> Result<(), BuildError> {
    let broken = || BuildError::Authorization("(the descriptors cannot be read)".into());
    let set = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).map_err(|_| broken())?;
    let mut found = 0;
    for file in &set.file {
        for service in &file.service {
            let name = format!("{}.{}", file.package(), service.name());
            if !SERVED.contains(&name.as_str()) {
                continue;
            }
            found += 1;
            for method in &service.method {
                let path = format!("/{name}/{}", method.name());
                let decided = rpc_by_path(&path)
                    .is_some_and(|rpc| rpc.audience == Audience::Tenant && !rpc.permission.is_empty());
                if !decided {
                    return Err(BuildError::Authorization(path));
                }
            }
        }
    }
    if found == SERVED.len() { Ok(()) } else { Err(broken()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_served_rpc_has_an_authorization_and_every_tenants_service_is_served() {
        authorizations().expect("all decided");
        for rpc in sluice_proto::RPCS.iter().filter(|rpc| rpc.audience == Audience::Tenant) {
            assert!(SERVED.contains(&rpc.service), "{} is for tenants and nobody serves it", rpc.path);
        }
    }
}
