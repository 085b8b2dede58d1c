//! The caller as the database knows it now: whether its credential works, and what its account may.

use sluice_db::TenantTx;
use sluice_types::{AccountUid, Grant, KeyUid};

use super::Result;
use super::account::grants;

/// What decides about a call, read in its transaction.
#[derive(Debug, Clone)]
pub(crate) struct CallerRow {
    pub(crate) tenant_active: bool,
    pub(crate) suspended: bool,
    pub(crate) credential_works: bool,
    /// An empty resource is written `*`.
    pub(crate) grants: Vec<Grant>,
}

type Row = (bool, bool, bool, Vec<String>, Vec<String>);

/// `None`: there is no such key of this account.
pub(crate) async fn caller_get(tx: &mut TenantTx, account: AccountUid, key: KeyUid) -> Result<Option<CallerRow>> {
    let sql = "SELECT t.state = 'ACTIVE', t.suspended, \
                      a.state = 'ACTIVE' AND k.state = 'ACTIVE' AND coalesce(k.expire_time > now(), true), \
                      ARRAY(SELECT role FROM control.role_binding WHERE account_uid = $2 ORDER BY position), \
                      ARRAY(SELECT CASE resource WHEN '' THEN '*' ELSE resource END FROM control.role_binding \
                            WHERE account_uid = $2 ORDER BY position) \
               FROM control.tenant t \
               JOIN control.service_account a ON a.tenant_uid = t.uid AND a.uid = $2 \
               JOIN control.api_key k ON k.account_uid = a.uid AND k.uid = $3 \
               WHERE t.uid = $1";
    let tenant = tx.tenant().as_i64();
    let row: Option<Row> =
        sqlx::query_as(sql).bind(tenant).bind(account.as_i64()).bind(key.as_i64()).fetch_optional(tx.conn()).await?;
    Ok(row.map(|(tenant_active, suspended, credential_works, roles, resources)| CallerRow {
        tenant_active,
        suspended,
        credential_works,
        grants: grants(roles, resources),
    }))
}
