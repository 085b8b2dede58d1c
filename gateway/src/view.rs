//! What the control plane published, materialized for look-ups on the request path.
//!
//! [`View`] answers "which key, account, tenant, topic is this" from memory; it is fed by [`tail`] from `sluice.control`, by
//! [`snapshot`] at a start without Kafka, and by single records of a key look-up. Records of one resource may come in any
//! order and more than once: the one with the highest version stands. [`applied`] tells up to which offset all is applied
//! *and* can be served; that number is the gateway's revision.

pub mod applied;
pub mod entry;
pub mod freshness;
pub mod index;
pub mod names;
mod placement;
pub mod snapshot;
pub mod tail;
mod topic;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;

use sluice_types::{AccountUid, KeyUid, NamespaceId, TenantScope, TenantUid, TopicId};

pub use self::entry::{AccountEntry, KeyEntry, TenantEntry};
pub use self::index::{Change, Index};
pub use self::placement::ServedClusters;
pub use self::topic::ResolvedTopic;

/// What a topic's name means to a tenant now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TopicLookup {
    /// In service.
    Active(Arc<ResolvedTopic>),
    /// Being made.
    Pending,
    /// No such topic, or its deletion has begun.
    Absent,
}

/// The view. Look-ups take a shared lock of one map shard or of one tenant, for nanoseconds.
#[derive(Default)]
pub struct View {
    /// The same from the start of the reading on.
    index: ArcSwap<Index>,
    /// Restored from disk, and not yet read on from there.
    behind: AtomicBool,
}

impl View {
    /// The tables of now.
    pub fn index(&self) -> Arc<Index> {
        self.index.load_full()
    }

    /// Whether what is absent may have been made since the snapshot was written: then nobody may be told that it does not
    /// exist.
    pub fn is_behind(&self) -> bool {
        self.behind.load(Ordering::Acquire)
    }

    /// The tables come from disk alone (true), or have caught up with the log.
    pub fn set_behind(&self, behind: bool) {
        self.behind.store(behind, Ordering::Release);
    }

    /// Takes other tables, before anything is served from them.
    pub fn replace(&self, index: Arc<Index>) {
        self.index.store(index);
    }

    /// The key with this id, in whatever state.
    pub fn key(&self, id: KeyUid) -> Option<Arc<KeyEntry>> {
        self.index.load().key(id)
    }

    /// The account, in whatever state.
    pub fn account(&self, uid: AccountUid) -> Option<Arc<AccountEntry>> {
        self.index.load().account(uid)
    }

    /// The tenant, in whatever state.
    pub fn tenant(&self, uid: TenantUid) -> Option<Arc<TenantEntry>> {
        self.index.load().tenant(uid)
    }

    /// The topic in service under this name.
    pub fn topic(&self, tenant: &TenantScope, namespace: &NamespaceId, topic: &TopicId) -> Option<Arc<ResolvedTopic>> {
        match self.topic_lookup(tenant, namespace, topic) {
            TopicLookup::Active(topic) => Some(topic),
            TopicLookup::Pending | TopicLookup::Absent => None,
        }
    }

    /// What this name means.
    pub fn topic_lookup(&self, tenant: &TenantScope, namespace: &NamespaceId, topic: &TopicId) -> TopicLookup {
        match self.index.load().tenant(tenant.uid()) {
            Some(tenant) => tenant.names().topic(namespace, topic),
            None => TopicLookup::Absent,
        }
    }
}
