//! API keys as a credential: one [`Authenticator`] of the tenants' listener.
//!
//! After a stop of the process the view catches up first ([`Freshness`]), or a revoked key would still work.
//!
//! A wrong secret goes the way of an unknown key: the control plane is asked, within the same budgets, and the refusal leaves no
//! sooner than [`REFUSED_AFTER`]. So neither the answer nor its time tells a stranger whether a key's id exists.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use sluice_edge::authenticate::{self, Authenticator, BoxFuture, Identity};
use sluice_edge::call::Call;
use sluice_edge::deadline::Deadline;
use sluice_types::api_key::{ApiKey, HashKey};
use sluice_types::error::Error;

use crate::auth::{KeyLookup, Verdict, Verified, verify};
use crate::view::View;
use crate::view::freshness::Freshness;

/// A refused key is answered no sooner: longer than the control plane mostly takes.
pub const REFUSED_AFTER: Duration = Duration::from_millis(50);
/// What the credential is called in a refusal.
pub(crate) const NOUN: &str = "the API key";

/// Knows the keys.
pub struct ApiKeys {
    /// Where keys are looked up.
    pub view: Arc<View>,
    /// Whether the view may be old.
    pub freshness: Freshness,
    /// Key of the secrets' hashes.
    pub hash_key: HashKey,
    /// Who is asked for unknown keys.
    pub lookup: KeyLookup,
}

/// The credential and whose it is; in the request's extensions for the layers below.
#[derive(Clone)]
pub struct Authenticated {
    /// The key, to check it again when the view has moved.
    pub key: ApiKey,
    /// Whose it is.
    pub verified: Verified,
}

impl Authenticator for ApiKeys {
    /// The checksum in a key catches typos without any look-up.
    fn recognises(&self, credential: &str) -> bool {
        credential.parse::<ApiKey>().is_ok()
    }

    fn authenticate<'a>(
        &'a self,
        credential: &'a str,
        call: &'a Call,
        deadline: Deadline,
    ) -> BoxFuture<'a, Result<Identity, Error>> {
        Box::pin(async move {
            let key: ApiKey = credential.parse().map_err(|_| invalid())?;
            self.freshness.ensure(deadline.patience()).await?;
            let verified = match self.check(&key, call.peer).await {
                Ok(verified) => verified,
                Err(error) => {
                    tokio::time::sleep(REFUSED_AFTER.saturating_sub(call.started.elapsed())).await;
                    return Err(error);
                }
            };
            let (tenant, account) = (verified.tenant.uid, verified.account.uid);
            Ok(Identity::new(Authenticated { key, verified }).with_account(tenant, account))
        })
    }
}

impl ApiKeys {
    async fn check(&self, key: &ApiKey, peer: IpAddr) -> Result<Verified, Error> {
        let look = || verify(&self.view, &self.hash_key, key, SystemTime::now());
        match look() {
            Verdict::Good(verified) => return Ok(verified),
            Verdict::Bad => return Err(invalid()),
            Verdict::Wrong | Verdict::Unknown => {}
        }
        if self.lookup.ask(key.id(), peer).await? {
            if let Verdict::Good(verified) = look() {
                return Ok(verified);
            }
            // What is there and does not help is remembered as what is not there would be.
            self.lookup.in_vain(key.id());
        }
        Err(invalid())
    }
}

/// One answer for every way in which a key can be wrong.
pub(crate) fn invalid() -> Error {
    authenticate::invalid(NOUN)
}
