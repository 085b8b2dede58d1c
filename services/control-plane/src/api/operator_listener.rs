//! The operator's listener: the layers that every listener has ([`sluice_edge`]), one bearer token, and `sluice.operator.v1` over
//! gRPC and HTTP.
//!
//! Nothing here is for strangers: health, reflection and the OpenAPI document need the token, too.

use std::sync::Arc;

use secrecy::{ExposeSecret as _, SecretString};
use sluice_edge::authenticate::{self, Authenticator, BoxFuture, Credentials, Identity};
use sluice_edge::browsers::Origins;
use sluice_edge::call::Call;
use sluice_edge::deadline::Deadline;
use sluice_edge::failures::Failures;
use sluice_edge::metrics::CallMetrics;
use sluice_edge::routes::{Routes, RoutesError};
use sluice_edge::service::EdgeService;
use sluice_edge::standard::Standard;
use sluice_edge::{Answering, CommonParts, Inner, Stack, common};
use sluice_proto::Audience;
use sluice_proto::serve::{serve_clusters_service, serve_namespaces_service, serve_tenants_service};
use sluice_types::Error;
use sluice_types::limits::ADMIN_BODY_BYTES_MAX;

use super::operator::{Operator, OperatorCall};

/// Calls at a time: as many as persons and scripts make.
const CALLS_MAX: usize = 256;
/// Of these, calls of one source. Often all come from one: something in front of this listener speaks TLS.
const CALLS_PER_PEER_MAX: usize = 256;
/// Failed authentications of one source, a second and at once.
const FAILURES_PER_SECOND: u64 = 10;
const FAILURES_BURST: u64 = 100;
/// What the credential is called in a refusal.
const NOUN: &str = "the operator's token";

/// The listener's service.
pub(crate) fn operator_service(
    operator: Operator,
    token: &SecretString,
    metrics: CallMetrics,
) -> Result<EdgeService<impl Inner>, RoutesError> {
    let (standard, _) = Standard::new(Audience::Operator)?;
    let operator = Arc::new(operator);
    let services = vec![
        serve_tenants_service(Arc::clone(&operator), ADMIN_BODY_BYTES_MAX),
        serve_clusters_service(Arc::clone(&operator), ADMIN_BODY_BYTES_MAX),
        serve_namespaces_service(operator, ADMIN_BODY_BYTES_MAX),
    ];
    let body_bytes_max = ADMIN_BODY_BYTES_MAX as u64;
    let routes = Routes::new(Audience::Operator, services, standard, body_bytes_max)?;
    let credentials = Credentials {
        chain: vec![Box::new(OperatorToken::new(token))],
        failures: Failures::new(FAILURES_PER_SECOND, FAILURES_BURST),
        wanted: "authorization: Bearer <operator's token>",
        noun: NOUN,
        for_common: true,
    };
    let parts = CommonParts {
        listener: "operator",
        metrics,
        calls_max: CALLS_MAX,
        calls_per_peer_max: CALLS_PER_PEER_MAX,
        body_bytes_max,
        credentials,
    };
    let stack = common(parts, Stack::of(Answering::new(routes))).into_service();
    Ok(EdgeService { stack, audience: Audience::Operator, origins: Origins::default() })
}

/// The token as a credential.
struct OperatorToken {
    /// Comparing hashes tells nothing of the token, not even its length.
    hash: blake3::Hash,
}

impl OperatorToken {
    fn new(token: &SecretString) -> Self {
        Self { hash: blake3::hash(token.expose_secret().as_bytes()) }
    }
}

impl Authenticator for OperatorToken {
    /// Whoever runs the installation may have written the token, so it has no form: it comes last in a chain.
    fn recognises(&self, _: &str) -> bool {
        true
    }

    fn authenticate<'a>(
        &'a self,
        credential: &'a str,
        call: &'a Call,
        deadline: Deadline,
    ) -> BoxFuture<'a, Result<Identity, Error>> {
        Box::pin(async move {
            // blake3's equality is constant-time.
            if blake3::hash(credential.as_bytes()) != self.hash {
                return Err(authenticate::invalid(NOUN));
            }
            let request_id = Arc::clone(&call.request_id);
            Ok(Identity::new(OperatorCall { request_id, deadline: deadline.0, peer: Some(call.peer) }))
        })
    }
}
