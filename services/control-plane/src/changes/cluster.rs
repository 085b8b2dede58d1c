//! The operator's changes of clusters, and of where namespaces are placed.

use serde_json::json;
use sluice_proto::operator::v1::{Cluster, CreateClusterRequest, Namespace, PlaceNamespaceRequest};
use sluice_types::{ClusterId, ClusterUid, Error, ResourceName};

use super::finish::exists;
use super::{Call, Committed, Envelope, change};
use crate::domain::{etag, fields, present, record};
use crate::plane::SharedPlane;
use crate::store::cluster::{cluster_by_id_in_txn, cluster_insert};
use crate::store::namespace::{namespace_by_id, namespace_update};

/// Creates a cluster: its id and its uid. Nobody connects to it before a process's configuration names it.
pub(crate) async fn create(
    plane: &SharedPlane,
    call: Call,
    request: CreateClusterRequest,
) -> Result<Committed<Cluster>, Error> {
    let envelope = Envelope::of(&request, request.validate_only)?;
    let id: ClusterId = fields::parsed("cluster_id", &request.cluster_id)?;
    let only_checks = request.validate_only;
    change(plane, call, envelope, move |txn| {
        Box::pin(async move {
            let row = match cluster_insert(txn.tx(), ClusterUid::random(), &id).await {
                Err(error) if error.is_unique("cluster_id_key") => return Err(exists(&format!("clusters/{id}")).into()),
                done => done?,
            };
            txn.audit(&row.name(), row.uid().uid(), json!({})).await?;
            let mut shown = present::cluster(&row);
            if only_checks {
                // The real call would give another one, and somebody may have put this one into a configuration.
                shown.uid.clear();
            }
            Ok(shown)
        })
    })
    .await
}

/// Places a namespace of the call's tenant: its topics are made on that cluster from now on.
pub(crate) async fn place(
    plane: &SharedPlane,
    call: Call,
    request: PlaceNamespaceRequest,
) -> Result<Committed<Namespace>, Error> {
    let envelope = Envelope::of(&request, request.validate_only)?;
    let (tenant_id, id) = fields::named("name", &request.name, ResourceName::parse_tenant_namespace)?;
    let cluster_id = fields::named("cluster", &request.cluster, ResourceName::parse_cluster)?;
    change(plane, call, envelope, move |txn| {
        Box::pin(async move {
            let cluster = cluster_by_id_in_txn(txn.tx(), &cluster_id).await?;
            let cluster = cluster.ok_or_else(|| Error::not_found(&request.cluster))?;
            let row = namespace_by_id(txn.tx(), &id).await?.ok_or_else(|| Error::not_found(&request.name))?;
            etag::check(&request.etag, row.uid().uid(), row.version)?;
            let mut placed = row;
            placed.cluster_uid = cluster.uid;
            let row = namespace_update(txn.tx(), &placed).await?;
            // Gateways read nothing new in it, but the log has the version that the database has.
            let tenant = txn.tenant();
            txn.publish(&record::namespace(tenant, &row)).await?;
            txn.audit(&request.name, row.uid().uid(), json!({ "cluster": request.cluster })).await?;
            Ok(present::placed_namespace(&tenant_id, &row, &cluster))
        })
    })
    .await
}
