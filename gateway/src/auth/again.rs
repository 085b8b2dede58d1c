//! Whether a call may go on: its credential, its tenant, its grants, looked up again while it waits.
//!
//! The secret was verified when the call began and belongs to the key's id for ever, so the id is enough. A call that waits for
//! records looks before it hands any out, and is woken when something of its tenant changes and when its key expires: nothing
//! published after a revocation reaches whom it concerns.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sluice_types::error::Error;
use sluice_types::{Credential, ErrorKind, OpContext, Principal, Reason};

use crate::access::DataCall;
use crate::auth::api_keys::invalid;
use crate::layers::tenant::suspended;

/// Without a change there is a look so often: the view may be another one by then.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

impl DataCall {
    /// The call with the grants its caller has now; `None` if they are those it began with. The error is its end.
    pub fn renewed(&self) -> Result<Option<Self>, Error> {
        let (context, view) = (&self.context, self.view());
        let Credential::ApiKey(key) = context.principal.credential else {
            return Err(Error::internal("a data call of somebody without an API key"));
        };
        let key = view.key(key).ok_or_else(unverified)?;
        if !key.works_at(SystemTime::now()) {
            return Err(invalid());
        }
        let account = view.account(key.account_uid).ok_or_else(unverified)?;
        let tenant = view.tenant(key.tenant_uid).ok_or_else(unverified)?;
        let state = tenant.state().ok_or_else(unverified)?;
        if !account.active || account.tenant_uid != key.tenant_uid || !state.active {
            return Err(invalid());
        }
        if state.suspended {
            return Err(suspended());
        }
        if account.grants == context.principal.grants {
            return Ok(None);
        }
        let principal = Arc::new(Principal { grants: Arc::clone(&account.grants), ..(*context.principal).clone() });
        let context = Arc::new(OpContext { principal, ..(**context).clone() });
        Ok(Some(self.with_context(context, Arc::clone(&tenant.limiter))))
    }

    /// Whether the call may go on; `still` says so for its caller's grants of this moment.
    pub fn holds(&self, still: impl Fn(&Self) -> Result<(), Error>) -> Result<(), Error> {
        match self.renewed()? {
            Some(renewed) => still(&renewed),
            None => still(self),
        }
    }

    /// Does work that waits, and gives it up the moment the call may not go on. Looks once more when it is done.
    pub async fn while_holds<T>(
        &self,
        still: impl Fn(&Self) -> Result<(), Error>,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let done = tokio::select! {
            biased;
            error = self.lost(&still) => return Err(error),
            done = work => done?,
        };
        self.holds(still)?;
        Ok(done)
    }

    async fn lost(&self, still: impl Fn(&Self) -> Result<(), Error>) -> Error {
        loop {
            // Before the look: what changes after it wakes us.
            let changes = self.view().tenant(self.context.tenant.uid()).map(|tenant| tenant.changes());
            if let Err(error) = self.holds(&still) {
                return error;
            }
            let pause = tokio::time::sleep(self.time_to_expiry().min(LOOK_AGAIN));
            let Some(mut changes) = changes else {
                pause.await;
                continue;
            };
            tokio::select! {
                changed = changes.changed() => if changed.is_err() {
                    // The view was replaced; another look finds the new one.
                    tokio::task::yield_now().await;
                },
                () = pause => {}
            }
        }
    }

    fn time_to_expiry(&self) -> Duration {
        let Credential::ApiKey(key) = self.context.principal.credential else { return Duration::MAX };
        let expires_ms = self.view().key(key).map_or(0, |key| key.expire_time_ms);
        match u64::try_from(expires_ms) {
            Ok(at_ms @ 1..) => (UNIX_EPOCH + Duration::from_millis(at_ms))
                .duration_since(SystemTime::now())
                .unwrap_or(Duration::ZERO)
                .saturating_add(Duration::from_millis(1)),
            _ => Duration::MAX,
        }
    }
}

/// The view has lost sight of the credential: it may be good.
fn unverified() -> Error {
    Error::new(
        ErrorKind::Unavailable,
        Reason::CredentialUnverified,
        "the API key of this call cannot be checked at the moment; try again",
    )
}
