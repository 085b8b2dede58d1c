//! A simulation of groups: the real machine in two to four gateways, over a model of Kafka, in virtual time.
//!
//! Everything that happens follows from a seed. A run that breaks a promise prints its seed; `PROPTEST_RNG_SEED={seed}` runs that one
//! alone, and `PROPTEST_CASES` (256 if absent) says how many seeds there are: twice as many. What is promised is in [`truth`]: no
//! record is skipped, none comes again after an OK ack, no commit passes a record that is not done, keys keep their order, leases of
//! one term do not overlap, budgets and credits hold, partitions take turns, what retention took is told, and everything is done
//! soon after the last fault. `docs/decisions/0042` says what is modelled and what is not.

mod chance;
mod clients;
mod doing;
mod faults;
mod gateway;
mod happening;
mod kafka;
mod membering;
mod published;
mod truth;
mod turns;
mod world;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use proptest::test_runner::{Config, RngSeed};

use sluice_runtime::Metrics;

use crate::groups::dispatch::metrics::DispatchMetrics;
use crate::groups::dispatch::shared::{Clock, Setting, Timing};

use self::clients::ORIGIN_MS;
use self::world::{Tally, World};

/// Events of a seed with faults; then come those without.
const EVENTS: u64 = 2_000;

/// Says which seed it was, if it fails.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the seed was {0}: PROPTEST_RNG_SEED={0} runs it alone", self.0);
        }
    }
}

fn run(seed: u64, metrics: &DispatchMetrics) -> Tally {
    let _seed = Seed(seed);
    let setting = |base| {
        let clock = Clock::at_origin(base, ORIGIN_MS);
        Arc::new(Setting { gateway_id: "a".into(), clock, metrics: metrics.clone(), timing: Timing::default() })
    };
    World::new(seed, setting).run(EVENTS)
}

fn run_all(seeds: impl Iterator<Item = u64>) {
    let metrics = DispatchMetrics::register(&Metrics::new());
    let mut sum = Tally::default();
    for seed in seeds {
        let tally = run(seed, &metrics);
        sum.steps += tally.steps;
        sum.acked += tally.acked;
        sum.letters += tally.letters;
        sum.lives += tally.lives;
    }
    println!("{sum:?}");
    assert!(sum.acked > 0 && sum.letters > 0, "nothing was tried");
}

#[test]
fn whatever_happens_to_gateways_and_kafka_a_group_keeps_its_promises() {
    let config = Config::default();
    if let RngSeed::Fixed(seed) = config.rng_seed {
        println!("{:?}", run(seed, &DispatchMetrics::register(&Metrics::new())));
        return;
    }
    // One thread for each processor, each with seeds of its own.
    let threads = std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
    let (next, end) = (AtomicU64::new(0), u64::from(config.cases) * 2);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let seeds = std::iter::from_fn(|| Some(next.fetch_add(1, Ordering::Relaxed)));
                run_all(seeds.take_while(|seed| *seed < end));
            });
        }
    });
}

#[test]
fn what_happens_in_a_simulation_follows_from_its_seed() {
    let metrics = DispatchMetrics::register(&Metrics::new());
    for seed in 0..8 {
        assert_eq!(run(seed, &metrics), run(seed, &metrics), "seed {seed}");
    }
}
