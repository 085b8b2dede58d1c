//! `sluice service-accounts`.

use anyhow::Result;
use sluice_proto::admin::v1::service_account_service_client::ServiceAccountServiceClient;
use sluice_proto::admin::v1::{
    CreateServiceAccountRequest, DeleteServiceAccountRequest, GetServiceAccountRequest, ListServiceAccountsRequest,
    ServiceAccount, UpdateServiceAccountRequest,
};
use sluice_proto::wkt::FieldMask;

use super::confirm::Deletion;
use super::operations::note_conditions;
use super::{full_name, last_part, pages};
use crate::args::{Global, ServiceAccounts};
use crate::connect::{Session, request_id};
use crate::{output, when};

const COLUMNS: [&str; 5] = ["service account", "display name", "grants", "created", "uid"];

pub(crate) async fn run(global: &Global, command: ServiceAccounts) -> Result<()> {
    let session = Session::tenant(global)?;
    let mut client = ServiceAccountServiceClient::new(session.channel.clone());
    let name = |account: &str| full_name("serviceAccounts", account);
    let answer = match command {
        ServiceAccounts::Create { account, display_name, grants } => {
            let request = CreateServiceAccountRequest {
                service_account_id: account,
                service_account: Some(ServiceAccount { display_name, grants, ..Default::default() }),
                request_id: request_id(),
                ..Default::default()
            };
            client.create_service_account(session.request(request)).await
        }
        ServiceAccounts::Get { account } => {
            client.get_service_account(session.request(GetServiceAccountRequest { name: name(&account) })).await
        }
        ServiceAccounts::List(page) => {
            let found = pages!(
                global,
                session,
                client,
                list_service_accounts,
                page.limit,
                service_accounts,
                ListServiceAccountsRequest::default()
            );
            return output::print_list(global, "serviceAccounts", &found, &COLUMNS, found.iter().map(row));
        }
        ServiceAccounts::SetGrants { account, grants, none: _ } => {
            let request = UpdateServiceAccountRequest {
                service_account: Some(ServiceAccount { name: name(&account), grants, ..Default::default() }),
                update_mask: Some(FieldMask { paths: vec!["grants".into()] }),
                request_id: request_id(),
                ..Default::default()
            };
            client.update_service_account(session.request(request)).await
        }
        ServiceAccounts::Delete { account, yes } => {
            let what = format!("service account {}", last_part(&account));
            Deletion { what, with: "its keys", name: &account }.confirm(yes)?;
            let request =
                DeleteServiceAccountRequest { name: name(&account), request_id: request_id(), ..Default::default() };
            client.delete_service_account(session.request(request)).await
        }
    };
    let account = session.take(answer)?;
    note_conditions(global, &account.conditions);
    output::print(global, &account, &COLUMNS, [row(&account)])
}

fn row(account: &ServiceAccount) -> Vec<String> {
    let grants: Vec<String> = account
        .grants
        .iter()
        .map(|grant| {
            let role = output::word(grant.role().as_str_name(), "ROLE_").to_lowercase();
            let resource = if grant.resource.is_empty() { "*" } else { &grant.resource };
            format!("{role}@{resource}")
        })
        .collect();
    vec![
        last_part(&account.name).to_owned(),
        account.display_name.clone(),
        grants.join(", "),
        when::shown(account.create_time.as_ref()),
        account.uid.clone(),
    ]
}
