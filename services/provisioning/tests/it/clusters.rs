//! Several clusters: one that does not answer holds up its own topics and groups, and nothing else.

use sluice_process::ClustersConfig;
use sluice_proto::internal::control::v1::report_topic_request::Observed;
use sluice_runtime::config::KafkaConfig;
use sluice_types::{ClusterUid, GroupUid, NamespaceUid};

use crate::plane::Known;
use crate::support::{SOON, World, eventually, run};

#[tokio::test]
async fn a_cluster_that_does_not_answer_holds_up_only_what_is_on_it() {
    let world = World::new().await;
    let mut config = world.config("one").await;
    // It takes connections and says nothing.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = ClusterUid::random();
    let bootstrap = vec![listener.local_addr().unwrap().to_string()];
    config.clusters = ClustersConfig::new([(silent, KafkaConfig { bootstrap, ..config.kafka.clone() })]);
    // As many as there are workers for them, and more.
    let there: Vec<String> = (0..2 * config.concurrency).map(|_| world.plane.want(1, &[])).collect();
    for uid in &there {
        world.plane.change(uid, |intent| intent.cluster_uid = silent.to_string());
    }
    let namespace = NamespaceUid::random();
    let [kept, gone] = [(); 2].map(|()| GroupUid::random());
    world.plane.delete_group_on(&[ClusterUid::FIRST, silent], namespace, kept);
    world.plane.delete_group_on(&[ClusterUid::FIRST], namespace, gone);
    let running = run(config).await;
    let here = world.plane.want(1, &[]);
    world.plane.change(&here, |intent| intent.cluster_uid = ClusterUid::FIRST.to_string());
    let ready = |known: &Known| known.observed == Observed::Ready;
    world.until("made", &here, ready).await;
    eventually("the group to go", SOON, async || world.plane.is_group_gone(gone)).await;
    eventually("the resync to say so", SOON, async || {
        running.health.component("resync").is_some_and(|it| !it.ok && it.detail.contains(&silent.to_string()))
    })
    .await;
    world.until("not made", &there[0], |known| known.reason == "ClusterUnavailable").await;
    assert!(there.iter().all(|uid| !ready(&world.plane.known(uid))) && !world.plane.is_group_gone(kept));
    assert!(world.physical(&here).await.is_some());
    running.stop().await;
}
