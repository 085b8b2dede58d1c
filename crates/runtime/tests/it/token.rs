//! A caller token holds for one audience, method, message, sender and half a minute, and for nothing else.

use std::time::{Duration, SystemTime};

use sluice_runtime::internal::{CLOCK_SKEW_MAX, CallerClaims, CallerSigner, CallerVerifier, TOKEN_LIFE, TokenError};
use sluice_runtime::tls::PeerIdentity;
use sluice_types::{AccountUid, Error, ErrorKind, Grant, KeyUid, Reason, Role, TenantUid};

use crate::support::Pki;

const PATH: &str = "/sluice.admin.v1.Topics/CreateTopic";
const MESSAGE: &[u8] = b"message";

pub(crate) fn claims() -> CallerClaims {
    CallerClaims {
        tenant_uid: TenantUid::random(),
        tenant_id: "acme".parse().expect("id"),
        account_uid: AccountUid::random(),
        account_id: "ci".to_owned(),
        key_uid: KeyUid::random(),
        grants: vec![Grant { role: Role::Developer, resource: "namespaces/prod".to_owned() }],
        request_id: "req-1".to_owned(),
        peer_ip: Some([192, 0, 2, 1].into()),
        traceparent: None,
        deadline_ms: 5_000,
    }
}

struct Setting {
    token: String,
    peer: PeerIdentity,
    claims: CallerClaims,
    _pki: Pki,
}

fn setting(role: &str) -> Setting {
    let pki = Pki::new();
    let process = pki.process(role);
    let claims = claims();
    let token = CallerSigner::from(&process).sign("control-plane", PATH, MESSAGE, &claims);
    Setting { token, peer: process.identity().clone(), claims, _pki: pki }
}

fn verify(setting: &Setting, path: &str, message: &[u8], later: Duration) -> Result<CallerClaims, TokenError> {
    let verifier = CallerVerifier::new("control-plane");
    let result = verifier.verify(&setting.peer, path, message, &setting.token, SystemTime::now() + later);
    if let Err(error) = &result {
        let error = Error::from(error.clone());
        assert_eq!((error.kind, error.reason), (ErrorKind::Unauthenticated, Reason::CallerUnverified));
    }
    result
}

#[test]
fn a_good_token_gives_back_its_claims() {
    let setting = setting("gateway");
    assert_eq!(verify(&setting, PATH, MESSAGE, Duration::ZERO), Ok(setting.claims.clone()));
    let context = setting.claims.clone().into_context();
    assert_eq!(context.tenant.id().as_str(), "acme");
    assert!(context.remaining() > Duration::from_secs(4) && context.remaining() <= Duration::from_secs(5));
    let again = CallerClaims::from_context(&context).expect("claims");
    let again = again.with_grants_on(&context.principal.grants, "namespaces/prod/topics/orders");
    assert_eq!(CallerClaims { deadline_ms: 5_000, ..again }, setting.claims);
}

#[test]
fn another_audience_method_or_message_is_refused() {
    let setting = setting("gateway");
    let other = "/sluice.admin.v1.Topics/DeleteTopic";
    assert_eq!(verify(&setting, other, MESSAGE, Duration::ZERO), Err(TokenError::Binding));
    assert_eq!(verify(&setting, PATH, b"massage", Duration::ZERO), Err(TokenError::Binding));
    // Bytes moved between path and message.
    assert_eq!(verify(&setting, &PATH[..10], b"message", Duration::ZERO), Err(TokenError::Binding));
    let billing = CallerVerifier::new("billing");
    let refused = billing.verify(&setting.peer, PATH, MESSAGE, &setting.token, SystemTime::now());
    assert_eq!(refused, Err(TokenError::Audience));
}

#[test]
fn a_token_lives_half_a_minute_by_clocks_that_are_a_minute_apart() {
    let setting = setting("gateway");
    let last = TOKEN_LIFE + CLOCK_SKEW_MAX;
    assert!(verify(&setting, PATH, MESSAGE, last - Duration::from_secs(1)).is_ok());
    assert_eq!(verify(&setting, PATH, MESSAGE, last + Duration::from_secs(1)), Err(TokenError::Time));
    let verifier = CallerVerifier::new("control-plane");
    let at = |early: Duration| {
        verifier.verify(&setting.peer, PATH, MESSAGE, &setting.token, SystemTime::now() - early).map(drop)
    };
    assert_eq!(at(CLOCK_SKEW_MAX - Duration::from_secs(1)), Ok(()), "the gateway's clock is ahead");
    assert_eq!(at(CLOCK_SKEW_MAX + Duration::from_secs(1)), Err(TokenError::Time));
}

#[test]
fn only_a_gateway_speaks_for_tenants() {
    let setting = setting("provisioning");
    let refused = verify(&setting, PATH, MESSAGE, Duration::ZERO);
    assert_eq!(refused, Err(TokenError::Sender("provisioning".to_owned())));
}

#[test]
fn the_signature_must_be_of_the_peers_own_key_and_of_every_byte() {
    let mut stolen = setting("gateway");
    stolen.peer = setting("gateway").peer;
    assert_eq!(verify(&stolen, PATH, MESSAGE, Duration::ZERO), Err(TokenError::Signature));
    stolen.peer.public_key = None;
    assert_eq!(verify(&stolen, PATH, MESSAGE, Duration::ZERO), Err(TokenError::Signature));

    let mut changed = setting("gateway");
    let first = if changed.token.starts_with('A') { "B" } else { "A" };
    changed.token.replace_range(0..1, first);
    assert_eq!(verify(&changed, PATH, MESSAGE, Duration::ZERO), Err(TokenError::Signature));
    for wrong in ["", ".", "a.b", "no point", &"x".repeat(100_000)] {
        changed.token = wrong.to_owned();
        assert!(verify(&changed, PATH, MESSAGE, Duration::ZERO).is_err(), "{wrong:.20}");
    }
}

#[test]
fn the_longest_grants_of_an_account_fit_into_a_token() {
    let pki = Pki::new();
    let gateway = pki.process("gateway");
    let longest = |i: usize, role| {
        let topic = format!("namespaces/{}/topics/{}{i:02}", "n".repeat(63), "t".repeat(247));
        Grant { role, resource: topic }
    };
    let mut grants: Vec<Grant> = (0..32).map(|i| longest(i, Role::ALL[i % Role::ALL.len()])).collect();
    let asked = format!("namespaces/{}/topics/{}31", "n".repeat(63), "t".repeat(247));
    let token_of = |grants: &[Grant]| {
        let claims = claims().with_grants_on(grants, &asked);
        let token = CallerSigner::from(&gateway).sign("billing", PATH, MESSAGE, &claims);
        CallerVerifier::new("billing").verify(gateway.identity(), PATH, MESSAGE, &token, SystemTime::now())
    };
    assert_eq!(token_of(&grants).expect("a token").grants, [grants[31].clone()], "the others say nothing of it");
    for grant in &mut grants {
        grant.resource.clone_from(&asked);
    }
    assert_eq!(token_of(&grants).expect("a token").grants.len(), Role::ALL.len());
}
