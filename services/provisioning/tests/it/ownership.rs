//! What we did not make is never adopted, changed or deleted.

use sluice_proto::internal::control::v1::report_topic_request::Observed;

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
