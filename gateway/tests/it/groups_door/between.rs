//! What is lost between two gateways.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use sluice_proto::stream::v1::SettleOutcome;
use sluice_proto::stream::v1::record::ValueKind;

use crate::world::{PATIENCE, World};

use super::streams::Stream;
use super::{GROUP, Shop};

/// How a way behaves.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Way {
    /// Carries all.
    Open,
    /// Carries requests, and swallows what comes back.
    Swallows,
}

/// A way to a gateway's listener.
pub(super) struct Between {
    pub(super) address: SocketAddr,
    pub(super) target: watch::Sender<Option<SocketAddr>>,
    pub(super) way: watch::Sender<Way>,
    /// Each change breaks all connections.
    cuts: watch::Sender<u64>,
}

impl Between {
    pub(super) async fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("address");
        let (target, way, cuts) = (watch::Sender::new(None), watch::Sender::new(Way::Open), watch::Sender::new(0));
        let (known, behaves, cut) = (target.subscribe(), way.subscribe(), cuts.subscribe());
        tokio::spawn(async move {
            while let Ok((door, _)) = listener.accept().await {
                let (mut known, mut behaves, mut cut) = (known.clone(), behaves.clone(), cut.clone());
                tokio::spawn(async move {
                    let Some(target) = known.wait_for(Option::is_some).await.ok().and_then(|target| *target) else {
                        return;
                    };
                    // Nothing is swallowed but what was on its way.
                    if behaves.wait_for(|way| *way == Way::Open).await.is_err() {
                        return;
                    }
                    let dispatcher = TcpStream::connect(target).await.expect("connect");
                    cut.mark_unchanged();
                    tokio::select! {
                        () = carry(door, dispatcher, behaves) => {}
                        _ = cut.changed() => {}
                    }
                });
            }
        });
        Self { address, target, way, cuts }
    }

    fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }
}

