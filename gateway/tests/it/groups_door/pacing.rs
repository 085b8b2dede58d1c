//! Clients that do not read, tenants over their limits, credentials that end: what a stream does with what it has leased.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use futures::StreamExt;
use serde_json::json;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Streaming};
use tonic_types::StatusExt as _;

use sluice_proto::internal::control::v1::control_record::Resource;
use sluice_proto::internal::control::v1::{ControlRecord, GroupState, Life, Limits};
use sluice_proto::stream::v1::consumer_service_client::ConsumerServiceClient;
use sluice_proto::stream::v1::{
    ConsumeCredit, ConsumeRequest, ConsumeResponse, ConsumeStart, PayloadEncoding, PullRequest, ReceivedRecord,
    SubscribeRequest, consume_request, consume_response,
};
use sluice_wire::OutRecord;

use crate::world::PATIENCE;

use super::streams::Stream;
use super::{GROUP, Shop};

impl Shop {
    /// Another version of the group.
    pub(super) async fn change_group(&self, change: impl FnOnce(&mut GroupState)) {
        let mut record = self.tenant.group(self.group, 2, Life::Active);
        if let Some(Resource::Group(group)) = &mut record.resource {
            change(group);
        }
        self.apply(&record).await;
    }

    async fn apply(&self, record: &ControlRecord) {
        let offset = self.world.publish(record).await;
        for gateway in &self.gateways {
            self.world.applied(gateway, offset).await;
        }
    }

    /// Records of so many bytes, numbered, over the partitions.
    async fn produce_many(&self, count: usize, bytes: usize) {
        let values: Vec<String> = (0..count).map(|at| format!("{}{at}", "0".repeat(bytes))).collect();
        for (at, value) in values.iter().enumerate() {
            self.world.produce(&self.tenant, self.topic, (at % 3) as i32, value).await;
        }
    }

    pub(super) async fn dispatcher(&self) -> String {
        let (_, status) = self.gateways[0].get(&format!("/v1/{GROUP}:status"), &self.tenant.key).await;
        status["dispatcher"].as_str().expect("dispatched").to_owned()
    }

    async fn subscribe(
        &self,
        gateway: usize,
        max_outstanding_records: i32,
    ) -> tonic::Streaming<sluice_proto::stream::v1::SubscribeResponse> {
        let request = SubscribeRequest { group: GROUP.into(), max_outstanding_records, ..SubscribeRequest::default() };
        let answer = self.client(gateway).await.subscribe(self.signed(request)).await;
        answer.expect("a stream").into_inner()
    }

    async fn ack(&self, gateway: usize, records: &[ReceivedRecord]) {
        let ids: Vec<&str> = records.iter().map(|record| record.ack_id.as_str()).collect();
        let (status, answer) = self.post(gateway, "ack", &json!({"ackIds": ids})).await;
        assert_eq!(status, 200, "{answer}");
    }
}

