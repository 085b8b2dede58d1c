//! `sluice operations`, and what every command does with the operation it gets.

use anyhow::{Result, bail};
use sluice_proto::admin::v1::operation_service_client::OperationServiceClient;
use sluice_proto::admin::v1::{
    Condition, GetOperationRequest, ListOperationsRequest, OperationMetadata, WaitOperationRequest, condition,
};
use sluice_proto::google::longrunning::{Operation, operation};

use super::{full_name, last_part, pages};
use crate::args::{Global, Operations};
use crate::connect::Session;
use crate::{output, when};

const COLUMNS: [&str; 6] = ["operation", "target", "verb", "phase", "done", "started"];

pub(crate) async fn run(global: &Global, command: Operations) -> Result<()> {
    let session = Session::tenant(global)?;
    let mut client = OperationServiceClient::new(session.channel.clone());
    match command {
        Operations::Get { operation } => {
            let name = full_name("operations", &operation);
            let found = session.take(client.get_operation(session.request(GetOperationRequest { name })).await)?;
            note_conditions(global, &metadata(&found).conditions);
            output::print(global, &found, &COLUMNS, [row(&found)])
        }
        Operations::List(page) => {
            let found = pages!(
                global,
                session,
                client,
                list_operations,
                page.limit,
                operations,
                ListOperationsRequest::default()
            );
            output::print_list(global, "operations", &found, &COLUMNS, found.iter().map(row))
        }
        Operations::Wait { operation } => {
            let found = finished(&session, full_name("operations", &operation)).await?;
            note_conditions(global, &metadata(&found).conditions);
            output::print(global, &found, &COLUMNS, [row(&found)])
        }
    }
}

/// Waits for an operation if it is not done, fails if it failed, and notes what its conditions say.
pub(crate) async fn settle(global: &Global, session: &Session, operation: Operation) -> Result<Operation> {
    let operation = if operation.done { operation } else { finished(session, operation.name).await? };
    note_conditions(global, &metadata(&operation).conditions);
    if let Some(operation::Result::Error(status)) = &operation.result {
        bail!("{} ({})", status.message, operation.name);
    }
    Ok(operation)
}

/// Tells about conditions that matter to a person.
pub(crate) fn note_conditions(global: &Global, conditions: &[Condition]) {
    for condition in conditions {
        let matters = matches!(&*condition.r#type, "PropagationPending" | "KeyOrderBroken");
        if matters && condition.status() == condition::Status::True {
            output::note(global, &format!("note: {}", condition.message));
        }
    }
}

async fn finished(session: &Session, name: String) -> Result<Operation> {
    let mut client = OperationServiceClient::new(session.channel.clone());
    loop {
        let request = WaitOperationRequest { name: name.clone(), timeout: None };
        let operation = session.take(client.wait_operation(session.request(request)).await)?;
        if operation.done {
            return Ok(operation);
        }
    }
}

fn metadata(operation: &Operation) -> OperationMetadata {
    operation
        .metadata
        .as_ref()
        .and_then(|any| any.unpack::<OperationMetadata>())
        .and_then(Result::ok)
        .unwrap_or_default()
}

fn row(operation: &Operation) -> Vec<String> {
    let metadata = metadata(operation);
    vec![
        last_part(&operation.name).to_owned(),
        metadata.target,
        metadata.verb,
        metadata.phase,
        if operation.done { "yes" } else { "no" }.into(),
        when::shown(metadata.create_time.as_ref()),
    ]
}
