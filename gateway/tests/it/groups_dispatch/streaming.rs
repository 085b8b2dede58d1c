//! Attachments: credit, settlements on the stream, doors that do not take what comes.

use std::time::{Duration, Instant};

use sluice_gateway::groups::model::{
    AttachCommand, AttachEvent, AttachOptions, Attachment, Dispatch as _, Leased, Settle,
};
use sluice_proto::stream::v1::{DeliveryState, SettleOutcome};
use sluice_wire::OutRecord;

use super::node::{Node, PATIENCE, Tenant, keys, values};

async fn attach(node: &Node, credit_records: u64, returns_credit: bool) -> Attachment {
    let credit_bytes = 64 << 20;
    let options =
        AttachOptions { credit_records, credit_bytes, batch_records: 500, returns_credit, stream: 0, paced: false };
    node.dispatchers.attach(&node.call(), options).await.expect("attached")
}

async fn next(attachment: &mut Attachment) -> AttachEvent {
    tokio::time::timeout(PATIENCE, attachment.events.recv()).await.expect("in time").expect("an event")
}

async fn records(attachment: &mut Attachment) -> Vec<Leased> {
    loop {
        if let AttachEvent::Records(records) = next(attachment).await {
            return records;
        }
    }
}

async fn settled(attachment: &mut Attachment) -> (i64, Vec<SettleOutcome>) {
    loop {
        if let AttachEvent::Settled { sequence, outcomes } = next(attachment).await {
            return (sequence, outcomes);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_come_within_the_credit_and_settlements_are_answered_on_the_stream() {
    let tenant = Tenant::new().await;
    let topic = tenant.topic("orders", 1).await;
    tenant.group(&["orders"], |group| group.key_ordered = false);
    tenant.produce(&topic, 0, &["a"; 10], 0).await;
    let node = tenant.node("a").await.alone();
    let mut stream = attach(&node, 4, false).await;
    let first = records(&mut stream).await;
    assert_eq!(values(&first), [0, 1, 2, 3]);
    let paused = loop {
        match next(&mut stream).await {
            AttachEvent::State(DeliveryState::NoCredit) => break true,
            AttachEvent::State(_) => {}
            _ => break false,
        }
    };
    assert!(paused);
    let ack = AttachCommand::Settle { sequence: 7, settle: Settle::Acknowledge, leases: keys(&first) };
    stream.commands.send(ack).await.expect("taken");
    assert_eq!(settled(&mut stream).await, (7, vec![SettleOutcome::Ok; 4]));
    stream.commands.send(AttachCommand::Credit { records: 2, bytes: 0 }).await.expect("taken");
    assert_eq!(values(&records(&mut stream).await), [4, 5]);
    let (_, status) = node.status().await;
    assert_eq!((status.consumers.len(), status.consumers[0].outstanding_records), (1, 2));
    drop(stream);
    super::until("it is detached", async || node.status().await.1.consumers.is_empty()).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credit_comes_back_by_itself_and_a_stop_ends_the_stream() {
    let tenant = Tenant::new().await;
    let topic = tenant.topic("orders", 1).await;
    tenant.group(&["orders"], |group| group.key_ordered = false);
    tenant.produce(&topic, 0, &["a"; 6], 0).await;
    let node = tenant.node("a").await.alone();
    let mut stream = attach(&node, 3, true).await;
    let first = records(&mut stream).await;
    assert_eq!(values(&first), [0, 1, 2]);
    node.ack(&first[1..]).await;
    assert_eq!(values(&records(&mut stream).await), [3, 4]);
    node.stop().await;
    while let Some(event) = stream.events.recv().await {
        assert!(!matches!(event, AttachEvent::Records(_)), "nothing after the stop");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_did_not_leave_counts_as_no_attempt_and_a_lease_runs_from_when_it_did() {
    let tenant = Tenant::new().await;
    let topic = tenant.topic("orders", 1).await;
    tenant.group(&["orders"], |group| group.ack_deadline_ms = 3_000);
    tenant.produce(&topic, 0, &["a", "a"], 0).await;
    let node = tenant.node("a").await.alone();
    let first = node.collect(1).await;
    assert_eq!(node.settle(Settle::HandBack, &keys(&first)).await, [SettleOutcome::Ok]);
    assert_eq!(node.settle(Settle::HandBack, &keys(&first)).await, [SettleOutcome::StaleLease], "once");
    let again = node.collect(1).await;
    assert_eq!((values(&again), again[0].key.attempt), (vec![0], 1));

    // Two and a half leases.
    for _ in 0..15 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(node.settle(Settle::Restart, &keys(&again)).await, [SettleOutcome::Ok]);
    }
    // What a client has extended is not cut.
    let extend = Settle::Extend { time: Some(Duration::from_secs(60)) };
    assert_eq!(node.settle(extend, &keys(&again)).await, [SettleOutcome::Ok]);
    assert_eq!(node.settle(Settle::Restart, &keys(&again)).await, [SettleOutcome::StaleLease]);
    node.ack(&again).await;
    let next = node.collect(1).await;
    assert_eq!((values(&next), next[0].key.attempt), (vec![1], 1));
    node.ack(&next).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paced_stream_is_sent_one_event_for_each_room_and_leases_nothing_before() {
    let tenant = Tenant::new().await;
    let topic = tenant.topic("orders", 1).await;
    tenant.group(&["orders"], |group| group.key_ordered = false);
    tenant.produce(&topic, 0, &["a"; 6], 0).await;
    let node = tenant.node("a").await.alone();
    let options = AttachOptions {
        credit_records: 4,
        credit_bytes: 1 << 20,
        batch_records: 2,
        returns_credit: true,
        stream: 9,
        paced: true,
    };
    let mut stream = node.dispatchers.attach(&node.call(), options).await.expect("attached");
    let room = || AttachCommand::Room { bytes: 1 << 20 };
    stream.commands.send(room()).await.expect("taken");
    let first = records(&mut stream).await;
    assert_eq!(values(&first), [0, 1]);
    let (_, status) = node.status().await;
    assert_eq!(status.consumers[0].outstanding_records, 2, "no more, though there is credit");
    stream.commands.send(room()).await.expect("taken");
    assert_eq!(values(&records(&mut stream).await), [2, 3]);
    drop(stream);
    super::until("it is detached", async || node.status().await.1.consumers.is_empty()).await;
    node.ack(&first).await;

    // Attached again: of its credit of four, two are out.
    let options = AttachOptions { batch_records: 10, ..options };
    let mut stream = node.dispatchers.attach(&node.call(), options).await.expect("attached");
    stream.commands.send(room()).await.expect("taken");
    assert_eq!(values(&records(&mut stream).await), [4, 5]);
    let (_, status) = node.status().await;
    let consumer = &status.consumers[0];
    assert_eq!((consumer.outstanding_records, consumer.credit_records), (4, 0));
    drop(stream);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_door_that_takes_nothing_stops_nobody_else() {
    let tenant = Tenant::new().await;
    let topic = tenant.topic("orders", 1).await;
    tenant.group(&["orders"], |group| group.key_ordered = false);
    let node = tenant.node("a").await.alone();
    let _stuck = attach(&node, 10_000, false).await;
    let mut good = attach(&node, 10_000, false).await;
    // The stuck one holds what fits its channel, the good one gets all else.
    let mut got = 0;
    for round in 0..12 {
        tenant.produce(&topic, 0, &["a"; 10], round * 10).await;
        super::until("all is delivered", async || {
            while let Ok(event) = good.events.try_recv() {
                got += match event {
                    AttachEvent::Records(records) => records.len(),
                    _ => 0,
                };
            }
            let (_, status) = node.status().await;
            let held: i64 = status.consumers.iter().map(|consumer| consumer.outstanding_records).sum();
            held == (round as i64 + 1) * 10 && status.consumers[1].outstanding_records == got as i64
        })
        .await;
    }
    assert!(got > 0);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_keeps_up_with_many_records() {
    const COUNT: usize = 40_000;
    let tenant = Tenant::new().await;
    let topic = tenant.topic("orders", 2).await;
    tenant.group(&["orders"], |group| group.key_ordered = false);
    let value = bytes::Bytes::from(vec![7; 200]);
    for batch in 0..COUNT / 1_000 {
        let timestamp_ms = sluice_devstack::now_ms();
        let one = |_| OutRecord { value: Some(value.clone()), timestamp_ms, ..OutRecord::default() };
        let records: Vec<OutRecord> = (0..1_000).map(one).collect();
        tenant.admin.produce_batch(&topic.physical(), (batch % 2) as i32, &records, PATIENCE).await.expect("produce");
    }
    let node = tenant.node("a").await.alone();
    let began = Instant::now();
    let mut stream = attach(&node, 5_000, false).await;
    let (mut got, mut sequence, mut answered) = (0, 0, 0);
    while answered < COUNT {
        match next(&mut stream).await {
            AttachEvent::Records(records) => {
                got += records.len();
                sequence += 1;
                let ack = AttachCommand::Settle { sequence, settle: Settle::Acknowledge, leases: keys(&records) };
                stream.commands.send(ack).await.expect("taken");
                let credit = AttachCommand::Credit { records: records.len() as u64, bytes: 1 << 20 };
                stream.commands.send(credit).await.expect("taken");
            }
            AttachEvent::Settled { outcomes, .. } => {
                assert!(outcomes.iter().all(|outcome| *outcome == SettleOutcome::Ok));
                answered += outcomes.len();
            }
            AttachEvent::State(_) => {}
        }
    }
    let rate = COUNT as f64 / began.elapsed().as_secs_f64();
    eprintln!("{rate:.0} records/s");
    assert_eq!(got, COUNT, "nothing twice");
    assert!(began.elapsed() < Duration::from_secs(15), "{rate:.0} records/s");
    node.stop().await;
}
