//! `sluice namespaces`.

use anyhow::{Context, Result};
use sluice_proto::admin::v1::namespace_service_client::NamespaceServiceClient;
use sluice_proto::admin::v1::{
    CreateNamespaceRequest, DeleteNamespaceRequest, GetNamespaceRequest, ListNamespacesRequest, Namespace,
    UpdateNamespaceRequest,
};
use sluice_proto::google::longrunning::{Operation, operation};
use sluice_proto::wkt::FieldMask;

use super::operations::settle;
use super::{full_name, last_part, pages};
use crate::args::{Global, Namespaces};
use crate::connect::{Session, request_id};
use crate::{output, when};

const COLUMNS: [&str; 5] = ["namespace", "state", "display name", "created", "uid"];

pub(crate) async fn run(global: &Global, command: Namespaces) -> Result<()> {
    let session = Session::tenant(global)?;
    let mut client = NamespaceServiceClient::new(session.channel.clone());
    match command {
        Namespaces::Create { namespace, display_name, deletion_protection } => {
            let request = CreateNamespaceRequest {
                namespace_id: namespace,
                namespace: Some(Namespace { display_name, deletion_protection, ..Default::default() }),
                request_id: request_id(),
                ..Default::default()
            };
            let operation = session.take(client.create_namespace(session.request(request)).await)?;
            print_operation(global, settle(global, &session, operation).await?)
        }
        Namespaces::Get { namespace } => {
            let request = GetNamespaceRequest { name: full_name("namespaces", &namespace) };
            print(global, &session.take(client.get_namespace(session.request(request)).await)?)
        }
        Namespaces::List(page) => {
            let found = pages!(
                global,
                session,
                client,
                list_namespaces,
                page.limit,
                namespaces,
                ListNamespacesRequest::default()
            );
            output::print_list(global, "namespaces", &found, &COLUMNS, found.iter().map(row))
        }
        Namespaces::Update { namespace, display_name, deletion_protection } => {
            let mut paths = Vec::new();
            paths.extend(display_name.as_ref().map(|_| "display_name".to_owned()));
            paths.extend(deletion_protection.map(|_| "deletion_protection".to_owned()));
            let request = UpdateNamespaceRequest {
                namespace: Some(Namespace {
                    name: full_name("namespaces", &namespace),
                    display_name: display_name.unwrap_or_default(),
                    deletion_protection: deletion_protection.unwrap_or_default(),
                    ..Default::default()
                }),
                update_mask: Some(FieldMask { paths }),
                request_id: request_id(),
                ..Default::default()
            };
            let operation = session.take(client.update_namespace(session.request(request)).await)?;
            print_operation(global, settle(global, &session, operation).await?)
        }
        Namespaces::Delete { namespace } => {
            let request = DeleteNamespaceRequest {
                name: full_name("namespaces", &namespace),
                request_id: request_id(),
                ..Default::default()
            };
            let operation = session.take(client.delete_namespace(session.request(request)).await)?;
            print_operation(global, settle(global, &session, operation).await?)
        }
    }
}

fn print_operation(global: &Global, operation: Operation) -> Result<()> {
    let Some(operation::Result::Response(any)) = &operation.result else {
        return Ok(());
    };
    print(global, &any.unpack::<Namespace>().context("the operation's response is no namespace")??)
}

fn print(global: &Global, namespace: &Namespace) -> Result<()> {
    output::print(global, namespace, &COLUMNS, [row(namespace)])
}

fn row(namespace: &Namespace) -> Vec<String> {
    vec![
        last_part(&namespace.name).to_owned(),
        output::word(namespace.state().as_str_name(), "STATE_"),
        namespace.display_name.clone(),
        when::shown(namespace.create_time.as_ref()),
        namespace.uid.clone(),
    ]
}
