//! `sluice clusters` (the operator's): Kafka clusters, and where namespaces are placed.

use anyhow::Result;
use sluice_proto::operator::v1::clusters_service_client::ClustersServiceClient;
use sluice_proto::operator::v1::namespaces_service_client::NamespacesServiceClient;
use sluice_proto::operator::v1::{
    Cluster, CreateClusterRequest, GetClusterRequest, GetNamespaceRequest, ListClustersRequest, Namespace,
    PlaceNamespaceRequest,
};

use super::operations::note_conditions;
use super::{full_name, last_part, pages};
use crate::args::Global;
use crate::args::clusters::Clusters;
use crate::connect::{Session, request_id};
use crate::{output, when};

const COLUMNS: [&str; 3] = ["cluster", "created", "uid"];
const PLACED: [&str; 3] = ["namespace", "cluster", "uid"];

pub(crate) async fn run(global: &Global, command: Clusters) -> Result<()> {
    let session = Session::operator(global)?;
    let mut client = ClustersServiceClient::new(session.channel.clone());
    let mut namespaces = NamespacesServiceClient::new(session.channel.clone());
    let name = |cluster: &str| full_name("clusters", cluster);
    let cluster = match command {
        Clusters::Create { cluster } => {
            let request = CreateClusterRequest { cluster_id: cluster, request_id: request_id(), ..Default::default() };
            session.take(client.create_cluster(session.request(request)).await)?
        }
        Clusters::Get { cluster } => {
            session.take(client.get_cluster(session.request(GetClusterRequest { name: name(&cluster) })).await)?
        }
        Clusters::List(page) => {
            let found =
                pages!(global, session, client, list_clusters, page.limit, clusters, ListClustersRequest::default());
            return output::print_list(global, "clusters", &found, &COLUMNS, found.iter().map(row));
        }
        Clusters::Placement { namespace } => {
            let request = session.request(GetNamespaceRequest { name: namespace });
            return placed(global, &session.take(namespaces.get_namespace(request).await)?);
        }
        Clusters::Place { namespace, cluster } => {
            let request = PlaceNamespaceRequest {
                name: namespace,
                cluster: name(&cluster),
                request_id: request_id(),
                ..Default::default()
            };
            return placed(global, &session.take(namespaces.place_namespace(session.request(request)).await)?);
        }
    };
    output::print(global, &cluster, &COLUMNS, [row(&cluster)])
}

fn placed(global: &Global, namespace: &Namespace) -> Result<()> {
    note_conditions(global, &namespace.conditions);
    let short = namespace.name.strip_prefix("tenants/").unwrap_or(&namespace.name).replacen("/namespaces/", "/", 1);
    let row = vec![short, last_part(&namespace.cluster).to_owned(), namespace.uid.clone()];
    output::print(global, namespace, &PLACED, [row])
}

fn row(cluster: &Cluster) -> Vec<String> {
    vec![last_part(&cluster.name).to_owned(), when::shown(cluster.create_time.as_ref()), cluster.uid.clone()]
}
