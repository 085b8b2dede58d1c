//! Who we are on Kafka: a principal for each kind of process.

use std::collections::BTreeMap;

/// The gateways' Kafka principal.
pub const GATEWAY: &str = "sluice-gateway";
/// The control plane's Kafka principal.
pub const CONTROL_PLANE: &str = "sluice-control-plane";
/// Provisioning's Kafka principal.
pub const PROVISIONING: &str = "sluice-provisioning";
/// Billing's Kafka principal.
pub const BILLING: &str = "sluice-billing";

/// The names of our principals, without `User:`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principals {
    /// The gateways'.
    pub gateway: String,
    /// The control plane's.
    pub control_plane: String,
    /// Provisioning's.
    pub provisioning: String,
    /// Billing's.
    pub billing: String,
}

impl Default for Principals {
    fn default() -> Self {
        Self {
            gateway: GATEWAY.to_owned(),
            control_plane: CONTROL_PLANE.to_owned(),
            provisioning: PROVISIONING.to_owned(),
            billing: BILLING.to_owned(),
        }
    }
}

impl Principals {
    /// Each role (`gateway`, `control-plane`, `provisioning`, `billing`) with its principal.
    pub fn by_role(&self) -> [(&'static str, &str); 4] {
        [
            ("gateway", &self.gateway),
            ("control-plane", &self.control_plane),
            ("provisioning", &self.provisioning),
            ("billing", &self.billing),
        ]
    }

    /// The principal of a role.
    pub fn of(&self, role: &str) -> Option<&str> {
        self.by_role().into_iter().find(|(known, _)| *known == role).map(|(_, name)| name)
    }

    /// Two roles that would share a principal, if any do: each would have the rights of both.
    pub fn shared(&self) -> Option<(&'static str, &'static str)> {
        let mut seen = BTreeMap::new();
        self.by_role().into_iter().find_map(|(role, name)| seen.insert(name, role).map(|other| (other, role)))
    }
}
