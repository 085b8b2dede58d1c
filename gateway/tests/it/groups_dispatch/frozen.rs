//! A cluster that stands still: what is told of a group that nobody can ask about.

use std::time::{Duration, Instant};

use sluice_gateway::groups::model::{Dispatch as _, GroupCall};
use sluice_proto::stream::v1::DeliveryState;

use super::node::{Tenant, until};
use super::{LONG, NO_WAIT};

const LAG_UNKNOWN: i64 = -1;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lag_is_never_told_as_zero_while_records_wait() {
    let stack = sluice_devstack::Stack::builder().without_postgres().build().await.expect("stack");
    let kafka = stack.kafka().expect("Kafka");
    let tenant = Tenant::on(kafka.connection().clone());
    let topic = tenant.topic("orders", 2).await;
    tenant.group(&["orders"], |_| {});
    tenant.produce(&topic, 0, &["a", "b", "c"], 0).await;
    let node = tenant.node("a").await.alone();
    let inspect = async |within| {
        let call = GroupCall { deadline: Instant::now() + within, ..node.call() };
        node.dispatchers.inspect(&call).await.expect("a status").status
    };

    // While it is taken, with the cluster there.
    let mut states = Vec::new();
    let take = async {
        node.take(1, NO_WAIT).await.expect("an answer");
        until("it is taken", async || node.status().await.1.state() != DeliveryState::Assigning).await;
    };
    let look = async {
        loop {
            let status = inspect(LONG).await;
            assert_eq!((status.lag, status.partitions.len()), (3, 2), "{status:?}");
            states.push(status.state());
        }
    };
    tokio::select! { () = take => {}, () = look => {} }
    assert!(states.contains(&DeliveryState::Assigning), "{states:?}");
    node.stop().await;

    // While the cluster stands still, and somebody wants records.
    let node = tenant.node("b").await.alone();
    kafka.pause(1).await.expect("paused");
    node.take(1, NO_WAIT).await.expect("an answer");
    let call = GroupCall { deadline: Instant::now() + Duration::from_secs(1), ..node.call() };
    let status = node.dispatchers.inspect(&call).await.expect("a status").status;
    assert_eq!((status.lag, status.partitions.len()), (LAG_UNKNOWN, 2), "{status:?}");
    kafka.resume(1).expect("resumed");
    until("it is known again", async || node.status().await.1.lag == 3).await;
    node.stop().await;
    stack.stop().await;
}
