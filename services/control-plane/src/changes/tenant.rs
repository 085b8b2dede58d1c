//! The operator's changes of tenants.

use crate::store::Json;
use serde_json::json;
use sluice_proto::admin::v1::{ApiKey, TenantLimits};
use sluice_proto::operator::v1::{
    CreateTenantRequest, DeleteTenantRequest, IssueOwnerKeyRequest, ResumeTenantRequest, SuspendTenantRequest, Tenant,
    UpdateTenantRequest,
};
use sluice_types::{AccountUid, Error, ErrorKind, Grant, Reason, Role, TenantUid};

use super::cascade::empty_some;
use super::finish::exists;
use super::key::{issue, without_what_is_not};
use super::transaction::fields_changed;
use super::{Call, Committed, Envelope, Txn, change};
use crate::domain::{etag, fields, mask, present, record};
use crate::error::Fault;
use crate::plane::SharedPlane;
use crate::store::account::{Account, AccountRow, AccountState, account_by_id, account_insert};
use crate::store::tenant::{TenantRow, TenantState, tenant_get, tenant_insert, tenant_protected, tenant_update};

/// The id of the account that the operator makes keys for.
const OWNER_ACCOUNT: &str = "owner";
const MUTABLE: &[&str] = &[
    "display_name",
    "limits",
    "limits.requests_per_second",
    "limits.ingress_bytes_per_second",
    "limits.egress_bytes_per_second",
    "limits.bytes_in_flight",
    "limits.topics",
    "limits.partitions",
    "limits.namespaces",
];

fn validate(tenant: &Tenant) -> Result<(), Error> {
    fields::display_name("tenant.display_name", &tenant.display_name)?;
    let limits = tenant.limits.unwrap_or_default();
    for (field, value) in [
        ("tenant.limits.requests_per_second", limits.requests_per_second),
        ("tenant.limits.ingress_bytes_per_second", limits.ingress_bytes_per_second),
        ("tenant.limits.egress_bytes_per_second", limits.egress_bytes_per_second),
        ("tenant.limits.bytes_in_flight", limits.bytes_in_flight),
        ("tenant.limits.topics", limits.topics),
        ("tenant.limits.partitions", limits.partitions),
        ("tenant.limits.namespaces", limits.namespaces),
    ] {
        fields::limit(field, value)?;
    }
    Ok(())
}

/// Creates the tenant of the call, with its built-in owner account.
pub(crate) async fn create(
    plane: &SharedPlane,
    call: Call,
    request: CreateTenantRequest,
) -> Result<Committed<Tenant>, Error> {
    let envelope = Envelope::of(&request, request.validate_only)?;
    let id: sluice_types::TenantId = fields::parsed("tenant_id", &request.tenant_id)?;
    let sent = request.tenant.clone().unwrap_or_default();
    validate(&sent)?;
    let name = format!("tenants/{id}");
    let done = change(plane, call, envelope, move |txn| {
        Box::pin(async move {
            let row = new_row(txn.tenant(), id.as_str(), &sent);
            let row = match tenant_insert(txn.tx(), &row).await {
                Err(error) if error.is_unique("tenant_id_key") => return Err(exists(&format!("tenants/{id}")).into()),
                done => done?,
            };
            txn.publish(&record::tenant(&row)).await?;
            let owner = account_insert(txn.tx(), &owner_account()).await?;
            let tenant = txn.tenant();
            txn.publish(&record::account(tenant, &owner)).await?;
            txn.audit(&name, row.uid().uid(), json!({})).await?;
            Ok(present::tenant(&row))
        })
    });
    done.await
}

/// Changes display name or limits.
pub(crate) async fn update(
    plane: &SharedPlane,
    call: Call,
    request: UpdateTenantRequest,
) -> Result<Committed<Tenant>, Error> {
    let envelope = Envelope::of(&request, request.validate_only)?;
    let sent = fields::required("tenant", request.tenant.clone())?;
    validate(&sent)?;
    let present = |path: &str| match path {
        "display_name" => !sent.display_name.is_empty(),
        "limits" => sent.limits.is_some(),
        _ => false,
    };
    let paths = mask::paths(request.update_mask.as_ref(), MUTABLE, present)?;
    change(plane, call, envelope, move |txn| {
        Box::pin(async move {
            let mut row = existing(txn, &sent.name).await?;
            etag::check(&sent.etag, row.uid().uid(), row.version)?;
            for path in &paths {
                apply(&mut row, &sent, path);
            }
            save(txn, &row, fields_changed(&paths)).await
        })
    })
    .await
}

/// Switches a tenant off.
pub(crate) async fn suspend(
    plane: &SharedPlane,
    call: Call,
    request: SuspendTenantRequest,
) -> Result<Committed<Tenant>, Error> {
    let envelope = Envelope::of(&request, request.validate_only)?;
    fields::reason("reason", &request.reason)?;
    change(plane, call, envelope, move |txn| {
        Box::pin(async move {
            let mut row = existing(txn, &request.name).await?;
            row.suspended = true;
            save(txn, &row, json!({ "reason": request.reason })).await
        })
    })
    .await
}

/// Switches a tenant on again.
pub(crate) async fn resume(
    plane: &SharedPlane,
    call: Call,
    request: ResumeTenantRequest,
) -> Result<Committed<Tenant>, Error> {
    let envelope = Envelope::of(&request, request.validate_only)?;
    change(plane, call, envelope, move |txn| {
        Box::pin(async move {
            let mut row = existing(txn, &request.name).await?;
            row.suspended = false;
            save(txn, &row, json!({})).await
        })
    })
    .await
}

