//! The random identities of one stack: Kafka's cluster id and a password per principal, PostgreSQL's password.
//! Kept in the stack's directory, mode 0600, so that a second start finds the data it can open.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
pub use sluice_installation::kafka::principals::{BILLING, CONTROL_PLANE, GATEWAY, PROVISIONING};

use crate::error::{Error, Result};
use crate::files;

/// The super user of the local Kafka: for the stack itself and for tests that look behind the gateway.
pub const ADMIN: &str = "sluice-admin";

/// All Kafka principals of a local stack.
pub const PRINCIPALS: [&str; 5] = [ADMIN, GATEWAY, CONTROL_PLANE, PROVISIONING, BILLING];

#[derive(Serialize, Deserialize)]
pub(crate) struct Secrets {
    pub(crate) cluster_id: String,
    pub(crate) kafka_users: BTreeMap<String, String>,
    pub(crate) postgres_password: String,
}

impl Secrets {
    pub(crate) fn load_or_create(path: &Path) -> Result<Secrets> {
        if path.exists() {
            let damaged = |detail: String| Error::Damaged { path: path.to_path_buf(), detail };
            return serde_json::from_str(&files::read(path)?).map_err(|error| damaged(error.to_string()));
        }
        let secrets = Secrets {
            cluster_id: cluster_id()?,
            kafka_users: PRINCIPALS
                .iter()
                .map(|user| Ok(((*user).to_owned(), random_hex(20)?)))
                .collect::<Result<_>>()?,
            postgres_password: random_hex(20)?,
        };
        let text = serde_json::to_string_pretty(&secrets).expect("strings and maps of strings always serialize");
        files::write_secret(path, &text)?;
        Ok(secrets)
    }
}

/// `bytes` random bytes in hexadecimal.
pub(crate) fn random_hex(bytes: usize) -> Result<String> {
    let mut buffer = vec![0_u8; bytes];
    getrandom::fill(&mut buffer)
        .map_err(|error| Error::Invalid(format!("the system gives no random bytes: {error}")))?;
    Ok(hex::encode(buffer))
}

/// Kafka wants 16 bytes in URL-safe base64: 22 characters, the last of which carries two bits (`A`, `Q`, `g` or `w`).
/// Hexadecimal digits are base64 characters too.
fn cluster_id() -> Result<String> {
    let mut text = random_hex(11)?;
    text.truncate(21);
    text.push('A');
    Ok(text)
}
