//! Consumers of groups: typed calls over gRPC to any gateway, and a ledger of what was delivered and acknowledged.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use parking_lot::Mutex;
use sluice_proto::admin::v1::group_service_client::GroupServiceClient;
use sluice_proto::admin::v1::{CreateGroupRequest, DeleteGroupRequest, Group};
use sluice_proto::google::longrunning::Operation;
use sluice_proto::stream::v1::consumer_service_client::ConsumerServiceClient;
use sluice_proto::stream::v1::{
    AckRequest, ConsumeAck, ConsumeCredit, ConsumeNack, ConsumeRequest, ConsumeResponse, ConsumeStart,
    ExtendLeaseRequest, GetGroupStatusRequest, GroupStatus, NackRequest, PullRequest, PullResponse, ReceivedRecord,
    ResetOffsetsRequest, ResetOffsetsResponse, SettleOutcome, SettleResult, consume_request, record,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use crate::tenant::{Api, finished};
use crate::wait;

const MESSAGE_MAX: usize = 64 << 20;

impl Api {
    fn consumer(&self) -> ConsumerServiceClient<Channel> {
        ConsumerServiceClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_MAX)
    }

    /// Creates a group; the operation must be done when the call returns.
    ///
    /// # Errors
    /// As answered.
    pub async fn create_group(&self, namespace: &str, id: &str, group: Group) -> Result<Group> {
        let request = CreateGroupRequest {
            parent: format!("namespaces/{namespace}"),
            group_id: id.into(),
            group: Some(group),
            ..Default::default()
        };
        let answer = GroupServiceClient::new(self.channel.clone()).create_group(self.request(request)).await?;
        finished(answer.into_inner())
    }

    /// Deletes a group.
    ///
    /// # Errors
    /// As answered.
    pub async fn delete_group(&self, name: &str) -> Result<Operation> {
        let request = DeleteGroupRequest { name: name.into(), ..Default::default() };
        let answer = GroupServiceClient::new(self.channel.clone()).delete_group(self.request(request)).await?;
        Ok(answer.into_inner())
    }

    /// Pulls.
    ///
    /// # Errors
    /// As answered.
    pub async fn pull(&self, group: &str, max_records: i32, wait: Duration) -> Result<PullResponse, Status> {
        let request =
            PullRequest { group: group.into(), max_records, wait: Some(wait.into()), ..PullRequest::default() };
        Ok(self.consumer().pull(self.request(request)).await?.into_inner())
    }

    /// Acknowledges; a result per id.
    ///
    /// # Errors
    /// As answered.
    pub async fn ack(&self, group: &str, ack_ids: Vec<String>) -> Result<Vec<SettleResult>, Status> {
        let request = AckRequest { group: group.into(), ack_ids };
        Ok(self.consumer().ack(self.request(request)).await?.into_inner().results)
    }

    /// Refuses; a result per id.
    ///
    /// # Errors
    /// As answered.
    pub async fn nack(
        &self,
        group: &str,
        ack_ids: Vec<String>,
        delay: Option<Duration>,
        reason: &str,
    ) -> Result<Vec<SettleResult>, Status> {
        let (group, reason, delay) = (group.into(), reason.into(), delay.map(Into::into));
        let request = NackRequest { group, ack_ids, delay, reason, release: false };
        Ok(self.consumer().nack(self.request(request)).await?.into_inner().results)
    }

    /// Gives leases more time; a result per id.
    ///
    /// # Errors
    /// As answered.
    pub async fn extend(
        &self,
        group: &str,
        ack_ids: Vec<String>,
        time: Option<Duration>,
    ) -> Result<Vec<SettleResult>, Status> {
        let request = ExtendLeaseRequest { group: group.into(), ack_ids, ack_deadline: time.map(Into::into) };
        Ok(self.consumer().extend_lease(self.request(request)).await?.into_inner().results)
    }

    /// How a group fares.
    ///
    /// # Errors
    /// As answered.
    pub async fn group_status(&self, group: &str) -> Result<GroupStatus, Status> {
        let request = GetGroupStatusRequest { group: group.into() };
        Ok(self.consumer().get_group_status(self.request(request)).await?.into_inner())
    }

    /// Moves positions.
    ///
    /// # Errors
    /// As answered.
    pub async fn reset(&self, request: ResetOffsetsRequest) -> Result<ResetOffsetsResponse, Status> {
        Ok(self.consumer().reset_offsets(self.request(request)).await?.into_inner())
    }

    /// Begins a stream with this much credit in records.
    ///
    /// # Errors
    /// As answered.
    pub async fn consume(&self, group: &str, credit: i32) -> Result<ConsumeStream, Status> {
        let (requests, queue) = mpsc::channel(64);
        let start = ConsumeStart {
            group: group.into(),
            credit: Some(ConsumeCredit { records: credit, bytes: 64 << 20 }),
            max_batch_records: 500,
            ..ConsumeStart::default()
        };
        let stream = ConsumeStream::message(consume_request::Message::Start(start), 0);
        requests.send(stream).await.map_err(|_| Status::internal("the stream's queue is closed"))?;
        let mut request = self.request(ReceiverStream::new(queue));
        // The stream lives on; only calls have deadlines.
        request.metadata_mut().remove("grpc-timeout");
        let responses = self.consumer().consume(request).await?.into_inner();
        Ok(ConsumeStream { requests, responses, sequence: 0 })
    }
}

