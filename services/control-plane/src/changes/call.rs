//! Who calls, until when, and what the audit log says of them.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use sluice_db::RUN_LIMIT;
use sluice_types::{Credential, OpContext, TenantUid};

/// Who calls.
#[derive(Debug, Clone)]
pub(crate) enum Call {
    /// A tenant's principal, verified by the gateway.
    Tenant(OpContext),
    /// The operator, about one tenant.
    Operator {
        /// The tenant that is meant.
        tenant: TenantUid,
        /// `x-request-id`.
        request_id: Arc<str>,
        /// When the caller stops waiting.
        deadline: Instant,
        /// Source address.
        peer: Option<IpAddr>,
    },
}

impl Call {
    /// Our own work on a tenant, as the operator began it.
    pub(crate) fn sweeper(tenant: TenantUid) -> Self {
        Self::Operator { tenant, request_id: "sweeper".into(), deadline: Instant::now() + RUN_LIMIT, peer: None }
    }

    /// When the caller stops waiting.
    pub(crate) fn deadline(&self) -> Instant {
        match self {
            Self::Tenant(context) => context.deadline,
            Self::Operator { deadline, .. } => *deadline,
        }
    }

    pub(super) fn actor(&self) -> (String, String) {
        match self {
            Self::Tenant(context) => {
                let credential = match context.principal.credential {
                    Credential::ApiKey(key) => format!("apiKey/{key}"),
                    Credential::OperatorToken => "operatorToken".to_owned(),
                };
                (context.principal.account.to_string(), credential)
            }
            Self::Operator { .. } => ("operator".to_owned(), "operatorToken".to_owned()),
        }
    }

    pub(super) fn request_id(&self) -> &str {
        match self {
            Self::Tenant(context) => &context.request_id,
            Self::Operator { request_id, .. } => request_id,
        }
    }

    pub(super) fn peer(&self) -> Option<IpAddr> {
        match self {
            Self::Tenant(context) => context.peer,
            Self::Operator { peer, .. } => *peer,
        }
    }
}
