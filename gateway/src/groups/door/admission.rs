//! How many streams may be open: of the process, and of one tenant, so that no tenant takes all.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use dashmap::DashMap;

use sluice_types::error::Error;
use sluice_types::{ErrorKind, Reason, TenantUid};

const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The limits.
#[derive(Debug, Clone, Copy)]
pub struct StreamLimits {
    /// Of the process.
    pub all: usize,
    /// Of one tenant.
    pub per_tenant: usize,
}

/// Counts open streams.
pub(super) struct Admission {
    limits: StreamLimits,
    open: Arc<AtomicUsize>,
    tenants: Arc<DashMap<TenantUid, usize>>,
}

/// A place; given back when dropped.
pub(super) struct Place {
    tenant: TenantUid,
    open: Arc<AtomicUsize>,
    tenants: Arc<DashMap<TenantUid, usize>>,
}

impl Admission {
    pub(super) fn new(limits: StreamLimits) -> Self {
        Self { limits, open: Arc::default(), tenants: Arc::default() }
    }

    /// Streams that a tenant has open.
    pub(super) fn open(&self, tenant: TenantUid) -> usize {
        self.tenants.get(&tenant).map_or(0, |count| *count)
    }

    pub(super) fn enter(&self, tenant: TenantUid) -> Result<Place, Error> {
        let place = Place { tenant, open: Arc::clone(&self.open), tenants: Arc::clone(&self.tenants) };
        let open = self.open.fetch_add(1, Ordering::Relaxed);
        let of_tenant = {
            let mut count = self.tenants.entry(tenant).or_insert(0);
            *count += 1;
            *count
        };
        // Dropping `place` gives both counts back.
        if open >= self.limits.all {
            return Err(Error::unavailable(
                Reason::Overloaded,
                "this gateway has as many streams as it can take; try again",
            )
            .with_retry_after(RETRY_AFTER));
        }
        if of_tenant > self.limits.per_tenant {
            return Err(Error::new(
                ErrorKind::ResourceExhausted,
                Reason::QuotaExceeded,
                format!(
                    "the tenant has {} streams open at this gateway, the limit (streams_per_tenant); close some first",
                    self.limits.per_tenant
                ),
            )
            .with_metadata("limit", "streams_per_tenant")
            .with_retry_after(RETRY_AFTER));
        }
        Ok(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
        if let dashmap::Entry::Occupied(mut entry) = self.tenants.entry(self.tenant) {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_tenant_cannot_take_all_places() {
        let admission = Admission::new(StreamLimits { all: 3, per_tenant: 2 });
        let (one, other) = (TenantUid::random(), TenantUid::random());
        let first = admission.enter(one).ok();
        let _second = admission.enter(one).ok();
        assert_eq!(admission.enter(one).err().map(|e| e.kind), Some(ErrorKind::ResourceExhausted));
        let _third = admission.enter(other).ok();
        assert_eq!(admission.enter(other).err().map(|e| e.kind), Some(ErrorKind::Unavailable));
        drop(first);
        assert!(admission.enter(one).is_ok());
    }
}
