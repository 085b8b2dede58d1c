//! A peer that is gone without a word: the network was cut, and nobody said goodbye.

use std::time::Duration;

use sluice_proto::stream::v1::ReceivedRecord;
use sluice_proto::stream::v1::record::ValueKind;

use crate::world::{PATIENCE, World};

use super::between::{Between, Way};
use super::streams::Stream;
use super::{GROUP, Shop};

/// So that the test takes seconds.
const TABLES: &str = "[limits]\nping_interval = \"1s\"\n";

fn text(record: &ReceivedRecord) -> String {
    match record.record.as_ref().and_then(|record| record.value_kind.as_ref()) {
        Some(ValueKind::Value(bytes)) => String::from_utf8(bytes.to_vec()).expect("text"),
        other => panic!("{other:?}"),
    }
}

impl Shop {
    async fn streams(&self) -> usize {
        let (_, status) = self.gateways[0].get(&format!("/v1/{GROUP}:status"), &self.tenant.key).await;
        let consumers = status["consumers"].as_array().cloned().unwrap_or_default();
        consumers.iter().filter(|consumer| consumer["kind"] == "CONSUME").count()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_whose_peer_is_gone_without_a_word_ends_and_its_records_go_to_others() {
    let world = World::new().await;
    let gateway = world.whole_gateway("gateway-a", TABLES).await;
    let way = Between::open().await;
    way.target.send_replace(Some(gateway.addrs.public));
    let shop = Shop::of(world, vec![gateway]).await;
    shop.change_group(|group| group.ack_deadline_ms = 3_000).await;
    let mut gone = Stream::over(&shop, shop.client_at(way.address).await, 100).await;
    shop.produce("a").await;
    assert_eq!(gone.records(3).await.len(), 3);
    // All that is sent is taken by the network, and nobody answers: it has credit for more, and gets it.
    way.way.send_replace(Way::Swallows);
    shop.produce("b").await;
    let mut other = Stream::open(&shop, 0, 100).await;
    let noticed = async {
        while shop.streams().await != 1 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, noticed).await.expect("the gateway notices that nobody is there");
    shop.produce("c").await;
    let records = other.records(9).await;
    let mut values: Vec<String> = records.iter().map(text).collect();
    values.sort_unstable();
    assert_eq!(values, ["a0", "a1", "a2", "b0", "b1", "b2", "c0", "c1", "c2"], "each once");
    for record in &records {
        // What the other one had was delivered to it; it may not have more than it had credit for in its life.
        let most = if text(record).starts_with('c') { 1 } else { 2 };
        assert!(record.attempt <= most, "{}: {}", text(record), record.attempt);
    }
    assert_eq!(other.ack(&records, 1).await.len(), 9);
    drop(gone);
    shop.close().await;
}
