//! The internal listeners let nobody in but our own processes, and each role only to what it calls.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use reqwest::{Client, ClientBuilder};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use sluice_devstack::{Ca, Issued};
use sluice_e2e::{Installation, Options};
use sluice_proto::{RPCS, Rpc};

const WITHIN: Duration = Duration::from_secs(5);
const UNAUTHENTICATED: &str = "16";
const UNIMPLEMENTED: &str = "12";

/// Who has an internal listener.
const LISTENERS: [&str; 3] = ["gateway-1", "control-plane", "billing"];
const ROLES: [&str; 5] = ["gateway", "control-plane", "provisioning", "billing", "stranger"];

/// Calls that a role makes for itself, without a caller token. All others are made for a tenant.
fn is_for(rpc: &Rpc, role: &str) -> bool {
    match rpc.service {
        "sluice.internal.control.v1.KeyLookupService" => role == "gateway",
        "sluice.internal.control.v1.IntentService" => role == "provisioning",
        "sluice.internal.gateway.v1.PeerService" => matches!(role, "gateway" | "control-plane"),
        _ => false,
    }
}

fn http2() -> ClientBuilder {
    // Fails when there is one already, which is as good.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    Client::builder().http2_prior_knowledge().timeout(WITHIN)
}

/// Speaks HTTP/2 over TLS with this certificate, or with none.
fn client(ca: &Ca, identity: Option<&Issued>) -> Result<Client> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.cert_pem().as_bytes())?)?;
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let builder = builder.with_root_certificates(roots);
    let mut tls = match identity {
        Some(identity) => {
            let chain = vec![CertificateDer::from_pem_slice(identity.cert_pem.as_bytes())?];
            builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes())?)?
        }
        None => builder.with_no_client_auth(),
    };
    tls.alpn_protocols = vec![b"h2".to_vec()];
    Ok(http2().tls_backend_preconfigured(tls).build()?)
}

/// Calls with an empty message; the gRPC status if it is in the headers, as that of every refusal is.
async fn call(client: &Client, base: &str, rpc: &Rpc) -> reqwest::Result<Option<String>> {
    let request = client.post(format!("{base}{}", rpc.path)).header("content-type", "application/grpc");
    let answer = request.header("te", "trailers").body(vec![0_u8; 5]).send().await?;
    let status = answer.headers().get("grpc-status").and_then(|status| status.to_str().ok());
    Ok(status.map(str::to_owned))
}

/// `localhost:port` of the internal listener.
fn internal(it: &Installation, name: &str) -> Result<String> {
    let config = std::fs::read_to_string(&it.instance(name)?.config)?;
    let line = config.lines().find_map(|line| line.strip_prefix("internal_listen = ")).context("internal_listen")?;
    let port = line.trim_matches('"').rsplit_once(':').context("a port")?.1;
    Ok(format!("localhost:{port}"))
}

fn rpc(path: &str) -> Result<&'static Rpc> {
    sluice_proto::rpc_by_path(path).with_context(|| path.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_without_a_certificate_of_ours_gets_an_answer() -> Result<()> {
    let it = Installation::start(Options { gateways: 1, ..Options::default() }).await?;
    let ca = it.stack.ca();
    let elsewhere = tempfile::tempdir()?;
    let other_ca = Ca::load_or_create(elsewhere.path())?;
    let forged = other_ca.issue_role("gateway", "gateway-1")?;
    // Ours, but of no process: what a public listener has.
    let nobody = ca.issue_server(&[])?;
    let wrong = [
        ("no certificate", client(ca, None)?),
        ("another authority's certificate", client(ca, Some(&forged))?),
        ("a certificate without a role", client(ca, Some(&nobody))?),
    ];
    let plain = http2().build()?;
    for name in LISTENERS {
        let address = internal(&it, name)?;
        for rpc in RPCS {
            for (what, client) in &wrong {
                let answer = call(client, &format!("https://{address}"), rpc).await;
                let error = answer.err().with_context(|| format!("{name} answered {what} at {}", rpc.path))?;
                ensure!(!error.is_timeout(), "{name} left {what} without an answer");
            }
        }
        let answer = call(&plain, &format!("http://{address}"), RPCS[0]).await;
        ensure!(answer.as_ref().is_err_and(|error| !error.is_timeout()), "{name} answered plain text: {answer:?}");
    }
    it.tenant("acme").await.context("and all of them still serve")?;
    it.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_gets_no_further_than_what_it_calls() -> Result<()> {
    let it = Installation::start(Options { gateways: 1, ..Options::default() }).await?;
    for name in LISTENERS {
        let base = format!("https://{}", internal(&it, name)?);
        let mut refused = 0;
        for role in ROLES {
            let client = client(it.stack.ca(), Some(&it.stack.ca().issue_role(role, "intruder")?))?;
            for rpc in RPCS.iter().filter(|rpc| !is_for(rpc, role)) {
                let status = call(&client, &base, rpc).await?;
                let status = status.with_context(|| format!("{name} served {role} {}", rpc.path))?;
                ensure!([UNAUTHENTICATED, UNIMPLEMENTED].contains(&&*status), "{name}, {role}, {}: {status}", rpc.path);
                refused += usize::from(status == UNAUTHENTICATED);
            }
        }
        println!("{name}: {refused} calls refused by role or for want of a caller token");
        ensure!(refused > 0, "{name} serves nothing");
    }
    // The same calls by who may make them are answered.
    for (name, role, path) in [
        ("gateway-1", "control-plane", "/sluice.internal.gateway.v1.PeerService/GetState"),
        ("control-plane", "gateway", "/sluice.internal.control.v1.KeyLookupService/LookupKey"),
    ] {
        let client = client(it.stack.ca(), Some(&it.stack.ca().issue_role(role, "friend")?))?;
        let status = call(&client, &format!("https://{}", internal(&it, name)?), rpc(path)?).await?;
        let refusals = [UNAUTHENTICATED, UNIMPLEMENTED];
        ensure!(status.as_deref().is_none_or(|status| !refusals.contains(&status)), "{path} as {role}: {status:?}");
    }
    it.tenant("acme").await.context("and all of them still serve")?;
    it.stop().await
}
