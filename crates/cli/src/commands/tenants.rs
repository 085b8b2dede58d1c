//! `sluice tenants` (the operator's), and `sluice whoami`.

use anyhow::Result;
use sluice_proto::admin::v1::tenant_service_client::TenantServiceClient;
use sluice_proto::admin::v1::{self as admin, TenantLimits};
use sluice_proto::operator::v1::tenants_service_client::TenantsServiceClient;
use sluice_proto::operator::v1::{
    CreateTenantRequest, DeleteTenantRequest, GetTenantRequest, IssueOwnerKeyRequest, ListTenantsRequest,
    ResumeTenantRequest, SuspendTenantRequest, Tenant, UpdateTenantRequest,
};
use sluice_proto::wkt::FieldMask;

use super::confirm::Deletion;
use super::operations::note_conditions;
use super::{full_name, keys, last_part, pages};
use crate::args::{Global, Tenants};
use crate::connect::{Session, request_id};
use crate::{output, when};

const COLUMNS: [&str; 5] = ["tenant", "state", "display name", "created", "uid"];

pub(crate) async fn run(global: &Global, command: Tenants) -> Result<()> {
    let session = Session::operator(global)?;
    let mut client = TenantsServiceClient::new(session.channel.clone());
    let name = |tenant: &str| full_name("tenants", tenant);
    let answer = match command {
        Tenants::Create { tenant, display_name } => {
            let request = CreateTenantRequest {
                tenant_id: tenant,
                tenant: Some(Tenant { display_name, ..Default::default() }),
                request_id: request_id(),
                ..Default::default()
            };
            client.create_tenant(session.request(request)).await
        }
        Tenants::Get { tenant } => client.get_tenant(session.request(GetTenantRequest { name: name(&tenant) })).await,
        Tenants::List(page) => {
            let found =
                pages!(global, session, client, list_tenants, page.limit, tenants, ListTenantsRequest::default());
            return output::print_list(global, "tenants", &found, &COLUMNS, found.iter().map(row));
        }
        Tenants::SetLimits {
            tenant,
            requests_per_second,
            ingress_bytes_per_second,
            egress_bytes_per_second,
            bytes_in_flight,
            topics,
            partitions,
            namespaces,
        } => {
            let mut paths = Vec::new();
            let mut take = |field: &str, value: Option<i64>| {
                paths.extend(value.map(|_| format!("limits.{field}")));
                value.unwrap_or_default()
            };
            let limits = TenantLimits {
                requests_per_second: take("requests_per_second", requests_per_second),
                ingress_bytes_per_second: take("ingress_bytes_per_second", ingress_bytes_per_second),
                egress_bytes_per_second: take("egress_bytes_per_second", egress_bytes_per_second),
                bytes_in_flight: take("bytes_in_flight", bytes_in_flight),
                topics: take("topics", topics),
                partitions: take("partitions", partitions),
                namespaces: take("namespaces", namespaces),
            };
            let request = UpdateTenantRequest {
                tenant: Some(Tenant { name: name(&tenant), limits: Some(limits), ..Default::default() }),
                update_mask: Some(FieldMask { paths }),
                request_id: request_id(),
                ..Default::default()
            };
            client.update_tenant(session.request(request)).await
        }
        Tenants::Suspend { tenant, reason } => {
            let request =
                SuspendTenantRequest { name: name(&tenant), reason, request_id: request_id(), ..Default::default() };
            client.suspend_tenant(session.request(request)).await
        }
        Tenants::Resume { tenant } => {
            let request = ResumeTenantRequest { name: name(&tenant), request_id: request_id(), ..Default::default() };
            client.resume_tenant(session.request(request)).await
        }
        Tenants::Delete { tenant, yes, force } => {
            let what = format!("tenant {}", last_part(&tenant));
            Deletion { what, with: "all its data", name: &tenant }.confirm(yes)?;
            let request =
                DeleteTenantRequest { name: name(&tenant), force, request_id: request_id(), ..Default::default() };
            client.delete_tenant(session.request(request)).await
        }
        Tenants::IssueKey { tenant } => {
            let request = IssueOwnerKeyRequest { name: name(&tenant), request_id: request_id(), ..Default::default() };
            let key = session.take(client.issue_owner_key(session.request(request)).await)?;
            return keys::print_new(global, &key);
        }
    };
    let tenant = session.take(answer)?;
    note_conditions(global, &tenant.conditions);
    output::print(global, &tenant, &COLUMNS, [row(&tenant)])
}

/// `sluice whoami`.
pub(crate) async fn whoami(global: &Global) -> Result<()> {
    let session = Session::tenant(global)?;
    let mut client = TenantServiceClient::new(session.channel.clone());
    let tenant = session.take(client.get_tenant(session.request(admin::GetTenantRequest {})).await)?;
    let row = vec![
        tenant.tenant.clone(),
        output::word(tenant.state().as_str_name(), "STATE_"),
        tenant.display_name.clone(),
        when::shown(tenant.create_time.as_ref()),
        tenant.uid.clone(),
    ];
    output::print(global, &tenant, &COLUMNS, [row])
}

fn row(tenant: &Tenant) -> Vec<String> {
    vec![
        last_part(&tenant.name).to_owned(),
        output::word(tenant.state().as_str_name(), "STATE_"),
        tenant.display_name.clone(),
        when::shown(tenant.create_time.as_ref()),
        tenant.uid.clone(),
    ]
}
