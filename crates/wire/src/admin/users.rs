//! Users that authenticate with SCRAM-SHA-512.

use std::collections::BTreeSet;
use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};

use super::message;
use crate::client::Client;
use crate::codec::{
    AlterUserScramCredentialsRequestData, DescribeUserScramCredentialsRequestData, ScramCredentialDeletion,
    ScramCredentialUpsertion, describe_user_scram_credentials_request, text,
};
use crate::deadline::Deadline;
use crate::error::{Error, KafkaError, Result, code};
use crate::pool::Lane;
use crate::scram;

const MECHANISM_SHA_512: i8 = 2;
const SALT_BYTES: usize = 32;
const ITERATIONS: NonZeroU32 = NonZeroU32::new(8192).expect("is not zero");

/// A user to make, or whose password to replace. The password does not leave this process: the broker gets its hash.
#[derive(Clone)]
pub struct ScramUpsert {
    /// User name.
    pub user: String,
    /// New password.
    pub password: SecretString,
}

impl fmt::Debug for ScramUpsert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScramUpsert").field("user", &self.user).finish_non_exhaustive()
    }
}

impl Client {
    /// Makes users, or replaces their passwords. Fails with the first refusal.
    pub async fn upsert_scram_users(&self, users: &[ScramUpsert], timeout: Duration) -> Result<()> {
        let upsertions = users.iter().map(upsertion).collect::<Result<_>>()?;
        self.alter_users(AlterUserScramCredentialsRequestData { upsertions, ..Default::default() }, timeout).await
    }

    /// Which of these users have a password for SCRAM-SHA-512. Needs Describe on the cluster.
    pub async fn scram_users(&self, users: &[&str], timeout: Duration) -> Result<BTreeSet<String>> {
        let name =
            |user: &&str| describe_user_scram_credentials_request::UserName { name: text(*user), ..Default::default() };
        let request = DescribeUserScramCredentialsRequestData {
            users: Some(users.iter().map(name).collect()),
            ..Default::default()
        };
        let response = self.call_any(&request, Lane::Admin, Deadline::after(timeout)).await?;
        KafkaError::check(response.error_code, message(response.error_message))?;
        let mut known = BTreeSet::new();
        for result in response.results {
            if result.error_code == code::RESOURCE_NOT_FOUND {
                continue;
            }
            KafkaError::check(result.error_code, message(result.error_message))?;
            if result.credential_infos.iter().any(|info| info.mechanism == MECHANISM_SHA_512) {
                known.insert(result.user.to_string());
            }
        }
        Ok(known)
    }

    /// Removes a user's credentials; one that is not there is `RESOURCE_NOT_FOUND` (91).
    pub async fn delete_scram_user(&self, user: &str, timeout: Duration) -> Result<()> {
        let deletion = ScramCredentialDeletion { name: text(user), mechanism: MECHANISM_SHA_512, ..Default::default() };
        let request = AlterUserScramCredentialsRequestData { deletions: vec![deletion], ..Default::default() };
        self.alter_users(request, timeout).await
    }

    async fn alter_users(&self, request: AlterUserScramCredentialsRequestData, timeout: Duration) -> Result<()> {
        let response = self
            .call_controller(
                &request,
                |answer| answer.results.iter().map(|result| result.error_code).collect(),
                Deadline::after(timeout),
            )
            .await?;
        for result in response.results {
            KafkaError::check(result.error_code, message(result.error_message))?;
        }
        Ok(())
    }
}

fn upsertion(user: &ScramUpsert) -> Result<ScramCredentialUpsertion> {
    let mut salt = [0; SALT_BYTES];
    getrandom::fill(&mut salt).map_err(|error| Error::InvalidRequest(format!("no randomness for a salt: {error}")))?;
    let salted = scram::salted_password(user.password.expose_secret(), &salt, ITERATIONS);
    Ok(ScramCredentialUpsertion {
        name: text(user.user.as_str()),
        mechanism: MECHANISM_SHA_512,
        iterations: i32::try_from(ITERATIONS.get()).unwrap_or(i32::MAX),
        salt: salt.to_vec().into(),
        salted_password: salted.to_vec().into(),
        ..Default::default()
    })
}
