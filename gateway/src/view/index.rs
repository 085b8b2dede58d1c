//! The view's tables and how a record changes them.
//!
//! One writer applies records, in the order of the log; a key look-up may apply some earlier. `held` keeps the latest record
//! of every uid, byte for byte: its version guards against old ones, and together the records are what a snapshot stores.
//! What this build cannot read is held as well: the next one may. What is gone stays in `held` until its tombstone (30 days),
//! so an old record cannot bring it back.
//!
//! There is one `Index` for the life of the process. When `sluice.control` turns out to be another topic, the tables become
//! what that one says ([`Index::adopt`]); who holds a tenant's entry holds the one that goes on being changed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dashmap::DashMap;
use parking_lot::Mutex;
use prost::Message;

use sluice_control_log::{Carried, WholeLog};
use sluice_proto::internal::control::v1::control_record::Resource;
use sluice_proto::internal::control::v1::group_state::Start as GroupStart;
use sluice_proto::internal::control::v1::{self as control, ControlRecord, Life};
use sluice_types::api_key::SecretHash;
use sluice_types::limits::TenantLimits;
use sluice_types::physical::{PhysicalGroup, PhysicalTopic};
use sluice_types::{
    AccountUid, Grant, GroupId, GroupUid, KeyUid, NamespaceId, NamespaceUid, TenantUid, TopicId, TopicUid,
};

use crate::groups::model::{ResolvedGroup, Start};
use crate::view::ResolvedTopic;
use crate::view::entry::{AccountEntry, KeyEntry, TenantEntry, TenantState, limits_over};
use crate::view::placement::{self, ServedClusters};

/// What a record did beyond the tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Nothing to do.
    None,
    /// A topic came into service or got partitions: it must be servable before the offset counts as applied.
    Serve(Arc<ResolvedTopic>),
    /// A topic is gone for good.
    Forget(Arc<ResolvedTopic>),
}

/// A record that cannot be understood. It is skipped: a gateway must not stop for what a newer control plane wrote.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("control record of {uid:?}: {what}")]
pub struct RecordError {
    /// The record's key.
    pub uid: String,
    /// What is wrong.
    pub what: &'static str,
}

/// The latest record of one resource.
#[derive(Debug, Clone)]
struct Held {
    version: i64,
    /// As it stands in the log.
    value: Bytes,
    /// It was read there; otherwise it came by a look-up.
    of_log: bool,
}

/// A record's value, and what this build reads in it.
#[derive(Debug, Clone)]
pub struct Value {
    bytes: Bytes,
    record: Option<ControlRecord>,
}

impl Carried for Value {
    fn read(bytes: &Bytes, record: Option<ControlRecord>) -> Option<Self> {
        Some(Self { bytes: bytes.clone(), record })
    }

    fn for_later(self) -> Self {
        Self { record: None, ..self }
    }
}

impl From<Bytes> for Value {
    fn from(bytes: Bytes) -> Self {
        Self { record: ControlRecord::decode(bytes.clone()).ok(), bytes }
    }
}

/// The tables.
#[derive(Default)]
pub struct Index {
    defaults: TenantLimits,
    served: ServedClusters,
    held: Mutex<HashMap<String, Held>>,
    keys: DashMap<KeyUid, Arc<KeyEntry>>,
    accounts: DashMap<AccountUid, Arc<AccountEntry>>,
    tenants: DashMap<TenantUid, Arc<TenantEntry>>,
}

impl Index {
    /// Empty tables; tenants without own limits get these, and topics of other clusters are not in service.
    pub fn new(defaults: TenantLimits, served: ServedClusters) -> Self {
        Self { defaults, served, ..Self::default() }
    }

    /// The key.
    pub fn key(&self, id: KeyUid) -> Option<Arc<KeyEntry>> {
        self.keys.get(&id).map(|entry| Arc::clone(&entry))
    }

