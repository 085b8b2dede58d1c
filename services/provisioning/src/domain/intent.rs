//! What should be true of one physical topic, as the control plane says it, with ids of the right types.

use std::collections::BTreeMap;

use sluice_proto::internal::control::v1 as pb;
use sluice_reconcile::Item;
use sluice_types::physical::PhysicalTopic;
use sluice_types::{ClusterUid, LogUid, NamespaceUid, TenantUid, TopicUid};
use sluice_wire::KafkaTopicId;

/// What is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// It should be there.
    Present,
    /// It should be gone.
    Absent,
}

/// The intent of one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intent {
    /// Whose it is.
    pub tenant: TenantUid,
    /// The namespace.
    pub namespace: NamespaceUid,
    /// The topic.
    pub topic: TopicUid,
    /// The cluster on which it should be.
    pub cluster: ClusterUid,
    /// The log of the topic there.
    pub log: LogUid,
    /// The generation of this intent.
    pub generation: i64,
    /// There or gone.
    pub want: Want,
    /// Partitions.
    pub partitions: i32,
    /// Kafka configs, not checked yet.
    pub configs: BTreeMap<String, String>,
    /// A create was announced before: an empty topic of this name may be ours.
    pub create_attempted: bool,
    /// The physical topic that was made for it.
    pub kafka_topic_id: Option<KafkaTopicId>,
    /// The generation that the world was seen to match.
    pub observed_generation: i64,
    /// The end offsets that were stored before a delete; empty: none.
    pub final_end_offsets: Vec<i64>,
}

/// A field that cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("intent field {0} cannot be read")]
pub struct IntentError(pub &'static str);

impl Intent {
    /// Its physical name.
    pub fn name(&self) -> PhysicalTopic {
        PhysicalTopic::of_log(self.namespace, self.log)
    }
}

/// Tenants take turns on each cluster.
impl Item for Intent {
    type Key = TopicUid;
    type Turn = TenantUid;
    type Place = ClusterUid;
    type Want = (i64, Want);

    fn key(&self) -> TopicUid {
        self.topic
    }

    fn turn(&self) -> TenantUid {
        self.tenant
    }

    fn place(&self) -> ClusterUid {
        self.cluster
    }

    fn want(&self) -> (i64, Want) {
        (self.generation, self.want)
    }
}

impl TryFrom<pb::TopicIntent> for Intent {
    type Error = IntentError;

    fn try_from(from: pb::TopicIntent) -> Result<Self, IntentError> {
        let want = match from.want() {
            pb::topic_intent::Want::Present => Want::Present,
            pb::topic_intent::Want::Absent => Want::Absent,
            pb::topic_intent::Want::Unspecified => return Err(IntentError("want")),
        };
        if want == Want::Present && from.partitions < 1 {
            return Err(IntentError("partitions"));
        }
        let kafka_topic_id = match from.kafka_topic_id.as_str() {
            "" => None,
            text => Some(text.parse().map_err(|_| IntentError("kafka_topic_id"))?),
        };
        let topic: TopicUid = from.topic_uid.parse().map_err(|_| IntentError("topic_uid"))?;
        // An older control plane does not say them, and knows one cluster and one log.
        let cluster = match from.cluster_uid.as_str() {
            "" => ClusterUid::FIRST,
            text => text.parse().map_err(|_| IntentError("cluster_uid"))?,
        };
        let log = match from.log_uid.as_str() {
            "" => LogUid::first_of(topic),
            text => text.parse().map_err(|_| IntentError("log_uid"))?,
        };
        Ok(Self {
            tenant: from.tenant_uid.parse().map_err(|_| IntentError("tenant_uid"))?,
            namespace: from.namespace_uid.parse().map_err(|_| IntentError("namespace_uid"))?,
            topic,
            cluster,
            log,
            generation: from.generation,
            want,
            partitions: from.partitions,
            configs: from.configs.into_iter().collect(),
            create_attempted: from.create_attempted,
            kafka_topic_id,
            observed_generation: from.observed_generation,
            final_end_offsets: from.final_end_offsets,
        })
    }
}
