//! `sluice keys`.

use std::io::Write;

use anyhow::Result;
use jiff::Timestamp as Instant;
use sluice_proto::admin::v1::service_account_service_client::ServiceAccountServiceClient;
use sluice_proto::admin::v1::{ApiKey, CreateApiKeyRequest, ListApiKeysRequest, RevokeApiKeyRequest};
use sluice_proto::wkt::Timestamp;

use super::operations::note_conditions;
use super::{full_name, pages};
use crate::args::{Global, Keys, Output};
use crate::connect::{Session, request_id};
use crate::{output, when};

const COLUMNS: [&str; 5] = ["key", "state", "display name", "created", "expires"];

pub(crate) async fn run(global: &Global, command: Keys) -> Result<()> {
    let session = Session::tenant(global)?;
    let mut client = ServiceAccountServiceClient::new(session.channel.clone());
    match command {
        Keys::Create { account, display_name, expires_in } => {
            let expire_time = expires_in.map(|age| {
                Timestamp::from_millis(Instant::now().as_millisecond().saturating_add(age.as_millis() as i64))
            });
            let request = CreateApiKeyRequest {
                parent: full_name("serviceAccounts", &account),
                api_key: Some(ApiKey { display_name, expire_time, ..Default::default() }),
                request_id: request_id(),
                ..Default::default()
            };
            let key = session.take(client.create_api_key(session.request(request)).await)?;
            note_conditions(global, &key.conditions);
            print_new(global, &key)
        }
        Keys::List { account, page } => {
            let parent = full_name("serviceAccounts", &account);
            let found = pages!(
                global,
                session,
                client,
                list_api_keys,
                page.limit,
                api_keys,
                ListApiKeysRequest { parent: parent.clone(), ..Default::default() }
            );
            output::print_list(global, "apiKeys", &found, &COLUMNS, found.iter().map(row))
        }
        Keys::Revoke { key } => {
            let request = RevokeApiKeyRequest { name: key, request_id: request_id(), ..Default::default() };
            let key = session.take(client.revoke_api_key(session.request(request)).await)?;
            note_conditions(global, &key.conditions);
            output::print(global, &key, &COLUMNS, [row(&key)])
        }
    }
}

/// A new key: its text alone on standard output, so that it can go straight into a file; the rest as a note.
pub(crate) fn print_new(global: &Global, key: &ApiKey) -> Result<()> {
    if global.output == Output::Json {
        return output::print(global, key, &COLUMNS, [row(key)]);
    }
    output::note(global, &format!("{}; its text is shown only now:", key.name));
    writeln!(std::io::stdout(), "{}", key.key)?;
    Ok(())
}

fn row(key: &ApiKey) -> Vec<String> {
    vec![
        key.name.clone(),
        output::word(key.state().as_str_name(), "STATE_"),
        key.display_name.clone(),
        when::shown(key.create_time.as_ref()),
        when::shown(key.expire_time.as_ref()),
    ]
}
