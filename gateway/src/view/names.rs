//! The names of one tenant: namespaces by id, topics by id within a namespace.
//!
//! A name has lives: what was deleted and made again has another uid. Only lives that are not over are held here. Of two
//! that claim one name the one changed last stands (by the order of commits), so a record that comes late or twice cannot
//! bring an old life back. A topic's records may come before its namespace's: topics hang on the namespace's uid.

use std::collections::HashMap;
use std::sync::Arc;

use sluice_types::{NamespaceId, NamespaceUid, TopicId, TopicUid};

use crate::ports::ResolvedTopic;
use crate::view::TopicLookup;

/// Namespaces and topics of one tenant.
#[derive(Debug, Default)]
pub struct Names {
    namespaces: HashMap<NamespaceId, Vec<NamespaceLife>>,
    topics: HashMap<NamespaceUid, HashMap<TopicId, Vec<TopicLife>>>,
}

/// A namespace that is in service.
#[derive(Debug, Clone, Copy)]
struct NamespaceLife {
    uid: NamespaceUid,
    order: i64,
}

/// A topic that is being made or in service.
#[derive(Debug, Clone)]
struct TopicLife {
    uid: TopicUid,
    order: i64,
    /// Absent while it is being made.
    resolved: Option<Arc<ResolvedTopic>>,
}

impl Names {
    /// Enters a namespace in service; `order` is that of its last change.
    pub fn put_namespace(&mut self, id: NamespaceId, uid: NamespaceUid, order: i64) {
        let lives = self.namespaces.entry(id).or_default();
        lives.retain(|life| life.uid != uid);
        lives.push(NamespaceLife { uid, order });
    }

    /// Removes a life of a namespace; true if it was there.
    pub fn remove_namespace(&mut self, id: &NamespaceId, uid: NamespaceUid) -> bool {
        let Some(lives) = self.namespaces.get_mut(id) else { return false };
        let before = lives.len();
        lives.retain(|life| life.uid != uid);
        let removed = lives.len() < before;
        if lives.is_empty() {
            self.namespaces.remove(id);
        }
        removed
    }

    /// Enters a topic: in service with `resolved`, being made without.
    pub fn put_topic(
        &mut self,
        namespace: NamespaceUid,
        id: TopicId,
        uid: TopicUid,
        order: i64,
        resolved: Option<Arc<ResolvedTopic>>,
    ) {
        let lives = self.topics.entry(namespace).or_default().entry(id).or_default();
        lives.retain(|life| life.uid != uid);
        lives.push(TopicLife { uid, order, resolved });
    }

    /// Removes a life of a topic, and gives what was in service.
    pub fn remove_topic(&mut self, namespace: NamespaceUid, id: &TopicId, uid: TopicUid) -> Option<Arc<ResolvedTopic>> {
        let topics = self.topics.get_mut(&namespace)?;
        let lives = topics.get_mut(id)?;
        let at = lives.iter().position(|life| life.uid == uid)?;
        let life = lives.swap_remove(at);
        if lives.is_empty() {
            topics.remove(id);
        }
        if topics.is_empty() {
            self.topics.remove(&namespace);
        }
        life.resolved
    }

    /// The life of this topic that is in service, whatever its name means now.
    pub fn topic_of(&self, namespace: NamespaceUid, id: &TopicId, uid: TopicUid) -> Option<Arc<ResolvedTopic>> {
        self.topics.get(&namespace)?.get(id)?.iter().find(|life| life.uid == uid)?.resolved.clone()
    }

    /// What a topic's name means.
    pub fn topic(&self, namespace: &NamespaceId, topic: &TopicId) -> TopicLookup {
        let namespace = self.namespaces.get(namespace).and_then(|lives| lives.iter().max_by_key(|life| life.order));
        let lives = namespace.and_then(|namespace| self.topics.get(&namespace.uid)?.get(topic));
        let Some(lives) = lives else { return TopicLookup::Absent };
        let active = lives.iter().filter(|life| life.resolved.is_some()).max_by_key(|life| life.order);
        match active.and_then(|life| life.resolved.clone()) {
            Some(resolved) => TopicLookup::Active(resolved),
            None => TopicLookup::Pending,
        }
    }
}
