//! What a deleted tenant leaves: keys, groups, topics, accounts, namespaces, taken out of service in bounded steps.
//!
//! Nothing of it is reachable meanwhile: gateways refuse a tenant that is gone whatever its parts say, and so does every
//! transaction here.

use sluice_types::{Error, TenantUid};

use super::key::revoke_some;
use super::topic::begin_deletion;
use super::{Call, Envelope, Txn, change};
use crate::domain::record;
use crate::error::Fault;
use crate::plane::SharedPlane;
use crate::store::account::{AccountState, account_list, account_update};
use crate::store::group::{GroupState, group_list_some, group_update};
use crate::store::namespace::{NamespaceState, namespace_list, namespace_update};
use crate::store::topic::topic_list_some;

/// Things of each kind in one transaction, so that it stays well within the time of one.
const STEP: i64 = 100;

/// One more step for a tenant that is being deleted.
pub(crate) async fn empty(plane: &SharedPlane, tenant: TenantUid) -> Result<(), Error> {
    let call = Call::sweeper(tenant);
    let envelope = Envelope::unnamed(&sluice_proto::rpcs::TENANTS_SERVICE_DELETE_TENANT);
    change(plane, call, envelope, |txn| Box::pin(async move { empty_some(txn).await })).await.map(drop)
}

/// Takes some of everything out of service.
pub(super) async fn empty_some(txn: &mut Txn) -> Result<(), Fault> {
    let tenant = txn.tenant();
    revoke_some(txn, None, STEP).await?;
    for mut group in group_list_some(txn.tx(), STEP).await? {
        group.state = GroupState::Deleted;
        let group = group_update(txn.tx(), &group).await?;
        txn.publish(&record::group(tenant, &group)).await?;
    }
    for topic in topic_list_some(txn.tx(), STEP).await? {
        begin_deletion(txn, topic).await?;
    }
    for mut account in account_list(txn.tx(), "", STEP).await? {
        account.row.state = AccountState::Deleted;
        let account = account_update(txn.tx(), &account).await?;
        txn.publish(&record::account(tenant, &account)).await?;
    }
    for mut namespace in namespace_list(txn.tx(), "", STEP).await? {
        namespace.state = NamespaceState::Deleted;
        let namespace = namespace_update(txn.tx(), &namespace).await?;
        txn.publish(&record::namespace(tenant, &namespace)).await?;
    }
    Ok(())
}
