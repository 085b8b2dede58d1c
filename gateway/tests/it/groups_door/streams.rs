//! Streams: both ways over gRPC, one way over HTTP, across moves, to their end.

use std::time::Duration;

use futures::StreamExt;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Streaming};

use sluice_proto::internal::control::v1::Life;
use sluice_proto::stream::v1::consumer_service_client::ConsumerServiceClient;
use sluice_proto::stream::v1::{
    ConsumeAck, ConsumeCredit, ConsumeRequest, ConsumeResponse, ConsumeStart, DeliveryState, ReceivedRecord,
    SettleOutcome, consume_request, consume_response,
};

use crate::world::PATIENCE;

use super::{GROUP, Shop};

pub(super) struct Stream {
    requests: mpsc::Sender<ConsumeRequest>,
    responses: Streaming<ConsumeResponse>,
}

impl Stream {
    /// The first message is sent only once the answer's head is here, as some clients do.
    pub(super) async fn open(shop: &Shop, gateway: usize, records: i32) -> Self {
        Self::over(shop, shop.client(gateway).await, records).await
    }

    /// The same over this client's connection.
    pub(super) async fn over(shop: &Shop, mut client: ConsumerServiceClient<Channel>, records: i32) -> Self {
        let (requests, queue) = mpsc::channel(8);
        let answer = client.consume(shop.signed(ReceiverStream::new(queue))).await;
        let stream = Self { requests, responses: answer.expect("a stream").into_inner() };
        let credit = Some(ConsumeCredit { records, bytes: 0 });
        let start = ConsumeStart { group: GROUP.into(), credit, ..ConsumeStart::default() };
        stream.say(consume_request::Message::Start(start), 0).await;
        stream
    }

    async fn say(&self, message: consume_request::Message, sequence: i64) {
        let request = ConsumeRequest { message: Some(message), sequence };
        self.requests.send(request).await.expect("the stream is open");
    }

    pub(super) async fn next(&mut self) -> Result<consume_response::Message, tonic::Status> {
        let next = tokio::time::timeout(PATIENCE, self.responses.message()).await.expect("a message in time")?;
        Ok(next.expect("the stream goes on").message.expect("a message"))
    }

    pub(super) async fn records(&mut self, count: usize) -> Vec<ReceivedRecord> {
        let mut records = Vec::new();
        while records.len() < count {
            if let consume_response::Message::Records(more) = self.next().await.expect("the stream goes on") {
                records.extend(more.records);
            }
        }
        records
    }

    pub(super) async fn ack(&mut self, records: &[ReceivedRecord], sequence: i64) -> Vec<SettleOutcome> {
        let ack_ids = records.iter().map(|record| record.ack_id.clone()).collect();
        self.say(consume_request::Message::Ack(ConsumeAck { ack_ids }), sequence).await;
        loop {
            if let consume_response::Message::Settled(settled) = self.next().await.expect("the stream goes on") {
                assert_eq!(settled.sequence, sequence);
                return settled.results.iter().map(|result| result.outcome()).collect();
            }
        }
    }

