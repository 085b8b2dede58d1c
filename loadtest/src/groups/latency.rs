//! One record at a time: from the call that publishes it to its delivery on an open stream.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use sluice_e2e::Api;
use sluice_e2e::consumer::{ConsumeStream, ack_ids, group_of};
use sluice_e2e::tenant::record;
use sluice_proto::admin::v1::Topic;
use sluice_proto::stream::v1::consume_response::Message;

use super::NAMESPACE;

/// Nanoseconds from each call to the arrival of its record.
pub(super) async fn run(api: &Api, id: &str, topic: &Topic, calls: usize) -> Result<Vec<u64>> {
    let topic_id = topic.name.rsplit_once('/').map_or("", |(_, id)| id);
    let group = api.create_group(NAMESPACE, id, group_of(NAMESPACE, &[topic_id])).await?.name;
    let mut stream = api.consume(&group, 10_000).await?;
    // What the bare client left in the topic comes first.
    drain(&mut stream).await?;
    let mut took = Vec::with_capacity(calls);
    for _ in 0..calls {
        let one = vec![record(None, b"a record of a latency run")];
        let started = Instant::now();
        // The record may arrive before the call is answered.
        let (sent, came) = tokio::join!(api.produce_all(&topic.name, one), arrival(&mut stream));
        came?;
        sent?;
        took.push(started.elapsed().as_nanos() as u64);
    }
    Ok(took)
}

/// Takes and acknowledges what is there already.
async fn drain(stream: &mut ConsumeStream) -> Result<()> {
    let first = tokio::time::timeout(Duration::from_secs(30), arrival(stream));
    first.await.context("nothing of what is there came")??;
    while let Ok(more) = tokio::time::timeout(Duration::from_millis(500), arrival(stream)).await {
        more?;
    }
    Ok(())
}

/// The next records, which it acknowledges.
pub(super) async fn arrival(stream: &mut ConsumeStream) -> Result<()> {
    loop {
        if let Some(Message::Records(taken)) = stream.next().await?.context("the stream ended")?.message {
            stream.ack(ack_ids(&taken.records)).await?;
            stream.credit(i32::try_from(taken.records.len())?).await?;
            return Ok(());
        }
    }
}
