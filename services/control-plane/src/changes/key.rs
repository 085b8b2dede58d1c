//! Changes of API keys. A key speaks for its account, so whoever makes one must have all that the account has.

use serde_json::json;
use sluice_proto::admin::v1::{ApiKey as ApiKeyMessage, CreateApiKeyRequest, RevokeApiKeyRequest};
use sluice_types::api_key::ApiKey;
use sluice_types::{AccountUid, Error, KeyUid, ResourceName, TenantUid};

use super::account::check_reach;
use super::{Call, Committed, Envelope, Txn, change};
use crate::domain::topic::check_quota;
use crate::domain::{fields, present, record};
use crate::error::Fault;
use crate::plane::SharedPlane;
use crate::store::account::{AccountRow, account_by_id};
use crate::store::key::{
    KeyRow, KeyState, key_count_working, key_get, key_insert, key_list_active, key_list_expired, key_revoke,
};

/// Expired keys in one transaction.
const RETIRED_MAX: i64 = 100;

/// Creates a key; its text is in this answer and nowhere else.
pub(crate) async fn create(
    plane: &SharedPlane,
    call: Call,
    request: CreateApiKeyRequest,
) -> Result<Committed<ApiKeyMessage>, Error> {
    let envelope = Envelope::of(&request, request.validate_only)?;
    let account_id = fields::named("parent", &request.parent, ResourceName::parse_account)?;
    let sent = request.api_key.clone().unwrap_or_default();
    fields::display_name("api_key.display_name", &sent.display_name)?;
    let expire = |time| fields::expire_micros("api_key.expire_time", time, now_us());
    let expire_us = sent.expire_time.as_ref().map(expire).transpose()?;
    change(plane, call, envelope, move |txn| {
        Box::pin(async move {
            txn.authorize(&request)?;
            let account =
                account_by_id(txn.tx(), &account_id).await?.ok_or_else(|| Error::not_found(&request.parent))?;
            check_reach(txn, &account)?;
            issue(txn, &account.row, &sent.display_name, expire_us).await
        })
    })
    .await
    .map(without_what_is_not)
}

/// A key that was only checked has no text, id or name: nobody must try to use them.
pub(super) fn without_what_is_not(mut committed: Committed<ApiKeyMessage>) -> Committed<ApiKeyMessage> {
    if committed.validated_only {
        let ApiKeyMessage { name, uid, key, prefix, .. } = &mut committed.answer;
        [name, uid, key, prefix].into_iter().for_each(String::clear);
    }
    committed
}

/// Revokes a key for good. One that is revoked already stays as it is.
pub(crate) async fn revoke(
    plane: &SharedPlane,
    call: Call,
    request: RevokeApiKeyRequest,
) -> Result<Committed<ApiKeyMessage>, Error> {
    let envelope = Envelope::of(&request, request.validate_only)?;
    let (account_id, uid) = parse_name(&request.name)?;
    change(plane, call, envelope, move |txn| {
        Box::pin(async move {
            txn.authorize(&request)?;
            let not_found = || Error::not_found(&request.name);
            let account = account_by_id(txn.tx(), &account_id).await?.ok_or_else(not_found)?;
            check_reach(txn, &account)?;
            let uid = uid.ok_or_else(not_found)?;
            let row = key_get(txn.tx(), account.row.uid(), uid).await?.ok_or_else(not_found)?;
            let row = match row.state {
                KeyState::Revoked => row,
                KeyState::Active => revoke_one(txn, &row).await?,
            };
            txn.audit(&request.name, row.uid().uid(), json!({})).await?;
            Ok(present::key(&account.row.id, &row))
        })
    })
    .await
}

/// A key for this account, in this transaction.
pub(super) async fn issue(
    txn: &mut Txn,
    account: &AccountRow,
    display_name: &str,
    expire_us: Option<i64>,
) -> Result<ApiKeyMessage, Fault> {
    let max = txn.settings().limits.keys_per_account;
    let working = key_count_working(txn.tx(), account.uid()).await?;
    check_quota("keys of one account", working, 1, max)?;
    let secret = ApiKey::generate(&txn.settings().environment);
    let row = KeyRow {
        uid: secret.id().as_i64(),
        account_uid: account.uid,
        display_name: display_name.to_owned(),
        prefix: secret.prefix(),
        hash: secret.hash(&txn.settings().hash_key).0.to_vec(),
        state: KeyState::Active,
        expire_us,
        expired: false,
        revoke_us: None,
        version: 1,
        create_us: 0,
        update_us: 0,
    };
    let row = key_insert(txn.tx(), &row).await?;
    let tenant = txn.tenant();
    txn.publish(&record::key(tenant, &row)).await?;
    let mut shown = present::key(&account.id, &row);
    txn.audit(&shown.name, row.uid().uid(), json!({ "prefix": row.prefix })).await?;
    shown.key = secret.expose();
    Ok(shown)
}

/// Revokes keys of an account, or of the tenant, at most so many, also expired ones.
pub(super) async fn revoke_some(txn: &mut Txn, account: Option<AccountUid>, limit: i64) -> Result<(), Fault> {
    for row in &key_list_active(txn.tx(), account, limit).await? {
        revoke_one(txn, row).await?;
    }
    Ok(())
}

/// Puts keys of a tenant that expired a while ago on their way out, as revoked ones go; they do not work as it is.
pub(crate) async fn retire_expired(plane: &SharedPlane, tenant: TenantUid) -> Result<(), Error> {
    let envelope = Envelope::unnamed(&sluice_proto::rpcs::SERVICE_ACCOUNT_SERVICE_REVOKE_API_KEY);
    let done = change(plane, Call::sweeper(tenant), envelope, |txn| {
        Box::pin(async move {
            for row in &key_list_expired(txn.tx(), RETIRED_MAX).await? {
                revoke_one(txn, row).await?;
            }
            Ok(())
        })
    });
    done.await.map(drop)
}

async fn revoke_one(txn: &mut Txn, row: &KeyRow) -> Result<KeyRow, Fault> {
    let row = key_revoke(txn.tx(), row).await?;
    let tenant = txn.tenant();
    txn.publish(&record::key(tenant, &row)).await?;
    Ok(row)
}

/// `serviceAccounts/{account}/apiKeys/{key}`; a key part that is no key id belongs to no key.
pub(crate) fn parse_name(name: &str) -> Result<(sluice_types::AccountId, Option<KeyUid>), Error> {
    match fields::parsed::<ResourceName>("name", name)? {
        ResourceName::ApiKey(account, key) => Ok((account, key.parse().ok())),
        _ => Err(Error::invalid("name", "must look like serviceAccounts/{account}/apiKeys/{key}")),
    }
}

/// Now, in microseconds since 1970, by our clock.
pub(crate) fn now_us() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