    /// The account.
    pub fn account(&self, uid: AccountUid) -> Option<Arc<AccountEntry>> {
        self.accounts.get(&uid).map(|entry| Arc::clone(&entry))
    }

    /// The tenant.
    pub fn tenant(&self, uid: TenantUid) -> Option<Arc<TenantEntry>> {
        self.tenants.get(&uid).map(|entry| Arc::clone(&entry))
    }

    /// Resources held, gone ones too.
    pub fn len(&self) -> usize {
        self.held.lock().len()
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.held.lock().is_empty()
    }

    /// All records held that this build can read.
    pub fn records(&self) -> Vec<Arc<ControlRecord>> {
        let held: Vec<Bytes> = self.held.lock().values().map(|held| held.value.clone()).collect();
        held.into_iter().filter_map(|value| ControlRecord::decode(value).ok()).map(Arc::new).collect()
    }

    /// All records that were read from the log, with their keys, for a snapshot.
    pub fn values(&self) -> Vec<(String, Bytes)> {
        let held = self.held.lock();
        let of_log = held.iter().filter(|(_, held)| held.of_log);
        of_log.map(|(uid, held)| (uid.clone(), held.value.clone())).collect()
    }

    /// Applies a record of a key look-up; one whose version is not above the held one does nothing.
    pub fn apply(&self, record: ControlRecord) -> Result<Change, RecordError> {
        let uid =
            resource_uid(&record).ok_or(RecordError { uid: String::new(), what: "holds no resource" })?.to_owned();
        // The lock is held over the change of the tables, so that two appliers cannot interleave.
        let mut held = self.held.lock();
        if held.get(&uid).is_some_and(|known| known.version >= record.version) {
            return Ok(Change::None);
        }
        let change = self.enter(&record).map_err(|what| RecordError { uid: uid.clone(), what })?;
        // It came decoded: what this build does not know is missing in it.
        let fresh = Held { version: record.version, value: record.encode_to_vec().into(), of_log: false };
        held.insert(uid, fresh);
        Ok(change)
    }

    /// Applies a record of the log as it stands there; one whose version is not above the held one does nothing.
    pub fn apply_value(&self, uid: &str, value: Value) -> Result<Change, RecordError> {
        let error = |what| RecordError { uid: uid.to_owned(), what };
        let Value { bytes: value, record } = value;
        let mut held = self.held.lock();
        let known = held.get(uid);
        let Some(record) = record else {
            let version = known.map_or(0, |known| known.version);
            held.insert(uid.to_owned(), Held { version, value, of_log: true });
            return Err(error("does not decode"));
        };
        let is_new = known
            .is_none_or(|known| known.version < record.version || (known.version == record.version && !known.of_log));
        if !is_new {
            return Ok(Change::None);
        }
        held.insert(uid.to_owned(), Held { version: record.version, value, of_log: true });
        self.enter(&record).map_err(error)
    }

    /// Makes the tables be what a whole log says, whatever they held: what is not in it goes, and of the rest its version
    /// stands. Entries of tenants stay the same. Gives what has to be done for topics, and what could not be read.
    pub fn adopt(&self, log: WholeLog<Value>) -> (Vec<Change>, Vec<RecordError>) {
        let (mut changes, mut errors) = (Vec::new(), Vec::new());
        let absent: Vec<String> = {
            let held = self.held.lock();
            held.keys().filter(|uid| !log.contains(uid)).cloned().collect()
        };
        changes.extend(absent.iter().map(|uid| self.remove(uid)));
        for (uid, version, Value { bytes: value, .. }) in log.into_states() {
            let fresh = Held { version, value, of_log: true };
            let mut held = self.held.lock();
            let same = held.get(&uid).is_some_and(|known| known.of_log && known.value == fresh.value);
            if same {
                continue;
            }
            let entered = match ControlRecord::decode(fresh.value.clone()) {
                Ok(record) => self.enter(&record),
                Err(_) => Err("does not decode"),
            };
            match entered {
                Ok(change) => changes.push(change),
                Err(what) => errors.push(RecordError { uid: uid.clone(), what }),
            }
            held.insert(uid, fresh);
        }
        (changes, errors)
    }

