//! The Kafka cluster as reconciling needs it: what all brokers together say, and the few changes we make.
//!
//! A change reaches brokers one after the other. So "there" and "gone" are believed when every live broker says so, and a
//! broker that cannot be asked is a failure, not an answer.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::try_join_all;
use sluice_types::ClusterUid;
use sluice_types::physical::{PhysicalGroup, PhysicalTopic};
use sluice_wire::{
    Client, ClusterMetadata, ConfigChange, ConfigEntry, Error, Isolation, KafkaTopicId, NewTopic, OffsetAt, Topic, code,
};

use crate::domain::configs::ALLOWED;
use crate::domain::plan::{Physical, World};

/// Bound of one question.
const ASK: Duration = Duration::from_secs(3);
/// Bound of one change.
const CHANGE: Duration = Duration::from_secs(10);

/// The cluster. Clones share connections.
#[derive(Clone)]
pub struct Cluster {
    uid: ClusterUid,
    client: Client,
    replication: i16,
}

/// Why the world cannot be told now.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// Kafka.
    #[error(transparent)]
    Kafka(#[from] Error),
    /// Brokers name different topics, or none is live; it passes.
    #[error("brokers do not agree yet")]
    Disagreement,
}

impl ClusterError {
    /// Whether Kafka did not answer at all.
    pub fn is_no_answer(&self) -> bool {
        matches!(self, Self::Kafka(error) if error.kafka_code().is_none())
    }
}

impl Cluster {
    /// Through this client; `None`: the cluster's own default of replicas.
    pub fn new(uid: ClusterUid, client: Client, replication: Option<i16>) -> Self {
        Self { uid, client, replication: replication.unwrap_or(-1) }
    }

    /// Which one it is.
    pub fn uid(&self) -> ClusterUid {
        self.uid
    }

    /// What all brokers say of a topic.
    pub async fn observe(&self, name: &PhysicalTopic) -> Result<World, ClusterError> {
        let brokers = self.client.metadata(&[], ASK).await?.brokers;
        let names = [name.as_str()];
        let asked = brokers.keys().map(|broker| self.client.metadata_of_broker(*broker, &names, ASK));
        let views = try_join_all(asked).await?;
        combine(&views)
    }

    /// The end of each partition, by number.
    pub async fn ends(&self, name: &PhysicalTopic, partitions: i32) -> Result<Vec<i64>, ClusterError> {
        let all: Vec<i32> = (0..partitions).collect();
        let listed =
            self.client.list_offsets(name.as_str(), &all, OffsetAt::Latest, Isolation::ReadUncommitted, ASK).await?;
        let mut ends = Vec::with_capacity(all.len());
        for partition in all {
            let end = listed.get(&partition).cloned().unwrap_or(Err(Error::DeadlineExceeded))?;
            ends.push(end.offset.ok_or(ClusterError::Disagreement)?);
        }
        Ok(ends)
    }

    /// Our configs that are set on the topic, or its defaults.
    pub async fn configs(&self, name: &PhysicalTopic) -> Result<BTreeMap<String, ConfigEntry>, ClusterError> {
        Ok(self.client.describe_topic_configs(name.as_str(), Some(&ALLOWED), ASK).await?)
    }

    /// Makes a topic.
    pub async fn create(
        &self,
        name: &PhysicalTopic,
        partitions: i32,
        configs: BTreeMap<String, String>,
    ) -> Result<(), Error> {
        let name = name.as_str().to_owned();
        let topic = NewTopic { name, partitions, replication: self.replication, configs };
        self.client.create_topic(&topic, CHANGE).await.map(drop)
    }

    /// Raises its partitions.
    pub async fn extend(&self, name: &PhysicalTopic, total: i32) -> Result<(), Error> {
        self.client.create_partitions(name.as_str(), total, false, CHANGE).await
    }

    /// Changes its configs.
    pub async fn alter(&self, name: &PhysicalTopic, changes: &BTreeMap<String, ConfigChange>) -> Result<(), Error> {
        self.client.incremental_alter_configs(name.as_str(), changes, false, CHANGE).await
    }

    /// Deletes it, by id: never another one that took its name. Success if it is gone already.
    pub async fn delete(&self, id: KafkaTopicId) -> Result<(), Error> {
        match self.client.delete_topic_by_id(id, CHANGE).await {
            Err(error) if error.kafka_code() == Some(code::UNKNOWN_TOPIC_ID) => Ok(()),
            other => other,
        }
    }

    /// Deletes a group with its offsets. Success if it is gone already; a group with a member is refused.
    pub async fn delete_group(&self, name: &PhysicalGroup) -> Result<(), Error> {
        match self.client.delete_group(name.as_str(), CHANGE).await {
            Err(error) if error.kafka_code() == Some(code::GROUP_ID_NOT_FOUND) => Ok(()),
            other => other,
        }
    }

    /// All topics in our names' form, as one broker sees them.
    pub async fn list(&self) -> Result<BTreeMap<PhysicalTopic, Physical>, ClusterError> {
        let metadata = self.client.metadata_all(CHANGE).await?;
        let ours = metadata.topics.iter().filter(|topic| topic.error.is_none());
        Ok(ours
            .filter_map(|topic| {
                let (namespace, uid) = PhysicalTopic::parse(&topic.name)?;
                Some((PhysicalTopic::new(namespace, uid), physical(topic)))
            })
            .collect())
    }
}

/// One picture out of each broker's.
fn combine(views: &[ClusterMetadata]) -> Result<World, ClusterError> {
    let mut found: Option<Physical> = None;
    let (mut absent, mut served) = (0, true);
    for view in views {
        let topic = view.topics.first().ok_or(ClusterError::Disagreement)?;
        match &topic.error {
            Some(error) if error.code == code::UNKNOWN_TOPIC_OR_PARTITION => absent += 1,
            // Only partitions lack leaders then; they are in the entry.
            Some(error) if error.code == code::LEADER_NOT_AVAILABLE => served = false,
            Some(error) => return Err(Error::from(error.clone()).into()),
            None => {}
        }
        if topic.topic_id.is_zero() {
            continue;
        }
        let seen = physical(topic);
        match &mut found {
            None => found = Some(seen),
            Some(known) if known.topic_id != seen.topic_id => return Err(ClusterError::Disagreement),
            Some(known) => {
                served &= known.partitions == seen.partitions && seen.served;
                known.partitions = known.partitions.max(seen.partitions);
            }
        }
    }
    match found {
        Some(known) => Ok(World::Present(Physical { served: served && known.served && absent == 0, ..known })),
        None if absent == views.len() && absent > 0 => Ok(World::Absent),
        None => Err(ClusterError::Disagreement),
    }
}

fn physical(topic: &Topic) -> Physical {
    Physical {
        topic_id: topic.topic_id,
        partitions: i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX),
        served: !topic.partitions.is_empty()
            && topic.partitions.values().all(|partition| partition.leader.is_some() && partition.error.is_none()),
    }
}
