//! What we know of the cluster: brokers, controller, topics with their partitions and leaders.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use tokio::time::Instant;

use crate::codec::{MetadataRequestData, MetadataResponseData, from_uuid, metadata_request, text};
use crate::error::{Error, KafkaError, Result, code};
use crate::transport::Address;
use crate::types::KafkaTopicId;

/// Cached topics older than this are asked for again before use.
const TOPIC_AGE_MAX: Duration = Duration::from_secs(300);
/// A topic asked for so lately is not asked for again because of a failure.
const TRUSTED_FOR: Duration = Duration::from_secs(1);
/// Topics kept in the cache; beyond it the stale ones go, then all.
const TOPICS_MAX: usize = 100_000;

/// A broker as it advertises itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broker {
    /// Node id.
    pub id: i32,
    /// Advertised host.
    pub host: String,
    /// Advertised port.
    pub port: u16,
    /// Rack, if set.
    pub rack: Option<String>,
}

/// One partition of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// Partition number.
    pub id: i32,
    /// Error of this partition alone (for instance LEADER_NOT_AVAILABLE).
    pub error: Option<KafkaError>,
    /// Leader's node id, if there is one.
    pub leader: Option<i32>,
    /// Epoch of that leader.
    pub leader_epoch: i32,
    /// Node ids of all replicas.
    pub replicas: Vec<i32>,
    /// Node ids of the replicas in sync.
    pub isr: Vec<i32>,
}

/// A topic, or why we cannot know it.
#[derive(Debug, Clone)]
pub struct Topic {
    /// Physical name.
    pub name: String,
    /// Kafka's id of it; zero if there was an error.
    pub topic_id: KafkaTopicId,
    /// Error of the topic (UNKNOWN_TOPIC_OR_PARTITION, TOPIC_AUTHORIZATION_FAILED).
    pub error: Option<KafkaError>,
    /// Partitions by number.
    pub partitions: BTreeMap<i32, Partition>,
    pub(crate) fetched: Instant,
}

impl Topic {
    /// The partition with its leader, or why there is none.
    pub(crate) fn leader(&self, partition: i32) -> Result<(i32, i32)> {
        let known = self
            .partitions
            .get(&partition)
            .ok_or_else(|| Error::UnknownPartition { topic: self.name.clone(), partition })?;
        match known.leader {
            Some(leader) => Ok((leader, known.leader_epoch)),
            None => Err(Error::NoLeader { topic: self.name.clone(), partition }),
        }
    }

    /// The topic's error, as this crate's own.
    pub(crate) fn check(&self) -> Result<()> {
        match &self.error {
            None => Ok(()),
            Some(error) if error.code == code::UNKNOWN_TOPIC_OR_PARTITION => {
                Err(Error::UnknownTopic { topic: self.name.clone() })
            }
            Some(error) => Err(error.clone().into()),
        }
    }
}

/// Answer to [`crate::Client::metadata`].
#[derive(Debug, Clone)]
pub struct ClusterMetadata {
    /// Id of the cluster.
    pub cluster_id: String,
    /// Node to send controller requests to, if the cluster named one.
    pub controller_id: Option<i32>,
    /// Live brokers by id.
    pub brokers: BTreeMap<i32, Broker>,
    /// The topics asked for (or all), in the order of the answer.
    pub topics: Vec<Arc<Topic>>,
}

/// Request for some topics, or all of them (`None`).
pub(crate) fn request(topics: Option<&[&str]>) -> MetadataRequestData {
    let topic = |name: &&str| metadata_request::MetadataRequestTopic { name: Some(text(*name)), ..Default::default() };
    MetadataRequestData {
        topics: topics.map(|names| names.iter().map(topic).collect()),
        allow_auto_topic_creation: false,
        ..Default::default()
    }
}