/// A stream of `Consume`.
pub struct ConsumeStream {
    requests: mpsc::Sender<ConsumeRequest>,
    responses: Streaming<ConsumeResponse>,
    sequence: i64,
}

impl ConsumeStream {
    fn message(message: consume_request::Message, sequence: i64) -> ConsumeRequest {
        ConsumeRequest { message: Some(message), sequence }
    }

    async fn send(&mut self, message: consume_request::Message) -> Result<i64> {
        self.sequence += 1;
        let message = Self::message(message, self.sequence);
        if self.requests.send(message).await.is_err() {
            bail!("the stream has ended");
        }
        Ok(self.sequence)
    }

    /// The next message; `None` when the stream has ended well.
    ///
    /// # Errors
    /// How the stream ended.
    pub async fn next(&mut self) -> Result<Option<ConsumeResponse>, Status> {
        self.responses.message().await
    }

    /// Adds credit.
    ///
    /// # Errors
    /// If the stream has ended.
    pub async fn credit(&mut self, records: i32) -> Result<()> {
        let credit = ConsumeCredit { records, bytes: 64 << 20 };
        self.send(consume_request::Message::Credit(credit)).await.map(drop)
    }

    /// Acknowledges; gives the sequence that the answer will carry.
    ///
    /// # Errors
    /// If the stream has ended.
    pub async fn ack(&mut self, ack_ids: Vec<String>) -> Result<i64> {
        self.send(consume_request::Message::Ack(ConsumeAck { ack_ids })).await
    }

    /// Refuses; gives the sequence that the answer will carry.
    ///
    /// # Errors
    /// If the stream has ended.
    pub async fn nack(&mut self, ack_ids: Vec<String>, delay: Option<Duration>) -> Result<i64> {
        let nack = ConsumeNack { ack_ids, delay: delay.map(Into::into), ..ConsumeNack::default() };
        self.send(consume_request::Message::Nack(nack)).await
    }
}

/// The gateway that dispatches a group, once it has been the same for a while: after a gateway came back, groups move to it.
///
/// # Errors
/// If that takes too long.
pub async fn settled_dispatcher(api: &Api, group: &str) -> Result<String> {
    const AT_REST: Duration = Duration::from_secs(3);
    let (mut last, mut since) = (String::new(), Instant::now());
    wait::until("a dispatcher that stays", Duration::from_secs(40), async || {
        api.pull(group, 1, Duration::ZERO).await?;
        let now = api.group_status(group).await?.dispatcher;
        if now != last {
            (last, since) = (now, Instant::now());
        }
        Ok((!last.is_empty() && since.elapsed() >= AT_REST).then(|| last.clone()))
    })
    .await
}

/// A group of topics with these ids in a namespace, with defaults.
pub fn group_of(namespace: &str, topics: &[&str]) -> Group {
    let topics = topics.iter().map(|topic| format!("namespaces/{namespace}/topics/{topic}")).collect();
    Group { topics, ..Group::default() }
}

/// The ack ids of records.
pub fn ack_ids(records: &[ReceivedRecord]) -> Vec<String> {
    records.iter().map(|record| record.ack_id.clone()).collect()
}

/// Where a delivered record lies.
pub type Place = (String, i32, i64);

/// Where this one lies.
pub fn place(record: &ReceivedRecord) -> Place {
    let inner = record.record.clone().unwrap_or_default();
    (record.topic.clone(), inner.partition, inner.offset)
}

/// Its key's bytes.
pub fn key(record: &ReceivedRecord) -> Option<Vec<u8>> {
    match record.record.as_ref()?.key_kind.as_ref()? {
        record::KeyKind::Key(bytes) => Some(bytes.to_vec()),
        record::KeyKind::KeyText(text) => Some(text.clone().into_bytes()),
        record::KeyKind::KeyJson(_) => None,
    }
}

