//! The client: connections, metadata, and the routing of requests to the broker that must get them.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::config::ClientConfig;
use crate::conn::Connection;
use crate::deadline::Deadline;
use crate::error::{Error, Result};
use crate::fetch::FetchGates;
use crate::group::coordinator::Coordinators;
use crate::metadata::{self, Cache, ClusterMetadata, Topic};
use crate::pool::{Lane, Node, Pool};
use crate::transport::Address;

/// Topics asked for in one metadata request.
const TOPICS_PER_REQUEST: usize = 2_000;

/// Handle to a cluster; clones share connections and metadata. Making one does no I/O.
#[derive(Clone)]
pub struct Client {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) config: ClientConfig,
    pub(crate) bootstrap: Vec<Address>,
    pub(crate) cache: Cache,
    pub(crate) pool: Pool,
    pub(crate) next_own_lane: AtomicU32,
    pub(crate) gates: FetchGates,
    pub(crate) coordinators: Coordinators,
    /// Topics somebody waits to know; whoever holds `refreshing` asks for all of them at once.
    wanted: Mutex<HashSet<String>>,
    refreshing: tokio::sync::Mutex<()>,
}

impl Client {
    /// Checks the configuration; connects when first used.
    pub fn new(config: ClientConfig) -> Result<Self> {
        let bootstrap = config.bootstrap.iter().map(|text| Address::parse(text)).collect::<Result<Vec<_>>>()?;
        if bootstrap.is_empty() {
            return Err(Error::InvalidRequest("no bootstrap address".to_owned()));
        }
        let inner = Inner {
            config,
            bootstrap,
            cache: Cache::default(),
            pool: Pool::default(),
            next_own_lane: AtomicU32::new(0),
            gates: FetchGates::default(),
            coordinators: Coordinators::default(),
            wanted: Mutex::default(),
            refreshing: tokio::sync::Mutex::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Like [`Client::new`], and proves within `timeout` that the cluster answers.
    pub async fn connect(config: ClientConfig, timeout: Duration) -> Result<Self> {
        let client = Self::new(config)?;
        client.metadata(&[], timeout).await?;
        Ok(client)
    }

    /// Fresh metadata of these topics; a topic's own error is in its entry. Works with no topics, too.
    pub async fn metadata(&self, topics: &[&str], timeout: Duration) -> Result<ClusterMetadata> {
        self.fetch_metadata(Some(topics), Deadline::after(timeout)).await
    }

    /// Fresh metadata of every topic we may see. Costly on big clusters; not cached per call.
    pub async fn metadata_all(&self, timeout: Duration) -> Result<ClusterMetadata> {
        self.fetch_metadata(None, Deadline::after(timeout)).await
    }

    /// A topic from the cache, asked for if it is not there. Unknown topics are [`Error::UnknownTopic`].
    pub async fn topic(&self, name: &str, timeout: Duration) -> Result<Arc<Topic>> {
        self.cached_topic(name, Deadline::after(timeout)).await
    }

    pub(crate) async fn cached_topic(&self, name: &str, deadline: Deadline) -> Result<Arc<Topic>> {
        match self.inner.cache.topic(name) {
            Some(topic) => Ok(topic),
            None => self.refresh_topic(name, deadline).await,
        }
    }

    /// Asks for a topic again. Callers that come while a request is under way share the next one.
    pub(crate) async fn refresh_topic(&self, name: &str, deadline: Deadline) -> Result<Arc<Topic>> {
        let asked = Instant::now();
        self.inner.wanted.lock().insert(name.to_owned());
        deadline
            .bound(async {
                let _turn = self.inner.refreshing.lock().await;
                if let Some(topic) = self.inner.cache.topic(name)
                    && topic.fetched > asked
                {
                    return Ok(topic);
                }
                let mut names: Vec<String> = self.inner.wanted.lock().drain().take(TOPICS_PER_REQUEST).collect();
                if !names.iter().any(|wanted| wanted == name) {
                    names.push(name.to_owned());
                }
                let borrowed: Vec<&str> = names.iter().map(String::as_str).collect();
                let metadata = self.fetch_metadata(Some(&borrowed), deadline).await?;
                let topic = metadata.topics.into_iter().find(|topic| topic.name == name);
                let topic = topic.ok_or_else(|| Error::Protocol("metadata lacks a topic asked for".to_owned()))?;
                topic.check()?;
                Ok(topic)
            })
            .await
    }

    /// A call on a topic's leader failed for good: if the leader may be the reason, the next call asks who it is now.
    pub(crate) fn doubt_leader(&self, topic: &str, error: &Error) {
        if error.is_retriable() && !matches!(error, Error::Busy) {
            self.inner.cache.doubt_topic(topic);
        }
    }

    async fn fetch_metadata(&self, topics: Option<&[&str]>, deadline: Deadline) -> Result<ClusterMetadata> {
        let response = self.call_any(&metadata::request(topics), Lane::Control, deadline).await?;
        let metadata = metadata::parse(response)?;
        self.inner.cache.store(&metadata);
        self.inner.pool.retain(|node| match node {
            Node::Broker(id) => metadata.brokers.is_empty() || metadata.brokers.contains_key(&id),
            Node::Bootstrap(_) => true,
        });
        Ok(metadata)
    }

    /// The connection of a lane to a broker. A broker we do not know is looked up first.
    pub(crate) async fn connection(&self, broker: i32, lane: Lane, deadline: Deadline) -> Result<Connection> {
        let address = match self.inner.cache.broker(broker) {
            Some(address) => address,
            None => {
                self.fetch_metadata(Some(&[]), deadline).await?;
                self.inner.cache.broker(broker).ok_or(Error::UnknownBroker { broker })?
            }
        };
        self.inner.pool.get(Node::Broker(broker), lane, &address, &self.inner.config, deadline).await
    }

    /// The node that takes controller requests.
    pub(crate) async fn controller(&self, deadline: Deadline) -> Result<i32> {
        if let Some(id) = self.inner.cache.controller() {
            return Ok(id);
        }
        let metadata = self.fetch_metadata(Some(&[]), deadline).await?;
        metadata.controller_id.ok_or(Error::NoController)
    }

    /// Asks for brokers and controller again.
    pub(crate) async fn refresh_cluster(&self, deadline: Deadline) -> Result<()> {
        self.fetch_metadata(Some(&[]), deadline).await.map(drop)
    }
}
