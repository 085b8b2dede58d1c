//! `sluice version`: this program, and the gateway that answers, if a key is configured.

use anyhow::Result;
use serde::Serialize;
use sluice_proto::server::v1::server_service_client::ServerServiceClient;
use sluice_proto::server::v1::{GetServerInfoRequest, ServerInfo};

use crate::args::Global;
use crate::connect::Session;
use crate::output;

const COLUMNS: [&str; 5] = ["what", "version", "build", "api", "revision"];

#[derive(Serialize)]
struct Versions {
    client: Client,
    /// Absent when no key is configured.
    #[serde(skip_serializing_if = "Option::is_none")]
    server: Option<ServerInfo>,
}

#[derive(Serialize)]
struct Client {
    version: &'static str,
    build: &'static str,
}

pub(crate) async fn run(global: &Global) -> Result<()> {
    let server = match Session::is_configured(global) {
        true => Some(server(global).await?),
        false => None,
    };
    let client = Client { version: env!("CARGO_PKG_VERSION"), build: sluice_version::COMMIT };
    let versions = Versions { client, server };
    let client = ["client", versions.client.version, versions.client.build, "", ""].map(str::to_owned).to_vec();
    let rows: Vec<_> = std::iter::once(client).chain(versions.server.iter().map(row)).collect();
    output::print(global, &versions, &COLUMNS, rows)
}

async fn server(global: &Global) -> Result<ServerInfo> {
    let session = Session::tenant(global)?;
    let mut client = ServerServiceClient::new(session.channel.clone());
    session.take(client.get_server_info(session.request(GetServerInfoRequest {})).await)
}

fn row(server: &ServerInfo) -> Vec<String> {
    let ServerInfo { version, build, api_versions, revision } = server;
    vec!["server".into(), version.clone(), build.clone(), api_versions.join(" "), revision.clone()]
}
