//! Layer 8: who calls. `authorization: Bearer <API key>`, for gRPC and HTTP alike.
//!
//! A call to nowhere ends here with 404 or UNIMPLEMENTED, whoever calls. Health, reflection and the OpenAPI document pass without a credential.
//! After a stop of the process the view catches up first ([`Freshness`]), or a revoked key would still work.
//!
//! A wrong secret goes the way of an unknown key: the control plane is asked, within the same budgets, and the refusal leaves no
//! sooner than [`REFUSED_AFTER`]. So neither the answer nor its time tells a stranger whether a key's id exists.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, header};

use sluice_runtime::server::ConnHandle;
use sluice_types::api_key::{ApiKey, HashKey};
use sluice_types::error::Error;
use sluice_types::{ErrorKind, Reason};

use crate::auth::{Failures, KeyLookup, Verdict, Verified, verify};
use crate::layers::call::{Target, foreign, nowhere};
use crate::layers::deadline::Deadline;
use crate::layers::{Answer, Inner, Middleware, Next, Request, call_of};
use crate::view::View;
use crate::view::freshness::Freshness;

/// A refused key is answered no sooner: longer than the control plane mostly takes.
pub const REFUSED_AFTER: Duration = Duration::from_millis(50);

/// The layer.
pub struct Authenticate {
    /// Where keys are looked up.
    pub view: Arc<View>,
    /// Whether the view may be old.
    pub freshness: Freshness,
    /// Key of the secrets' hashes.
    pub hash_key: HashKey,
    /// Who is asked for unknown keys.
    pub lookup: KeyLookup,
    /// Counts failures by peer.
    pub failures: Failures,
}

/// The credential and whose it is; in the request's extensions for the layers below.
#[derive(Clone)]
pub struct Authenticated {
    /// The key, to check it again when the view has moved.
    pub key: ApiKey,
    /// Whose it is.
    pub verified: Verified,
}

impl Middleware for Authenticate {
    const NAME: &'static str = "authenticate";

    async fn handle<S: Inner>(&self, mut request: Request, next: Next<'_, S>) -> Answer {
        let call = call_of(&request)?;
        match &call.target {
            Target::Nowhere(error) => return Err(nowhere(call.protocol, error, request.uri().path())),
            Target::Foreign(format) => return Err(foreign(format)),
            Target::Open => return next.run(request).await,
            Target::Grpc(_) | Target::Http(_) => {}
        }
        let deadline = request.extensions().get::<Deadline>();
        self.freshness.ensure(deadline.map_or(Duration::MAX, Deadline::patience)).await?;
        let verified = match bearer(request.headers()) {
            Ok(key) => match self.check(&key, call.peer).await {
                Ok(verified) => Ok(Authenticated { key, verified }),
                Err(error) => {
                    tokio::time::sleep(REFUSED_AFTER.saturating_sub(call.started.elapsed())).await;
                    Err(error)
                }
            },
            Err(error) => Err(error),
        };
        let authenticated = verified.map_err(|error| match error.kind {
            ErrorKind::Unauthenticated => self.failures.count(call.peer, error),
            _ => error,
        })?;
        if let Some(connection) = request.extensions().get::<ConnHandle>() {
            connection.trust();
        }
        {
            let mut facts = call.facts.lock();
            facts.tenant = Some(authenticated.verified.tenant.uid);
            facts.account = Some(authenticated.verified.account.uid);
        }
        request.extensions_mut().insert(authenticated);
        // No handler has a use for the secret.
        request.headers_mut().remove(header::AUTHORIZATION);
        next.run(request).await
    }
}

impl Authenticate {
    async fn check(&self, key: &ApiKey, peer: std::net::IpAddr) -> Result<Verified, Error> {
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

fn bearer(headers: &HeaderMap) -> Result<ApiKey, Error> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = values.next() else {
        return Err(Error::new(
            ErrorKind::Unauthenticated,
            Reason::CredentialMissing,
            "no credential was sent; send the header `authorization: Bearer <API key>`",
        ));
    };
    if values.next().is_some() {
        return Err(invalid());
    }
    let text = value.to_str().map_err(|_| invalid())?;
    let (scheme, key) = text.split_once(' ').ok_or_else(invalid)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(invalid());
    }
    key.trim().parse().map_err(|_| invalid())
}

/// One answer for every way in which a credential can be wrong.
pub(crate) fn invalid() -> Error {
    Error::new(ErrorKind::Unauthenticated, Reason::CredentialInvalid, "the API key is not valid")
}
