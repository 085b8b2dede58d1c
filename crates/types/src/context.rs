//! Who calls, for which tenant, until when: the first argument of everything that touches a tenant's data.
//!
//! A [`TenantScope`] is made from a verified credential and from nothing else; that is the whole of tenant isolation in
//! one sentence. Tests and jobs that act for the system have their own, named types in the crates that need them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::name::TenantId;
use crate::role::Grant;
use crate::uid::{AccountUid, KeyUid, TenantUid};

/// The tenant that a piece of work is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TenantScope {
    uid: TenantUid,
    id: TenantId,
}

impl TenantScope {
    /// For those who verified a credential (gateway, internal listeners) and for tests.
    pub fn from_verified(uid: TenantUid, id: TenantId) -> Self {
        Self { uid, id }
    }

    /// Its uid.
    pub fn uid(&self) -> TenantUid {
        self.uid
    }

    /// Its id.
    pub fn id(&self) -> &TenantId {
        &self.id
    }
}

/// How a principal proved who it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Credential {
    /// With this API key.
    ApiKey(KeyUid),
    /// With the operator's token.
    OperatorToken,
}

/// Who calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// The service account.
    pub account: AccountUid,
    /// The account's id, for logs and audit.
    pub account_id: String,
    /// How it proved that.
    pub credential: Credential,
    /// What it may do.
    pub grants: Arc<[Grant]>,
}

/// One operation: tenant, principal, deadline, ids for following it through logs.
#[derive(Debug, Clone)]
pub struct OpContext {
    /// The tenant.
    pub tenant: TenantScope,
    /// Who calls.
    pub principal: Arc<Principal>,
    /// When the answer leaves at the latest, to be there while the caller waits.
    pub deadline: Instant,
    /// `x-request-id`.
    pub request_id: Arc<str>,
    /// W3C trace context of the call, if it sent one.
    pub traceparent: Option<Arc<str>>,
    /// Source address, for audit.
    pub peer: Option<std::net::IpAddr>,
}

impl OpContext {
    /// Time left; zero when over.
    pub fn remaining(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }
}
