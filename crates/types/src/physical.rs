//! Physical Kafka names: the only place that builds them.
//!
//! A topic is `{namespace uid}.{log uid}`; the uid of a topic's first log is the topic's. Both parts are opaque, 13 base32 characters, because Kafka refuses `x.a_b`
//! beside `x.a.b` (metric names collide), and because a topic deleted and made again must be another topic: old writers
//! then fail instead of writing into the new one. The names never leave the system.

use std::fmt;

use crate::uid::{GroupUid, LogUid, NamespaceUid, TopicUid, UID_TEXT_LEN};

/// The log of the control plane's state.
pub const CONTROL_TOPIC: &str = "sluice.control";
/// Key of the record in it that says that all states were published to it.
pub const CONTROL_COMPLETE_KEY: &str = "complete";
/// Heartbeats of the gateways.
pub const MEMBERS_TOPIC: &str = "sluice.members";
/// Usage windows.
pub const USAGE_TOPIC: &str = "sluice.usage";
/// What all our internal topics begin with.
pub const INTERNAL_PREFIX: &str = "sluice.";

/// The physical name of a tenant's topic.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PhysicalTopic(Box<str>);

impl PhysicalTopic {
    /// The name of the log that this topic begins with.
    pub fn new(namespace: NamespaceUid, topic: TopicUid) -> Self {
        Self::of_log(namespace, LogUid::first_of(topic))
    }

    /// The name of this log of a topic in this namespace.
    pub fn of_log(namespace: NamespaceUid, log: LogUid) -> Self {
        Self(format!("{namespace}.{log}").into())
    }

    /// Reads a name that Kafka lists; `None` if it is not one of ours.
    pub fn parse(text: &str) -> Option<(NamespaceUid, TopicUid)> {
        let (namespace, topic) = text.split_once('.')?;
        if namespace.len() != UID_TEXT_LEN || topic.len() != UID_TEXT_LEN {
            return None;
        }
        Some((namespace.parse().ok()?, topic.parse().ok()?))
    }

    /// As text, for Kafka only.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for PhysicalTopic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The id of a tenant's consumer group in Kafka: `{namespace uid}.{group uid}`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PhysicalGroup(Box<str>);

impl PhysicalGroup {
    /// The id of this group in this namespace.
    pub fn new(namespace: NamespaceUid, group: GroupUid) -> Self {
        Self(format!("{namespace}.{group}").into())
    }

    /// Under which it is kept which dead letters were redriven: offsets without members.
    pub fn redrive(namespace: NamespaceUid, group: GroupUid) -> Self {
        Self(format!("{namespace}.{group}.redrive").into())
    }

    /// As text, for Kafka only.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for PhysicalGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_back_and_strangers_are_not() {
        let (namespace, topic) = (NamespaceUid::random(), TopicUid::random());
        let name = PhysicalTopic::new(namespace, topic);
        assert_eq!(PhysicalTopic::parse(name.as_str()), Some((namespace, topic)));
        for stranger in ["sluice.control", "orders", "a.b", "__consumer_offsets"] {
            assert_eq!(PhysicalTopic::parse(stranger), None);
        }
    }
}
