//! The names of one tenant: namespaces by id, topics and groups by id within a namespace.
//!
//! A name has lives: what was deleted and made again has another uid. Only lives that are not over are held here. Of two
//! that claim one name the one changed last stands (by the order of commits), so a record that comes late or twice cannot
//! bring an old life back. A topic's records may come before its namespace's: topics hang on the namespace's uid.

use std::collections::HashMap;
use std::sync::Arc;

use sluice_types::{GroupId, GroupUid, NamespaceId, NamespaceUid, TopicId, TopicUid};

use crate::groups::model::ResolvedGroup;
use crate::view::ResolvedTopic;
use crate::view::TopicLookup;

/// Namespaces, topics and groups of one tenant.
#[derive(Debug, Default)]
pub struct Names {
    namespaces: HashMap<NamespaceId, Vec<NamespaceLife>>,
    topics: HashMap<NamespaceUid, HashMap<TopicId, Vec<TopicLife>>>,
    groups: HashMap<NamespaceUid, HashMap<GroupId, Vec<GroupLife>>>,
    groups_by_uid: HashMap<GroupUid, Arc<ResolvedGroup>>,
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

/// A group in service.
#[derive(Debug, Clone)]
struct GroupLife {
    uid: GroupUid,
    order: i64,
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

    /// The topic in service under an id, within a namespace's life.
    pub fn topic_in(&self, namespace: NamespaceUid, id: &TopicId) -> Option<Arc<ResolvedTopic>> {
        let lives = self.topics.get(&namespace)?.get(id)?;
        let active = lives.iter().filter(|life| life.resolved.is_some()).max_by_key(|life| life.order);
        active.and_then(|life| life.resolved.clone())
    }

    /// Enters a group in service.
    pub fn put_group(&mut self, group: Arc<ResolvedGroup>, order: i64) {
        let ids = self.groups.entry(group.namespace_uid).or_default();
        let lives = ids.entry(group.id.clone()).or_default();
        lives.retain(|life| life.uid != group.group_uid);
        lives.push(GroupLife { uid: group.group_uid, order });
        self.groups_by_uid.insert(group.group_uid, group);
    }

    /// Removes a life of a group.
    pub fn remove_group(&mut self, namespace: NamespaceUid, id: &GroupId, uid: GroupUid) {
        self.groups_by_uid.remove(&uid);
        let Some(ids) = self.groups.get_mut(&namespace) else { return };
        if let Some(lives) = ids.get_mut(id) {
            lives.retain(|life| life.uid != uid);
            if lives.is_empty() {
                ids.remove(id);
            }
        }
        if ids.is_empty() {
            self.groups.remove(&namespace);
        }
    }

    /// This life of a group, if it is in service.
    pub fn group_of(&self, uid: GroupUid) -> Option<Arc<ResolvedGroup>> {
        self.groups_by_uid.get(&uid).cloned()
    }

    /// The group in service under a name.
    pub fn group(&self, namespace: &NamespaceId, group: &GroupId) -> Option<Arc<ResolvedGroup>> {
        let namespace = self.namespaces.get(namespace)?.iter().max_by_key(|life| life.order)?;
        let lives = self.groups.get(&namespace.uid)?.get(group)?;
        self.group_of(lives.iter().max_by_key(|life| life.order)?.uid)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.namespaces.is_empty() && self.topics.is_empty() && self.groups.is_empty()
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