/// Deletes a tenant. Its own record makes gateways refuse everything of it at once, keys included; what it has goes in
/// bounded steps, the first one here and the others by the sweeper.
pub(crate) async fn delete(
    plane: &SharedPlane,
    call: Call,
    request: DeleteTenantRequest,
) -> Result<Committed<Tenant>, Error> {
    let envelope = Envelope::of(&request, request.validate_only)?;
    change(plane, call, envelope, move |txn| {
        Box::pin(async move {
            let mut row = match existing(txn, &request.name).await {
                Err(Fault::Answer(error)) if request.allow_missing && error.kind == ErrorKind::NotFound => {
                    return Ok(Tenant { name: request.name.clone(), ..Tenant::default() });
                }
                found => found?,
            };
            etag::check(&request.etag, row.uid().uid(), row.version)?;
            if !request.force
                && let Some(protected) = tenant_protected(txn.tx()).await?
            {
                return Err(protected_by(&request.name, &protected).into());
            }
            row.state = TenantState::Deleting;
            let shown = save(txn, &row, json!({})).await?;
            empty_some(txn).await?;
            Ok(shown)
        })
    })
    .await
}

/// Makes a key of the built-in owner account.
pub(crate) async fn issue_owner_key(
    plane: &SharedPlane,
    call: Call,
    request: IssueOwnerKeyRequest,
) -> Result<Committed<ApiKey>, Error> {
    let envelope = Envelope::of(&request, request.validate_only)?;
    fields::display_name("display_name", &request.display_name)?;
    change(plane, call, envelope, move |txn| {
        Box::pin(async move {
            existing(txn, &request.name).await?;
            let owner = OWNER_ACCOUNT.parse().map_err(Error::internal)?;
            let account = account_by_id(txn.tx(), &owner).await?.ok_or_else(|| Error::not_found(&request.name))?;
            issue(txn, &account.row, &request.display_name, None).await
        })
    })
    .await
    .map(without_what_is_not)
}

fn protected_by(tenant: &str, what: &str) -> Error {
    Error::new(
        ErrorKind::FailedPrecondition,
        Reason::DeletionProtected,
        format!(
            "{tenant} has {what}, which is protected; have its deletion_protection set to false first, or set force"
        ),
    )
}

/// The tenant of the transaction, unless it is being deleted.
async fn existing(txn: &mut Txn, name: &str) -> Result<TenantRow, Fault> {
    let row = tenant_get(txn.tx()).await?.filter(|row| row.state == TenantState::Active);
    Ok(row.ok_or_else(|| Error::not_found(name))?)
}

async fn save(txn: &mut Txn, row: &TenantRow, detail: serde_json::Value) -> Result<Tenant, Fault> {
    let row = tenant_update(txn.tx(), row).await?;
    txn.publish(&record::tenant(&row)).await?;
    txn.audit(&format!("tenants/{}", row.id), row.uid().uid(), detail).await?;
    Ok(present::tenant(&row))
}

fn new_row(uid: TenantUid, id: &str, sent: &Tenant) -> TenantRow {
    let mut row = TenantRow {
        uid: uid.as_i64(),
        id: id.to_owned(),
        display_name: sent.display_name.clone(),
        state: TenantState::Active,
        suspended: false,
        requests_per_second: 0,
        ingress_bytes_per_second: 0,
        egress_bytes_per_second: 0,
        bytes_in_flight: 0,
        topics_max: 0,
        partitions_max: 0,
        namespaces_max: 0,
        version: 1,
        create_us: 0,
        update_us: 0,
    };
    apply(&mut row, sent, "limits");
    row
}

fn apply(row: &mut TenantRow, sent: &Tenant, path: &str) {
    let limits: TenantLimits = sent.limits.unwrap_or_default();
    let all = path == "limits";
    if path == "display_name" {
        row.display_name.clone_from(&sent.display_name);
    }
    for (name, to, from) in [
        ("limits.requests_per_second", &mut row.requests_per_second, limits.requests_per_second),
        ("limits.ingress_bytes_per_second", &mut row.ingress_bytes_per_second, limits.ingress_bytes_per_second),
        ("limits.egress_bytes_per_second", &mut row.egress_bytes_per_second, limits.egress_bytes_per_second),
        ("limits.bytes_in_flight", &mut row.bytes_in_flight, limits.bytes_in_flight),
        ("limits.topics", &mut row.topics_max, limits.topics),
        ("limits.partitions", &mut row.partitions_max, limits.partitions),
        ("limits.namespaces", &mut row.namespaces_max, limits.namespaces),
    ] {
        if all || path == name {
            *to = from;
        }
    }
}

fn owner_account() -> Account {
    let row = AccountRow {
        uid: AccountUid::random().as_i64(),
        id: OWNER_ACCOUNT.to_owned(),
        display_name: "Owner".to_owned(),
        labels: Json(std::collections::BTreeMap::new()),
        built_in: true,
        state: AccountState::Active,
        version: 1,
        create_us: 0,
        update_us: 0,
    };
    Account { row, grants: vec![Grant { role: Role::Owner, resource: "*".to_owned() }], unknown: Vec::new() }
}
