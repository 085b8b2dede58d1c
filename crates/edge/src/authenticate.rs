//! Who calls: a chain of [`Authenticator`]s, one for each kind of credential that the listener takes.
//!
//! A call shows one credential, `authorization: Bearer …`, for gRPC and HTTP alike; two are refused, because the layers of
//! somebody in front of us may have looked at the other one. The first authenticator that recognises the form of the
//! credential decides; no other one is asked. A call to nowhere ends here with 404 or UNIMPLEMENTED, whoever calls.
//!
//! Every way in which a credential can be wrong gives one and the same answer, and failures are counted by source
//! ([`Failures`]). A good credential makes the connection a trusted one, which keeps its place when places are scarce.

use std::future::Future;
use std::pin::Pin;

use http::{Extensions, HeaderMap, header};

use sluice_runtime::server::ConnHandle;
use sluice_types::error::Error;
use sluice_types::{AccountUid, ErrorKind, Reason, TenantUid};

use crate::call::{Call, Target, foreign, nowhere};
use crate::deadline::Deadline;
use crate::failures::Failures;
use crate::{Answer, Inner, Middleware, Next, Request, call_of};

/// A boxed future, for object-safe authenticators.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// One kind of credential.
pub trait Authenticator: Send + Sync + 'static {
    /// Whether a credential is of this kind, by its form alone. Must not look anything up.
    fn recognises(&self, credential: &str) -> bool;

    /// Finds out who shows it. The answer leaves at `deadline`.
    ///
    /// # Errors
    /// UNAUTHENTICATED: it does not hold. UNAVAILABLE: that cannot be told at the moment.
    fn authenticate<'a>(
        &'a self,
        credential: &'a str,
        call: &'a Call,
        deadline: Deadline,
    ) -> BoxFuture<'a, Result<Identity, Error>>;
}

/// Who showed a good credential.
pub struct Identity {
    /// The account of a tenant, if it is one: for the access log.
    account: Option<(TenantUid, AccountUid)>,
    /// For the layers below.
    caller: Extensions,
}

impl Identity {
    /// `caller` is what the layers below need of it; they find it in the request's extensions by its type.
    pub fn new<T: Clone + Send + Sync + 'static>(caller: T) -> Self {
        let mut extensions = Extensions::new();
        extensions.insert(caller);
        Self { account: None, caller: extensions }
    }

    /// The same of an account of a tenant.
    #[must_use]
    pub fn with_account(self, tenant: TenantUid, account: AccountUid) -> Self {
        Self { account: Some((tenant, account)), ..self }
    }
}

/// The credentials that a listener takes.
pub struct Credentials {
    /// Asked in this order.
    pub chain: Vec<Box<dyn Authenticator>>,
    /// Counts failures by source.
    pub failures: Failures,
    /// What a caller without a credential is told to send, e.g. `authorization: Bearer <API key>`.
    pub wanted: &'static str,
    /// What the credential is called in a refusal, e.g. `the API key`.
    pub noun: &'static str,
    /// gRPC health, reflection and the OpenAPI document need one, too.
    pub for_common: bool,
}

/// The layer.
pub struct Authenticate(pub Credentials);

impl Middleware for Authenticate {
    const NAME: &'static str = "authenticate";

    async fn handle<S: Inner>(&self, mut request: Request, next: Next<'_, S>) -> Answer {
        let call = call_of(&request)?;
        match &call.target {
            Target::Nowhere(error) => return Err(nowhere(call.protocol, error)),
            Target::Foreign(format) => return Err(foreign(format)),
            Target::Common if !self.0.for_common => return next.run(request).await,
            Target::Common | Target::Grpc(_) | Target::Http(_) => {}
        }
        let deadline = request.extensions().get::<Deadline>().copied();
        let deadline = deadline.ok_or_else(|| Error::internal("a call without a deadline"))?;
        let identity = self.0.check(&call, request.headers(), deadline).await.map_err(|error| match error.kind {
            ErrorKind::Unauthenticated => self.0.failures.count(call.peer, error),
            _ => error,
        })?;
        if let Some((tenant, account)) = identity.account {
            let mut facts = call.facts.lock();
            (facts.tenant, facts.account) = (Some(tenant), Some(account));
        }
        request.extensions_mut().extend(identity.caller);
        if let Some(connection) = request.extensions().get::<ConnHandle>() {
            connection.trust();
        }
        // No handler has a use for the secret.
        request.headers_mut().remove(header::AUTHORIZATION);
        next.run(request).await
    }
}

impl Credentials {
    async fn check(&self, call: &Call, headers: &HeaderMap, deadline: Deadline) -> Result<Identity, Error> {
        let credential = self.shown(headers)?;
        let authenticator = self.chain.iter().find(|authenticator| authenticator.recognises(&credential));
        let authenticator = authenticator.ok_or_else(|| invalid(self.noun))?;
        authenticator.authenticate(&credential, call, deadline).await
    }

    /// The one credential of a call.
    fn shown(&self, headers: &HeaderMap) -> Result<String, Error> {
        let mut values = headers.get_all(header::AUTHORIZATION).iter();
        let Some(value) = values.next() else {
            return Err(Error::new(
                ErrorKind::Unauthenticated,
                Reason::CredentialMissing,
                format!("no credential was sent; send the header `{}`", self.wanted),
            ));
        };
        let one = values.next().is_none().then_some(value);
        let bearer = one.and_then(|value| {
            let (scheme, credential) = value.to_str().ok()?.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| credential.trim().to_owned())
        });
        bearer.ok_or_else(|| invalid(self.noun))
    }
}

/// One answer for every way in which a credential can be wrong.
pub fn invalid(noun: &str) -> Error {
    Error::new(ErrorKind::Unauthenticated, Reason::CredentialInvalid, format!("{noun} is not valid"))
}