    /// Applies a tombstone: 30 days after its end nothing is known of a resource.
    pub fn remove(&self, uid: &str) -> Change {
        let mut held = self.held.lock();
        let Some(known) = held.remove(uid) else { return Change::None };
        let Ok(mut gone) = ControlRecord::decode(known.value) else { return Change::None };
        match &mut gone.resource {
            Some(Resource::Tenant(tenant)) => tenant.life = Life::Gone.into(),
            Some(Resource::Namespace(namespace)) => namespace.life = Life::Gone.into(),
            Some(Resource::Topic(topic)) => topic.life = Life::Gone.into(),
            Some(Resource::Account(account)) => account.life = Life::Gone.into(),
            Some(Resource::Key(key)) => key.life = Life::Gone.into(),
            Some(Resource::Group(group)) => group.life = Life::Gone.into(),
            Some(Resource::Complete(_)) | None => {}
        }
        let change = self.enter(&gone).unwrap_or(Change::None);
        match &gone.resource {
            Some(Resource::Key(key)) => drop(key.key_id.parse().map(|id| self.keys.remove(&id))),
            Some(Resource::Account(account)) => drop(account.uid.parse().map(|uid| self.accounts.remove(&uid))),
            Some(Resource::Tenant(_)) => {
                if let Some(tenant) = gone.tenant_uid.parse().ok().and_then(|uid| self.tenant(uid)) {
                    tenant.set_state(None, self.defaults);
                }
            }
            _ => {}
        }
        if let Ok(tenant) = gone.tenant_uid.parse::<TenantUid>() {
            // What is left of the tenant may come later, and must find its names.
            self.tenants.remove_if(&tenant, |_, entry| entry.is_unknown());
        }
        change
    }