async fn carry(door: TcpStream, dispatcher: TcpStream, way: watch::Receiver<Way>) {
    let ((mut requests, mut to_door), (mut answers, mut to_dispatcher)) = (door.into_split(), dispatcher.into_split());
    let there = tokio::io::copy(&mut requests, &mut to_dispatcher);
    let back = async {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(count @ 1..) = answers.read(&mut buffer).await {
            if *way.borrow() == Way::Open && to_door.write_all(&buffer[..count]).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        _ = there => {}
        () = back => {}
    }
}

/// A door and the gateway that dispatches, with a way between them that a test may break.
struct Pair {
    shop: Shop,
    ways: [Between; 2],
    door: usize,
    dispatcher: usize,
}

impl Pair {
    async fn open() -> Self {
        let world = World::new().await;
        let ways = [Between::open().await, Between::open().await];
        let mut gateways = Vec::new();
        for (id, way) in ["gateway-a", "gateway-b"].into_iter().zip(&ways) {
            let gateway = world.gateway_found_at(id, way.address).await;
            way.target.send_replace(Some(gateway.addrs.internal));
            gateways.push(gateway);
        }
        let shop = Shop::of(world, gateways).await;
        // Longer than these tests wait for anything.
        shop.change_group(|group| group.ack_deadline_ms = 60_000).await;
        shop.produce("a").await;
        let first = shop.pull(0, 3).await;
        shop.post(0, "ack", &json!({"ackIds": super::ids(&first)})).await;
        let dispatcher = usize::from(shop.dispatcher().await != shop.gateways[0].id);
        Self { shop, ways, door: 1 - dispatcher, dispatcher }
    }

    /// The dispatcher leases a record to the door, and the door does not get it.
    async fn lose(&self, value: &str, leased: usize) {
        self.ways[self.dispatcher].way.send_replace(Way::Swallows);
        self.shop.world.produce(&self.shop.tenant, self.shop.topic, 0, value).await;
        self.shop.are_leased(self.dispatcher, leased).await;
    }

    fn mend(&self) {
        let way = &self.ways[self.dispatcher];
        way.cut();
        way.way.send_replace(Way::Open);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn records_of_a_pull_whose_answer_was_lost_between_gateways_come_at_once_and_lose_no_attempt() {
    let pair = Pair::open().await;
    let (shop, door, dispatcher) = (&pair.shop, pair.door, pair.dispatcher);
    shop.pull_none(door).await;

    let body = json!({"wait": "20s", "encoding": "PAYLOAD_ENCODING_TEXT"});
    pair.ways[dispatcher].way.send_replace(Way::Swallows);
    let pull = shop.post(door, "pull", &body);
    let lost = async {
        pair.lose("b", 1).await;
        pair.mend();
    };
    let ((status, answer), ()) = tokio::join!(pull, lost);
    assert_eq!(status, 200, "{answer}");
    let record = &answer["records"][0];
    assert_eq!((&record["record"]["valueText"], &record["attempt"]), (&json!("b"), &json!(1)), "{answer}");
    let (status, answer) = shop.post(dispatcher, "ack", &json!({"ackIds": [record["ackId"]]})).await;
    assert_eq!(status, 200, "{answer}");
    pair.shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_of_a_stream_that_were_lost_between_gateways_come_at_once_and_those_that_came_stay_leased() {
    let pair = Pair::open().await;
    let mut stream = Stream::open(&pair.shop, pair.door, 10).await;
    pair.shop.produce("b").await;
    let came = stream.records(3).await;
    for (lost, value) in ["c", "d"].into_iter().enumerate() {
        // Those of the stream that it has not acknowledged, and the lost one.
        pair.lose(value, came.len() + 1).await;
        pair.mend();
        let record = stream.records(1).await.remove(0);
        let sent = record.record.as_ref().and_then(|record| record.value_kind.clone());
        let expected = Some(ValueKind::Value(value.to_owned().into()));
        assert_eq!((sent, record.attempt), (expected, 1), "cut {lost}");
        assert_eq!(stream.ack(&[record], 1).await, [SettleOutcome::Ok]);
    }
    assert_eq!(stream.ack(&came, 2).await, [SettleOutcome::Ok; 3], "they were the client's all the time");
    drop(stream);
    pair.shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_on_their_way_to_a_stream_that_its_client_has_left_come_at_once_and_lose_no_attempt() {
    let pair = Pair::open().await;
    let mut stream = Stream::open(&pair.shop, pair.door, 10).await;
    pair.shop.produce("b").await;
    let came = stream.records(3).await;
    assert_eq!(stream.ack(&came, 1).await, [SettleOutcome::Ok; 3]);
    pair.lose("c", 1).await;
    drop(stream);
    let record = pair.shop.pull(pair.dispatcher, 1).await.remove(0);
    assert_eq!((&record["record"]["valueText"], &record["attempt"]), (&json!("c"), &json!(1)), "{record}");
    pair.mend();
    pair.shop.close().await;
}

impl Shop {
    /// Lets the door have a connection to the dispatcher.
    async fn pull_none(&self, door: usize) {
        let (status, answer) = self.post(door, "pull", &json!({})).await;
        assert_eq!((status.as_u16(), answer["records"].as_array().map_or(0, Vec::len)), (200, 0), "{answer}");
    }

    /// Waits until so many records are leased.
    async fn are_leased(&self, dispatcher: usize, count: usize) {
        let leased = async {
            loop {
                let (_, status) = self.gateways[dispatcher].get(&format!("/v1/{GROUP}:status"), &self.tenant.key).await;
                let partitions = status["partitions"].as_array().cloned().unwrap_or_default();
                let out = partitions.iter().filter_map(|partition| partition["outstandingRecords"].as_str());
                if out.filter_map(|out| out.parse::<usize>().ok()).sum::<usize>() == count {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, leased).await.expect("they are leased");
    }
}