/// Its value as text.
pub fn text(record: &ReceivedRecord) -> String {
    match record.record.as_ref().and_then(|record| record.value_kind.as_ref()) {
        Some(record::ValueKind::Value(bytes)) => String::from_utf8_lossy(bytes).into_owned(),
        Some(record::ValueKind::ValueText(text)) => text.clone(),
        _ => String::new(),
    }
}

/// What consumers of one group have seen; clones are the same. It is told of a delivery when it arrives and of an
/// acknowledgement when its answer arrives, so what it finds wrong was wrong.
#[derive(Clone, Default)]
pub struct Ledger(Arc<Mutex<Seen>>);

#[derive(Default)]
struct Seen {
    /// Deliveries of each place, in order of arrival.
    delivered: HashMap<Place, Vec<Delivered>>,
    acked: HashMap<Place, Instant>,
    /// Acknowledgements that were sent.
    asked: HashSet<Place>,
    /// First deliveries of each key: offsets in order of arrival.
    first_by_key: HashMap<(String, i32, Vec<u8>), Vec<i64>>,
    faults: Vec<String>,
    outcomes: HashMap<&'static str, u64>,
}

#[derive(Debug, Clone, Copy)]
pub struct Delivered {
    pub at: Instant,
    pub attempt: i32,
}

impl Ledger {
    /// A record arrived.
    pub fn delivered(&self, record: &ReceivedRecord) {
        let now = Instant::now();
        let place = place(record);
        let mut seen = self.0.lock();
        if let Some(acked) = seen.acked.get(&place) {
            let ago = now.duration_since(*acked);
            seen.faults.push(format!("{place:?} was delivered {ago:?} after its acknowledgement was answered OK"));
        }
        let first = !seen.delivered.contains_key(&place);
        seen.delivered.entry(place.clone()).or_default().push(Delivered { at: now, attempt: record.attempt });
        if let (true, Some(key)) = (first, key(record)) {
            seen.first_by_key.entry((place.0, place.1, key)).or_default().push(place.2);
        }
    }

    /// An acknowledgement is about to be sent.
    pub fn asked(&self, places: &[Place]) {
        self.0.lock().asked.extend(places.iter().cloned());
    }

    /// Places whose acknowledgement was sent and never answered OK: it may have been stored.
    pub fn unanswered(&self) -> HashSet<Place> {
        let seen = self.0.lock();
        seen.asked.iter().filter(|place| !seen.acked.contains_key(place)).cloned().collect()
    }

    /// Results of an acknowledgement.
    pub fn acked(&self, places: &[Place], results: &[SettleResult]) {
        let now = Instant::now();
        let mut seen = self.0.lock();
        for (place, result) in places.iter().zip(results) {
            let word = match result.outcome() {
                SettleOutcome::Ok => {
                    seen.acked.entry(place.clone()).or_insert(now);
                    "ok"
                }
                SettleOutcome::StaleLease => "stale",
                SettleOutcome::Unavailable => "unavailable",
                SettleOutcome::Invalid | SettleOutcome::Unspecified => {
                    seen.faults.push(format!("{place:?}: {result:?}"));
                    "invalid"
                }
            };
            *seen.outcomes.entry(word).or_default() += 1;
        }
    }

    /// Places that were acknowledged with OK.
    pub fn acked_places(&self) -> HashSet<Place> {
        self.0.lock().acked.keys().cloned().collect()
    }

    /// How many were.
    pub fn acked_count(&self) -> usize {
        self.0.lock().acked.len()
    }

    /// Deliveries in all, and of how many records.
    pub fn counts(&self) -> (usize, usize) {
        let seen = self.0.lock();
        (seen.delivered.values().map(Vec::len).sum(), seen.delivered.len())
    }

    /// Deliveries of one record.
    pub fn deliveries(&self, place: &Place) -> Vec<Delivered> {
        self.0.lock().delivered.get(place).cloned().unwrap_or_default()
    }

    /// How many acknowledgements ended how.
    pub fn outcomes(&self) -> Vec<(&'static str, u64)> {
        let mut outcomes: Vec<_> = self.0.lock().outcomes.clone().into_iter().collect();
        outcomes.sort_unstable();
        outcomes
    }

    /// Nothing was delivered after its OK, no id was invalid, and first deliveries of each key came in the log's order.
    ///
    /// # Errors
    /// What was wrong.
    pub fn check(&self, key_ordered: bool) -> Result<()> {
        let seen = self.0.lock();
        ensure!(seen.faults.is_empty(), "{:#?}", &seen.faults[..seen.faults.len().min(10)]);
        if key_ordered {
            for (key, offsets) in &seen.first_by_key {
                ensure!(offsets.is_sorted(), "first deliveries of key {key:?} out of order: {offsets:?}");
            }
        }
        Ok(())
    }
}
