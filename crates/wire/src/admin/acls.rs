//! Who may do what: access control lists.

use std::time::Duration;

use super::message;
use crate::client::Client;
use crate::codec::{
    CreateAclsRequestData, DeleteAclsRequestData, DescribeAclsRequestData, create_acls_request, delete_acls_request,
    text,
};
use crate::deadline::Deadline;
use crate::error::{Error, KafkaError, Result};
use crate::pool::Lane;

macro_rules! wire_enum {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $number:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum $name { $($(#[$variant_doc])* $variant,)* }

        impl $name {
            fn wire(self) -> i8 {
                match self { $(Self::$variant => $number,)* }
            }

            fn from_wire(number: i8) -> Option<Self> {
                match number { $($number => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

wire_enum! {
    /// What an ACL protects.
    ResourceType {
        /// A topic.
        Topic = 2,
        /// A consumer group.
        Group = 3,
        /// The cluster; its name is `kafka-cluster`.
        Cluster = 4,
        /// A transactional id.
        TransactionalId = 5,
    }
}

wire_enum! {
    /// How an ACL's resource name is meant.
    PatternType {
        /// Exactly this name; `*` is any.
        Literal = 3,
        /// Every name that begins with it.
        Prefixed = 4,
    }
}

wire_enum! {
    /// What an ACL is about.
    AclOperation {
        /// Everything.
        All = 2,
        /// Read records; join a group.
        Read = 3,
        /// Write records.
        Write = 4,
        /// Make topics.
        Create = 5,
        /// Delete topics.
        Delete = 6,
        /// Change the resource.
        Alter = 7,
        /// See the resource.
        Describe = 8,
        /// Broker to broker and idempotent-less admin acts.
        ClusterAction = 9,
        /// See configs.
        DescribeConfigs = 10,
        /// Change configs.
        AlterConfigs = 11,
        /// Write with idempotence.
        IdempotentWrite = 12,
    }
}

wire_enum! {
    /// Whether an ACL allows.
    Permission {
        /// Forbids; wins over every allow.
        Deny = 2,
        /// Allows.
        Allow = 3,
    }
}

impl AclOperation {
    /// The operations of a field of bits, one for each number on the wire. A field that the broker did not fill has none.
    pub(crate) fn from_bits(bits: i32) -> Vec<Self> {
        if bits == i32::MIN {
            return Vec::new();
        }
        (0..31).filter(|bit| bits & (1 << bit) != 0).filter_map(Self::from_wire).collect()
    }
}

/// "Any" in filters.
const ANY: i8 = 1;

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AclBinding {
    /// Kind of resource.
    pub resource: ResourceType,
    /// Its name, or beginning of the name.
    pub name: String,
    /// How the name is meant.
    pub pattern: PatternType,
    /// `User:<name>`.
    pub principal: String,
    /// Host it may come from; `*` for any.
    pub host: String,
    /// What it is about.
    pub operation: AclOperation,
    /// Whether it allows.
    pub permission: Permission,
}

impl AclBinding {
    /// Allows a user, from any host.
    pub fn allow(
        user: &str,
        operation: AclOperation,
        resource: ResourceType,
        pattern: PatternType,
        name: impl Into<String>,
    ) -> Self {
        Self {
            resource,
            name: name.into(),
            pattern,
            principal: format!("User:{user}"),
            host: "*".to_owned(),
            operation,
            permission: Permission::Allow,
        }
    }
}

/// Which rules to list or delete; `None` matches any.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AclFilter {
    /// Kind of resource.
    pub resource: Option<ResourceType>,
    /// Resource name as written in the rule.
    pub name: Option<String>,
    /// `User:<name>`.
    pub principal: Option<String>,
}

impl Client {
    /// Adds rules; those that exist stay. Fails with the first refusal.
    pub async fn create_acls(&self, bindings: &[AclBinding], timeout: Duration) -> Result<()> {
        let creation = |binding: &AclBinding| create_acls_request::AclCreation {
            resource_type: binding.resource.wire(),
            resource_name: text(binding.name.as_str()),
            resource_pattern_type: binding.pattern.wire(),
            principal: text(binding.principal.as_str()),
            host: text(binding.host.as_str()),
            operation: binding.operation.wire(),
            permission_type: binding.permission.wire(),
            ..Default::default()
        };
        let request =
            CreateAclsRequestData { creations: bindings.iter().map(creation).collect(), ..Default::default() };
        let response = self
            .call_controller(
                &request,
                |answer| answer.results.iter().map(|result| result.error_code).collect(),
                Deadline::after(timeout),
            )
            .await?;
        if response.results.len() != bindings.len() {
            return Err(Error::Protocol("answer lacks rules".to_owned()));
        }
        for result in response.results {
            KafkaError::check(result.error_code, message(result.error_message))?;
        }
        Ok(())
    }

    /// Lists rules. Kinds this crate does not know are left out.
    pub async fn describe_acls(&self, filter: &AclFilter, timeout: Duration) -> Result<Vec<AclBinding>> {
        let request = DescribeAclsRequestData {
            resource_type_filter: filter.resource.map_or(ANY, ResourceType::wire),
            resource_name_filter: filter.name.as_deref().map(text),
            pattern_type_filter: ANY,
            principal_filter: filter.principal.as_deref().map(text),
            host_filter: None,
            operation: ANY,
            permission_type: ANY,
            ..Default::default()
        };
        let response = self.call_any(&request, Lane::Admin, Deadline::after(timeout)).await?;
        KafkaError::check(response.error_code, message(response.error_message))?;
        let mut bindings = Vec::new();
        for resource in response.resources {
            for acl in &resource.acls {
                bindings.extend(binding(
                    (resource.resource_type, resource.pattern_type, resource.resource_name.as_str()),
                    (acl.principal.as_str(), acl.host.as_str(), acl.operation, acl.permission_type),
                ));
            }
        }
        Ok(bindings)
    }

    /// Deletes the rules that match; tells how many there were.
    pub async fn delete_acls(&self, filter: &AclFilter, timeout: Duration) -> Result<usize> {
        let wire = delete_acls_request::DeleteAclsFilter {
            resource_type_filter: filter.resource.map_or(ANY, ResourceType::wire),
            resource_name_filter: filter.name.as_deref().map(text),
            pattern_type_filter: ANY,
            principal_filter: filter.principal.as_deref().map(text),
            host_filter: None,
            operation: ANY,
            permission_type: ANY,
            ..Default::default()
        };
        self.delete_matching_acls(vec![wire], timeout).await
    }

    /// Deletes exactly these rules; tells how many of them there were.
    pub async fn delete_acl_bindings(&self, bindings: &[AclBinding], timeout: Duration) -> Result<usize> {
        let exactly = |binding: &AclBinding| delete_acls_request::DeleteAclsFilter {
            resource_type_filter: binding.resource.wire(),
            resource_name_filter: Some(text(binding.name.as_str())),
            pattern_type_filter: binding.pattern.wire(),
            principal_filter: Some(text(binding.principal.as_str())),
            host_filter: Some(text(binding.host.as_str())),
            operation: binding.operation.wire(),
            permission_type: binding.permission.wire(),
            ..Default::default()
        };
        self.delete_matching_acls(bindings.iter().map(exactly).collect(), timeout).await
    }

    async fn delete_matching_acls(
        &self,
        filters: Vec<delete_acls_request::DeleteAclsFilter>,
        timeout: Duration,
    ) -> Result<usize> {
        let request = DeleteAclsRequestData { filters, ..Default::default() };
        let response = self
            .call_controller(
                &request,
                |answer| answer.filter_results.iter().map(|result| result.error_code).collect(),
                Deadline::after(timeout),
            )
            .await?;
        let mut deleted = 0;
        for result in response.filter_results {
            KafkaError::check(result.error_code, message(result.error_message))?;
            for acl in result.matching_acls {
                KafkaError::check(acl.error_code, message(acl.error_message))?;
                deleted += 1;
            }
        }
        Ok(deleted)
    }
}

fn binding(resource: (i8, i8, &str), rule: (&str, &str, i8, i8)) -> Option<AclBinding> {
    Some(AclBinding {
        resource: ResourceType::from_wire(resource.0)?,
        pattern: PatternType::from_wire(resource.1)?,
        name: resource.2.to_owned(),
        principal: rule.0.to_owned(),
        host: rule.1.to_owned(),
        operation: AclOperation::from_wire(rule.2)?,
        permission: Permission::from_wire(rule.3)?,
    })
}
