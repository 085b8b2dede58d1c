//! Entries of the view's tables.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwapOption;
use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use tokio::sync::watch;

use sluice_proto::internal::control::v1 as control;
use sluice_types::api_key::SecretHash;
use sluice_types::limits::TenantLimits;
use sluice_types::{AccountUid, Grant, KeyUid, TenantId, TenantUid};

use crate::quota::TenantLimiter;
use crate::view::names::Names;

/// An API key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyEntry {
    /// The id in its text.
    pub id: KeyUid,
    /// The tenant it belongs to.
    pub tenant_uid: TenantUid,
    /// Whom it speaks for.
    pub account_uid: AccountUid,
    /// Keyed hash of its secret.
    pub hash: SecretHash,
    /// Neither revoked nor deleted.
    pub active: bool,
    /// When it stops, ms since the epoch; 0: never.
    pub expire_time_ms: i64,
}

impl KeyEntry {
    /// Whether it works at this moment.
    pub fn works_at(&self, now: SystemTime) -> bool {
        let now_ms = now.duration_since(UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX));
        self.active && (self.expire_time_ms == 0 || now_ms < self.expire_time_ms)
    }
}

/// A service account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountEntry {
    /// Its uid.
    pub uid: AccountUid,
    /// The tenant it belongs to.
    pub tenant_uid: TenantUid,
    /// Its id.
    pub id: String,
    /// Not deleted.
    pub active: bool,
    /// What it may do.
    pub grants: Arc<[Grant]>,
}

/// What was published of a tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantState {
    /// Its id.
    pub id: TenantId,
    /// Not deleted.
    pub active: bool,
    /// Switched off by the operator.
    pub suspended: bool,
}

/// A tenant: its state, its limiter and its names. Made when the first record of anything of the tenant comes, so `state` is
/// empty until its own record does.
#[derive(Debug)]
pub struct TenantEntry {
    /// Its uid.
    pub uid: TenantUid,
    /// Its limits at this gateway.
    pub limiter: Arc<TenantLimiter>,
    state: ArcSwapOption<TenantState>,
    names: RwLock<Names>,
    /// Counts changes of `names` and `state`.
    changes: watch::Sender<u64>,
}

impl TenantEntry {
    /// A tenant of which nothing is known yet.
    pub fn new(uid: TenantUid, defaults: TenantLimits) -> Self {
        Self {
            uid,
            limiter: Arc::new(TenantLimiter::new(defaults)),
            state: ArcSwapOption::empty(),
            names: RwLock::default(),
            changes: watch::Sender::new(0),
        }
    }

    /// What was published of it.
    pub fn state(&self) -> Option<Arc<TenantState>> {
        self.state.load_full()
    }

    /// Replaces what was published of it.
    pub fn set_state(&self, state: Option<TenantState>, limits: TenantLimits) {
        self.limiter.set_limits(limits);
        self.state.store(state.map(Arc::new));
        self.changed();
    }

    /// Its namespaces and topics.
    pub fn names(&self) -> RwLockReadGuard<'_, Names> {
        self.names.read()
    }

    /// Changes whenever anything published of this tenant may have changed: names, groups, accounts, keys, its state.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Something of it changed.
    pub fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    /// Whether nothing published of it is left.
    pub fn is_unknown(&self) -> bool {
        self.state.load().is_none() && self.names.read().is_empty()
    }

    /// Its namespaces and topics, to change them; call [`TenantEntry::changed`] after.
    pub fn names_mut(&self) -> RwLockWriteGuard<'_, Names> {
        self.names.write()
    }
}

/// Published limits over the gateway's defaults; what is not positive was not set.
pub fn limits_over(defaults: TenantLimits, published: Option<&control::Limits>) -> TenantLimits {
    let Some(published) = published else { return defaults };
    let or = |value: i64, default: u64| u64::try_from(value).ok().filter(|v| *v > 0).unwrap_or(default);
    TenantLimits {
        requests_per_second: or(published.requests_per_second, defaults.requests_per_second),
        ingress_bytes_per_second: or(published.ingress_bytes_per_second, defaults.ingress_bytes_per_second),
        egress_bytes_per_second: or(published.egress_bytes_per_second, defaults.egress_bytes_per_second),
        bytes_in_flight: or(published.bytes_in_flight, defaults.bytes_in_flight),
    }
}
