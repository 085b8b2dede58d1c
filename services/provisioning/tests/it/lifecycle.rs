//! Topics are made, grown, changed and deleted as intended, and one bad topic holds up no other.

use std::collections::BTreeMap;
use std::sync::Arc;

use sluice_proto::internal::control::v1::report_topic_request::Observed;
use sluice_provisioning::cluster::Cluster;
use sluice_provisioning::domain::orphans::Orphans;
use sluice_provisioning::intents::Intents;
use sluice_provisioning::jobs::reconcile::Reconciler;
use sluice_provisioning::jobs::resync::resync;
use sluice_provisioning::metrics::Metrics;
use sluice_reconcile::{Lease, Outcome};
use sluice_runtime::FailPoints;
use sluice_runtime::Health;
use sluice_runtime::internal::internal_channel;
use sluice_runtime::tls::InternalTls;
use sluice_types::ClusterUid;
use sluice_wire::ConfigChange;
use tokio_util::sync::CancellationToken;

use crate::support::{CALL, SOON, World, eventually, run};

const FIRST: ClusterUid = ClusterUid::FIRST;

fn ready(generation: i64) -> impl Fn(&crate::plane::Known) -> bool {
    move |known| known.observed == Observed::Ready && known.intent.observed_generation == generation
}

#[tokio::test]
async fn a_topic_is_made_grown_changed_and_deleted() {
    let world = World::new().await;
    let running = world.start().await;
    let uid = world.plane.want(2, &[("retention.ms", "86400000"), ("cleanup.policy", "compact")]);
    world.until("made", &uid, ready(1)).await;
    let physical = world.physical(&uid).await.unwrap();
    assert_eq!(physical.partitions.len(), 2);
    let known = world.plane.known(&uid);
    assert_eq!((known.partitions, known.intent.kafka_topic_id), (2, physical.topic_id.to_string()));
    assert!(known.intent.create_attempted);
    assert_eq!(world.config_of(&uid, "retention.ms").await.as_deref(), Some("86400000"));
    assert_eq!(world.config_of(&uid, "min.compaction.lag.ms").await.as_deref(), Some("10800000"));

    world.plane.change(&uid, |intent| {
        intent.partitions = 5;
        intent.configs = [("retention.ms".to_owned(), "1".to_owned())].into();
    });
    world.until("grown", &uid, ready(2)).await;
    assert_eq!(world.plane.known(&uid).partitions, 5);
    assert_eq!(world.physical(&uid).await.unwrap().topic_id, physical.topic_id);
    assert_eq!(world.config_of(&uid, "retention.ms").await.as_deref(), Some("10800000"), "the floor of billing");
    assert_eq!(world.config_of(&uid, "cleanup.policy").await.as_deref(), Some("delete"), "back to the default");

    world.write(&uid, 1, 7).await;
    world.write(&uid, 4, 2).await;
    world.plane.delete(&uid);
    world.until("gone", &uid, |known| known.observed == Observed::Gone).await;
    assert_eq!(world.plane.known(&uid).intent.final_end_offsets, [0, 7, 0, 0, 2]);
    assert!(world.physical(&uid).await.is_none());
    running.stop().await;
}

#[tokio::test]
async fn a_topic_that_was_never_made_is_simply_gone() {
    let world = World::new().await;
    let uid = world.plane.want(1, &[]);
    world.plane.delete(&uid);
    let running = world.start().await;
    world.until("gone", &uid, |known| known.observed == Observed::Gone).await;
    assert!(!world.plane.known(&uid).intent.create_attempted);
    running.stop().await;
}

#[tokio::test]
async fn bad_topics_hold_up_no_other() {
    let world = World::new().await;
    let refused_here = world.plane.want(1, &[("unclean.leader.election.enable", "true")]);
    let refused_there = world.plane.want(1, &[("compression.type", "no such thing")]);
    let unreported = world.plane.want(1, &[]);
    world.plane.break_reports_of(&unreported);
    let running = world.start().await;
    for (uid, reason) in [(&refused_here, "ConfigRefused"), (&refused_there, "ClusterRefuses")] {
        world.until(reason, uid, |known| known.observed == Observed::Failed && known.reason == reason).await;
        assert!(world.physical(uid).await.is_none());
    }
    for _ in 0..3 {
        let good: Vec<String> = (0..10).map(|_| world.plane.want(1, &[])).collect();
        for uid in &good {
            world.until("made beside a bad one", uid, ready(1)).await;
        }
    }
    assert_eq!(world.plane.known(&unreported).reports, 0);
    running.stop().await;
}

