//! Layer 9: for whom: the tenant's state, its limits, and a view that is not behind what the caller has already seen.
//!
//! A caller may send the highest `sluice-revision` it has seen. A gateway that is behind waits up to 2 s and then says
//! UNAVAILABLE; a revision of another log cannot be compared and is ignored. When it had to wait, the credential is checked
//! again: what the caller has seen may be the revocation of its own key.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::HeaderMap;

use sluice_edge::call::{Call, Target};
use sluice_edge::deadline::Deadline;
use sluice_edge::identify::REVISION;
use sluice_edge::{Answer, Inner, Middleware, Next, Request, call_of};
use sluice_types::api_key::HashKey;
use sluice_types::error::Error;
use sluice_types::{Credential, ErrorKind, OpContext, Principal, Reason, Revision, TenantScope};

use crate::auth::api_keys::{Authenticated, invalid};
use crate::auth::{Verdict, Verified, verify};
use crate::view::View;
use crate::view::applied::Applied;

/// How long a call waits for the revision it asks for.
const REVISION_WAIT: Duration = Duration::from_secs(2);

/// The layer.
pub struct Tenant {
    /// To check a credential again.
    pub view: Arc<View>,
    /// What is applied.
    pub applied: Applied,
    /// Key of the secrets' hashes.
    pub hash_key: HashKey,
}

impl Middleware for Tenant {
    const NAME: &'static str = "tenant";

    async fn handle<S: Inner>(&self, mut request: Request, next: Next<'_, S>) -> Answer {
        let call = call_of(&request)?;
        if matches!(call.target, Target::Common) {
            return next.run(request).await;
        }
        let Authenticated { key, mut verified } = request
            .extensions_mut()
            .remove()
            .ok_or_else(|| Error::internal("a call came to the tenant layer without a credential"))?;
        if self.catch_up(request.headers()).await? {
            match verify(&self.view, &self.hash_key, &key, SystemTime::now()) {
                Verdict::Good(again) => verified = again,
                Verdict::Bad | Verdict::Wrong | Verdict::Unknown => return Err(invalid()),
            }
        }
        // Taken before the handler works: its answer is based on at least this.
        call.facts.lock().revision = self.applied.revision();
        if verified.state.suspended {
            return Err(suspended());
        }
        let deadline = request.extensions().get::<Deadline>().copied();
        let deadline = deadline.ok_or_else(|| Error::internal("a call came to the tenant layer without a deadline"))?;
        request.extensions_mut().insert(Arc::new(context(&call, &verified, deadline)));
        request.extensions_mut().insert(Arc::clone(&verified.tenant.limiter));
        next.run(request).await
    }
}

impl Tenant {
    /// Waits for the revision the caller has seen; true if that took a wait.
    async fn catch_up(&self, headers: &HeaderMap) -> Result<bool, Error> {
        let Some(value) = headers.get(REVISION) else { return Ok(false) };
        let wanted: Revision = value
            .to_str()
            .ok()
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| Error::invalid(REVISION, "must be a revision as an earlier answer carried it"))?;
        if self.applied.revision().is_some_and(|a| a.topic_id != wanted.topic_id || a.offset >= wanted.offset) {
            return Ok(false);
        }
        if self.applied.wait_for(wanted, REVISION_WAIT).await {
            return Ok(true);
        }
        Err(Error::unavailable(
            Reason::RevisionBehind,
            "this gateway has not yet applied the revision that the call asks for; try again",
        ))
    }
}

/// The tenant is switched off.
pub(crate) fn suspended() -> Error {
    Error::new(
        ErrorKind::PermissionDenied,
        Reason::TenantSuspended,
        "the tenant is suspended; its operator can tell why and resume it",
    )
}

fn context(call: &Call, verified: &Verified, deadline: Deadline) -> OpContext {
    OpContext {
        tenant: TenantScope::from_verified(verified.tenant.uid, verified.state.id.clone()),
        principal: Arc::new(Principal {
            account: verified.account.uid,
            account_id: verified.account.id.clone(),
            credential: Credential::ApiKey(verified.key.id),
            grants: Arc::clone(&verified.account.grants),
        }),
        deadline: deadline.0,
        request_id: Arc::clone(&call.request_id),
        traceparent: call.traceparent.clone(),
        peer: Some(call.peer),
    }
}
