//! What we did not make is never adopted, changed or deleted.

use sluice_proto::internal::control::v1::report_topic_request::Observed;

use sluice_types::{ClusterUid, LogUid};

use crate::support::World;

#[tokio::test]
async fn a_topic_that_stands_there_unannounced_is_foreign_and_left_alone() {
    let world = World::new().await;
    let uid = world.plane.want(3, &[("retention.ms", "86400000")]);
    let id = world.make(&uid, 1).await;
    let running = world.start().await;
    let foreign = |known: &crate::plane::Known| known.observed == Observed::Foreign;
    world.until("foreign", &uid, foreign).await;
    let physical = world.physical(&uid).await.unwrap();
    assert_eq!((physical.topic_id, physical.partitions.len()), (id, 1));

    let before = world.plane.known(&uid).reports;
    world.plane.delete(&uid);
    world.until("foreign again", &uid, |known| foreign(known) && known.reports > before).await;
    assert_eq!(world.physical(&uid).await.unwrap().topic_id, id);
    running.stop().await;
}

#[tokio::test]
async fn an_announced_topic_is_claimed_only_while_it_is_empty() {
    let world = World::new().await;
    let (empty, written) = (world.plane.want(2, &[]), world.plane.want(2, &[]));
    for uid in [&empty, &written] {
        // As after a death between the create and its report.
        world.plane.change(uid, |intent| intent.create_attempted = true);
        world.make(uid, 2).await;
    }
    world.write(&written, 1, 1).await;
    let running = world.start().await;
    world.until("claimed", &empty, |known| known.observed == Observed::Ready).await;
    world.until("foreign", &written, |known| known.observed == Observed::Foreign).await;
    assert_eq!(world.end(&world.plane.known(&written).name(), 1).await, 1);
    running.stop().await;
}

#[tokio::test]
async fn a_topic_made_again_behind_our_back_is_foreign() {
    let world = World::new().await;
    let running = world.start().await;
    let uid = world.plane.want(1, &[]);
    world.until("made", &uid, |known| known.observed == Observed::Ready).await;
    let name = world.plane.known(&uid).name();
    world.kafka.delete_topic(name.as_str(), crate::support::CALL).await.unwrap();
    crate::support::eventually("gone", crate::support::SOON, async || world.physical(&uid).await.is_none()).await;
    let id = world.make(&uid, 1).await;
    world.plane.change(&uid, |intent| intent.partitions = 2);
    world.until("foreign", &uid, |known| known.observed == Observed::Foreign).await;
    let physical = world.physical(&uid).await.unwrap();
    assert_eq!((physical.topic_id, physical.partitions.len()), (id, 1));
    running.stop().await;
}

#[tokio::test]
async fn a_topic_is_made_in_the_log_that_is_wanted_and_never_for_another_cluster() {
    let world = World::new().await;
    let (here, elsewhere) = (world.plane.want(1, &[]), world.plane.want(1, &[]));
    let (log, other) = (LogUid::random(), ClusterUid::random());
    world.plane.change(&here, |intent| {
        intent.cluster_uid = ClusterUid::FIRST.to_string();
        intent.log_uid = log.to_string();
    });
    world.plane.change(&elsewhere, |intent| intent.cluster_uid = other.to_string());
    let running = world.start().await;
    world.until("made", &here, |known| known.observed == Observed::Ready).await;
    let made = world.plane.known(&here);
    assert!(made.name().as_str().ends_with(&log.to_string()));
    assert!(world.physical(&here).await.is_some());
    assert_eq!(made.cluster_uid, ClusterUid::FIRST.to_string());
    world.until("not made", &elsewhere, |known| known.observed == Observed::Retrying).await;
    assert_eq!(world.plane.known(&elsewhere).reason, "ClusterUnknown");
    assert!(world.physical(&elsewhere).await.is_none());
    running.stop().await;
}
