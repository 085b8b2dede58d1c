//! A crowd of groups that take their backlogs slowly, and one that wants its records now.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures::future::join_all;

use sluice_gateway::groups::dispatch::Timing;
use sluice_gateway::groups::model::{
    AttachCommand, AttachEvent, AttachOptions, Attachment, Dispatch as _, TakeOptions,
};
use sluice_proto::stream::v1::DeliveryState;
use sluice_types::GroupUid;

use super::fairness::backlog;
use super::node::{Node, PATIENCE, Tenant};

/// As it was found: an eighth more groups than places for what one read holds. Then there were 72 groups, 64 places and a MiB in
/// each. A place is the least share now, and a gateway has 1,024; here it has a quarter of 64, so that 18 groups are as many too
/// many, and the test takes seconds.
const CROWD: usize = 18;
const PLACES: usize = 16;
const LEAST_SHARE: usize = 64 << 10;
/// Each of the crowd takes a record in this time.
const SLOWLY: Duration = Duration::from_millis(800);
const WANTED: usize = 1_000;

/// A stream that takes a record when it is told to.
struct Slow {
    group: GroupUid,
    stream: Attachment,
    has_taken: bool,
}

impl Slow {
    async fn attach(node: &Node, group: GroupUid, stream: u64) -> Self {
        let options = AttachOptions {
            credit_records: 10_000,
            credit_bytes: 64 << 20,
            batch_records: 1,
            returns_credit: false,
            stream,
            paced: true,
        };
        let stream = node.dispatchers.attach(&node.call_of_group(group), options).await.expect("attached");
        Self { group, stream, has_taken: false }
    }

    /// Takes one more; whether it is its first that came.
    async fn go_on(&mut self) -> bool {
        let had = self.has_taken;
        while let Ok(event) = self.stream.events.try_recv() {
            self.has_taken |= matches!(event, AttachEvent::Records(_));
        }
        self.stream.commands.send(AttachCommand::Room { bytes: 1 }).await.expect("taken");
        self.has_taken && !had
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_that_takes_its_backlogs_slowly_keeps_no_group_from_its_records() {
    let tenant = Tenant::new().await;
    let (orders, returns) = (tenant.topic("orders", 2).await, tenant.topic("returns", 1).await);
    for partition in 0..2 {
        backlog(&tenant, &orders, partition, 2_000, 500).await;
    }
    backlog(&tenant, &returns, 0, WANTED, 500).await;
    let crowd: Vec<GroupUid> = (0..CROWD).map(|at| tenant.another_group(&format!("slow-{at}"), &["orders"])).collect();
    tenant.group(&["returns"], |group| group.key_ordered = false);
    let timing = Timing { cached_bytes: PLACES * LEAST_SHARE, ..Timing::default() };
    let node = tenant.node_with("a", timing).await.alone();
    let attached = (1..).zip(&crowd).map(|(stream, group)| Slow::attach(&node, *group, stream));
    let mut slow = join_all(attached).await;
    let groups: Vec<GroupUid> = slow.iter().map(|slow| slow.group).collect();
    let have_taken = AtomicUsize::new(0);
    let slowly = async {
        loop {
            for slow in &mut slow {
                have_taken.fetch_add(usize::from(slow.go_on().await), Ordering::Relaxed);
            }
            tokio::time::sleep(SLOWLY).await;
        }
    };
    let late = async {
        let until = Instant::now() + 2 * PATIENCE;
        while have_taken.load(Ordering::Relaxed) < CROWD {
            assert!(Instant::now() < until, "{have_taken:?} of the crowd have a record");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let began = Instant::now();
        let mut got = 0;
        while got < WANTED {
            let options = TakeOptions { records: 500, bytes: 1 << 20, wait: Duration::from_secs(2) };
            let taken = node.dispatchers.take(&node.call(), options).await.expect("an answer");
            // Who waits for its share is not told that there is nothing.
            assert!(!taken.records.is_empty() || taken.state != DeliveryState::NoRecords, "after {got} of {WANTED}");
            got += taken.records.len();
            assert!(began.elapsed() < PATIENCE, "got {got} only");
        }
        println!("{got} records in {:?}", began.elapsed());
        // Each of the crowd has a backlog, whether it has a place or not.
        let states = join_all(groups.iter().map(async |group| {
            let call = node.call_of_group(*group);
            node.dispatchers.inspect(&call).await.expect("a status").status.state()
        }));
        let states: BTreeSet<DeliveryState> = states.await.into_iter().collect();
        assert!(!states.contains(&DeliveryState::NoRecords), "{states:?}");
    };
    tokio::select! {
        () = slowly => {}
        () = late => {}
    }
    node.stop().await;
}
