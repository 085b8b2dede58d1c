//! Kafka is away for a while: calls end in time and say why, streams stay, nothing is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use sluice_e2e::consumer::{ConsumeStream, Ledger, ack_ids, group_of};
use sluice_e2e::{Api, Installation, Options, long, wait};
use sluice_proto::admin::v1::Group;
use sluice_proto::admin::v1::group::Ordering as GroupOrdering;
use sluice_proto::stream::v1::DeliveryState;
use sluice_proto::stream::v1::consume_response::Message;

use super::{NAMESPACE, World, all_acked, is_retriable, pull_and_ack};

const BROKER: u32 = 1;
const AWAY: Duration = Duration::from_secs(20);
const BACK_WITHIN: Duration = Duration::from_secs(15);

#[tokio::test(flavor = "multi_thread")]
async fn long_polls_end_and_streams_stay_while_kafka_is_away() -> Result<()> {
    let it = Installation::start(Options::default()).await?;
    let world = World::new(&it, 3, |group| group).await?;
    let ledger = Ledger::default();
    let stop = Arc::new(AtomicBool::new(false));
    let places = world.publish(300, 30).await?;
    let worker =
        tokio::spawn(pull_and_ack(world.apis.clone(), world.group.name.clone(), ledger.clone(), stop.clone(), 50));
    all_acked(&ledger, &places, Duration::from_secs(20)).await?;
    // Nothing is acknowledged here, so nothing may wait for it.
    let shape = Group { ordering: GroupOrdering::None.into(), ..group_of(NAMESPACE, &["orders"]) };
    let other = world.apis[0].create_group(NAMESPACE, "stream", shape).await?;
    let mut streams = Vec::new();
    for api in &world.apis {
        streams.push(api.consume(&other.name, 10_000).await?);
    }
    tokio::time::timeout(BACK_WITHIN, take(&mut streams, 300)).await.context("before")??;

    it.stack.kafka()?.kill9(BROKER).await?;
    let down = Instant::now();
    while down.elapsed() < AWAY {
        for api in &world.apis {
            let mut api = api.clone();
            api.timeout = Duration::from_millis(3_000);
            let asked = Instant::now();
            let answer = api.pull(&world.group.name, 10, Duration::from_millis(1_500)).await;
            ensure!(asked.elapsed() < api.timeout, "{:?}: {answer:?}", asked.elapsed());
            match answer {
                Ok(answer) if down.elapsed() > Duration::from_secs(5) => {
                    let clear = [DeliveryState::ClusterUnavailable, DeliveryState::Assigning];
                    ensure!(clear.contains(&answer.state()) && answer.records.is_empty(), "{answer:?}");
                }
                Ok(_) => {}
                Err(status) => ensure!(is_retriable(&status), "{status:?}"),
            }
        }
    }
    it.stack.kafka()?.start_broker(BROKER).await?;
    let back = Instant::now();
    let more =
        wait::until("records to be taken", BACK_WITHIN, async || Ok(Some(world.publish(100, 10).await?))).await?;
    all_acked(&ledger, &more, BACK_WITHIN).await?;
    println!("acknowledged again {:?} after Kafka was back", back.elapsed());
    ensure!(back.elapsed() < BACK_WITHIN, "{:?}", back.elapsed());
    // The streams that were open before go on without a new call.
    tokio::time::timeout(BACK_WITHIN, take(&mut streams, 100)).await.context("the streams are silent")??;
    stop.store(true, Ordering::Release);
    worker.await??;
    ledger.check(false)?;
    it.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_groups_deliver_again_after_a_broker_was_restarted() -> Result<()> {
    let groups = if long() { 1_000 } else { 200 };
    let it = Installation::start(Options { gateways: 1, ..Options::default() }).await?;
    let world = World::new(&it, 1, |group| group).await?;
    let mut api = world.apis[0].clone();
    let mut streams = Vec::new();
    for index in 0..groups {
        // A connection takes 100 streams.
        if index % 50 == 0 {
            api = Api::new(it.gateway(0), &world.key)?;
        }
        let group = api.create_group(NAMESPACE, &format!("g{index}"), group_of(NAMESPACE, &["orders"])).await?;
        streams.push(api.consume(&group.name, 100).await?);
    }
    world.publish(1, 1).await?;
    let until = Instant::now() + Duration::from_secs(60);
    one_record_each(&mut streams, until).await.context("before")?;

    let kafka = it.stack.kafka()?;
    kafka.kill9(BROKER).await?;
    kafka.start_broker(BROKER).await?;
    let back = Instant::now();
    wait::until("a record to be taken", BACK_WITHIN, async || Ok(Some(world.publish(1, 1).await?))).await?;
    // The key's earlier record is still out under KEY: it is acknowledged first, which needs the group to be back.
    one_record_each(&mut streams, back + BACK_WITHIN).await.context("after")?;
    println!("{groups} groups deliver again {:?} after the broker was back", back.elapsed());
    it.stop().await
}

/// Takes so many records, from whichever stream has them.
async fn take(streams: &mut [ConsumeStream], count: usize) -> Result<()> {
    let mut seen = 0;
    while seen < count {
        for stream in &mut *streams {
            let Ok(message) = tokio::time::timeout(Duration::from_millis(200), stream.next()).await else { continue };
            if let Some(Message::Records(records)) = message?.context("a stream ended")?.message {
                seen += records.records.len();
            }
        }
    }
    Ok(())
}

/// Takes a record from each stream and acknowledges it.
async fn one_record_each(streams: &mut [ConsumeStream], until: Instant) -> Result<()> {
    for (index, stream) in streams.iter_mut().enumerate() {
        let take = async {
            loop {
                if let Some(Message::Records(records)) = stream.next().await?.context("the stream ended")?.message {
                    stream.ack(ack_ids(&records.records)).await?;
                    return anyhow::Ok(());
                }
            }
        };
        tokio::time::timeout_at(until.into(), take).await.with_context(|| format!("group {index} is silent"))??;
    }
    Ok(())
}
