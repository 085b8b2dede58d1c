//! Names that users choose, and the paths made of them.
//!
//! `namespaces/prod/topics/orders` is the tenants' form, `tenants/acme/namespaces/prod` the operator's. Parsing checks the
//! grammar of every part; errors say which part is wrong and what would be right, and never whether it exists.

use std::fmt;
use std::str::FromStr;

/// Characters of a tenant, namespace or account id at most.
pub const ID_LEN_MAX: usize = 63;
/// Characters of a topic id at most; Kafka's own limit.
pub const TOPIC_ID_LEN_MAX: usize = 249;
/// Longest resource name we look at; longer ones are refused unread.
pub const RESOURCE_NAME_LEN_MAX: usize = 512;

/// A name that does not follow its grammar. The text may be shown to users.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NameError(pub String);

const ID_RULE: &str = "must be 1..63 characters of a-z, 0-9 and '-', begin with a letter and not end with '-'";
const TOPIC_RULE: &str = "must be 1..249 characters of A-Z, a-z, 0-9, '.', '_' and '-', and not be '.' or '..'";

fn is_id(text: &str) -> bool {
    let bytes = text.as_bytes();
    (1..=ID_LEN_MAX).contains(&bytes.len())
        && bytes[0].is_ascii_lowercase()
        && bytes[bytes.len() - 1] != b'-'
        && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
}

fn is_topic_id(text: &str) -> bool {
    (1..=TOPIC_ID_LEN_MAX).contains(&text.len())
        && text != "."
        && text != ".."
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

macro_rules! user_id {
    ($(#[$doc:meta] $name:ident, $what:literal, $check:ident, $rule:ident;)*) => {$(
        #[$doc]
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Box<str>);

        impl $name {
            /// As text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                if $check(text) {
                    Ok(Self(text.into()))
                } else {
                    Err(NameError(format!(concat!($what, " {}"), $rule)))
                }
            }
        }
    )*};
}

user_id! {
    /// Id of a tenant, chosen by the operator.
    TenantId, "a tenant id", is_id, ID_RULE;
    /// Id of a Kafka cluster, chosen by the operator.
    ClusterId, "a cluster id", is_id, ID_RULE;
    /// Id of a namespace within its tenant.
    NamespaceId, "a namespace id", is_id, ID_RULE;
    /// Id of a service account within its tenant.
    AccountId, "a service account id", is_id, ID_RULE;
    /// Id of a topic within its namespace.
    TopicId, "a topic id", is_topic_id, TOPIC_RULE;
    /// Id of a consumer group within its namespace; the grammar is a topic's.
    GroupId, "a group id", is_topic_id, TOPIC_RULE;
}

/// A parsed resource name in the tenants' form.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ResourceName {
    /// `namespaces/{namespace}`.
    Namespace(NamespaceId),
    /// `namespaces/{namespace}/topics/{topic}`.
    Topic(NamespaceId, TopicId),
    /// `namespaces/{namespace}/groups/{group}`.
    Group(NamespaceId, GroupId),
    /// `serviceAccounts/{account}`.
    Account(AccountId),
    /// `serviceAccounts/{account}/apiKeys/{key}`; the key id is not checked here.
    ApiKey(AccountId, String),
    /// `operations/{operation}`; the id is not checked here.
    Operation(String),
    /// `tenants/{tenant}`, in the operator's API.
    Tenant(TenantId),
    /// `tenants/{tenant}/namespaces/{namespace}`, in the operator's API.
    TenantNamespace(TenantId, NamespaceId),
    /// `clusters/{cluster}`, in the operator's API.
    Cluster(ClusterId),
}

impl ResourceName {
    /// Parses `namespaces/{namespace}/topics/{topic}`.
    pub fn parse_topic(text: &str) -> Result<(NamespaceId, TopicId), NameError> {
        match text.parse()? {
            Self::Topic(namespace, topic) => Ok((namespace, topic)),
            _ => Err(NameError("must look like namespaces/{namespace}/topics/{topic}".into())),
        }
    }

    /// Parses `namespaces/{namespace}/groups/{group}`.
    pub fn parse_group(text: &str) -> Result<(NamespaceId, GroupId), NameError> {
        match text.parse()? {
            Self::Group(namespace, group) => Ok((namespace, group)),
            _ => Err(NameError("must look like namespaces/{namespace}/groups/{group}".into())),
        }
    }

    /// Parses `namespaces/{namespace}`.
    pub fn parse_namespace(text: &str) -> Result<NamespaceId, NameError> {
        match text.parse()? {
            Self::Namespace(namespace) => Ok(namespace),
            _ => Err(NameError("must look like namespaces/{namespace}".into())),
        }
    }

