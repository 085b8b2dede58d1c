//! Roles: what a principal may do, and on what.
//!
//! The one table is [`Role::permits`]; gateways use it for data calls, the control plane for admin calls. Deny by default:
//! a permission that no arm names is the owner's alone. Resources are patterns over the tenants' name form.

use std::fmt;
use std::str::FromStr;

/// A role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Everything.
    Owner,
    /// Namespaces, topics and groups; produce, fetch and consume.
    Developer,
    /// Produce.
    Producer,
    /// Fetch, consume, make groups.
    Consumer,
    /// Look at resources and usage, not at records.
    Viewer,
}

/// A text that is no role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("parse role")]
pub struct ParseRoleError;

impl Role {
    /// All roles.
    pub const ALL: [Self; 5] = [Self::Owner, Self::Developer, Self::Producer, Self::Consumer, Self::Viewer];

    /// Its word in logs, SQL and the control log.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Developer => "developer",
            Self::Producer => "producer",
            Self::Consumer => "consumer",
            Self::Viewer => "viewer",
        }
    }

    /// Whether this role has a permission, e.g. `topics.create`.
    pub fn permits(self, permission: &str) -> bool {
        let (noun, verb) = permission.split_once('.').unwrap_or((permission, ""));
        let looks = matches!(verb, "get" | "list");
        // What the server is, not what the tenant has.
        if permission == "server.get" {
            return true;
        }
        match self {
            Self::Owner => true,
            Self::Developer => match noun {
                "namespaces" | "topics" | "records" | "groups" => true,
                "tenant" | "operations" | "usage" | "serviceAccounts" => looks,
                _ => false,
            },
            Self::Producer => {
                matches!(permission, "records.produce" | "records.describe" | "topics.get" | "tenant.get")
            }
            Self::Consumer => {
                matches!(permission, "records.consume" | "records.describe" | "topics.get" | "tenant.get")
                    || noun == "groups" && (looks || matches!(verb, "create" | "consume" | "describe"))
            }
            Self::Viewer => match noun {
                "namespaces" | "topics" | "tenant" | "operations" | "usage" | "serviceAccounts" => looks,
                "records" => verb == "describe",
                "groups" => looks || verb == "describe",
                _ => false,
            },
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = ParseRoleError;

    fn from_str(text: &str) -> Result<Self, ParseRoleError> {
        Self::ALL.into_iter().find(|role| role.as_str() == text).ok_or(ParseRoleError)
    }
}

/// A role on the resources that a pattern matches.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Grant {
    /// The role.
    pub role: Role,
    /// `*`, `namespaces/{ns}`, `namespaces/{ns}/topics/{topic}`, `namespaces/{ns}/groups/{group}`, or one of them with `*` at its very end as a prefix.
    pub resource: String,
}

impl Grant {
    /// Whether the pattern covers a resource. An empty resource is the tenant itself and needs the pattern `*`. A namespace
    /// covers all beneath it.
    pub fn covers(&self, resource: &str) -> bool {
        if self.resource == "*" {
            return true;
        }
        if resource.is_empty() {
            return false;
        }
        match self.resource.strip_suffix('*') {
            Some(prefix) => resource.starts_with(prefix),
            None => resource
                .strip_prefix(self.resource.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
        }
    }
}

/// Whether any grant gives `permission` on `resource`.
pub fn allows(grants: &[Grant], permission: &str, resource: &str) -> bool {
    grants.iter().any(|grant| grant.role.permits(permission) && grant.covers(resource))
}

/// Whether any grant gives `permission`, on whatever resource: for calls that are about none of the tenant's.
pub fn allows_somewhere(grants: &[Grant], permission: &str) -> bool {
    grants.iter().any(|grant| grant.role.permits(permission))
}

/// Whether any grant lets its holder see that `resource` exists; decides between "not found" and "permission denied".
pub fn sees(grants: &[Grant], resource: &str) -> bool {
    grants.iter().any(|grant| grant.covers(resource))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(role: Role, resource: &str) -> Grant {
        Grant { role, resource: resource.into() }
    }

    #[test]
    fn patterns_end_at_segment_borders_unless_they_are_prefixes() {
        let exact = grant(Role::Producer, "namespaces/prod");
        assert!(exact.covers("namespaces/prod"));
        assert!(exact.covers("namespaces/prod/topics/a"));
        assert!(!exact.covers("namespaces/production"));
        assert!(!exact.covers(""));
        let prefix = grant(Role::Producer, "namespaces/prod/topics/pay-*");
        assert!(prefix.covers("namespaces/prod/topics/pay-ins"));
        assert!(!prefix.covers("namespaces/prod/topics/refunds"));
    }

    #[test]
    fn deny_is_the_default() {
        assert!(!allows(&[], "records.produce", "namespaces/a/topics/b"));
        assert!(!allows(&[grant(Role::Consumer, "*")], "records.produce", "namespaces/a/topics/b"));
        assert!(allows(&[grant(Role::Producer, "*")], "records.produce", "namespaces/a/topics/b"));
        assert!(!allows(&[grant(Role::Developer, "*")], "apiKeys.create", "serviceAccounts/a"));
        assert!(!allows(&[grant(Role::Viewer, "*")], "records.consume", "namespaces/a/topics/b"));
        assert!(allows(&[grant(Role::Consumer, "*")], "groups.consume", "namespaces/a/groups/b"));
        assert!(!allows(&[grant(Role::Consumer, "*")], "groups.reset", "namespaces/a/groups/b"));
    }

    #[test]
    fn every_role_on_anything_may_ask_what_the_server_is_and_nobody_else() {
        for role in Role::ALL {
            assert!(allows_somewhere(&[grant(role, "namespaces/prod/topics/orders")], "server.get"));
        }
        assert!(!allows_somewhere(&[], "server.get"));
        assert!(!allows_somewhere(&[grant(Role::Viewer, "*")], "records.produce"));
    }
}
