//! Many consumers, random answers, and a group that moves all the while, with and without the old dispatcher's knowledge.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use sluice_gateway::groups::model::{Dispatch as _, DispatchError, Leased, Settle, TakeOptions};
use sluice_proto::internal::control::v1::MemberPhase::{Draining, Left, Serving};
use sluice_proto::stream::v1::SettleOutcome;

use super::node::{Node, Tenant, values};

const RECORDS: usize = 1_500;
const KEYS: usize = 30;
const CONSUMERS: u64 = 4;

/// What consumers saw, in the order in which they saw it.
#[derive(Default)]
struct Seen {
    stored: BTreeSet<usize>,
    delivered: BTreeSet<usize>,
    /// Per key: records in the order of their first deliveries.
    first: BTreeMap<usize, Vec<usize>>,
    deliveries: usize,
    faults: Vec<String>,
}

impl Seen {
    fn delivered(&mut self, leased: &Leased) {
        let value = values(std::slice::from_ref(leased))[0];
        self.deliveries += 1;
        if self.stored.contains(&value) {
            self.faults.push(format!("{value} came again after it was stored"));
        }
        if self.delivered.insert(value) {
            self.first.entry(value % KEYS).or_default().push(value);
        }
    }

    fn stored(&mut self, leased: &Leased) {
        let value = values(std::slice::from_ref(leased))[0];
        self.stored.insert(value);
    }
}

struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

/// What consumers are told.
#[derive(Default)]
struct Reported {
    stop: AtomicBool,
    /// This gateway plays dead: nobody takes from it.
    dead: AtomicUsize,
}

async fn consume(nodes: Arc<[Node; 2]>, seen: Arc<Mutex<Seen>>, told: Arc<Reported>, seed: u64) {
    let mut dice = Dice(seed);
    while !told.stop.load(Ordering::Relaxed) {
        let at = dice.roll(2) as usize;
        if told.dead.load(Ordering::Relaxed) == at + 1 {
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        }
        let node = &nodes[at];
        let options =
            TakeOptions { records: 1 + dice.roll(30) as usize, bytes: 1 << 20, wait: Duration::from_millis(100) };
        let taken = match node.dispatchers.take(&node.call(), options).await {
            Ok(taken) => taken.records,
            Err(DispatchError::NotDispatcher | DispatchError::Moving(_)) => {
                tokio::time::sleep(Duration::from_millis(5)).await;
                continue;
            }
            Err(error) => panic!("{error}"),
        };
        taken.iter().for_each(|leased| seen.lock().delivered(leased));
        for leased in taken {
            // Mostly where it came from; sometimes through the other one, who may have the group by now.
            let mut through = if dice.roll(10) == 0 { &nodes[dice.roll(2) as usize] } else { node };
            let settle = match dice.roll(20) {
                0 => continue,
                1 | 2 => Settle::Refuse { delay: None, reason: "by chance".into() },
                _ => Settle::Acknowledge,
            };
            let acks = matches!(settle, Settle::Acknowledge);
            // Asked until it is known.
            for _ in 0..100 {
                match through.dispatchers.settle(&through.call(), settle.clone(), vec![leased.key]).await {
                    Ok(outcomes) if outcomes == [SettleOutcome::Unavailable] => {}
                    Ok(outcomes) if acks && outcomes == [SettleOutcome::Ok] => {
                        seen.lock().stored(&leased);
                        break;
                    }
                    Ok(_) => break,
                    Err(DispatchError::NotDispatcher | DispatchError::Moving(_)) => {}
                    Err(error) => panic!("{error}"),
                }
                through = &nodes[dice.roll(2) as usize];
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_moves_and_fails_each_record_is_stored_once_and_keys_keep_their_order() {
    let tenant = Tenant::new().await;
    let topic = tenant.topic("orders", 3).await;
    tenant.group(&["orders"], |group| {
        group.ack_deadline_ms = 1_000;
        group.minimum_backoff_ms = 50;
        group.maximum_backoff_ms = 200;
    });
    for value in 0..RECORDS {
        let key = value % KEYS;
        tenant.produce(&topic, (key % 3) as i32, &[&format!("k{key}")], value).await;
    }
    let nodes = Arc::new([tenant.node("a").await, tenant.node("b").await]);
    let [a, b] = &*nodes;
    let (seen, told) = (Arc::<Mutex<Seen>>::default(), Arc::<Reported>::default());
    let seeds = 1..=CONSUMERS;
    let consumers: Vec<_> =
        seeds.map(|seed| tokio::spawn(consume(nodes.clone(), seen.clone(), told.clone(), seed))).collect();
    let mut dice = Dice(7);
    let mut moves = 0;
    for round in 0..600 {
        if seen.lock().stored.len() == RECORDS {
            break;
        }
        if round % 8 == 0 {
            let (new, old) = if moves % 2 == 0 { (a, b) } else { (b, a) };
            moves += 1;
            if moves > 20 {
                eprintln!("{moves} moves, {} stored", seen.lock().stored.len());
                for node in &*nodes {
                    let (dispatching, status) = node.status().await;
                    eprintln!("{} {dispatching} {:?} {:?}", node.id, status.state(), status.partitions);
                }
            }
            if dice.roll(3) == 0 {
                // The old one hears nothing of it for a while. It may still be asked to store what it handed out.
                told.dead.store(if moves % 2 == 1 { 2 } else { 1 }, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(200)).await;
                new.hears(&[old.heartbeat(Left), new.heartbeat(Serving)]);
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
            let heartbeats = [old.heartbeat(Draining), new.heartbeat(Serving)];
            old.hears(&heartbeats);
            new.hears(&heartbeats);
            told.dead.store(0, Ordering::Relaxed);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    told.stop.store(true, Ordering::Relaxed);
    for consumer in consumers {
        consumer.await.expect("no panic");
    }
    let seen = seen.lock();
    eprintln!("{} stored, {} deliveries, {moves} moves", seen.stored.len(), seen.deliveries);
    assert!(seen.faults.is_empty(), "{:?}", seen.faults);
    assert_eq!(seen.stored.len(), RECORDS);
    for (key, order) in &seen.first {
        assert!(order.is_sorted(), "key {key}: {order:?}");
    }
}