/// Reads an answer, checking what we rely on.
pub(crate) fn parse(response: MetadataResponseData) -> Result<ClusterMetadata> {
    KafkaError::check(response.error_code, None)?;
    let fetched = Instant::now();
    let mut brokers = BTreeMap::new();
    for broker in response.brokers {
        let port = u16::try_from(broker.port)
            .map_err(|_| Error::Protocol(format!("broker {} with port {}", broker.node_id, broker.port)))?;
        let rack = broker.rack.map(|rack| rack.to_string());
        let id = broker.node_id;
        brokers.insert(id, Broker { id, host: broker.host.to_string(), port, rack });
    }
    let topics = response.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.into_iter().map(|partition| {
            let known = Partition {
                id: partition.partition_index,
                error: KafkaError::check(partition.error_code, None).err(),
                leader: Some(partition.leader_id).filter(|&id| id >= 0),
                leader_epoch: partition.leader_epoch,
                replicas: partition.replica_nodes,
                isr: partition.isr_nodes,
            };
            (known.id, known)
        });
        Arc::new(Topic {
            name: topic.name.map(|name| name.to_string()).unwrap_or_default(),
            topic_id: from_uuid(topic.topic_id),
            error: KafkaError::check(topic.error_code, None).err(),
            partitions: partitions.collect(),
            fetched,
        })
    });
    Ok(ClusterMetadata {
        cluster_id: response.cluster_id.map(|id| id.to_string()).unwrap_or_default(),
        controller_id: Some(response.controller_id).filter(|&id| id >= 0),
        topics: topics.collect(),
        brokers,
    })
}

/// The latest metadata of everything asked for so far.
#[derive(Default)]
pub(crate) struct Cache(RwLock<Inner>);

#[derive(Default)]
struct Inner {
    controller: Option<i32>,
    brokers: BTreeMap<i32, Address>,
    topics: HashMap<String, Arc<Topic>>,
}

impl Inner {
    /// Forgets topics that a broker leads which is gone: they have new leaders, or are about to.
    fn forget_led_by(&mut self, is_gone: impl Fn(i32) -> bool) {
        let is_led = |partition: &Partition| partition.leader.is_some_and(&is_gone);
        self.topics.retain(|_, topic| !topic.partitions.values().any(is_led));
    }
}

impl Cache {
    pub(crate) fn store(&self, metadata: &ClusterMetadata) {
        let mut inner = self.0.write();
        inner.controller = metadata.controller_id;
        if !metadata.brokers.is_empty() {
            let address = |broker: &Broker| Address { host: broker.host.clone(), port: broker.port };
            let now = metadata.brokers.values().map(|broker| (broker.id, address(broker))).collect();
            let before = std::mem::replace(&mut inner.brokers, now);
            if before.keys().any(|id| !metadata.brokers.contains_key(id)) {
                inner.forget_led_by(|broker| !metadata.brokers.contains_key(&broker));
            }
        }
        if inner.topics.len() + metadata.topics.len() > TOPICS_MAX {
            inner.topics.retain(|_, topic| topic.fetched.elapsed() < TOPIC_AGE_MAX);
        }
        if inner.topics.len() + metadata.topics.len() > TOPICS_MAX {
            inner.topics.clear();
        }
        for topic in &metadata.topics {
            match topic.error {
                None => inner.topics.insert(topic.name.clone(), Arc::clone(topic)),
                Some(_) => inner.topics.remove(&topic.name),
            };
        }
    }

    /// Forgets a topic, unless it was asked for just now: its leader does not do what leaders do.
    pub(crate) fn doubt_topic(&self, name: &str) {
        let mut inner = self.0.write();
        if inner.topics.get(name).is_some_and(|topic| topic.fetched.elapsed() > TRUSTED_FOR) {
            inner.topics.remove(name);
        }
    }

    /// Forgets who the controller is.
    pub(crate) fn forget_controller(&self) {
        self.0.write().controller = None;
    }

    /// A topic that is known, without error, and not stale.
    pub(crate) fn topic(&self, name: &str) -> Option<Arc<Topic>> {
        let inner = self.0.read();
        inner.topics.get(name).filter(|topic| topic.fetched.elapsed() < TOPIC_AGE_MAX).cloned()
    }

    pub(crate) fn broker(&self, id: i32) -> Option<Address> {
        self.0.read().brokers.get(&id).cloned()
    }

    pub(crate) fn brokers(&self) -> Vec<(i32, Address)> {
        self.0.read().brokers.iter().map(|(&id, address)| (id, address.clone())).collect()
    }

    pub(crate) fn controller(&self) -> Option<i32> {
        self.0.read().controller
    }
}
