//! The control log: names, partitions and last ends of topics into the tables that GetUsage reads.

use std::sync::Arc;

use prost::Message as _;
use sluice_db::{DbError, SystemScope};
use sluice_proto::internal::control::v1::{ControlRecord, control_record::Resource};
use sluice_types::physical::CONTROL_TOPIC;
use sluice_types::{NamespaceUid, TenantUid, TopicUid};
use sluice_wire::Record;

use super::log_feed::Sink;
use crate::store::log_position::Log;
use crate::store::names::{Named, names_store};

/// The control log has one partition.
pub const LOG: Log = Log { topic: CONTROL_TOPIC, partition: 0 };

/// Stores names.
pub struct NameSink {
    system: SystemScope,
}

impl NameSink {
    /// Into this database.
    pub fn new(system: SystemScope) -> Arc<Self> {
        Arc::new(Self { system })
    }
}

impl Sink for NameSink {
    async fn commit(&self, log: Log, from: i64, to: i64, records: Vec<Record>) -> Result<bool, DbError> {
        let named: Vec<Named> = records.iter().filter_map(name_of).collect();
        names_store(&self.system, &log, from, to, &named).await
    }
}

/// What a record says of names; `None` for accounts, keys, tombstones (names stay) and what we cannot read.
fn name_of(record: &Record) -> Option<Named> {
    let value = record.value.as_ref()?;
    let named = ControlRecord::decode(value.clone()).ok().and_then(named);
    if named.is_none() {
        tracing::debug!(offset = record.offset, "control record without a name for billing");
    }
    named
}

fn named(record: ControlRecord) -> Option<Named> {
    let version = record.version;
    let tenant = || record.tenant_uid.parse::<TenantUid>().ok().map(TenantUid::as_i64);
    match record.resource? {
        Resource::Tenant(it) => {
            let uid = it.uid.parse::<TenantUid>().ok()?.as_i64();
            Some(Named::Tenant { uid, id: it.id, life: it.life, version })
        }
        Resource::Namespace(it) => {
            let uid = it.uid.parse::<NamespaceUid>().ok()?.as_i64();
            Some(Named::Namespace { uid, tenant_uid: tenant()?, id: it.id, life: it.life, version })
        }
        Resource::Topic(it) => Some(Named::Topic {
            uid: it.uid.parse::<TopicUid>().ok()?.as_i64(),
            tenant_uid: tenant()?,
            namespace_uid: it.namespace_uid.parse::<NamespaceUid>().ok()?.as_i64(),
            namespace_id: it.namespace_id,
            id: it.id,
            life: it.life,
            partitions: it.partitions,
            final_end_offsets: it.final_end_offsets,
            version,
        }),
        Resource::Account(_) | Resource::Key(_) | Resource::Group(_) | Resource::Complete(_) => None,
    }
}
