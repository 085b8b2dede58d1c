//! Records that no gateway reported are told, and not by their tenant alone.

use std::time::{Duration, Instant};

use sluice_billing::jobs::coverage_watch::CoverageWatch;
use sluice_proto::internal::control::v1::Life;
use sluice_types::physical::PhysicalTopic;
use sluice_types::{ClusterUid, TopicUid};

use crate::support::{Place, append, fresh_database, kafka, make_topic, window};
use crate::usage::{count, ends_on, name};

const GRACE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn what_a_killed_gateway_did_not_report_is_told_until_it_is_counted() {
    let (database, kafka, place) = (fresh_database().await, kafka().await, Place::fresh());
    let idle = Place { topic: TopicUid::random(), ..place };
    for (place, id) in [(&place, "orders"), (&idle, "idle")] {
        make_topic(&kafka, PhysicalTopic::new(place.namespace, place.topic).as_str(), 2).await;
        name(&database, place, id, Life::Active, 2, &[]).await;
    }
    let physical = PhysicalTopic::new(place.namespace, place.topic);
    append(&kafka, physical.as_str(), 1, &vec![b"12345".to_vec(); 10]).await;
    count(&database, window("gw/1", 1, 5, vec![place.produced(1, &[(0, 6, 30)])])).await;

    let mut watch = CoverageWatch::new(database.database.clone(), ends_on([(ClusterUid::FIRST, kafka.clone())]));
    let start = Instant::now();
    assert!(watch.look(GRACE, start).await.unwrap().ok, "a gateway has time to report");
    let status = watch.look(GRACE, start + GRACE).await.unwrap();
    assert!(!status.ok && status.detail.starts_with("4 records in 1 partitions"), "{status:?}");
    assert!(status.detail.contains("partition 1") && status.detail.contains("[6, 10)"), "{status:?}");

    // More comes and is reported: the old ones are told still.
    append(&kafka, physical.as_str(), 1, &vec![b"12345".to_vec(); 5]).await;
    count(&database, window("gw/2", 1, 5, vec![place.produced(1, &[(10, 15, 25)])])).await;
    assert!(!watch.look(GRACE, start + 2 * GRACE).await.unwrap().ok);
    count(&database, window("gw/2", 2, 5, vec![place.produced(1, &[(6, 10, 20)])])).await;
    assert!(watch.look(GRACE, start + 3 * GRACE).await.unwrap().ok);
}
