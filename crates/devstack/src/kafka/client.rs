//! Clients of the local Kafka by principal, for readiness, for access rules, and for tests.

use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use sluice_wire::{Client, ClientConfig, ScramSha512, Security};

use crate::connection::KafkaConnection;
use crate::error::{Error, Result};
use crate::files;

impl KafkaConnection {
    /// A client that is `user` (one of [`crate::PRINCIPALS`]). Connects when first used.
    pub fn client(&self, user: &str) -> Result<Client> {
        Client::new(self.client_config(user)?).map_err(|source| Error::Kafka { what: "configuring a client", source })
    }

    /// The configuration of [`client`](Self::client).
    pub fn client_config(&self, user: &str) -> Result<ClientConfig> {
        let sasl = ScramSha512 { user: user.to_owned(), password: self.password(user)?.to_owned().into() };
        let security = Security { tls: Some(Arc::new(self.tls_config()?)), sasl: Some(sasl) };
        Ok(ClientConfig::new(&self.bootstrap).with_security(security).with_client_id(user))
    }

    /// TLS that trusts the stack's CA alone.
    pub fn tls_config(&self) -> Result<rustls::ClientConfig> {
        let damaged = |detail: String| Error::Damaged { path: self.ca_file.clone(), detail };
        let pem = files::read(&self.ca_file)?;
        let mut roots = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
            let certificate = certificate.map_err(|error| damaged(error.to_string()))?;
            roots.add(certificate).map_err(|error| damaged(error.to_string()))?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider supports the default versions");
        Ok(builder.with_root_certificates(roots).with_no_client_auth())
    }
}
