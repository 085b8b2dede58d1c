//! Changes of namespaces. They need nothing of the world, so their operations end with their transactions.

use crate::store::Json;
use serde_json::json;
use sluice_proto::admin::v1::{CreateNamespaceRequest, DeleteNamespaceRequest, Namespace, UpdateNamespaceRequest};
use sluice_proto::wkt::Any;
use sluice_types::{Error, ErrorKind, NamespaceUid, Reason, ResourceName};

use super::transaction::fields_changed;
use super::{Call, Committed, Envelope, Started, Txn, change};
use crate::domain::topic::{check_deletable, check_quota};
use crate::domain::{etag, fields, mask, present, record};
use crate::error::Fault;
use crate::plane::SharedPlane;
use crate::store::namespace::{
    NamespaceRow, NamespaceState, namespace_by_id, namespace_count, namespace_insert, namespace_update,
};
use crate::store::operation::{Ending, Verb, operation_end, operation_insert};
use crate::store::tenant::tenant_get;
use crate::store::topic::topic_count_in;

const MUTABLE: &[&str] = &["display_name", "labels", "deletion_protection"];

fn validate(namespace: &Namespace) -> Result<(), Error> {
    fields::display_name("namespace.display_name", &namespace.display_name)?;
    fields::labels("namespace.labels", &namespace.labels)
}

/// Creates a namespace.
pub(crate) async fn create(
    plane: &SharedPlane,
    call: Call,
    request: CreateNamespaceRequest,
) -> Result<Committed<Started>, Error> {
    let envelope = Envelope::of(&request, request.validate_only)?;
    let id = fields::parsed("namespace_id", &request.namespace_id)?;
    let sent = request.namespace.clone().unwrap_or_default();
    validate(&sent)?;
    change(plane, call, envelope, move |txn| {
        Box::pin(async move {
            txn.authorize(&request)?;
            if namespace_by_id(txn.tx(), &id).await?.is_some() {
                return Err(exists(&format!("namespaces/{id}")).into());
            }
            let tenant = tenant_get(txn.tx()).await?.ok_or_else(crate::domain::access::credential_invalid)?;
            let max = or_default(tenant.namespaces_max, txn.settings().limits.namespaces);
            check_quota("namespaces", namespace_count(txn.tx()).await?, 1, max)?;
            let row = NamespaceRow {
                uid: NamespaceUid::random().as_i64(),
                id: id.to_string(),
                display_name: sent.display_name,
                labels: Json(sent.labels),
                deletion_protection: sent.deletion_protection,
                state: NamespaceState::Active,
                version: 1,
                create_us: 0,
                update_us: 0,
            };
            let row = namespace_insert(txn.tx(), &row).await?;
            finish(txn, &row, Verb::Create, json!({})).await
        })
    })
    .await
}

/// Changes display name, labels, protection.
pub(crate) async fn update(
    plane: &SharedPlane,
    call: Call,
    request: UpdateNamespaceRequest,
) -> Result<Committed<Started>, Error> {
    let envelope = Envelope::of(&request, request.validate_only)?;
    let sent = fields::required("namespace", request.namespace.clone())?;
    let id = fields::named("namespace.name", &sent.name, ResourceName::parse_namespace)?;
    validate(&sent)?;
    let present = |path: &str| match path {
        "display_name" => !sent.display_name.is_empty(),
        "labels" => !sent.labels.is_empty(),
        _ => sent.deletion_protection,
    };
    let paths = mask::paths(request.update_mask.as_ref(), MUTABLE, present)?;
    change(plane, call, envelope, move |txn| {
        Box::pin(async move {
            txn.authorize(&request)?;
            let old = namespace_by_id(txn.tx(), &id).await?.ok_or_else(|| Error::not_found(&sent.name))?;
            etag::check(&sent.etag, old.uid().uid(), old.version)?;
            let mut row = old;
            for path in &paths {
                match *path {
                    "display_name" => row.display_name.clone_from(&sent.display_name),
                    "labels" => row.labels = Json(sent.labels.clone()),
                    _ => row.deletion_protection = sent.deletion_protection,
                }
            }
            let row = namespace_update(txn.tx(), &row).await?;
            finish(txn, &row, Verb::Update, fields_changed(&paths)).await
        })
    })
    .await
}

/// Deletes an empty namespace.
pub(crate) async fn delete(
    plane: &SharedPlane,
    call: Call,
    request: DeleteNamespaceRequest,
) -> Result<Committed<Started>, Error> {
    let envelope = Envelope::of(&request, request.validate_only)?;
    let id = fields::named("name", &request.name, ResourceName::parse_namespace)?;
    change(plane, call, envelope, move |txn| {
        Box::pin(async move {
            txn.authorize(&request)?;
            let Some(mut row) = namespace_by_id(txn.tx(), &id).await? else {
                return missing(
                    txn,
                    &request.name,
                    request.allow_missing,
                    &Namespace { name: request.name.clone(), ..Namespace::default() },
                )
                .await;
            };
            etag::check(&request.etag, row.uid().uid(), row.version)?;
            check_deletable(row.deletion_protection, &request.name)?;
            if topic_count_in(txn.tx(), row.uid()).await? > 0 {
                return Err(Error::new(
                    ErrorKind::FailedPrecondition,
                    Reason::ResourceNotEmpty,
                    format!("{} still has topics; delete them first", request.name),
                )
                .into());
            }
            row.state = NamespaceState::Deleted;
            let row = namespace_update(txn.tx(), &row).await?;
            finish(txn, &row, Verb::Delete, json!({})).await
        })
    })
    .await
}

/// Publishes, audits, and writes an operation that is done.
async fn finish(txn: &mut Txn, row: &NamespaceRow, verb: Verb, detail: serde_json::Value) -> Result<Started, Fault> {
    let tenant = txn.tenant();
    let outbox_id = txn.publish(&record::namespace(tenant, row)).await?;
    let uid = row.uid().uid();
    txn.audit(&row.name(), uid, detail).await?;
    let shown = present::namespace(row);
    let operation = operation_insert(txn.tx(), &row.name(), uid, verb, 0).await?;
    let ending = Ending::Succeeded { response: present::packed(&shown), outbox_id: Some(outbox_id) };
    operation_end(txn.tx(), uid, 0, &ending).await?;
    Ok(Started { operation, resource: Any::pack(&shown) })
}

/// The deletion of something absent: an operation that is done when the caller allowed it, NOT_FOUND otherwise.
pub(super) async fn missing<M: prost::Message + prost::Name>(
    txn: &mut Txn,
    name: &str,
    allowed: bool,
    shown: &M,
) -> Result<Started, Fault> {
    if !allowed {
        return Err(Error::not_found(name).into());
    }
    let nobody = sluice_types::Uid::random();
    let operation = operation_insert(txn.tx(), name, nobody, Verb::Delete, 0).await?;
    let ending = Ending::Succeeded { response: present::packed(shown), outbox_id: None };
    operation_end(txn.tx(), nobody, 0, &ending).await?;
    Ok(Started { operation, resource: Any::pack(shown) })
}

/// The name is taken.
pub(super) fn exists(name: &str) -> Error {
    Error::new(ErrorKind::AlreadyExists, Reason::ResourceExists, format!("{name} exists already; choose another id"))
}

/// A tenant's own limit, or the installation's.
pub(super) fn or_default(own: i64, default: i64) -> i64 {
    if own > 0 { own } else { default }
}
