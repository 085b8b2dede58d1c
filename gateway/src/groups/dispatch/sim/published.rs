//! What the control plane has published: the tenant, the group, its topics, and what changes of them.

use std::sync::Arc;

use sluice_proto::internal::control::v1::control_record::Resource;
use sluice_proto::internal::control::v1::group_state::Start;
use sluice_proto::internal::control::v1::{ControlRecord, GroupState, Life, NamespaceState, TenantState, TopicState};
use sluice_types::{GroupUid, NamespaceUid, TenantUid, TopicUid, Uid};

use crate::groups::dispatch::sim::chance::Chance;
use crate::groups::model::ResolvedGroup;
use crate::view::{TenantEntry, View};

pub(super) struct Published {
    tenant: TenantUid,
    namespace: NamespaceUid,
    uid: GroupUid,
    pub(super) group: GroupState,
    /// The last one takes the letters.
    pub(super) topics: Vec<TopicState>,
    version: i64,
}

impl Published {
    pub(super) fn new(chance: &mut Chance) -> Self {
        // By the seed, too: names have an order.
        let mut uid = || Uid::from_u64(chance.next());
        let (tenant, namespace) = (TenantUid::from_uid(uid()), NamespaceUid::from_uid(uid()));
        let (group_uid, uids) = (GroupUid::from_uid(uid()), [uid(), uid(), uid()].map(TopicUid::from_uid));
        let life = Life::Active.into();
        let topic = |at: usize, id: &str, partitions| TopicState {
            uid: uids[at].to_string(),
            id: id.into(),
            namespace_uid: namespace.to_string(),
            namespace_id: "prod".into(),
            life,
            partitions,
            ..Default::default()
        };
        let count = 1 + chance.below(2);
        let mut topics: Vec<_> =
            (0..count).map(|at| topic(at, &format!("orders-{at}"), 1 + chance.below(3) as i32)).collect();
        let topic_ids = topics.iter().map(|topic| topic.id.clone()).collect();
        topics.push(topic(2, "letters", 1));
        let has_letters = chance.percent(70);
        let group = GroupState {
            uid: group_uid.to_string(),
            id: "billing".into(),
            namespace_uid: namespace.to_string(),
            namespace_id: "prod".into(),
            life,
            topic_ids,
            start: Some(Start::StartEarliest(true)),
            key_ordered: chance.percent(60),
            ack_deadline_ms: chance.within(500..8_000) as i64,
            max_attempts: if has_letters { chance.within(1..5) as i32 } else { 0 },
            minimum_backoff_ms: chance.within(0..500) as i64,
            maximum_backoff_ms: chance.within(500..2_000) as i64,
            dead_letter_topic_id: if has_letters { "letters".into() } else { String::new() },
            ..Default::default()
        };
        Self { tenant, namespace, uid: group_uid, group, topics, version: 0 }
    }

    /// A record that says what a resource is now.
    pub(super) fn record(&mut self, resource: Resource) -> ControlRecord {
        self.version += 1;
        ControlRecord {
            version: self.version,
            tenant_uid: self.tenant.to_string(),
            outbox_id: self.version,
            resource: Some(resource),
            ..Default::default()
        }
    }

    /// All that is published now.
    pub(super) fn all(&mut self) -> Vec<ControlRecord> {
        let life = Life::Active.into();
        let tenant = TenantState { uid: self.tenant.to_string(), id: "acme".into(), life, ..Default::default() };
        let namespace = NamespaceState { uid: self.namespace.to_string(), id: "prod".into(), life };
        let mut all = vec![Resource::Tenant(tenant), Resource::Namespace(namespace)];
        all.extend(self.topics.clone().into_iter().map(Resource::Topic));
        all.push(Resource::Group(self.group.clone()));
        all.into_iter().map(|resource| self.record(resource)).collect()
    }

    pub(super) fn entry(&self, view: &View) -> Arc<TenantEntry> {
        view.tenant(self.tenant).expect("it was published")
    }

    pub(super) fn config(&self, view: &View) -> Arc<ResolvedGroup> {
        self.entry(view).names().group_of(self.uid).expect("it was published")
    }

    /// The names of a topic in Kafka, and of the group.
    pub(super) fn physical(&self, view: &View, topic: &TopicState) -> (TopicUid, Arc<str>) {
        let entry = self.entry(view);
        let id = topic.id.parse().expect("a good id");
        let found = entry.names().topic_in(self.namespace, &id).expect("it was published");
        (found.topic_uid, found.physical.as_str().into())
    }
}