    /// Parses `serviceAccounts/{account}`.
    pub fn parse_account(text: &str) -> Result<AccountId, NameError> {
        match text.parse()? {
            Self::Account(account) => Ok(account),
            _ => Err(NameError("must look like serviceAccounts/{account}".into())),
        }
    }

    /// Parses `tenants/{tenant}`.
    pub fn parse_tenant(text: &str) -> Result<TenantId, NameError> {
        match text.parse()? {
            Self::Tenant(tenant) => Ok(tenant),
            _ => Err(NameError("must look like tenants/{tenant}".into())),
        }
    }

    /// Parses `tenants/{tenant}/namespaces/{namespace}`.
    pub fn parse_tenant_namespace(text: &str) -> Result<(TenantId, NamespaceId), NameError> {
        match text.parse()? {
            Self::TenantNamespace(tenant, namespace) => Ok((tenant, namespace)),
            _ => Err(NameError("must look like tenants/{tenant}/namespaces/{namespace}".into())),
        }
    }

    /// Parses `clusters/{cluster}`.
    pub fn parse_cluster(text: &str) -> Result<ClusterId, NameError> {
        match text.parse()? {
            Self::Cluster(cluster) => Ok(cluster),
            _ => Err(NameError("must look like clusters/{cluster}".into())),
        }
    }
}

impl FromStr for ResourceName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.len() > RESOURCE_NAME_LEN_MAX {
            return Err(NameError(format!("must be at most {RESOURCE_NAME_LEN_MAX} bytes long")));
        }
        let parts: Vec<&str> = text.split('/').collect();
        match parts.as_slice() {
            ["namespaces", namespace] => Ok(Self::Namespace(namespace.parse()?)),
            ["namespaces", namespace, "topics", topic] => Ok(Self::Topic(namespace.parse()?, topic.parse()?)),
            ["namespaces", namespace, "groups", group] => Ok(Self::Group(namespace.parse()?, group.parse()?)),
            ["serviceAccounts", account] => Ok(Self::Account(account.parse()?)),
            ["serviceAccounts", account, "apiKeys", key] => Ok(Self::ApiKey(account.parse()?, (*key).into())),
            ["operations", operation] => Ok(Self::Operation((*operation).into())),
            ["tenants", tenant] => Ok(Self::Tenant(tenant.parse()?)),
            ["tenants", tenant, "namespaces", namespace] => {
                Ok(Self::TenantNamespace(tenant.parse()?, namespace.parse()?))
            }
            ["clusters", cluster] => Ok(Self::Cluster(cluster.parse()?)),
            _ => Err(NameError("is not the name of a resource, e.g. namespaces/prod/topics/orders".into())),
        }
    }
}

impl fmt::Display for ResourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Namespace(namespace) => write!(f, "namespaces/{namespace}"),
            Self::Topic(namespace, topic) => write!(f, "namespaces/{namespace}/topics/{topic}"),
            Self::Group(namespace, group) => write!(f, "namespaces/{namespace}/groups/{group}"),
            Self::Account(account) => write!(f, "serviceAccounts/{account}"),
            Self::ApiKey(account, key) => write!(f, "serviceAccounts/{account}/apiKeys/{key}"),
            Self::Operation(operation) => write!(f, "operations/{operation}"),
            Self::Tenant(tenant) => write!(f, "tenants/{tenant}"),
            Self::TenantNamespace(tenant, namespace) => write!(f, "tenants/{tenant}/namespaces/{namespace}"),
            Self::Cluster(cluster) => write!(f, "clusters/{cluster}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_follow_kafkas_grammar() {
        for good in ["a", "a.b", "a_b", "A-1", &"x".repeat(249), "...", "-"] {
            assert!(good.parse::<TopicId>().is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "ä", "a b", "a\0", &"x".repeat(250)] {
            assert!(bad.parse::<TopicId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn names_come_back_as_they_were() {
        for text in [
            "namespaces/prod",
            "namespaces/prod/topics/a.b",
            "namespaces/prod/groups/a",
            "serviceAccounts/x/apiKeys/k",
            "tenants/t",
            "tenants/t/namespaces/prod",
            "clusters/second",
        ] {
            assert_eq!(text.parse::<ResourceName>().expect(text).to_string(), text);
        }
        for text in ["", "namespaces", "namespaces/", "namespaces/-a", "namespaces/a/topics/..", "/namespaces/a"] {
            assert!(text.parse::<ResourceName>().is_err(), "{text}");
        }
    }
}