    fn enter(&self, record: &ControlRecord) -> Result<Change, &'static str> {
        let tenant_uid: TenantUid = record.tenant_uid.parse().map_err(|_| "tenant_uid is no uid")?;
        let change = self.enter_resource(tenant_uid, record);
        self.tenant_entry(tenant_uid).changed();
        change
    }

    fn enter_resource(&self, tenant_uid: TenantUid, record: &ControlRecord) -> Result<Change, &'static str> {
        match &record.resource {
            Some(Resource::Tenant(tenant)) => self.enter_tenant(tenant_uid, tenant),
            Some(Resource::Namespace(namespace)) => self.enter_namespace(tenant_uid, record, namespace),
            Some(Resource::Topic(topic)) => self.enter_topic(tenant_uid, record, topic),
            Some(Resource::Account(account)) => self.enter_account(tenant_uid, account),
            Some(Resource::Key(key)) => self.enter_key(tenant_uid, key),
            Some(Resource::Group(group)) => self.enter_group(tenant_uid, record, group),
            Some(Resource::Complete(_)) => Err("says that the log is complete, under another key"),
            None => Err("holds no resource"),
        }
    }

    fn enter_group(
        &self,
        tenant_uid: TenantUid,
        record: &ControlRecord,
        group: &control::GroupState,
    ) -> Result<Change, &'static str> {
        let uid: GroupUid = group.uid.parse().map_err(|_| "group uid is no uid")?;
        let id: GroupId = group.id.parse().map_err(|_| "group id breaks its grammar")?;
        let namespace: NamespaceUid = group.namespace_uid.parse().map_err(|_| "namespace uid is no uid")?;
        let tenant = self.tenant_entry(tenant_uid);
        if group.life() == Life::Active {
            let resolved = resolve_group(tenant_uid, namespace, uid, id, group)?;
            tenant.names_mut().put_group(Arc::new(resolved), record.outbox_id);
        } else {
            tenant.names_mut().remove_group(namespace, &id, uid);
        }
        Ok(Change::None)
    }

    fn tenant_entry(&self, uid: TenantUid) -> Arc<TenantEntry> {
        Arc::clone(&self.tenants.entry(uid).or_insert_with(|| Arc::new(TenantEntry::new(uid, self.defaults))))
    }

    fn enter_tenant(&self, uid: TenantUid, tenant: &control::TenantState) -> Result<Change, &'static str> {
        let state = TenantState {
            id: tenant.id.parse().map_err(|_| "tenant id breaks its grammar")?,
            active: tenant.life() != Life::Gone,
            suspended: tenant.suspended,
        };
        let limits = limits_over(self.defaults, tenant.limits.as_ref());
        self.tenant_entry(uid).set_state(Some(state), limits);
        Ok(Change::None)
    }

    fn enter_namespace(
        &self,
        tenant: TenantUid,
        record: &ControlRecord,
        namespace: &control::NamespaceState,
    ) -> Result<Change, &'static str> {
        let uid: NamespaceUid = namespace.uid.parse().map_err(|_| "namespace uid is no uid")?;
        let id: NamespaceId = namespace.id.parse().map_err(|_| "namespace id breaks its grammar")?;
        let tenant = self.tenant_entry(tenant);
        if namespace.life() == Life::Active {
            tenant.names_mut().put_namespace(id, uid, record.outbox_id);
        } else {
            tenant.names_mut().remove_namespace(&id, uid);
        }
        Ok(Change::None)
    }

    fn enter_topic(
        &self,
        tenant_uid: TenantUid,
        record: &ControlRecord,
        topic: &control::TopicState,
    ) -> Result<Change, &'static str> {
        let uid: TopicUid = topic.uid.parse().map_err(|_| "topic uid is no uid")?;
        let id: TopicId = topic.id.parse().map_err(|_| "topic id breaks its grammar")?;
        let namespace: NamespaceUid = topic.namespace_uid.parse().map_err(|_| "namespace uid is no uid")?;
        let tenant = self.tenant_entry(tenant_uid);
        let before = tenant.names().topic_of(namespace, &id, uid);
        match topic.life() {
            Life::Active if topic.partitions < 1 => Err("an active topic has no partitions"),
            Life::Active => {
                let placement = match placement::of_topic(topic, uid, before.as_deref(), &self.served) {
                    Ok(placement) => placement,
                    Err(what) => {
                        // Where it was before, it may be no more: an append there would be lost.
                        tenant.names_mut().put_topic(namespace, id, uid, record.outbox_id, None);
                        return Err(what);
                    }
                };
                let resolved = Arc::new(ResolvedTopic {
                    physical: PhysicalTopic::of_log(namespace, placement.appends().1),
                    tenant_uid,
                    namespace_uid: namespace,
                    topic_uid: uid,
                    placement,
                    partitions: topic.partitions,
                    compacted: topic.compacted,
                    record_age_ms_max: Some(topic.record_age_ms_max).filter(|age| *age > 0),
                    log_append_time: topic.log_append_time,
                    name: format!("namespaces/{}/topics/{id}", topic.namespace_id),
                });
                tenant.names_mut().put_topic(namespace, id, uid, record.outbox_id, Some(Arc::clone(&resolved)));
                let as_before = before.is_some_and(|before| {
                    (&before.placement, before.partitions) == (&resolved.placement, resolved.partitions)
                });
                Ok(if as_before { Change::None } else { Change::Serve(resolved) })
            }
            Life::Pending => {
                tenant.names_mut().put_topic(namespace, id, uid, record.outbox_id, None);
                Ok(Change::None)
            }
            Life::Gone | Life::Unspecified => {
                let resolved = tenant.names_mut().remove_topic(namespace, &id, uid);
                Ok(resolved.map_or(Change::None, Change::Forget))
            }
        }
    }

    fn enter_account(&self, tenant_uid: TenantUid, account: &control::AccountState) -> Result<Change, &'static str> {
        let uid: AccountUid = account.uid.parse().map_err(|_| "account uid is no uid")?;
        // A role this build does not know grants nothing.
        let grants = account.grants.iter().filter_map(|grant| {
            let resource = if grant.resource.is_empty() { "*" } else { grant.resource.as_str() };
            Some(Grant { role: grant.role.parse().ok()?, resource: resource.to_owned() })
        });
        let entry = AccountEntry {
            uid,
            tenant_uid,
            id: account.id.clone(),
            active: account.life() == Life::Active,
            grants: grants.collect(),
        };
        self.accounts.insert(uid, Arc::new(entry));
        Ok(Change::None)
    }

    fn enter_key(&self, tenant_uid: TenantUid, key: &control::KeyState) -> Result<Change, &'static str> {
        let id: KeyUid = key.key_id.parse().map_err(|_| "key id is no uid")?;
        let active = key.life() == Life::Active;
        // What is gone may have lost its hash; it is refused before the hash is looked at.
        let hash = match <[u8; 32]>::try_from(&key.hash[..]) {
            Ok(hash) => hash,
            Err(_) if !active => [0; 32],
            Err(_) => return Err("hash is not 32 bytes"),
        };
        let entry = KeyEntry {
            id,
            tenant_uid,
            account_uid: key.account_uid.parse().map_err(|_| "account uid is no uid")?,
            hash: SecretHash(hash),
            active,
            expire_time_ms: key.expire_time_ms,
        };
        self.keys.insert(id, Arc::new(entry));
        Ok(Change::None)
    }
}