    /// How it ends.
    pub(super) async fn end(&mut self) -> tonic::Status {
        loop {
            match self.next().await {
                Ok(_) => {}
                Err(status) => return status,
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_gets_what_it_has_credit_for_wherever_the_group_is_dispatched() {
    let shop = Shop::open().await;
    // One stream at each gateway: one of them is not the dispatcher.
    for (gateway, value) in ["x", "y"].into_iter().enumerate() {
        let mut stream = Stream::open(&shop, gateway, 2).await;
        shop.produce(value).await;
        let first = stream.records(2).await;
        assert_eq!(first.len(), 2, "no more than there was credit for");
        assert_eq!(stream.ack(&first, 7).await, [SettleOutcome::Ok; 2]);
        stream.say(consume_request::Message::Credit(ConsumeCredit { records: 1, bytes: 0 }), 0).await;
        let last = stream.records(1).await;
        assert_eq!(stream.ack(&last, 8).await, [SettleOutcome::Ok]);
    }
    let mut stream = Stream::open(&shop, 0, 10).await;
    let wrong = ReceivedRecord { ack_id: "nonsense".into(), ..ReceivedRecord::default() };
    assert_eq!(stream.ack(&[wrong], 1).await, [SettleOutcome::Invalid]);
    stream.say(consume_request::Message::Credit(ConsumeCredit { records: -1, bytes: 0 }), 0).await;
    let end = stream.end().await;
    assert_eq!((end.code(), end.message().split(':').next()), (Code::InvalidArgument, Some("credit.records")));
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_has_records_is_not_told_that_its_group_is_still_being_taken() {
    let shop = Shop::open().await;
    shop.produce("a").await;
    // Nobody dispatches the group yet: the first state is ASSIGNING, and the records come before it is worth telling.
    let mut stream = Stream::open(&shop, 0, 10).await;
    let mut came = 0;
    loop {
        match stream.next().await.expect("the stream goes on") {
            consume_response::Message::Records(records) => came += records.records.len(),
            consume_response::Message::Notice(notice) if came > 0 => {
                assert_ne!(notice.state(), DeliveryState::Assigning, "after {came} records");
                if notice.state() == DeliveryState::WaitingForAcks {
                    break;
                }
            }
            _ => {}
        }
    }
    assert_eq!(came, 3);
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_flow_over_http_and_a_drain_tells_clients_to_go_elsewhere() {
    let mut shop = Shop::open().await;
    let url = shop.gateways[0].url(&format!("/v1/{GROUP}:stream?encoding=text"));
    let answer = reqwest::Client::new().get(url).bearer_auth(shop.tenant.key.expose()).send().await.expect("an answer");
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    assert_eq!(
        answer.headers()["cache-control"],
        "no-store, no-transform",
        "or a proxy would compress and collect events"
    );
    let mut body = answer.bytes_stream();
    let mut text = String::new();
    let mut consume = Stream::open(&shop, 0, 0).await;
    shop.produce("e").await;
    let mut read_until = async |text: &mut String, wanted: &dyn Fn(&str) -> bool| {
        while !wanted(text) {
            let chunk = tokio::time::timeout(PATIENCE, body.next()).await.expect("in time");
            let Some(chunk) = chunk else { return };
            text.push_str(std::str::from_utf8(&chunk.expect("bytes")).expect("text"));
        }
    };
    read_until(&mut text, &|text| ["e0", "e1", "e2"].iter().all(|value| text.contains(value))).await;
    assert!(text.starts_with("retry: "), "{text}");
    assert!(text.contains("event: records\ndata: {\"records\":[{\"ackId\":\""), "{text}");

    let stopping = tokio::spawn(shop.gateways.remove(0).stop());
    read_until(&mut text, &|_| false).await;
    let reconnect = text.find("event: reconnect\n").expect("told to reconnect");
    let error = text.find("event: error\n").expect("an end that says why");
    assert!(reconnect < error && text[error..].contains("SHUTTING_DOWN"), "{text}");
    let mut told = false;
    let end = loop {
        match consume.next().await {
            Ok(consume_response::Message::Notice(notice)) => told |= notice.reconnect,
            Ok(_) => {}
            Err(status) => break status,
        }
    };
    assert!(told && end.code() == Code::Unavailable && end.metadata().contains_key("retry-after"), "{end:?}");
    stopping.await.expect("no panic").expect("an orderly end");

    // The other one goes on; what was not acknowledged comes again.
    assert_eq!(super::values(&shop.pull(0, 3).await), ["e0", "e1", "e2"]);
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_stream_ends_when_its_key_or_its_group_does() {
    let shop = Shop::open().await;
    let mut of_key = Stream::open(&shop, 0, 10).await;
    let mut of_group = Stream::open(&shop, 1, 10).await;
    shop.produce("k").await;
    let (first, second) = tokio::join!(of_key.next(), of_group.next());
    first.expect("it flows");
    second.expect("it flows");
    shop.world.publish(&shop.tenant.group(shop.group, 2, Life::Gone)).await;
    let ended = async { (of_key.end().await, of_group.end().await) };
    let (first, second) = tokio::time::timeout(Duration::from_secs(10), ended).await.expect("soon");
    assert_eq!((first.code(), second.code()), (Code::NotFound, Code::NotFound));
    assert_eq!(first.message(), format!("{GROUP} does not exist"));

    let group = sluice_types::GroupUid::random();
    let offset = shop.world.publish(&shop.tenant.group(group, 1, Life::Active)).await;
    for gateway in &shop.gateways {
        shop.world.applied(gateway, offset).await;
    }
    let mut stream = Stream::open(&shop, 0, 10).await;
    assert_eq!(stream.records(3).await.len(), 3, "another group of the same name begins anew");
    shop.world.publish(&shop.tenant.key_state(2, Life::Gone)).await;
    let end = tokio::time::timeout(Duration::from_secs(10), stream.end()).await.expect("soon");
    assert_eq!(end.code(), Code::Unauthenticated);
    shop.close().await;
}
