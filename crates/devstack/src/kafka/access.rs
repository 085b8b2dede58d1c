//! Who may do what on the local Kafka: for each role what it does, and no more. No rule denies.
//!
//! Kafka has no patterns beyond "begins with". A tenant's topic is `{13 base32}.{13 base32}`; ours begin with `sluice.`,
//! Kafka's own with `__`. One rule for `*` would open the latter two, and a deny beside it would have to know every
//! topic that we will ever add. Instead the rules name the fewest beginnings that cover every base32 name and none of
//! ours ([`tenant_prefixes`], 218 of them), so that a new `sluice.` topic is closed until somebody opens it.

use std::collections::HashSet;
use std::time::Duration;

use sluice_wire::{AclBinding, AclFilter, AclOperation, Client, PatternType, ResourceType};

use crate::error::{Error, Result};
use crate::secrets::{BILLING, CONTROL_PLANE, GATEWAY, PROVISIONING};

const BASE32: &str = "abcdefghijklmnopqrstuvwxyz234567";
const INTERNAL_PREFIX: &str = "sluice.";
const CALL_WITHIN: Duration = Duration::from_secs(30);

/// Makes the cluster's rules for our principals be exactly [`rules`].
pub(super) async fn apply(admin: &Client) -> Result<()> {
    let wanted = rules();
    let call = async {
        let all = AclFilter::default();
        let present: HashSet<AclBinding> = admin.describe_acls(&all, CALL_WITHIN).await?.into_iter().collect();
        if present == wanted.iter().cloned().collect() {
            return Ok(());
        }
        // Another version's rules: nobody but us is connected yet, so they may all go for a moment.
        admin.delete_acls(&all, CALL_WITHIN).await?;
        admin.create_acls(&wanted, CALL_WITHIN).await
    };
    call.await.map_err(|source| Error::Kafka { what: "setting Kafka's access rules", source })
}

/// All rules.
fn rules() -> Vec<AclBinding> {
    use AclOperation::{Alter, AlterConfigs, Create, Delete, Describe, IdempotentWrite, Read, Write};
    let tenants = tenant_prefixes();
    let mut rules = Vec::new();
    let mut allow = |user: &str, resource, pattern, names: &[String], operations: &[AclOperation]| {
        for name in names {
            let rule = |operation: &AclOperation| AclBinding::allow(user, *operation, resource, pattern, name.as_str());
            rules.extend(operations.iter().map(rule));
        }
    };
    let topic = |name: &str| [format!("{INTERNAL_PREFIX}{name}")];
    let cluster = ["kafka-cluster".to_owned()];
    use PatternType::{Literal, Prefixed};
    use ResourceType::{Cluster, Group, Topic};

    // Read, Write, Delete and Alter bring Describe; AlterConfigs brings DescribeConfigs.
    allow(GATEWAY, Topic, Prefixed, &tenants, &[Read, Write]);
    // Read: be a member, make another one leave, commit. Delete: forget groups and offsets. AlterConfigs: a group's own
    // session timeout. Tenants' groups are named like their topics.
    allow(GATEWAY, Group, Prefixed, &tenants, &[Read, Delete, AlterConfigs]);
    allow(GATEWAY, Topic, Literal, &topic("control"), &[Read]);
    allow(GATEWAY, Topic, Literal, &topic("members"), &[Read, Write]);
    allow(GATEWAY, Topic, Literal, &topic("usage"), &[Write]);
    allow(GATEWAY, Cluster, Literal, &cluster, &[IdempotentWrite]);

    let internal = [INTERNAL_PREFIX.to_owned()];
    allow(CONTROL_PLANE, Topic, Prefixed, &internal, &[Create, Read, Write, Alter, AlterConfigs]);
    allow(CONTROL_PLANE, Cluster, Literal, &cluster, &[IdempotentWrite]);

    allow(PROVISIONING, Topic, Prefixed, &tenants, &[Create, Delete, Alter, AlterConfigs]);
    // Groups that their tenants deleted.
    allow(PROVISIONING, Group, Prefixed, &tenants, &[Delete]);
    allow(PROVISIONING, Cluster, Literal, &cluster, &[Describe]);

    allow(BILLING, Topic, Literal, &topic("usage"), &[Read]);
    allow(BILLING, Topic, Literal, &topic("control"), &[Read]);
    allow(BILLING, Topic, Prefixed, &tenants, &[Describe]);
    rules
}

/// The fewest prefixes such that each name of base32 characters begins with one of them, and no name that begins with
/// [`INTERNAL_PREFIX`] does.
fn tenant_prefixes() -> Vec<String> {
    let mut prefixes = Vec::new();
    for (index, reserved) in INTERNAL_PREFIX.char_indices() {
        let others = BASE32.chars().filter(|c| *c != reserved);
        prefixes.extend(others.map(|c| format!("{}{c}", &INTERNAL_PREFIX[..index])));
    }
    prefixes
}

#[cfg(test)]
mod tests {
    use sluice_types::physical::{
        CONTROL_TOPIC, INTERNAL_PREFIX as TYPES_PREFIX, MEMBERS_TOPIC, TopicName, USAGE_TOPIC,
    };
    use sluice_types::uid::{NamespaceUid, TopicUid};

    use super::*;

    fn covered(name: &str) -> bool {
        tenant_prefixes().iter().any(|prefix| name.starts_with(prefix.as_str()))
    }

    #[test]
    fn every_tenants_topic_is_covered() {
        for _ in 0..10_000 {
            let name = TopicName::new(NamespaceUid::random(), TopicUid::random());
            assert!(covered(name.as_str()), "{name:?}");
        }
        for name in ["sluice2abcdef.aaaaaaaaaaaaa", "sluiceabcdefg.aaaaaaaaaaaaa", "slui2aaaaaaaa.aaaaaaaaaaaaa"] {
            assert!(covered(name), "{name}");
        }
    }

    #[test]
    fn no_internal_topic_is_covered() {
        assert_eq!(TYPES_PREFIX, INTERNAL_PREFIX);
        for name in [CONTROL_TOPIC, MEMBERS_TOPIC, USAGE_TOPIC, "sluice.later", "__consumer_offsets", "Orders"] {
            assert!(!covered(name), "{name}");
        }
    }

    #[test]
    fn no_rule_is_given_twice() {
        let rules = rules();
        let distinct: HashSet<_> = rules.iter().collect();
        assert_eq!(distinct.len(), rules.len());
    }
}
