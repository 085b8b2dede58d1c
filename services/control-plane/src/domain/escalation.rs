//! Nobody gives what they do not have: grants of accounts and of keys must lie within the giver's own.

use sluice_types::{Error, ErrorKind, Grant, Reason, Role};

/// Whether every one of `given` is covered by one of `own`: at least that role, on at least those resources.
pub(crate) fn within(own: &[Grant], given: &[Grant]) -> bool {
    given
        .iter()
        .all(|grant| own.iter().any(|held| above(held.role, grant.role) && spans(&held.resource, &grant.resource)))
}

/// Refuses grants beyond the caller's own.
pub(crate) fn check(own: &[Grant], given: &[Grant]) -> Result<(), Error> {
    if within(own, given) {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::PermissionDenied,
        Reason::PermissionMissing,
        "the grants go beyond the caller's own; only what one has can be given on",
    ))
}

/// Whether a role can do all that another can.
fn above(held: Role, given: Role) -> bool {
    match (held, given) {
        (Role::Owner, _) => true,
        (Role::Developer, Role::Owner) => false,
        (Role::Developer, _) => true,
        (held, given) => held == given,
    }
}

/// Whether a pattern matches all that another one does.
fn spans(held: &str, given: &str) -> bool {
    if held == "*" {
        return true;
    }
    match (held.strip_suffix('*'), given.strip_suffix('*')) {
        (Some(held), Some(given)) => given.starts_with(held),
        (Some(held), None) => given.starts_with(held),
        // A prefix pattern may match siblings too, unless its fixed part already lies beneath what is held.
        (None, Some(given)) => given.strip_prefix(held).is_some_and(|rest| rest.starts_with('/')),
        (None, None) => given.strip_prefix(held).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(role: Role, resource: &str) -> Grant {
        Grant { role, resource: resource.into() }
    }

    #[test]
    fn only_what_one_has_can_be_given_on() {
        let owner = [grant(Role::Owner, "*")];
        for role in Role::ALL {
            assert!(within(&owner, &[grant(role, "*"), grant(role, "namespaces/a")]));
        }
        let developer = [grant(Role::Developer, "namespaces/prod")];
        assert!(within(&developer, &[grant(Role::Producer, "namespaces/prod/topics/a*")]));
        assert!(within(&developer, &[grant(Role::Viewer, "namespaces/prod")]));
        for beyond in ["*", "namespaces/prod*", "namespaces/production", "namespaces/other"] {
            assert!(!within(&developer, &[grant(Role::Producer, beyond)]), "{beyond}");
        }
        assert!(!within(&developer, &[grant(Role::Owner, "namespaces/prod")]));
        let prefix = [grant(Role::Producer, "namespaces/prod/topics/pay-*")];
        assert!(within(&prefix, &[grant(Role::Producer, "namespaces/prod/topics/pay-in")]));
        assert!(within(&prefix, &[grant(Role::Producer, "namespaces/prod/topics/pay-i*")]));
        assert!(!within(&prefix, &[grant(Role::Producer, "namespaces/prod/topics/*")]));
        assert!(!within(&prefix, &[grant(Role::Consumer, "namespaces/prod/topics/pay-in")]));
        let groups = [grant(Role::Consumer, "namespaces/prod/groups/*")];
        assert!(within(&groups, &[grant(Role::Consumer, "namespaces/prod/groups/billing")]));
        assert!(within(&developer, &[grant(Role::Consumer, "namespaces/prod/groups/*")]));
        assert!(!within(&groups, &[grant(Role::Consumer, "namespaces/prod/topics/billing")]));
    }

    #[test]
    fn a_role_above_another_has_all_its_permissions() {
        let permissions = [
            "namespaces.get",
            "namespaces.list",
            "namespaces.create",
            "topics.get",
            "topics.list",
            "topics.delete",
            "records.produce",
            "records.consume",
            "records.describe",
            "groups.create",
            "groups.get",
            "groups.list",
            "groups.update",
            "groups.delete",
            "groups.consume",
            "groups.describe",
            "groups.reset",
            "tenant.get",
            "operations.get",
            "usage.get",
            "serviceAccounts.get",
            "serviceAccounts.create",
            "apiKeys.create",
            "apiKeys.list",
        ];
        for held in Role::ALL {
            for given in Role::ALL.into_iter().filter(|given| above(held, *given)) {
                for permission in permissions.iter().filter(|permission| given.permits(permission)) {
                    assert!(held.permits(permission), "{held} above {given}: {permission}");
                }
            }
        }
    }
}
