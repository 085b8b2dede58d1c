//! Kafka clusters, where the operator places namespaces, and groups that must not reach over two clusters.

use sluice_proto::admin::v1::{DeleteTopicRequest, Group, Topic, UpdateGroupRequest};
use sluice_proto::internal::control::v1::ListIntentsRequest;
use sluice_proto::operator::v1::clusters_service_client::ClustersServiceClient;
use sluice_proto::operator::v1::namespaces_service_client::NamespacesServiceClient;
use sluice_proto::operator::v1::*;
use sluice_runtime::statuses::from_tonic;
use sluice_types::{ClusterUid, ErrorKind, Reason};
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::provisioner::{Provisioner, listed_groups};
use crate::support::{Plant, Principal, eventually, refused};

const REQUEST_ID: &str = "6f1c1f9e-5c0e-4b3e-9a43-0d6c7c1f2b11";
const PROD: &str = "tenants/acme/namespaces/prod";

fn clusters(plant: &Plant) -> ClustersServiceClient<Channel> {
    ClustersServiceClient::new(plant.operator_channel())
}

fn namespaces(plant: &Plant) -> NamespacesServiceClient<Channel> {
    NamespacesServiceClient::new(plant.operator_channel())
}

async fn create(plant: &Plant, id: &str) -> Result<Cluster, Status> {
    let request = CreateClusterRequest { cluster_id: id.into(), ..Default::default() };
    clusters(plant).create_cluster(plant.as_operator(request)).await.map(tonic::Response::into_inner)
}

async fn place(plant: &Plant, cluster: &str) -> Result<Namespace, Status> {
    let request = PlaceNamespaceRequest { name: PROD.into(), cluster: cluster.into(), ..Default::default() };
    namespaces(plant).place_namespace(plant.as_operator(request)).await.map(tonic::Response::into_inner)
}

async fn make_topics(owner: &Principal, ids: &[&str]) -> Result<(), Status> {
    for id in ids {
        owner.topics().create_topic(owner.create_topic("prod", id, Topic::default())).await?;
    }
    Ok(())
}

fn of(topics: &[&str]) -> Group {
    let name = |id: &&str| format!("namespaces/prod/topics/{id}");
    Group { topics: topics.iter().map(name).collect(), ..Group::default() }
}

async fn make_group(owner: &Principal, id: &str, group: Group) -> Result<(), Status> {
    owner.groups().create_group(owner.create_group("prod", id, group)).await.map(drop)
}

