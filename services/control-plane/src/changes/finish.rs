//! How changes end that need nothing of the world: with an operation that is done in the same transaction.

use prost::{Message, Name};
use sluice_proto::wkt::Any;
use sluice_types::{Error, ErrorKind, Reason, Uid};

use super::{Started, Txn};
use crate::domain::present;
use crate::domain::record::Entry;
use crate::error::Fault;
use crate::store::operation::{Ending, Verb, operation_end, operation_insert};

/// Publishes, audits, and writes the operation.
pub(super) async fn finish<M: Message + Name>(
    txn: &mut Txn,
    verb: Verb,
    name: &str,
    entry: &Entry,
    shown: &M,
    detail: serde_json::Value,
) -> Result<Started, Fault> {
    let outbox_id = txn.publish(entry).await?;
    txn.audit(name, entry.aggregate, detail).await?;
    done(txn, verb, name, entry.aggregate, shown, Some(outbox_id)).await
}

/// The deletion of something absent: an operation that is done when the caller allowed it, NOT_FOUND otherwise.
pub(super) async fn missing<M: Message + Name>(
    txn: &mut Txn,
    name: &str,
    allowed: bool,
    shown: &M,
) -> Result<Started, Fault> {
    if !allowed {
        return Err(Error::not_found(name).into());
    }
    done(txn, Verb::Delete, name, Uid::random(), shown, None).await
}

async fn done<M: Message + Name>(
    txn: &mut Txn,
    verb: Verb,
    name: &str,
    uid: Uid,
    shown: &M,
    outbox_id: Option<i64>,
) -> Result<Started, Fault> {
    let operation = operation_insert(txn.tx(), name, uid, verb, 0).await?;
    let ending = Ending::Succeeded { response: present::packed(shown), outbox_id };
    operation_end(txn.tx(), uid, 0, &ending).await?;
    Ok(Started { operation, resource: Any::pack(shown) })
}

/// The name is taken.
pub(super) fn exists(name: &str) -> Error {
    Error::new(ErrorKind::AlreadyExists, Reason::ResourceExists, format!("{name} exists already; choose another id"))
}
