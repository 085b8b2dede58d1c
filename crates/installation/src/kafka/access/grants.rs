//! What each role does on Kafka.

use sluice_types::physical::{CONTROL_TOPIC, INTERNAL_PREFIX, MEMBERS_TOPIC, USAGE_TOPIC};
use sluice_wire::{AclBinding, AclOperation, PatternType, ResourceType};

use super::super::Principals;

const BASE32: &str = "abcdefghijklmnopqrstuvwxyz234567";

/// What one principal may do with one kind of things.
#[derive(Debug, Clone)]
pub struct Grant {
    /// The principal, without `User:`.
    pub user: String,
    /// What it is about, for people.
    pub what: String,
    resource: ResourceType,
    pattern: PatternType,
    names: Vec<String>,
    operations: &'static [AclOperation],
}

impl Grant {
    /// As Kafka's rules.
    pub fn rules(&self) -> Vec<AclBinding> {
        let rule = |name: &String, operation: &AclOperation| {
            AclBinding::allow(&self.user, *operation, self.resource, self.pattern, name.as_str())
        };
        self.names.iter().flat_map(|name| self.operations.iter().map(move |operation| rule(name, operation))).collect()
    }

    /// The operations, for people.
    pub fn operations(&self) -> String {
        let names: Vec<String> = self.operations.iter().map(|operation| format!("{operation:?}")).collect();
        names.join(", ")
    }
}

pub(super) fn grants(principals: &Principals) -> Vec<Grant> {
    use AclOperation::{Alter, AlterConfigs, Create, Delete, Describe, IdempotentWrite, Read, Write};

    let Principals { gateway, control_plane, provisioning, billing } = principals;
    // Read, Write, Delete and Alter bring Describe; AlterConfigs brings DescribeConfigs.
    vec![
        tenants(gateway, ResourceType::Topic, &[Read, Write]),
        // Read: be a member, make another one leave, commit. Delete: forget groups and offsets. AlterConfigs: a group's own
        // session timeout. Tenants' groups are named like their topics.
        tenants(gateway, ResourceType::Group, &[Read, Delete, AlterConfigs]),
        topic(gateway, CONTROL_TOPIC, &[Read]),
        topic(gateway, MEMBERS_TOPIC, &[Read, Write]),
        topic(gateway, USAGE_TOPIC, &[Write]),
        cluster(gateway, &[IdempotentWrite]),
        internal(control_plane, &[Create, Read, Write, Alter, AlterConfigs]),
        cluster(control_plane, &[IdempotentWrite]),
        tenants(provisioning, ResourceType::Topic, &[Create, Delete, Alter, AlterConfigs]),
        // Groups that their tenants deleted.
        tenants(provisioning, ResourceType::Group, &[Delete]),
        cluster(provisioning, &[Describe]),
        topic(billing, USAGE_TOPIC, &[Read]),
        topic(billing, CONTROL_TOPIC, &[Read]),
        tenants(billing, ResourceType::Topic, &[Describe]),
    ]
}

fn tenants(user: &str, resource: ResourceType, operations: &'static [AclOperation]) -> Grant {
    let what = if resource == ResourceType::Group { "tenants' groups" } else { "tenants' topics" };
    grant(user, what, resource, PatternType::Prefixed, tenant_prefixes(), operations)
}

fn topic(user: &str, name: &str, operations: &'static [AclOperation]) -> Grant {
    grant(user, name, ResourceType::Topic, PatternType::Literal, vec![name.to_owned()], operations)
}

fn internal(user: &str, operations: &'static [AclOperation]) -> Grant {
    let names = vec![INTERNAL_PREFIX.to_owned()];
    grant(user, "topics sluice.…", ResourceType::Topic, PatternType::Prefixed, names, operations)
}

fn cluster(user: &str, operations: &'static [AclOperation]) -> Grant {
    let names = vec!["kafka-cluster".to_owned()];
    grant(user, "the cluster", ResourceType::Cluster, PatternType::Literal, names, operations)
}

fn grant(
    user: &str,
    what: &str,
    resource: ResourceType,
    pattern: PatternType,
    names: Vec<String>,
    operations: &'static [AclOperation],
) -> Grant {
    Grant { user: user.to_owned(), what: what.to_owned(), resource, pattern, names, operations }
}

/// The fewest prefixes such that each name of base32 characters begins with one of them, and no name that begins with
/// [`INTERNAL_PREFIX`] does.
pub(super) fn tenant_prefixes() -> Vec<String> {
    let mut prefixes = Vec::new();
    for (index, reserved) in INTERNAL_PREFIX.char_indices() {
        let others = BASE32.chars().filter(|c| *c != reserved);
        prefixes.extend(others.map(|c| format!("{}{c}", &INTERNAL_PREFIX[..index])));
    }
    prefixes
}
