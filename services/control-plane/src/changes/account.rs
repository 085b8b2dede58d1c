//! Changes of service accounts and their grants.

use crate::store::Json;
use serde_json::json;
use sluice_proto::admin::v1::{
    CreateServiceAccountRequest, DeleteServiceAccountRequest, ServiceAccount, UpdateServiceAccountRequest,
};
use sluice_types::{AccountUid, Error, ErrorKind, Grant, Reason, ResourceName, Role};

use super::finish::exists;
use super::key::revoke_some;
use super::transaction::fields_changed;
use super::{Call, Committed, Envelope, Txn, change};
use crate::domain::topic::check_quota;
use crate::domain::{escalation, etag, fields, mask, present, record};
use crate::error::Fault;
use crate::plane::SharedPlane;
use crate::store::account::{
    Account, AccountRow, AccountState, account_by_id, account_count, account_insert, account_update,
};

const MUTABLE: &[&str] = &["display_name", "labels", "grants"];

fn validate(account: &ServiceAccount) -> Result<Vec<Grant>, Error> {
    fields::display_name("service_account.display_name", &account.display_name)?;
    fields::labels("service_account.labels", &account.labels)?;
    fields::grants("service_account.grants", &account.grants)
}

/// Creates an account with roles within the caller's own.
pub(crate) async fn create(
    plane: &SharedPlane,
    call: Call,
    request: CreateServiceAccountRequest,
) -> Result<Committed<ServiceAccount>, Error> {
    let envelope = Envelope::of(&request, request.validate_only)?;
    let id = fields::parsed("service_account_id", &request.service_account_id)?;
    let sent = request.service_account.clone().unwrap_or_default();
    let grants = validate(&sent)?;
    change(plane, call, envelope, move |txn| {
        Box::pin(async move {
            txn.authorize(&request)?;
            escalation::check(txn.grants(), &effective(&grants))?;
            if account_by_id(txn.tx(), &id).await?.is_some() {
                return Err(exists(&format!("serviceAccounts/{id}")).into());
            }
            let max = txn.settings().limits.service_accounts;
            check_quota("service accounts", account_count(txn.tx()).await?, 1, max)?;
            let row = AccountRow {
                uid: AccountUid::random().as_i64(),
                id: id.to_string(),
                display_name: sent.display_name,
                labels: Json(sent.labels),
                built_in: false,
                state: AccountState::Active,
                version: 1,
                create_us: 0,
                update_us: 0,
            };
            let account = account_insert(txn.tx(), &Account { row, grants, unknown: Vec::new() }).await?;
            let detail = json!({ "grants": grant_texts(&account.grants) });
            finish(txn, &account, detail).await
        })
    })
    .await
}

/// Changes display name, labels, grants. Both the old and the new grants must lie within the caller's own.
pub(crate) async fn update(
    plane: &SharedPlane,
    call: Call,
    request: UpdateServiceAccountRequest,
) -> Result<Committed<ServiceAccount>, Error> {
    let envelope = Envelope::of(&request, request.validate_only)?;
    let sent = fields::required("service_account", request.service_account.clone())?;
    let id = fields::named("service_account.name", &sent.name, ResourceName::parse_account)?;
    let grants = validate(&sent)?;
    let present = |path: &str| match path {
        "display_name" => !sent.display_name.is_empty(),
        "labels" => !sent.labels.is_empty(),
        _ => !sent.grants.is_empty(),
    };
    let paths = mask::paths(request.update_mask.as_ref(), MUTABLE, present)?;
    change(plane, call, envelope, move |txn| {
        Box::pin(async move {
            txn.authorize(&request)?;
            let mut account = account_by_id(txn.tx(), &id).await?.ok_or_else(|| Error::not_found(&sent.name))?;
            etag::check(&sent.etag, account.row.uid().uid(), account.row.version)?;
            check_reach(txn, &account)?;
            for path in &paths {
                match *path {
                    "display_name" => account.row.display_name.clone_from(&sent.display_name),
                    "labels" => account.row.labels = Json(sent.labels.clone()),
                    _ => {
                        escalation::check(txn.grants(), &effective(&grants))?;
                        refuse_built_in(&account, "its grants cannot be changed")?;
                        account.grants.clone_from(&grants);
                        // What the account may do is what was sent, and no more.
                        account.unknown.clear();
                    }
                }
            }
            let account = account_update(txn.tx(), &account).await?;
            let detail = match paths.contains(&"grants") {
                true => json!({ "fields": paths, "grants": grant_texts(&account.grants) }),
                false => fields_changed(&paths),
            };
            finish(txn, &account, detail).await
        })
    })
    .await
}

/// Deletes an account and revokes all its keys.
pub(crate) async fn delete(
    plane: &SharedPlane,
    call: Call,
    request: DeleteServiceAccountRequest,
) -> Result<Committed<ServiceAccount>, Error> {
    let envelope = Envelope::of(&request, request.validate_only)?;
    let id = fields::named("name", &request.name, ResourceName::parse_account)?;
    change(plane, call, envelope, move |txn| {
        Box::pin(async move {
            txn.authorize(&request)?;
            let Some(mut account) = account_by_id(txn.tx(), &id).await? else {
                return match request.allow_missing {
                    true => Ok(ServiceAccount { name: request.name.clone(), ..ServiceAccount::default() }),
                    false => Err(Error::not_found(&request.name).into()),
                };
            };
            etag::check(&request.etag, account.row.uid().uid(), account.row.version)?;
            check_reach(txn, &account)?;
            refuse_built_in(&account, "it cannot be deleted")?;
            // An account has no more working keys than its limit, but the limit may have been lowered.
            revoke_some(txn, Some(account.row.uid()), i64::MAX).await?;
            account.row.state = AccountState::Deleted;
            let account = account_update(txn.tx(), &account).await?;
            finish(txn, &account, json!({})).await
        })
    })
    .await
}

async fn finish(txn: &mut Txn, account: &Account, detail: serde_json::Value) -> Result<ServiceAccount, Fault> {
    let tenant = txn.tenant();
    txn.publish(&record::account(tenant, account)).await?;
    txn.audit(&account.row.name(), account.row.uid().uid(), detail).await?;
    Ok(present::account(account))
}

/// Refuses a caller that may do less than the account. Nobody but an owner is above a role that this version does not know.
pub(super) fn check_reach(txn: &Txn, account: &Account) -> Result<(), Error> {
    let stands_for = |(_, resource): &(String, String)| Grant { role: Role::Owner, resource: resource.clone() };
    let unknown: Vec<Grant> = account.unknown.iter().map(stands_for).collect();
    escalation::check(txn.grants(), &effective(&account.grants))?;
    escalation::check(txn.grants(), &effective(&unknown))
}

/// An empty resource means the whole tenant.
pub(super) fn effective(grants: &[Grant]) -> Vec<Grant> {
    let whole = |grant: &Grant| match grant.resource.is_empty() {
        true => Grant { role: grant.role, resource: "*".to_owned() },
        false => grant.clone(),
    };
    grants.iter().map(whole).collect()
}

fn grant_texts(grants: &[Grant]) -> Vec<String> {
    grants.iter().map(|grant| format!("{} on {}", grant.role, grant.resource)).collect()
}

/// The built-in owner is how the operator hands a tenant its first key; it stays what it is.
fn refuse_built_in(account: &Account, what: &str) -> Result<(), Error> {
    if !account.row.built_in {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::FailedPrecondition,
        Reason::ResourceState,
        format!("{} is built in; {what}", account.row.name()),
    ))
}
