//! The development certificate authority: one per stack, for Kafka's listeners, for the roles' mutual TLS, and for the
//! public listener. Its key lives in the stack's directory with mode 0600. For laptops and tests only.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ED25519, SanType, date_time_ymd,
};

use crate::error::Result;
use crate::files;

/// The development CA.
pub struct Ca {
    dir: PathBuf,
    cert_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, both PEM (the key PKCS#8).
#[derive(Clone)]
pub struct Issued {
    /// The certificate, without the CA's.
    pub cert_pem: String,
    /// The private key.
    pub key_pem: String,
}

/// Where an [`Issued`] was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuedFiles {
    /// `{stem}.pem`.
    pub cert_file: PathBuf,
    /// `{stem}.key`, mode 0600.
    pub key_file: PathBuf,
}

impl Ca {
    /// Opens the CA in `dir`, or makes it there.
    pub fn load_or_create(dir: &Path) -> Result<Ca> {
        files::create_dir(dir)?;
        let (cert_file, key_file) = (dir.join("ca.pem"), dir.join("ca.key"));
        let (key, cert_pem) = if cert_file.exists() {
            let key_pem = files::read(&key_file)?;
            (KeyPair::from_pem(&key_pem)?, files::read(&cert_file)?)
        } else {
            let key = KeyPair::generate()?;
            let cert_pem = ca_params().self_signed(&key)?.pem();
            files::write_secret(&key_file, &key.serialize_pem())?;
            files::write_public(&cert_file, &cert_pem)?;
            (key, cert_pem)
        };
        Ok(Ca { dir: dir.to_path_buf(), cert_pem, issuer: Issuer::new(ca_params(), key) })
    }

    /// The CA's certificate, PEM.
    pub fn cert_pem(&self) -> &str {
        &self.cert_pem
    }

    /// The file that holds [`cert_pem`](Self::cert_pem).
    pub fn cert_file(&self) -> PathBuf {
        self.dir.join("ca.pem")
    }

    /// A certificate for one instance of a role's internal mutual TLS: server and client, URI
    /// `spiffe://sluice/{role}/{instance}`, valid for `localhost` and the loopback addresses. The key is Ed25519: it signs
    /// caller tokens too.
    pub fn issue_role(&self, role: &str, instance: &str) -> Result<Issued> {
        let key = KeyPair::generate_for(&PKCS_ED25519)?;
        self.issue_for(key, role, &["localhost"], &[&format!("spiffe://sluice/{role}/{instance}")])
    }

    /// A server certificate for a public listener, valid for `names`, `localhost` and the loopback addresses.
    pub fn issue_server(&self, names: &[&str]) -> Result<Issued> {
        let mut all = vec!["localhost"];
        all.extend(names);
        self.issue(all.last().copied().unwrap_or("localhost"), &all, &[])
    }

    pub(crate) fn issue(&self, common_name: &str, names: &[&str], uris: &[&str]) -> Result<Issued> {
        self.issue_for(KeyPair::generate()?, common_name, names, uris)
    }

    fn issue_for(&self, key: KeyPair, common_name: &str, names: &[&str], uris: &[&str]) -> Result<Issued> {
        let mut params = CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())?;
        for uri in uris {
            params.subject_alt_names.push(SanType::URI((*uri).try_into()?));
        }
        for address in [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)] {
            params.subject_alt_names.push(SanType::IpAddress(address));
        }
        params.distinguished_name.remove(DnType::CommonName);
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        validity(&mut params);
        let cert = params.signed_by(&key, &self.issuer)?;
        Ok(Issued { cert_pem: cert.pem(), key_pem: key.serialize_pem() })
    }
}

impl Issued {
    /// Writes `{stem}.pem` and `{stem}.key` into `dir`, replacing what is there.
    pub fn write(&self, dir: &Path, stem: &str) -> Result<IssuedFiles> {
        files::create_dir(dir)?;
        let written =
            IssuedFiles { cert_file: dir.join(format!("{stem}.pem")), key_file: dir.join(format!("{stem}.key")) };
        files::write_public(&written.cert_file, &self.cert_pem)?;
        files::write_secret(&written.key_file, &self.key_pem)?;
        Ok(written)
    }
}

/// The same parameters every time, so that the issuer of a loaded CA equals the one that made it.
fn ca_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.remove(DnType::CommonName);
    params.distinguished_name.push(DnType::CommonName, "Sluice development CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    validity(&mut params);
    params
}

fn validity(params: &mut CertificateParams) {
    params.not_before = date_time_ymd(2024, 1, 1);
    params.not_after = date_time_ymd(2049, 12, 31);
}
