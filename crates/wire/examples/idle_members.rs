//! What thousands of idle group members cost: threads, memory, CPU time, time to join, and how soon one record gets to
//! one of them.
//!
//! `devstack run -- cargo run --release --example idle_members -- 10000`. Members of 1,000 one-partition topics; each
//! has a reader that waits at the end of its partition. All figures are this process's, not Kafka's.
#![allow(clippy::print_stdout, reason = "it prints what it measured")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use sluice_devstack::{ADMIN, shared};
use sluice_wire::{
    Client, FetchRequest, GroupMember, Groups, Isolation, MemberEvent, MemberOptions, NewTopic, OutRecord, Reader,
    TopicPartition,
};
use tokio::sync::mpsc;

const TOPICS: usize = 1_000;
const RECORDS: usize = 500;
const REST: Duration = Duration::from_secs(60);
const CALL: Duration = Duration::from_secs(60);

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<()> {
    let members: usize = std::env::args().nth(1).as_deref().unwrap_or("1000").parse().context("how many members")?;
    let client = shared().await?.kafka()?.client(ADMIN)?;
    make_topics(&client).await?;

    let groups = Groups::new(client.clone());
    let reader = Reader::new(client.clone());
    let (delivered, mut deliveries) = mpsc::unbounded_channel();
    let started = Instant::now();
    let mut joining = tokio::task::JoinSet::new();
    for number in 0..members {
        let topic = topic(number % TOPICS);
        let member = groups.join(&format!("idle-{number}"), &[&topic], MemberOptions::default())?;
        joining.spawn(assigned(member));
    }
    let mut kept = Vec::new();
    while let Some(joined) = joining.join_next().await {
        let (member, partition) = joined??;
        tokio::spawn(read(reader.clone(), partition, delivered.clone()));
        kept.push(member);
    }
    println!("{members} members joined in {:.1} s", started.elapsed().as_secs_f64());

    tokio::time::sleep(Duration::from_secs(5)).await;
    let (cpu, since) = (cpu_seconds()?, Instant::now());
    tokio::time::sleep(REST).await;
    let per_minute = (cpu_seconds()? - cpu) * 60.0 / since.elapsed().as_secs_f64();
    println!("at rest: {per_minute:.2} CPU s a minute");
    println!("{} threads, {} MB, {} descriptors", count("task")?, resident_mb()?, count("fd")?);
    let confirmed = kept.iter().filter_map(GroupMember::since_confirmed).max().context("nobody was confirmed")?;
    println!("the oldest confirmation is {:.1} s old", confirmed.as_secs_f64());

    let mut times = Vec::new();
    for number in 0..RECORDS {
        let at = number * 7 % TOPICS;
        let name = topic(at);
        let readers = (at..members).step_by(TOPICS).count();
        let produced = Instant::now();
        client.produce_batch(&name, 0, &[OutRecord::default()], CALL).await?;
        for _ in 0..readers {
            let (which, when): (Arc<str>, Instant) = deliveries.recv().await.context("a delivery")?;
            ensure!(*which == *name, "{which} was delivered, {name} written");
            times.push(when.duration_since(produced));
        }
    }
    times.sort_unstable();
    let at = |share: f64| times.get((times.len() as f64 * share) as usize).copied().unwrap_or_default();
    println!("{} deliveries, produce to delivery: p50 {:?}, p99 {:?}", times.len(), at(0.5), at(0.99));
    ensure!(deliveries.is_empty(), "somebody was woken for nothing");
    Ok(())
}

fn topic(number: usize) -> String {
    format!("idle-{number}")
}

async fn make_topics(client: &Client) -> Result<()> {
    let new = |number| NewTopic { name: topic(number), partitions: 1, replication: 1, configs: Default::default() };
    let all: Vec<_> = (0..TOPICS).map(new).collect();
    for some in all.chunks(100) {
        for created in client.create_topics(some, false, CALL).await? {
            created?;
        }
    }
    Ok(())
}

/// Waits until a member has its partition.
async fn assigned(mut member: GroupMember) -> Result<(GroupMember, TopicPartition)> {
    loop {
        if let Some(partition) = member.assignment().pop() {
            return Ok((member, partition));
        }
        match member.next().await {
            Some(MemberEvent::Lost { error }) => return Err(error.into()),
            Some(_) => {}
            None => anyhow::bail!("the membership ended"),
        }
    }
}

/// Waits at the end of a partition for ever, and tells of every record.
async fn read(reader: Reader, partition: TopicPartition, tell: mpsc::UnboundedSender<(Arc<str>, Instant)>) {
    let mut request = FetchRequest {
        topic: partition.topic.to_string(),
        topic_id: Some(partition.topic_id),
        partition: partition.partition,
        offset: 0,
        last_epoch: None,
        max_bytes: 64 * 1024,
        min_bytes: 1,
        max_wait: Duration::from_secs(600),
        isolation: Isolation::ReadCommitted,
    };
    while let Ok(fetched) = reader.fetch(request.clone(), 0, CALL + request.max_wait).await {
        if !fetched.batches.is_empty() {
            request.offset += 1;
            let _measured_enough = tell.send((Arc::clone(&partition.topic), Instant::now()));
        }
    }
}

/// Of all threads that live.
fn cpu_seconds() -> Result<f64> {
    let mut nanos = 0.0;
    for thread in std::fs::read_dir("/proc/self/task")? {
        let text = std::fs::read_to_string(thread?.path().join("schedstat"))?;
        nanos += text.split(' ').next().context("time on a CPU")?.parse::<f64>()?;
    }
    Ok(nanos / 1e9)
}

fn resident_mb() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? / 1024)
}

fn count(what: &str) -> Result<usize> {
    Ok(std::fs::read_dir(format!("/proc/self/{what}"))?.count())
}