#[tokio::test]
async fn a_second_provisioning_stands_by_until_the_lease_is_given_back() {
    let world = World::new().await;
    let first = world.start().await;
    let one = world.plane.want(1, &[]);
    world.until("made by the first", &one, ready(1)).await;
    // Of the same instance, as when somebody copied its configuration.
    let second = run(world.config("one").await).await;
    eventually("the second stands by", SOON, async || {
        second.health.component("lease").is_some_and(|status| status.detail == "standing by")
    })
    .await;
    first.stop().await;
    let two = world.plane.want(1, &[]);
    world.until("made by the second", &two, ready(1)).await;
    second.stop().await;
}

#[tokio::test]
async fn drift_is_found_by_the_resync_and_repaired() {
    let world = World::new().await;
    let config = world.config("one").await;
    let tls = InternalTls::load(&config.internal_tls).unwrap();
    let kafka = crate::support::stack().await.kafka().unwrap().client(sluice_devstack::PROVISIONING).unwrap();
    let reconciler = Reconciler {
        clusters: Arc::new([(FIRST, Cluster::new(FIRST, kafka, Some(1)))].into()),
        intents: Intents::new(internal_channel(&config.control_plane, &tls, "control-plane").unwrap()),
        lease: Lease::default(),
        fail_points: FailPoints::default(),
        metrics: Metrics::default(),
    };
    let stop = CancellationToken::new();
    let (intents, lease) = (reconciler.intents.clone(), reconciler.lease.clone());
    let keep = tokio::spawn(lease.keep("one".into(), intents, Health::new(), |_| {}, stop.clone()));
    reconciler.lease.held().await;
    let mut orphans = BTreeMap::<ClusterUid, Orphans>::new();
    let uid = world.plane.want(1, &[("retention.ms", "86400000")]);
    let mine = |found: Vec<sluice_provisioning::domain::intent::Intent>| {
        found.into_iter().find(|intent| intent.topic.to_string() == uid)
    };

    let found = resync(&reconciler, &mut orphans).await.unwrap();
    assert_eq!(found.drifted, 0);
    assert_eq!(reconciler.work_on(mine(found.work).unwrap()).await, Outcome::Settled);
    assert!(resync(&reconciler, &mut orphans).await.unwrap().work.is_empty());

    let name = world.plane.known(&uid).name();
    let change = BTreeMap::from([("retention.ms".to_owned(), ConfigChange::Set("5".into()))]);
    world.kafka.incremental_alter_configs(name.as_str(), &change, false, CALL).await.unwrap();
    // The controller answers before every broker has the change.
    let changed = async || world.config_of(&uid, "retention.ms").await.as_deref() == Some("5");
    eventually("the change is seen", SOON, changed).await;
    let found = resync(&reconciler, &mut orphans).await.unwrap();
    assert_eq!(found.drifted, 1);
    assert_eq!(reconciler.work_on(mine(found.work).unwrap()).await, Outcome::Settled);
    assert_eq!(world.config_of(&uid, "retention.ms").await.as_deref(), Some("86400000"));

    // Deleted behind our back: reported, and never made again under the same uid.
    world.kafka.delete_topic(name.as_str(), CALL).await.unwrap();
    eventually("the deletion is seen", SOON, async || world.physical(&uid).await.is_none()).await;
    let found = resync(&reconciler, &mut orphans).await.unwrap();
    assert_eq!(reconciler.work_on(mine(found.work).unwrap()).await, Outcome::Settled);
    let known = world.plane.known(&uid);
    assert_eq!((known.observed, known.reason.as_str()), (Observed::Failed, "TopicLost"));
    assert!(world.physical(&uid).await.is_none());

    stop.cancel();
    keep.await.unwrap();
}