fn resolve_group(
    tenant_uid: TenantUid,
    namespace_uid: NamespaceUid,
    group_uid: GroupUid,
    id: GroupId,
    group: &control::GroupState,
) -> Result<ResolvedGroup, &'static str> {
    let topic = |text: &String| text.parse::<TopicId>().map_err(|_| "topic id breaks its grammar");
    let millis = |value: i64| Duration::from_millis(u64::try_from(value).unwrap_or_default());
    let dead_letter_topic = Some(&group.dead_letter_topic_id).filter(|id| !id.is_empty()).map(topic).transpose()?;
    Ok(ResolvedGroup {
        physical: PhysicalGroup::new(namespace_uid, group_uid),
        tenant_uid,
        namespace_uid,
        namespace_id: group.namespace_id.parse().map_err(|_| "namespace id breaks its grammar")?,
        group_uid,
        name: format!("namespaces/{}/groups/{id}", group.namespace_id),
        id,
        topics: group.topic_ids.iter().map(topic).collect::<Result<_, _>>()?,
        start: match group.start {
            Some(GroupStart::StartTimeMs(time)) => Start::Time(time),
            Some(GroupStart::StartEarliest(false)) => Start::Latest,
            Some(GroupStart::StartEarliest(true)) | None => Start::Earliest,
        },
        key_ordered: group.key_ordered,
        ack_deadline: millis(group.ack_deadline_ms),
        max_attempts: u32::try_from(group.max_attempts).ok().filter(|most| *most > 0 && dead_letter_topic.is_some()),
        minimum_backoff: millis(group.minimum_backoff_ms),
        maximum_backoff: millis(group.maximum_backoff_ms),
        dead_letter_topic,
        create_time_ms: group.create_time_ms,
    })
}

/// The uid of the resource in a record, which is the record's key in the log.
pub fn resource_uid(record: &ControlRecord) -> Option<&str> {
    Some(match record.resource.as_ref()? {
        Resource::Tenant(tenant) => &tenant.uid,
        Resource::Namespace(namespace) => &namespace.uid,
        Resource::Topic(topic) => &topic.uid,
        Resource::Account(account) => &account.uid,
        Resource::Key(key) => &key.key_id,
        Resource::Group(group) => &group.uid,
        Resource::Complete(_) => return None,
    })
}

#[cfg(test)]
mod tests;