fn number(record: &ReceivedRecord) -> usize {
    let value = match record.record.as_ref().and_then(|record| record.value_kind.as_ref()) {
        Some(sluice_proto::stream::v1::record::ValueKind::Value(bytes)) => bytes.clone(),
        other => panic!("{other:?}"),
    };
    std::str::from_utf8(&value).expect("text").parse().expect("a number")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_over_its_read_limit_gets_every_record_with_its_lease_before_it() {
    // Two gateways let 200,000 bytes a second out: 9 s after their bursts, more than two leases.
    const RECORDS: usize = 200;
    const BYTES: usize = 10_000;
    let shop = Shop::open().await;
    shop.change_group(|group| group.ack_deadline_ms = 4_000).await;
    let mut tenant = shop.tenant.base().remove(0);
    tenant.version = 2;
    if let Some(Resource::Tenant(tenant)) = &mut tenant.resource {
        tenant.limits = Some(Limits { egress_bytes_per_second: 100_000, ..Limits::default() });
    }
    shop.apply(&tenant).await;
    shop.produce_many(RECORDS, BYTES).await;
    let (arrived, mut arrivals) = mpsc::channel(RECORDS);
    let mut clients = tokio::task::JoinSet::new();
    for at in 0..12 {
        let mut stream = shop.subscribe(at % 2, 5).await;
        let arrived = arrived.clone();
        clients.spawn(async move {
            while let Some(Ok(message)) = stream.next().await {
                for record in message.records {
                    let _over = arrived.send((record, sluice_devstack::now_ms())).await;
                }
            }
        });
    }
    let mut seen = BTreeMap::new();
    while seen.len() < RECORDS {
        let (record, at_ms) =
            tokio::time::timeout(PATIENCE, arrivals.recv()).await.expect("in time").expect("streams are open");
        let end = record.lease_end_time.expect("an end");
        let left_ms = end.seconds * 1_000 + i64::from(end.nanos) / 1_000_000 - at_ms;
        assert!(left_ms > 0, "the lease of {} ended {left_ms} ms ago when it came", number(&record));
        assert_eq!(record.attempt, 1, "{}", number(&record));
        shop.ack(0, std::slice::from_ref(&record)).await;
        seen.insert(number(&record), at_ms);
    }
    let (first, last) = (seen.values().min(), seen.values().max());
    let took = last.expect("some") - first.expect("some");
    assert!(took > 6_000, "{} bytes came in {took} ms", RECORDS * BYTES);
    clients.abort_all();
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_stream_goes_on_after_a_move_however_much_it_has_had() {
    let mut shop = Shop::open().await;
    shop.produce("a").await;
    let first = shop.pull(0, 3).await;
    let dispatcher = shop.dispatcher().await;
    shop.post(0, "ack", &json!({"ackIds": super::ids(&first)})).await;
    let away = usize::from(dispatcher != shop.gateways[0].id);
    let here = 1 - away;
    let mut stream = shop.subscribe(here, 2).await;
    let mut records = async |shop: &Shop, gateway: usize, count: usize| {
        let mut got = 0;
        while got < count {
            let message = tokio::time::timeout(PATIENCE, stream.next()).await.expect("in time").expect("open");
            let records = message.expect("the stream goes on").records;
            if !records.is_empty() {
                shop.ack(gateway, &records).await;
            }
            got += records.len();
        }
    };
    // Far more than may be out at a time.
    for value in ["b", "c", "d"] {
        shop.produce(value).await;
    }
    records(&shop, here, 9).await;
    shop.gateways.remove(away).stop().await.expect("an orderly end");
    for value in ["e", "f"] {
        shop.produce(value).await;
    }
    records(&shop, 0, 6).await;
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_reads_nothing_holds_what_its_window_took_and_wastes_no_attempt_of_the_rest() {
    const RECORDS: usize = 300;
    const BYTES: usize = 10_000;
    const WINDOW: u32 = 65_535;
    let shop = Shop::open().await;
    shop.change_group(|group| group.ack_deadline_ms = 5_000).await;
    shop.produce_many(RECORDS, BYTES).await;
    let stopped = stopped_client(&shop, WINDOW).await;
    let mut reader = Stream::open(&shop, 1, 1_000).await;
    let mut attempts: BTreeMap<usize, i32> = BTreeMap::new();
    let mut stopped = Some(stopped);
    let until = Instant::now() + Duration::from_secs(11);
    while attempts.len() < RECORDS {
        // Longer than two leases.
        if Instant::now() > until {
            stopped = None;
        }
        let next = tokio::time::timeout(Duration::from_millis(500), reader.next()).await;
        if let Ok(Ok(consume_response::Message::Records(records))) = next {
            attempts.extend(records.records.iter().map(|record| (number(record), record.attempt)));
            shop.ack(1, &records.records).await;
        }
        assert!(Instant::now() < until + PATIENCE, "{} of {RECORDS}", attempts.len());
    }
    drop(stopped);
    let again = attempts.values().filter(|attempt| **attempt > 1).count();
    let in_window = WINDOW as usize / BYTES + 1;
    assert!(again <= in_window, "{again} records have lost an attempt, and {in_window} at most reached the client");
    shop.close().await;
}

/// A stream with credit whose client reads nothing, once something was sent to it.
async fn stopped_client(shop: &Shop, window: u32) -> (Streaming<ConsumeResponse>, mpsc::Sender<ConsumeRequest>) {
    // Stopped, as far as anybody can tell: it has credit out and never reads.
    let endpoint = Channel::from_shared(shop.gateways[0].url("")).expect("address");
    let endpoint = endpoint.initial_stream_window_size(window);
    let mut client = ConsumerServiceClient::new(endpoint.connect().await.expect("connect"));
    let (requests, queue) = mpsc::channel(1);
    let credit = Some(ConsumeCredit { records: 10_000, bytes: 0 });
    let start = ConsumeStart { group: GROUP.into(), credit, ..ConsumeStart::default() };
    let start = ConsumeRequest { message: Some(consume_request::Message::Start(start)), sequence: 0 };
    requests.send(start).await.expect("room");
    let stopped = client.consume(shop.signed(ReceiverStream::new(queue))).await.expect("a stream");
    let taken = async {
        loop {
            let (_, status) = shop.gateways[0].get(&format!("/v1/{GROUP}:status"), &shop.tenant.key).await;
            if status["consumers"][0]["outstandingRecords"] != "0"
                && !status["consumers"].as_array().is_none_or(Vec::is_empty)
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, taken).await.expect("it is sent something");
    (stopped.into_inner(), requests)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_takes_nothing_is_given_up_and_what_it_did_not_take_goes_to_others() {
    // Larger than the window: a message that fits was taken, whatever the client does with it.
    const RECORDS: usize = 3;
    const BYTES: usize = 200_000;
    // As the design promises: the ack deadline, but 30 s at least.
    const GIVEN_UP: Duration = Duration::from_secs(30);
    let shop = Shop::open().await;
    shop.change_group(|group| group.ack_deadline_ms = 3_000).await;
    shop.produce_many(RECORDS, BYTES).await;
    let (mut stopped, _requests) = stopped_client(&shop, 65_535).await;
    let mut reader = Stream::open(&shop, 1, 1_000).await;
    let mut seen = BTreeSet::new();
    let until = Instant::now() + GIVEN_UP + PATIENCE;
    while seen.len() < RECORDS {
        assert!(Instant::now() < until, "{} of {RECORDS}", seen.len());
        let next = tokio::time::timeout(Duration::from_millis(500), reader.next()).await;
        if let Ok(Ok(consume_response::Message::Records(records))) = next {
            seen.extend(records.records.iter().map(number));
            shop.ack(1, &records.records).await;
        }
    }
    let end = loop {
        match tokio::time::timeout(PATIENCE, stopped.message()).await.expect("it has ended") {
            Ok(Some(_)) => {}
            Ok(None) => panic!("it ended without a word"),
            Err(end) => break end,
        }
    };
    let details = end.get_error_details();
    let reason = details.error_info().map(|info| info.reason.as_str());
    assert_eq!((end.code(), reason), (Code::Unavailable, Some("CLIENT_NOT_READING")), "{end:?}");
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_when_its_key_expires_and_delivers_nothing_after_a_grant_is_gone() {
    let shop = Shop::open().await;
    let mut stream = Stream::open(&shop, 0, 10).await;
    shop.produce("a").await;
    let records = stream.records(3).await;
    assert_eq!(stream.ack(&records, 1).await.len(), 3);
    let mut account = shop.tenant.base().remove(1);
    account.version = 2;
    if let Some(Resource::Account(account)) = &mut account.resource {
        account.grants[0].role = "producer".into();
    }
    shop.apply(&account).await;
    shop.produce("b").await;
    loop {
        match stream.next().await {
            Ok(consume_response::Message::Records(records)) => panic!("delivered: {records:?}"),
            Ok(_) => {}
            Err(end) => {
                assert_eq!(end.code(), Code::PermissionDenied, "{end:?}");
                break;
            }
        }
    }

    let mut account = shop.tenant.base().remove(1);
    account.version = 3;
    shop.apply(&account).await;
    let expire_ms = sluice_devstack::now_ms() + 4_000;
    let mut key = shop.tenant.key_state(2, Life::Active);
    if let Some(Resource::Key(key)) = &mut key.resource {
        key.expire_time_ms = expire_ms;
    }
    shop.apply(&key).await;
    let mut stream = Stream::open(&shop, 0, 10).await;
    assert_eq!(stream.records(3).await.len(), 3);
    let end = tokio::time::timeout(PATIENCE, stream.end()).await.expect("it ends");
    let late_ms = sluice_devstack::now_ms() - expire_ms;
    assert_eq!(end.code(), Code::Unauthenticated);
    assert!((0..1_500).contains(&late_ms), "{late_ms} ms after the key expired");
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_of_the_most_bytes_fits_into_what_clients_take_by_default() {
    const LARGE: usize = 6;
    const NUMBERS: [usize; 21] = [20_000; 21];
    let shop = Shop::open().await;
    // In protobuf, a list of small numbers is more than five times what it is as text.
    let numbers = |count: usize| format!("[{}1]", "1,".repeat(count));
    let name = sluice_types::physical::PhysicalTopic::new(shop.tenant.namespace, shop.topic);
    for count in NUMBERS.into_iter().chain([400_000; 2]) {
        let record = OutRecord {
            value: Some(numbers(count).into()),
            timestamp_ms: sluice_devstack::now_ms(),
            ..OutRecord::default()
        };
        shop.world.kafka.produce_batch(name.as_str(), 0, &[record], PATIENCE).await.expect("produce");
    }
    shop.produce_many(LARGE, 1_000_000).await;
    let all = NUMBERS.len() + 2 + LARGE;
    let mut client = shop.client(0).await;
    for encoding in [PayloadEncoding::Json, PayloadEncoding::Bytes] {
        let mut got = Vec::new();
        while got.len() < all {
            let request = PullRequest {
                group: GROUP.into(),
                max_records: 1_000,
                max_bytes: 8 << 20,
                wait: Some(Duration::from_secs(5).into()),
                encoding: encoding.into(),
                ..PullRequest::default()
            };
            let records = client.pull(shop.signed(request)).await.expect("it fits").into_inner().records;
            assert!(!records.is_empty() && records.iter().all(|record| record.attempt == 1));
            got.extend(records.into_iter().map(|record| record.ack_id));
        }
        got.sort_unstable();
        got.dedup();
        assert_eq!(got.len(), all, "each once, and none is lost");
        let (status, answer) = shop.post(0, "reset", &json!({"position": "POSITION_EARLIEST", "force": true})).await;
        assert_eq!(status, 200, "{answer}");
    }
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lease_of_a_pulled_record_does_not_end_while_its_answer_is_on_the_way() {
    let shop = Shop::open().await;
    shop.change_group(|group| group.ack_deadline_ms = 4_000).await;
    shop.produce_many(1, 300_000).await;
    // Its window takes a part of the answer, and no more until it reads.
    let client = reqwest::Client::builder().http2_prior_knowledge().http2_initial_stream_window_size(65_535);
    let request = client.build().expect("a client").post(shop.gateways[0].url(&format!("/v1/{GROUP}:pull")));
    let request = request.bearer_auth(shop.tenant.key.expose()).json(&json!({"wait": "20s"}));
    let answer = request.send().await.expect("its head");
    assert_eq!(answer.status(), 200);

    // Longer than two leases.
    let (_, other) = shop.post(1, "pull", &json!({"wait": "9s"})).await;
    assert!(other["records"].as_array().is_none_or(Vec::is_empty), "it is another's still");
    let answer: serde_json::Value = answer.json().await.expect("JSON");
    assert_eq!(answer["records"][0]["attempt"], 1);
    let (status, answer) = shop.post(1, "ack", &json!({"ackIds": [answer["records"][0]["ackId"]]})).await;
    assert_eq!(status, 200, "{answer}");
    shop.close().await;
}
