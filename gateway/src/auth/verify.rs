//! Whether a key is good, from the view alone. Pure look-ups: cheap enough to do again when the view has moved.

use std::sync::Arc;
use std::time::SystemTime;

use sluice_types::api_key::{ApiKey, HashKey};

use crate::view::entry::TenantState;
use crate::view::{AccountEntry, KeyEntry, TenantEntry, View};

/// A key that holds, and whose it is.
#[derive(Debug, Clone)]
pub struct Verified {
    /// The key.
    pub key: Arc<KeyEntry>,
    /// Whom it speaks for.
    pub account: Arc<AccountEntry>,
    /// The tenant.
    pub tenant: Arc<TenantEntry>,
    /// The tenant's state at this moment; it may be suspended.
    pub state: Arc<TenantState>,
}

/// What the view says of a key.
#[derive(Debug, Clone)]
pub enum Verdict {
    /// It holds.
    Good(Verified),
    /// The secret is right, and yet it does not work: revoked, expired, or its account or tenant is gone.
    Bad,
    /// Somebody has the key's id and not its secret.
    Wrong,
    /// The view lacks the key, its account or its tenant.
    Unknown,
}

/// Looks a key up and checks it.
pub fn verify(view: &View, hash_key: &HashKey, key: &ApiKey, now: SystemTime) -> Verdict {
    let Some(entry) = view.key(key.id()) else { return Verdict::Unknown };
    // The secret first: without it nobody learns anything of the rest, not even that it is missing here.
    if !key.matches(hash_key, &entry.hash) {
        return Verdict::Wrong;
    }
    if !entry.works_at(now) {
        return Verdict::Bad;
    }
    let account = view.account(entry.account_uid);
    let tenant = view.tenant(entry.tenant_uid);
    let state = tenant.as_ref().and_then(|tenant| tenant.state());
    let (Some(account), Some(tenant), Some(state)) = (account, tenant, state) else { return Verdict::Unknown };
    if !account.active || account.tenant_uid != entry.tenant_uid || !state.active {
        return Verdict::Bad;
    }
    Verdict::Good(Verified { key: entry, account, tenant, state })
}
