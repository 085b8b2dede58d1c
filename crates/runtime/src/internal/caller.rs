//! For whom a call is made: what a gateway knows of the caller, in a form that travels.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use sluice_types::{
    AccountUid, Credential, Error, Grant, KeyUid, OpContext, Principal, TenantId, TenantScope, TenantUid,
};

/// Longest deadline believed.
const DEADLINE_MAX: Duration = Duration::from_secs(600);

/// The caller of a forwarded call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallerClaims {
    /// The tenant.
    pub tenant_uid: TenantUid,
    /// Its id.
    pub tenant_id: TenantId,
    /// The service account.
    pub account_uid: AccountUid,
    /// Its id.
    pub account_id: String,
    /// The API key that was shown.
    pub key_uid: KeyUid,
    /// What the account may do on the call's resource, as the gateway's view has it; empty for calls to those who know it
    /// themselves.
    pub grants: Vec<Grant>,
    /// `x-request-id`.
    pub request_id: String,
    /// Where the caller sits.
    pub peer_ip: Option<IpAddr>,
    /// Its W3C trace context.
    pub traceparent: Option<String>,
    /// Time that was left when the token was signed, in ms.
    pub deadline_ms: u64,
}

impl CallerClaims {
    /// Of an authenticated call, without grants.
    ///
    /// # Errors
    /// The caller is not a tenant's API key: such calls are not forwarded.
    pub fn from_context(context: &OpContext) -> Result<Self, Error> {
        let Credential::ApiKey(key_uid) = context.principal.credential else {
            return Err(Error::internal("only calls with an API key are forwarded"));
        };
        Ok(Self {
            tenant_uid: context.tenant.uid(),
            tenant_id: context.tenant.id().clone(),
            account_uid: context.principal.account,
            account_id: context.principal.account_id.clone(),
            key_uid,
            grants: Vec::new(),
            request_id: context.request_id.to_string(),
            peer_ip: context.peer,
            traceparent: context.traceparent.as_deref().map(str::to_owned),
            deadline_ms: u64::try_from(context.remaining().as_millis()).unwrap_or(u64::MAX),
        })
    }

    /// With those grants that say something of a resource, one of each role: so few that any account's fit into a token. An
    /// empty resource is the tenant.
    #[must_use]
    pub fn with_grants_on(mut self, grants: &[Grant], resource: &str) -> Self {
        self.grants.clear();
        for grant in grants.iter().filter(|grant| grant.covers(resource)) {
            if self.grants.iter().all(|held| held.role != grant.role) {
                self.grants.push(grant.clone());
            }
        }
        self
    }

    /// The context for handlers of the receiving process. Only for claims out of a verified token.
    pub fn into_context(self) -> OpContext {
        let left = Duration::from_millis(self.deadline_ms).min(DEADLINE_MAX);
        OpContext {
            tenant: TenantScope::from_verified(self.tenant_uid, self.tenant_id),
            principal: Arc::new(Principal {
                account: self.account_uid,
                account_id: self.account_id,
                credential: Credential::ApiKey(self.key_uid),
                grants: self.grants.into(),
            }),
            deadline: Instant::now() + left,
            request_id: self.request_id.into(),
            traceparent: self.traceparent.map(Into::into),
            peer: self.peer_ip,
        }
    }
}

/// The claims as they stand in a token. A gateway may be newer than who reads it: claims that are not known here are left
/// out, and so are roles, which then grant nothing.
#[derive(Serialize, Deserialize)]
pub(super) struct WireClaims {
    tenant_uid: String,
    tenant_id: String,
    account_uid: String,
    account_id: String,
    key_uid: String,
    #[serde(default)]
    grants: Vec<(String, String)>,
    request_id: String,
    peer_ip: Option<IpAddr>,
    traceparent: Option<String>,
    deadline_ms: u64,
}

impl From<&CallerClaims> for WireClaims {
    fn from(claims: &CallerClaims) -> Self {
        Self {
            tenant_uid: claims.tenant_uid.to_string(),
            tenant_id: claims.tenant_id.to_string(),
            account_uid: claims.account_uid.to_string(),
            account_id: claims.account_id.clone(),
            key_uid: claims.key_uid.to_string(),
            grants: claims.grants.iter().map(|grant| (grant.role.to_string(), grant.resource.clone())).collect(),
            request_id: claims.request_id.clone(),
            peer_ip: claims.peer_ip,
            traceparent: claims.traceparent.clone(),
            deadline_ms: claims.deadline_ms,
        }
    }
}

impl WireClaims {
    /// `None` when a part does not parse: then the token is no token of ours.
    pub(super) fn parse(self) -> Option<CallerClaims> {
        let grants = self.grants.into_iter();
        let grants = grants.filter_map(|(role, resource)| Some(Grant { role: role.parse().ok()?, resource }));
        Some(CallerClaims {
            tenant_uid: self.tenant_uid.parse().ok()?,
            tenant_id: self.tenant_id.parse().ok()?,
            account_uid: self.account_uid.parse().ok()?,
            account_id: self.account_id,
            key_uid: self.key_uid.parse().ok()?,
            grants: grants.collect(),
            request_id: self.request_id,
            peer_ip: self.peer_ip,
            traceparent: self.traceparent,
            deadline_ms: self.deadline_ms,
        })
    }
}
