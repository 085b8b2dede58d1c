//! API keys: id, keyed hash of the secret, life. Never the secret.

use sluice_db::TenantTx;
use sluice_types::{AccountUid, KeyUid};

use super::Result;

/// A row.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub(crate) struct KeyRow {
    pub(crate) uid: i64,
    pub(crate) account_uid: i64,
    pub(crate) display_name: String,
    pub(crate) prefix: String,
    pub(crate) hash: Vec<u8>,
    pub(crate) state: KeyState,
    pub(crate) expire_us: Option<i64>,
    pub(crate) expired: bool,
    pub(crate) revoke_us: Option<i64>,
    pub(crate) version: i64,
    pub(crate) create_us: i64,
    pub(crate) update_us: i64,
}

/// Where a key is in its life; expiry is told by its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::Type)]
#[sqlx(type_name = "text", rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum KeyState {
    Active,
    Revoked,
}

impl KeyRow {
    pub(crate) fn uid(&self) -> KeyUid {
        KeyUid::from_i64(self.uid)
    }

    pub(crate) fn account_uid(&self) -> AccountUid {
        AccountUid::from_i64(self.account_uid)
    }
}

macro_rules! columns {
    () => {
        "uid, account_uid, display_name, prefix, hash, state, control.micros(expire_time) AS expire_us, \
         coalesce(expire_time <= now(), false) AS expired, control.micros(revoke_time) AS revoke_us, version, \
         control.micros(create_time) AS create_us, control.micros(update_time) AS update_us"
    };
}

/// One key of an account.
pub(crate) async fn key_get(tx: &mut TenantTx, account: AccountUid, uid: KeyUid) -> Result<Option<KeyRow>> {
    let tenant = tx.tenant().as_i64();
    let sql =
        concat!("SELECT ", columns!(), " FROM control.api_key WHERE tenant_uid = $1 AND account_uid = $2 AND uid = $3");
    let query = sqlx::query_as(sql).bind(tenant).bind(account.as_i64()).bind(uid.as_i64());
    Ok(query.fetch_optional(tx.conn()).await?)
}

/// A page of an account's keys by uid, those after `after`.
pub(crate) async fn key_list(
    tx: &mut TenantTx,
    account: AccountUid,
    after: Option<KeyUid>,
    limit: i64,
) -> Result<Vec<KeyRow>> {
    let tenant = tx.tenant().as_i64();
    let sql = concat!(
        "SELECT ",
        columns!(),
        " FROM control.api_key WHERE tenant_uid = $1 AND account_uid = $2 AND ($3::bigint IS NULL OR uid > $3) \
         ORDER BY uid LIMIT $4"
    );
    let query = sqlx::query_as(sql).bind(tenant).bind(account.as_i64()).bind(after.map(KeyUid::as_i64)).bind(limit);
    Ok(query.fetch_all(tx.conn()).await?)
}

/// How many keys of an account work.
pub(crate) async fn key_count_working(tx: &mut TenantTx, account: AccountUid) -> Result<i64> {
    let tenant = tx.tenant().as_i64();
    let sql = "SELECT count(*) FROM control.api_key WHERE tenant_uid = $1 AND account_uid = $2 AND state = 'ACTIVE' \
               AND coalesce(expire_time > now(), true)";
    Ok(sqlx::query_scalar(sql).bind(tenant).bind(account.as_i64()).fetch_one(tx.conn()).await?)
}

/// Some keys of an account, or of the tenant, that are not revoked; for their revocation.
pub(crate) async fn key_list_active(tx: &mut TenantTx, account: Option<AccountUid>, limit: i64) -> Result<Vec<KeyRow>> {
    let tenant = tx.tenant().as_i64();
    let sql = concat!(
        "SELECT ",
        columns!(),
        " FROM control.api_key WHERE tenant_uid = $1 AND ($2::bigint IS NULL OR account_uid = $2) \
         AND state = 'ACTIVE' ORDER BY uid LIMIT $3"
    );
    let query = sqlx::query_as(sql).bind(tenant).bind(account.map(AccountUid::as_i64)).bind(limit);
    Ok(query.fetch_all(tx.conn()).await?)
}

/// Some keys of the tenant that expired more than an hour ago; clocks of gateways may be behind.
pub(crate) async fn key_list_expired(tx: &mut TenantTx, limit: i64) -> Result<Vec<KeyRow>> {
    let tenant = tx.tenant().as_i64();
    let sql = concat!(
        "SELECT ",
        columns!(),
        " FROM control.api_key WHERE tenant_uid = $1 AND state = 'ACTIVE' \
         AND expire_time < now() - interval '1 hour' ORDER BY expire_time LIMIT $2"
    );
    Ok(sqlx::query_as(sql).bind(tenant).bind(limit).fetch_all(tx.conn()).await?)
}

/// Inserts.
pub(crate) async fn key_insert(tx: &mut TenantTx, row: &KeyRow) -> Result<KeyRow> {
    let tenant = tx.tenant().as_i64();
    let sql = concat!(
        "INSERT INTO control.api_key (uid, tenant_uid, account_uid, display_name, prefix, hash, state, expire_time) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, control.from_micros($8)) RETURNING ",
        columns!()
    );
    let query = sqlx::query_as(sql)
        .bind(row.uid)
        .bind(tenant)
        .bind(row.account_uid)
        .bind(&row.display_name)
        .bind(&row.prefix)
        .bind(&row.hash)
        .bind(row.state)
        .bind(row.expire_us);
    Ok(query.fetch_one(tx.conn()).await?)
}

/// Revokes for good and raises the version.
pub(crate) async fn key_revoke(tx: &mut TenantTx, row: &KeyRow) -> Result<KeyRow> {
    let tenant = tx.tenant().as_i64();
    let sql = concat!(
        "UPDATE control.api_key SET state = 'REVOKED', revoke_time = now(), version = version + 1, update_time = now() \
         WHERE uid = $1 AND tenant_uid = $2 AND version = $3 RETURNING ",
        columns!()
    );
    Ok(sqlx::query_as(sql).bind(row.uid).bind(tenant).bind(row.version).fetch_one(tx.conn()).await?)
}