#[tokio::test]
async fn clusters_are_made_once_listed_and_have_uids_for_the_configuration() {
    let plant = Plant::start().await;
    let request = CreateClusterRequest {
        cluster_id: "second".into(),
        request_id: REQUEST_ID.into(),
        validate_only: true,
        ..Default::default()
    };
    clusters(&plant).create_cluster(plant.as_operator(request.clone())).await.unwrap();
    let get = GetClusterRequest { name: "clusters/second".into() };
    assert_eq!(refused(clusters(&plant).get_cluster(plant.as_operator(get.clone())).await), Code::NotFound);

    let request = CreateClusterRequest { validate_only: false, ..request };
    let made = clusters(&plant).create_cluster(plant.as_operator(request.clone())).await.unwrap().into_inner();
    let again = clusters(&plant).create_cluster(plant.as_operator(request)).await.unwrap().into_inner();
    assert_eq!(again, made, "a retry with the same request id");
    assert_eq!(made.name, "clusters/second");
    assert_ne!(made.uid.parse::<ClusterUid>().unwrap(), ClusterUid::FIRST);
    assert_eq!(clusters(&plant).get_cluster(plant.as_operator(get)).await.unwrap().into_inner(), made);
    assert_eq!(refused(create(&plant, "second").await), Code::AlreadyExists);
    assert_eq!(refused(create(&plant, "first").await), Code::AlreadyExists);
    assert_eq!(refused(create(&plant, "Second").await), Code::InvalidArgument);

    create(&plant, "another").await.unwrap();
    let (mut names, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListClustersRequest { page_size: 2, page_token };
        let page = clusters(&plant).list_clusters(plant.as_operator(request)).await.unwrap().into_inner();
        names.extend(page.clusters.into_iter().map(|cluster| cluster.name));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(names, ["clusters/another", "clusters/first", "clusters/second"]);
    let told = "SELECT actor, resource FROM control.audit_event WHERE method LIKE '%CreateCluster' ORDER BY id LIMIT 1";
    assert_eq!(plant.sql(told).await, "operator|clusters/second");
}

#[tokio::test]
async fn topics_are_made_where_their_namespace_is_placed_and_stay_there() {
    let plant = Plant::start().await;
    let _provisioner = Provisioner::start(&plant).await;
    let owner = plant.tenant("acme").await;
    owner.make_namespace("prod").await;
    assert_eq!(refused(place(&plant, "clusters/second").await), Code::NotFound);
    let second = create(&plant, "second").await.unwrap();
    let get = GetNamespaceRequest { name: PROD.into() };
    let before = namespaces(&plant).get_namespace(plant.as_operator(get.clone())).await.unwrap().into_inner();
    assert_eq!((before.name.as_str(), before.cluster.as_str()), (PROD, "clusters/first"));

    make_topics(&owner, &["here"]).await.unwrap();
    let placed = place(&plant, "clusters/second").await.unwrap();
    assert_eq!((placed.uid.as_str(), placed.cluster.as_str()), (before.uid.as_str(), "clusters/second"));
    let shown = namespaces(&plant).get_namespace(plant.as_operator(get)).await.unwrap().into_inner();
    assert_eq!((&shown.cluster, &shown.etag), (&placed.cluster, &placed.etag));
    make_topics(&owner, &["there"]).await.unwrap();
    let intents = plant.intents().list_intents(ListIntentsRequest { limit: 10, ..Default::default() }).await.unwrap();
    let mut wanted: Vec<String> = intents.into_inner().topics.into_iter().map(|topic| topic.cluster_uid).collect();
    wanted.sort();
    let mut expected = [ClusterUid::FIRST.to_string(), second.uid.clone()];
    expected.sort();
    assert_eq!(wanted, expected);

    let old = PlaceNamespaceRequest {
        name: PROD.into(),
        cluster: "clusters/first".into(),
        etag: before.etag,
        ..Default::default()
    };
    let error = from_tonic(&namespaces(&plant).place_namespace(plant.as_operator(old)).await.unwrap_err());
    assert_eq!(error.reason, Reason::EtagMismatch);
    for absent in ["tenants/acme/namespaces/x", "tenants/x/namespaces/prod"] {
        let request =
            PlaceNamespaceRequest { name: absent.into(), cluster: "clusters/first".into(), ..Default::default() };
        assert_eq!(refused(namespaces(&plant).place_namespace(plant.as_operator(request)).await), Code::NotFound);
        let request = GetNamespaceRequest { name: absent.into() };
        assert_eq!(refused(namespaces(&plant).get_namespace(plant.as_operator(request)).await), Code::NotFound);
    }
    // The log has the version that the database has: nothing is found to differ, and tenants' changes go on.
    owner.make_namespace("other").await;
    let told = "SELECT resource, detail->>'cluster' FROM control.audit_event WHERE method LIKE '%PlaceNamespace'";
    assert_eq!(plant.sql(told).await, format!("{PROD}|clusters/second"));
    let published =
        "SELECT n.version = max(o.version) FROM control.namespace n JOIN control.outbox o ON aggregate_uid = uid
                     WHERE n.id = 'prod' GROUP BY n.version";
    assert_eq!(plant.sql(published).await, "t");
}

#[tokio::test]
async fn a_group_reads_topics_of_one_cluster_and_no_topic_brings_it_onto_another() {
    let plant = Plant::start().await;
    let _provisioner = Provisioner::start(&plant).await;
    let owner = plant.tenant("acme").await;
    owner.make_namespace("prod").await;
    create(&plant, "second").await.unwrap();
    make_topics(&owner, &["a", "b"]).await.unwrap();
    place(&plant, "clusters/second").await.unwrap();
    make_topics(&owner, &["c", "dead"]).await.unwrap();
    let several = |status: Status, names: &[&str]| {
        let error = from_tonic(&status);
        assert_eq!((error.kind, error.reason), (ErrorKind::FailedPrecondition, Reason::TopicsOnSeveralClusters));
        assert!(names.iter().all(|name| error.message.contains(name)), "{}", error.message);
    };

    several(make_group(&owner, "both", of(&["a", "c"])).await.unwrap_err(), &["topics/a", "topics/c"]);
    let letters = Group { dead_letter_topic: "namespaces/prod/topics/dead".into(), ..of(&["a", "b"]) };
    make_group(&owner, "first", letters).await.unwrap();
    make_group(&owner, "second", of(&["c"])).await.unwrap();
    let update = |id: &str, group: Group| {
        let group = Group { name: format!("namespaces/prod/groups/{id}"), ..group };
        owner.call(UpdateGroupRequest { group: Some(group), ..Default::default() })
    };
    let refused = owner.groups().update_group(update("first", of(&["a", "b", "c"]))).await.unwrap_err();
    several(refused, &["topics/a", "topics/c"]);
    owner.groups().update_group(update("second", of(&["c", "dead"]))).await.unwrap();
    owner.groups().update_group(update("second", of(&["a"]))).await.unwrap();

    // Made again, b would be on the second cluster, and the group `first` on both.
    let delete = DeleteTopicRequest { name: "namespaces/prod/topics/b".into(), ..Default::default() };
    owner.topics().delete_topic(owner.call(delete)).await.unwrap();
    several(make_topics(&owner, &["b"]).await.unwrap_err(), &["groups/first", "topics/a"]);
    owner.groups().update_group(update("first", of(&["a"]))).await.unwrap();
    make_topics(&owner, &["b"]).await.unwrap();
}

#[tokio::test]
async fn a_deleted_group_is_to_be_looked_for_on_every_cluster_of_its_namespace() {
    let plant = Plant::start().await;
    let _provisioner = Provisioner::start(&plant).await;
    let owner = plant.tenant("acme").await;
    owner.make_namespace("prod").await;
    let second = create(&plant, "second").await.unwrap();
    create(&plant, "third").await.unwrap();
    make_topics(&owner, &["a"]).await.unwrap();
    make_group(&owner, "g", of(&["a"])).await.unwrap();
    place(&plant, "clusters/second").await.unwrap();
    let delete =
        sluice_proto::admin::v1::DeleteGroupRequest { name: "namespaces/prod/groups/g".into(), ..Default::default() };
    owner.groups().delete_group(owner.call(delete)).await.unwrap();
    eventually("the group is listed", || async { !listed_groups(&plant).await.is_empty() }).await;
    let mut listed = listed_groups(&plant).await.remove(0).cluster_uids;
    listed.sort();
    let mut expected = [ClusterUid::FIRST.to_string(), second.uid];
    expected.sort();
    assert_eq!(listed, expected);
}
