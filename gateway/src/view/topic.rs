//! A topic as the gateway serves it.

use sluice_log::Placement;
use sluice_types::physical::PhysicalTopic;
use sluice_types::{NamespaceUid, TenantUid, TopicUid};

/// A tenant's topic that is in service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedTopic {
    /// Its name in Kafka.
    pub physical: PhysicalTopic,
    /// The tenant.
    pub tenant_uid: TenantUid,
    /// The namespace.
    pub namespace_uid: NamespaceUid,
    /// This life of the topic.
    pub topic_uid: TopicUid,
    /// Where its records lie.
    pub placement: Placement,
    /// Partitions in service, at least 1.
    pub partitions: i32,
    /// Whether it is compacted: it takes no record without key.
    pub compacted: bool,
    /// How old a record may be that it takes, ms; `None`: as old as it likes.
    pub record_age_ms_max: Option<i64>,
    /// Whether it keeps the time of appending: a producer's time goes into a header.
    pub log_append_time: bool,
    /// The tenants' name: `namespaces/{namespace}/topics/{topic}`.
    pub name: String,
}

#[cfg(test)]
impl ResolvedTopic {
    /// `namespaces/a/topics/b`, with these partitions.
    pub(crate) fn example(partitions: i32) -> Self {
        let (namespace_uid, topic_uid) = (NamespaceUid::random(), TopicUid::random());
        Self {
            physical: PhysicalTopic::new(namespace_uid, topic_uid),
            tenant_uid: TenantUid::random(),
            namespace_uid,
            topic_uid,
            placement: Placement::unmoved(sluice_types::ClusterUid::FIRST, sluice_types::LogUid::first_of(topic_uid)),
            partitions,
            compacted: false,
            record_age_ms_max: None,
            log_append_time: false,
            name: "namespaces/a/topics/b".into(),
        }
    }
}
