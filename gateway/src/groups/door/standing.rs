//! Whether a stream may go on: its credential, its tenant, its grants, its group, looked up again while it lives.
//!
//! The secret was verified when the stream began and belongs to the key's id for ever, so the id is enough.

use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::watch;

use sluice_types::error::Error;
use sluice_types::{Credential, ErrorKind, OpContext, Principal, Reason};

use crate::groups::model::ResolvedGroup;
use crate::layers::authenticate;
use crate::layers::tenant::suspended;
use crate::ports::DataCall;

/// What a consumer needs on each topic.
pub(super) const CONSUME: &str = "records.consume";

/// Who is at the other end of a stream, as of the last look.
#[derive(Clone)]
pub(super) struct Standing {
    call: Arc<DataCall>,
    group: Arc<ResolvedGroup>,
}

impl Standing {
    pub(super) fn new(call: Arc<DataCall>, group: Arc<ResolvedGroup>) -> Self {
        Self { call, group }
    }

    pub(super) fn call(&self) -> &Arc<DataCall> {
        &self.call
    }

    pub(super) fn context(&self) -> &Arc<OpContext> {
        &self.call.context
    }

    /// The group, as the view had it at the last look.
    pub(super) fn group(&self) -> &Arc<ResolvedGroup> {
        &self.group
    }

    /// Tells when something of the tenant changes; `None`: the tenant is gone.
    pub(super) fn changes(&self) -> Option<watch::Receiver<u64>> {
        self.call.view().tenant(self.context().tenant.uid()).map(|tenant| tenant.changes())
    }

    /// Looks everything up again. The error is the stream's end.
    pub(super) fn look_again(&mut self) -> Result<(), Error> {
        let (context, view) = (self.context(), self.call.view());
        let Credential::ApiKey(key) = context.principal.credential else {
            return Err(Error::internal("a stream of somebody without an API key"));
        };
        let key = view.key(key).ok_or_else(unverified)?;
        if !key.works_at(SystemTime::now()) {
            return Err(authenticate::invalid());
        }
        let account = view.account(key.account_uid).ok_or_else(unverified)?;
        let tenant = view.tenant(key.tenant_uid).ok_or_else(unverified)?;
        let state = tenant.state().ok_or_else(unverified)?;
        if !account.active || account.tenant_uid != key.tenant_uid || !state.active {
            return Err(authenticate::invalid());
        }
        if state.suspended {
            return Err(suspended());
        }
        if account.grants != context.principal.grants {
            let principal = Arc::new(Principal { grants: Arc::clone(&account.grants), ..(*context.principal).clone() });
            let context = Arc::new(OpContext { principal, ..(**context).clone() });
            self.call = Arc::new(self.call.with_context(context, Arc::clone(&tenant.limiter)));
        }
        let group = self.call.group("group", &self.group.name, CONSUME)?;
        if group.group_uid != self.group.group_uid {
            // Deleted and made again: another group.
            return Err(Error::not_found(&self.group.name));
        }
        self.group = group;
        Ok(())
    }
}

/// The view has lost sight of the credential: it may be good.
fn unverified() -> Error {
    Error::new(
        ErrorKind::Unavailable,
        Reason::CredentialUnverified,
        "the API key of this stream cannot be checked at the moment; connect again",
    )
}
