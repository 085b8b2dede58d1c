//! Limits of tenants that have none of their own: gateways grant them and the control plane shows them, so both must be configured
//! alike.

use serde::{Deserialize, Serialize};
use sluice_runtime::config::{ByteSize, Faults, Validate};
use sluice_types::limits::TenantLimits;

/// Limits of tenants that have none of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct TenantDefaults {
    /// Requests a second.
    pub requests_per_second: u64,
    /// Bytes produced a second.
    pub ingress_per_second: ByteSize,
    /// Bytes fetched a second.
    pub egress_per_second: ByteSize,
    /// Bytes of requests and answers in flight.
    pub in_flight: ByteSize,
}

impl Default for TenantDefaults {
    fn default() -> Self {
        let limits = TenantLimits::default();
        Self {
            requests_per_second: limits.requests_per_second,
            ingress_per_second: ByteSize::new(limits.ingress_bytes_per_second),
            egress_per_second: ByteSize::new(limits.egress_bytes_per_second),
            in_flight: ByteSize::new(limits.bytes_in_flight),
        }
    }
}

impl From<TenantDefaults> for TenantLimits {
    fn from(defaults: TenantDefaults) -> Self {
        Self {
            requests_per_second: defaults.requests_per_second,
            ingress_bytes_per_second: defaults.ingress_per_second.bytes(),
            egress_bytes_per_second: defaults.egress_per_second.bytes(),
            bytes_in_flight: defaults.in_flight.bytes(),
        }
    }
}

impl Validate for TenantDefaults {
    fn faults(&self, faults: &mut Faults) {
        faults.require(self.requests_per_second > 0, "requests_per_second", "must be at least 1");
        faults.require(self.ingress_per_second.bytes() > 0, "ingress_per_second", "must be at least 1 byte");
        faults.require(self.egress_per_second.bytes() > 0, "egress_per_second", "must be at least 1 byte");
        faults.require(self.in_flight.bytes() > 0, "in_flight", "must be at least 1 byte");
    }
}
