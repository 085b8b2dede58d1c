//! The caller token: claims signed with the key of the sender's certificate, bound to one method and message.
//!
//! `base64url(payload) "." base64url(Ed25519 signature of the first part)`, in the metadata key [`CALLER_KEY`]. The payload
//! binds audience (the service's role), SHA-256 of method and first message, time of issue and a unique id. It is good for
//! [`TOKEN_LIFE`] (and [`CLOCK_SKEW_MAX`]), from a peer of the role `gateway`, over the connection whose certificate holds the key. Whoever steals a
//! token can neither use it elsewhere nor for anything else.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest;
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use sluice_types::{Error, ErrorKind, Reason};

use super::caller::{CallerClaims, WireClaims};
use crate::tls::{InternalTls, PeerIdentity};

/// The metadata key.
pub const CALLER_KEY: &str = "sluice-caller";
/// How long a token is good.
pub const TOKEN_LIFE: Duration = Duration::from_secs(30);
/// How far the clocks of sender and receiver may be apart. A token is bound to a connection and a message, so a little more
/// time gives nobody anything.
pub const CLOCK_SKEW_MAX: Duration = Duration::from_secs(60);
/// Bytes of a token at most; with one grant of each role it has less than half of them.
pub(super) const TOKEN_BYTES_MAX: usize = 12 << 10;
/// Who may speak for tenants.
const SENDER_ROLE: &str = "gateway";
const VERSION: u8 = 1;

#[derive(Serialize, Deserialize)]
struct Payload {
    v: u8,
    aud: String,
    bound_to: String,
    issued_at_ms: u64,
    jti: uuid::Uuid,
    caller: WireClaims,
}

/// A token that is refused. Callers learn no more than that.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// None was sent.
    #[error("caller token missing")]
    Missing,
    /// Not a token, or too large.
    #[error("caller token malformed")]
    Malformed,
    /// The peer may not speak for tenants.
    #[error("caller token from a peer of role {0}")]
    Sender(String),
    /// Not signed with the key of the peer's certificate.
    #[error("caller token signature")]
    Signature,
    /// For another service.
    #[error("caller token for another audience")]
    Audience,
    /// For another method or message.
    #[error("caller token for another method or message")]
    Binding,
    /// Too old, or from the future.
    #[error("caller token outside of its time: compare the clocks of this host and the gateway's")]
    Time,
}

impl From<TokenError> for Error {
    fn from(error: TokenError) -> Self {
        // Of our own processes: a tenant's credential has nothing to do with it, see `statuses::from_tonic_for`.
        let what = "one process of the service could not verify another; try again";
        Self::new(ErrorKind::Unauthenticated, Reason::CallerUnverified, what).with_source(error)
    }
}

/// Signs tokens as this process.
#[derive(Clone)]
pub struct CallerSigner(Arc<Ed25519KeyPair>);

impl std::fmt::Debug for CallerSigner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CallerSigner")
    }
}

impl From<&InternalTls> for CallerSigner {
    fn from(tls: &InternalTls) -> Self {
        Self(tls.signing_key())
    }
}

impl CallerSigner {
    /// A token for one call. `audience` is the role of the server, `rpc_path` is `/package.Service/Method`,
    /// `first_message` the encoded message without its gRPC frame.
    pub fn sign(&self, audience: &str, rpc_path: &str, first_message: &[u8], claims: &CallerClaims) -> String {
        self.sign_at(audience, rpc_path, first_message, claims, SystemTime::now())
    }

    pub(super) fn sign_at(
        &self,
        audience: &str,
        rpc_path: &str,
        first_message: &[u8],
        claims: &CallerClaims,
        now: SystemTime,
    ) -> String {
        let payload = Payload {
            v: VERSION,
            aud: audience.to_owned(),
            bound_to: binding(rpc_path, first_message),
            issued_at_ms: unix_ms(now),
            jti: uuid::Uuid::new_v4(),
            caller: claims.into(),
        };
        let payload = serde_json::to_vec(&payload).expect("strings and numbers always serialize");
        let signed = URL_SAFE_NO_PAD.encode(payload);
        let signature = self.0.sign(signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
    }
}

/// Verifies tokens for one service.
#[derive(Debug, Clone)]
pub struct CallerVerifier {
    audience: Arc<str>,
}

impl CallerVerifier {
    /// For the service of this role.
    pub fn new(audience: &str) -> Self {
        Self { audience: audience.into() }
    }

    /// The claims of a token that holds in every respect.
    ///
    /// # Errors
    /// [`TokenError`], all of which are UNAUTHENTICATED.
    pub fn verify(
        &self,
        peer: &PeerIdentity,
        rpc_path: &str,
        first_message: &[u8],
        token: &str,
        now: SystemTime,
    ) -> Result<CallerClaims, TokenError> {
        if peer.role != SENDER_ROLE {
            return Err(TokenError::Sender(peer.role.clone()));
        }
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::Malformed);
        }
        let (signed, signature) = token.split_once('.').ok_or(TokenError::Malformed)?;
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| TokenError::Malformed)?;
        let key = peer.public_key.as_ref().ok_or(TokenError::Signature)?;
        UnparsedPublicKey::new(&ED25519, key)
            .verify(signed.as_bytes(), &signature)
            .map_err(|_| TokenError::Signature)?;
        // Only what a gateway signed is parsed.
        let payload = URL_SAFE_NO_PAD.decode(signed).map_err(|_| TokenError::Malformed)?;
        let payload: Payload = serde_json::from_slice(&payload).map_err(|_| TokenError::Malformed)?;
        if payload.v != VERSION {
            return Err(TokenError::Malformed);
        }
        if payload.aud != *self.audience {
            return Err(TokenError::Audience);
        }
        if payload.bound_to != binding(rpc_path, first_message) {
            return Err(TokenError::Binding);
        }
        let (issued, now) = (u128::from(payload.issued_at_ms), u128::from(unix_ms(now)));
        let skew = CLOCK_SKEW_MAX.as_millis();
        if issued > now + skew || now > issued + TOKEN_LIFE.as_millis() + skew {
            return Err(TokenError::Time);
        }
        payload.caller.parse().ok_or(TokenError::Malformed)
    }
}

/// The path's length goes in too: no two pairs of path and message have the same bytes.
fn binding(rpc_path: &str, first_message: &[u8]) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(&(rpc_path.len() as u64).to_be_bytes());
    context.update(rpc_path.as_bytes());
    context.update(first_message);
    URL_SAFE_NO_PAD.encode(context.finish().as_ref())
}

fn unix_ms(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_and_roles_of_a_newer_gateway_are_left_out() {
        let payload = serde_json::json!({
            "v": VERSION, "aud": "billing", "bound_to": "", "issued_at_ms": 1, "jti": uuid::Uuid::nil(), "new": true,
            "caller": {
                "tenant_uid": sluice_types::TenantUid::random().to_string(), "tenant_id": "acme",
                "account_uid": sluice_types::AccountUid::random().to_string(), "account_id": "ci",
                "key_uid": sluice_types::KeyUid::random().to_string(),
                "grants": [["viewer", "*"], ["of the future", "*"]], "session": "new",
                "request_id": "r", "peer_ip": null, "traceparent": null, "deadline_ms": 5,
            },
        });
        let payload: Payload = serde_json::from_value(payload).expect("known claims are there");
        let claims = payload.caller.parse().expect("claims");
        assert_eq!(claims.grants.len(), 1, "a role that is not known grants nothing");
    }
}
