//! Changes of namespaces. They need nothing of the world, so their operations end with their transactions.

use crate::store::Json;
use serde_json::json;
use sluice_proto::admin::v1::{CreateNamespaceRequest, DeleteNamespaceRequest, Namespace, UpdateNamespaceRequest};
use sluice_types::{ClusterUid, Error, ErrorKind, NamespaceUid, Reason, ResourceName};

use super::finish::{exists, finish, missing};
use super::transaction::fields_changed;
use super::{Call, Committed, Envelope, Started, Txn, change};
use crate::domain::topic::{check_deletable, check_quota};
use crate::domain::{etag, fields, mask, present, record};
use crate::error::Fault;
use crate::plane::SharedPlane;
use crate::store::group::group_count_in;
use crate::store::namespace::{
    NamespaceRow, NamespaceState, namespace_by_id, namespace_count, namespace_insert, namespace_update,
};
use crate::store::operation::Verb;
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
            let max = fields::or_default(tenant.namespaces_max, txn.settings().limits.namespaces);
            check_quota("namespaces", namespace_count(txn.tx()).await?, 1, max)?;
            let row = NamespaceRow {
                uid: NamespaceUid::random().as_i64(),
                id: id.to_string(),
                display_name: sent.display_name,
                labels: Json(sent.labels),
                deletion_protection: sent.deletion_protection,
                state: NamespaceState::Active,
                cluster_uid: ClusterUid::FIRST.as_i64(),
                version: 1,
                create_us: 0,
                update_us: 0,
            };
            let row = namespace_insert(txn.tx(), &row).await?;
            written(txn, &row, Verb::Create, json!({})).await
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
            written(txn, &row, Verb::Update, fields_changed(&paths)).await
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
                let shown = Namespace { name: request.name.clone(), ..Namespace::default() };
                return missing(txn, &request.name, request.allow_missing, &shown).await;
            };
            etag::check(&request.etag, row.uid().uid(), row.version)?;
            check_deletable(row.deletion_protection, &request.name)?;
            check_empty(txn, &row).await?;
            row.state = NamespaceState::Deleted;
            let row = namespace_update(txn.tx(), &row).await?;
            written(txn, &row, Verb::Delete, json!({})).await
        })
    })
    .await
}

async fn written(txn: &mut Txn, row: &NamespaceRow, verb: Verb, detail: serde_json::Value) -> Result<Started, Fault> {
    let entry = record::namespace(txn.tenant(), row);
    finish(txn, verb, &row.name(), &entry, &present::namespace(row), detail).await
}

/// Refuses to leave something without its namespace.
async fn check_empty(txn: &mut Txn, row: &NamespaceRow) -> Result<(), Fault> {
    let topics = topic_count_in(txn.tx(), row.uid()).await?;
    let groups = group_count_in(txn.tx(), row.uid()).await?;
    let Some((_, what)) = [(topics, "topics"), (groups, "groups")].into_iter().find(|(count, _)| *count > 0) else {
        return Ok(());
    };
    Err(Error::new(
        ErrorKind::FailedPrecondition,
        Reason::ResourceNotEmpty,
        format!("{} still has {what}; delete them first", row.name()),
    )
    .into())
}
