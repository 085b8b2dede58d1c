//! Service accounts and the roles bound to them.

use sluice_db::TenantTx;
use sluice_types::{AccountId, AccountUid, Grant, Role};

use super::{Labels, Result};

/// A row, with its grants in the order they were given.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Account {
    pub(crate) row: AccountRow,
    pub(crate) grants: Vec<Grant>,
    /// Roles of a newer version on their resources: this one does not know what they grant, and must not lose them.
    pub(crate) unknown: Vec<(String, String)>,
}

/// A row.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub(crate) struct AccountRow {
    pub(crate) uid: i64,
    pub(crate) id: String,
    pub(crate) display_name: String,
    pub(crate) labels: Labels,
    pub(crate) built_in: bool,
    pub(crate) state: AccountState,
    pub(crate) version: i64,
    pub(crate) create_us: i64,
    pub(crate) update_us: i64,
}

/// Where an account is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::Type)]
#[sqlx(type_name = "text", rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum AccountState {
    Active,
    Deleted,
}

impl AccountRow {
    pub(crate) fn uid(&self) -> AccountUid {
        AccountUid::from_i64(self.uid)
    }

    pub(crate) fn name(&self) -> String {
        format!("serviceAccounts/{}", self.id)
    }
}

#[derive(sqlx::FromRow)]
struct WithGrants {
    #[sqlx(flatten)]
    row: AccountRow,
    roles: Vec<String>,
    resources: Vec<String>,
}

macro_rules! columns {
    () => {
        "uid, id, display_name, labels, built_in, state, version, \
         control.micros(create_time) AS create_us, control.micros(update_time) AS update_us"
    };
}

macro_rules! columns_with_grants {
    () => {
        concat!(
            columns!(),
            ", ARRAY(SELECT role FROM control.role_binding b WHERE b.account_uid = uid ORDER BY position) AS roles, \
              ARRAY(SELECT resource FROM control.role_binding b WHERE b.account_uid = uid ORDER BY position) AS resources"
        )
    };
}

/// The one in service under this id.
pub(crate) async fn account_by_id(tx: &mut TenantTx, id: &AccountId) -> Result<Option<Account>> {
    let tenant = tx.tenant().as_i64();
    let sql = concat!(
        "SELECT ",
        columns_with_grants!(),
        " FROM control.service_account WHERE tenant_uid = $1 AND id = $2 AND state = 'ACTIVE'"
    );
    let row: Option<WithGrants> = sqlx::query_as(sql).bind(tenant).bind(id.as_str()).fetch_optional(tx.conn()).await?;
    Ok(row.map(Account::from))
}

/// A page by id.
pub(crate) async fn account_list(tx: &mut TenantTx, after: &str, limit: i64) -> Result<Vec<Account>> {
    let tenant = tx.tenant().as_i64();
    let sql = concat!(
        "SELECT ",
        columns_with_grants!(),
        " FROM control.service_account WHERE tenant_uid = $1 AND id > $2 AND state = 'ACTIVE' ORDER BY id LIMIT $3"
    );
    let rows: Vec<WithGrants> = sqlx::query_as(sql).bind(tenant).bind(after).bind(limit).fetch_all(tx.conn()).await?;
    Ok(rows.into_iter().map(Account::from).collect())
}

/// How many are in service.
pub(crate) async fn account_count(tx: &mut TenantTx) -> Result<i64> {
    let tenant = tx.tenant().as_i64();
    let sql = "SELECT count(*) FROM control.service_account WHERE tenant_uid = $1 AND state = 'ACTIVE'";
    Ok(sqlx::query_scalar(sql).bind(tenant).fetch_one(tx.conn()).await?)
}

/// Inserts the account and its grants.
pub(crate) async fn account_insert(tx: &mut TenantTx, account: &Account) -> Result<Account> {
    let tenant = tx.tenant().as_i64();
    let row = &account.row;
    let sql = concat!(
        "INSERT INTO control.service_account (uid, tenant_uid, id, display_name, labels, built_in, state) \
         VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING ",
        columns!()
    );
    let query = sqlx::query_as(sql)
        .bind(row.uid)
        .bind(tenant)
        .bind(&row.id)
        .bind(&row.display_name)
        .bind(&row.labels)
        .bind(row.built_in)
        .bind(row.state);
    let row: AccountRow = query.fetch_one(tx.conn()).await?;
    grants_insert(tx, row.uid(), account).await?;
    Ok(Account { row, ..account.clone() })
}

/// Writes what may change, replaces the grants, raises the version.
pub(crate) async fn account_update(tx: &mut TenantTx, account: &Account) -> Result<Account> {
    let tenant = tx.tenant().as_i64();
    let row = &account.row;
    let sql = concat!(
        "UPDATE control.service_account SET display_name = $4, labels = $5, state = $6, version = version + 1, \
         update_time = now(), delete_time = CASE WHEN $6 = 'DELETED' THEN coalesce(delete_time, now()) END \
         WHERE uid = $1 AND tenant_uid = $2 AND version = $3 RETURNING ",
        columns!()
    );
    let query = sqlx::query_as(sql)
        .bind(row.uid)
        .bind(tenant)
        .bind(row.version)
        .bind(&row.display_name)
        .bind(&row.labels)
        .bind(row.state);
    let row: AccountRow = query.fetch_one(tx.conn()).await?;
    let delete = "DELETE FROM control.role_binding WHERE tenant_uid = $1 AND account_uid = $2";
    sqlx::query(delete).bind(tenant).bind(row.uid).execute(tx.conn()).await?;
    grants_insert(tx, row.uid(), account).await?;
    Ok(Account { row, ..account.clone() })
}

async fn grants_insert(tx: &mut TenantTx, uid: AccountUid, account: &Account) -> Result<()> {
    let tenant = tx.tenant().as_i64();
    let known = account.grants.iter().map(|grant| (grant.role.as_str(), grant.resource.as_str()));
    let unknown = account.unknown.iter().map(|(role, resource)| (role.as_str(), resource.as_str()));
    let (roles, resources): (Vec<&str>, Vec<&str>) = known.chain(unknown).unzip();
    let sql = "INSERT INTO control.role_binding (tenant_uid, account_uid, position, role, resource) \
               SELECT $1, $2, position, role, resource \
               FROM unnest($3::text[], $4::text[]) WITH ORDINALITY AS given (role, resource, position)";
    sqlx::query(sql).bind(tenant).bind(uid.as_i64()).bind(roles).bind(resources).execute(tx.conn()).await?;
    Ok(())
}

/// Grants from their columns. A role that we do not know grants nothing.
pub(super) fn grants(roles: Vec<String>, resources: Vec<String>) -> Vec<Grant> {
    let pairs = roles.into_iter().zip(resources);
    pairs.filter_map(|(role, resource)| Some(Grant { role: role.parse().ok()?, resource })).collect()
}

impl From<WithGrants> for Account {
    fn from(row: WithGrants) -> Self {
        let pairs = || row.roles.iter().cloned().zip(row.resources.iter().cloned());
        let unknown = pairs().filter(|(role, _)| role.parse::<Role>().is_err()).collect();
        Self { unknown, grants: grants(row.roles, row.resources), row: row.row }
    }
}
