//! Who may do what: the decision for one call, from the grants as they stand in its transaction.
//!
//! A resource that no grant of the caller covers is answered exactly as an absent one. One that is covered, but not with
//! the permission, is PERMISSION_DENIED, whether it exists or not: the answer must not depend on that.

use sluice_types::role::{allows, sees};
use sluice_types::{Error, ErrorKind, Grant, Reason};

/// Decides. An empty resource is the tenant as a whole, which every principal of it sees.
pub(crate) fn authorize(grants: &[Grant], permission: &str, resource: &str) -> Result<(), Error> {
    if allows(grants, permission, resource) {
        return Ok(());
    }
    if resource.is_empty() || sees(grants, resource) {
        return Err(denied(permission, resource));
    }
    Err(Error::not_found(resource))
}

fn denied(permission: &str, resource: &str) -> Error {
    let on = if resource.is_empty() { "the tenant" } else { resource };
    Error::new(
        ErrorKind::PermissionDenied,
        Reason::PermissionMissing,
        format!("the principal lacks the permission {permission} on {on}; ask an owner for a role that has it"),
    )
    .with_metadata("permission", permission)
    .with_metadata("resource", resource)
}

/// The credential stopped working between the gateway's look at it and ours, or there is no such account.
pub(crate) fn credential_invalid() -> Error {
    Error::new(ErrorKind::Unauthenticated, Reason::CredentialInvalid, "the API key is not valid")
}

/// The tenant is switched off.
pub(crate) fn tenant_suspended() -> Error {
    Error::new(ErrorKind::PermissionDenied, Reason::TenantSuspended, "the tenant is suspended; ask the operator")
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_types::Role;

    fn grants(role: Role, resource: &str) -> Vec<Grant> {
        vec![Grant { role, resource: resource.into() }]
    }

    #[test]
    fn what_no_grant_covers_looks_absent_and_what_one_covers_is_denied() {
        let grants = grants(Role::Producer, "namespaces/prod");
        let hidden = authorize(&grants, "topics.get", "namespaces/other/topics/a").expect_err("hidden");
        assert_eq!(hidden.message, Error::not_found("namespaces/other/topics/a").message);
        assert_eq!(hidden.kind, ErrorKind::NotFound);
        let denied = authorize(&grants, "topics.delete", "namespaces/prod/topics/a").expect_err("denied");
        assert_eq!(denied.kind, ErrorKind::PermissionDenied);
        assert!(authorize(&grants, "topics.get", "namespaces/prod/topics/a").is_ok());
        assert_eq!(authorize(&grants, "namespaces.list", "").expect_err("denied").kind, ErrorKind::PermissionDenied);
    }
}
