//! Who pays for records of a stream: whoever takes them, to the record. What was on its way costs nothing.

use futures::StreamExt;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;

use sluice_proto::stream::v1::consumer_service_client::ConsumerServiceClient;
use sluice_proto::stream::v1::{
    ConsumeCredit, ConsumeRequest, ConsumeResponse, ConsumeStart, consume_request, consume_response,
};

use crate::world::PATIENCE;

use super::{BYTES, RECORDS, SLOW, Shop};

const GROUP: &str = "namespaces/prod/groups/billing";
/// Smaller than a record: no client takes one that does not read.
const WINDOW: u32 = 65_535;

/// A stream over gRPC, one record in each message.
struct Consumed {
    answers: Streaming<ConsumeResponse>,
    _requests: mpsc::Sender<ConsumeRequest>,
}

impl Consumed {
    async fn open(shop: &Shop) -> Self {
        let endpoint = Channel::from_shared(shop.gateway.url("")).expect("address");
        let channel = endpoint.initial_stream_window_size(WINDOW).connect().await.expect("connect");
        let (requests, queue) = mpsc::channel(1);
        let credit = Some(ConsumeCredit { records: 100, bytes: 64 << 20 });
        let start = ConsumeStart { group: GROUP.into(), credit, max_batch_records: 1, ..ConsumeStart::default() };
        let start = ConsumeRequest { message: Some(consume_request::Message::Start(start)), sequence: 0 };
        requests.send(start).await.expect("room");
        let mut request = tonic::Request::new(ReceiverStream::new(queue));
        let bearer = format!("Bearer {}", shop.tenant.key.expose()).parse().expect("ascii");
        request.metadata_mut().insert("authorization", bearer);
        let answer = ConsumerServiceClient::new(channel).consume(request).await.expect("a stream");
        Self { answers: answer.into_inner(), _requests: requests }
    }

    /// Reads so many records, and no message more; their ids.
    async fn read(&mut self, count: usize) -> Vec<String> {
        let mut ids = Vec::new();
        while ids.len() < count {
            let next = tokio::time::timeout(PATIENCE, self.answers.message()).await.expect("in time");
            let message = next.expect("the stream goes on").expect("a message").message;
            if let Some(consume_response::Message::Records(records)) = message {
                ids.extend(records.records.into_iter().map(|record| record.ack_id));
            }
        }
        ids
    }
}

/// The same as server-sent events, over HTTP/2.
struct Events(futures::stream::BoxStream<'static, reqwest::Result<bytes::Bytes>>);

impl Events {
    async fn open(shop: &Shop) -> Self {
        let client = reqwest::Client::builder().http2_prior_knowledge().http2_initial_stream_window_size(WINDOW);
        let url = shop.gateway.url(&format!("/v1/{GROUP}:stream?encoding=text&maxOutstandingRecords=1"));
        let request = client.build().expect("a client").get(url).bearer_auth(shop.tenant.key.expose());
        let answer = request.send().await.expect("its head");
        assert_eq!(answer.status(), 200);
        Self(answer.bytes_stream().boxed())
    }

    /// Reads one record, and nothing more; its id.
    async fn read(&mut self) -> String {
        let mut text = String::new();
        let event = loop {
            let found = text.split("\n\n").find_map(|event| event.strip_prefix("event: records\ndata: "));
            if let Some(data) = found.and_then(|data| serde_json::from_str::<Value>(data).ok()) {
                break data;
            }
            let chunk = tokio::time::timeout(PATIENCE, self.0.next()).await.expect("in time").expect("it goes on");
            text.push_str(std::str::from_utf8(&chunk.expect("bytes")).expect("text"));
        };
        event["records"][0]["ackId"].as_str().expect("an id").to_owned()
    }
}

impl Shop {
    /// Waits until so many records are out.
    async fn are_out(&self, count: usize) {
        let mut last = Value::Null;
        let are_out = async {
            loop {
                let (_, status) = self.gateway.get(&format!("/v1/{GROUP}:status"), &self.tenant.key).await;
                let out = status["partitions"][0]["outstandingRecords"].as_str().and_then(|out| out.parse().ok());
                if out == Some(count) {
                    return;
                }
                last = status;
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, are_out).await;
        assert!(waited.is_ok(), "{count} are not out: {last}");
    }

    async fn acknowledge(&self, ids: &[String]) {
        let answer = self.post(&format!("/v1/{GROUP}:ack"), &json!({"ackIds": ids})).await;
        let outcomes = answer["results"].as_array().expect("results");
        assert!(outcomes.iter().all(|result| result["outcome"] == "SETTLE_OUTCOME_OK"), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_owes_what_its_client_took_and_nothing_of_what_was_on_its_way() {
    let shop = Shop::open(RECORDS, "").await;
    let mut consumed = Consumed::open(&shop).await;
    let mut ids = consumed.read(2).await;
    // The third is in the window by a part, and the client goes.
    shop.are_out(3).await;
    drop(consumed);
    shop.are_out(2).await;
    shop.acknowledge(&ids).await;
    let mut events = Events::open(&shop).await;
    let id = events.read().await;
    shop.acknowledge(std::slice::from_ref(&id)).await;
    ids.push(id);
    shop.are_out(1).await;
    drop(events);
    shop.are_out(0).await;

    shop.limit_egress(2, SLOW).await;
    let consumed = Consumed::open(&shop).await;
    shop.are_out(1).await;
    drop(consumed);
    shop.owes_nothing("a record of a stream over gRPC").await;
    let events = Events::open(&shop).await;
    shop.are_out(1).await;
    drop(events);
    shop.owes_nothing("a record of a stream of events").await;

    let (topic, taken) = (shop.topic.to_string(), ids.len() as u64);
    let delivered: Vec<_> = shop.delivered().await.into_iter().filter(|of| of.topic_uid == topic).collect();
    let records: u64 = delivered.iter().map(|of| of.records).sum();
    let bytes: u64 = delivered.iter().map(|of| of.bytes).sum();
    assert_eq!((records, bytes), (taken, taken * BYTES as u64));
}
