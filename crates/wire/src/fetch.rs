//! Reading raw batches from a partition's leader.
//!
//! A long poll occupies a connection until the broker answers, so fetches take a connection of their own from a
//! bounded set per broker; callers beyond it wait their turn. Many readers use [`crate::Reader`], which shares polls.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::batch::decode::AbortedTransaction;
use crate::client::Client;
use crate::codec::{FetchRequestData, FetchResponseData, fetch_request, fetch_response, from_uuid, to_uuid};
use crate::deadline::Deadline;
use crate::error::{Error, KafkaError, Result, code};
use crate::gate::Gate;
use crate::offsets::OffsetAt;
use crate::pool::Lane;
use crate::retry::Retry;
use crate::types::{Isolation, KafkaTopicId};

/// Fetches under way per broker.
const LANES_MAX: u32 = 32;
/// Failures that may pass are retried for so long, within the deadline.
pub(crate) const RETRY_FOR: Duration = Duration::from_secs(2);
/// What a fetch needs beyond the broker's wait: the way there and back.
const MARGIN: Duration = Duration::from_millis(100);

/// What to read.
#[derive(Debug, Clone)]
pub struct FetchRequest {
    /// Physical topic name.
    pub topic: String,
    /// The topic's id, if the caller pins it: reading another topic of that name is [`Error::TopicReplaced`].
    pub topic_id: Option<KafkaTopicId>,
    /// Partition number.
    pub partition: i32,
    /// First offset wanted; batches may begin before it.
    pub offset: i64,
    /// Leader epoch of the record before the offset, if known ([`crate::ReadRecords::epochs`]): then a log that was cut off
    /// since is [`Error::LogTruncated`], instead of other records at the same offsets.
    pub last_epoch: Option<i32>,
    /// Bytes of batches wanted at most. A single first batch may be larger; then it comes whole.
    pub max_bytes: u32,
    /// The broker answers as soon as it has this many bytes (at least 1).
    pub min_bytes: u32,
    /// How long the broker may wait for them.
    pub max_wait: Duration,
    /// Which records may be seen.
    pub isolation: Isolation,
}

/// What came back. Batches are verbatim: decode them with [`crate::decode`].
#[derive(Debug, Clone)]
pub struct Fetched {
    /// Id of the topic that was read.
    pub topic_id: KafkaTopicId,
    /// Record batches as the broker stores them; empty if there was nothing within the wait. The last may be cut off.
    pub batches: Bytes,
    /// Offset after the last replicated record.
    pub high_watermark: i64,
    /// Offset after the last record of a finished transaction.
    pub last_stable_offset: i64,
    /// First offset still in the log.
    pub log_start_offset: i64,
    /// Transactions among the batches that were aborted (only when reading committed).
    pub aborted: Vec<AbortedTransaction>,
}

/// The gate before each broker's shared fetch connections.
#[derive(Default)]
pub(crate) struct FetchGates(Mutex<HashMap<i32, Arc<Gate>>>);

impl FetchGates {
    fn of(&self, broker: i32) -> Arc<Gate> {
        Arc::clone(self.0.lock().entry(broker).or_insert_with(|| Gate::new(LANES_MAX)))
    }
}

/// Which connection a fetch uses.
#[derive(Debug, Clone, Copy)]
pub(crate) enum FetchLane {
    /// A free one of the shared set, in fair turns between shares.
    Shared(u64),
    /// The one kept for this reader alone.
    Own(u32),
}

/// Where metadata says the partition is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct FetchPlace {
    pub(crate) leader: i32,
    pub(crate) epoch: i32,
    pub(crate) topic_id: KafkaTopicId,
}

/// A fetch connection that only one reader uses; closed when dropped.
pub(crate) struct OwnLane {
    pub(crate) number: u32,
    client: Client,
}

impl Drop for OwnLane {
    fn drop(&mut self) {
        self.client.inner.pool.forget_lane(Lane::OwnFetch(self.number));
    }
}

impl Client {
    /// Reads batches from the leader. Follows a moved leader within the deadline; a log that does not hold the offset is
    /// [`Error::OffsetOutOfRange`], one that was cut off [`Error::LogTruncated`], a deleted topic [`Error::UnknownTopic`], another topic under the same
    /// name [`Error::TopicReplaced`].
    pub async fn fetch(&self, request: FetchRequest, timeout: Duration) -> Result<Fetched> {
        self.fetch_on(request, FetchLane::Shared(0), RETRY_FOR, Deadline::after(timeout)).await
    }

    /// A connection for fetches of one reader.
    pub(crate) fn own_lane(&self) -> OwnLane {
        let number = self.inner.next_own_lane.fetch_add(1, Ordering::Relaxed);
        OwnLane { number, client: self.clone() }
    }

    pub(crate) async fn fetch_on(
        &self,
        request: FetchRequest,
        lane: FetchLane,
        retry_for: Duration,
        deadline: Deadline,
    ) -> Result<Fetched> {
        let mut retry = Retry::new(retry_for, deadline);
        let mut expected = request.topic_id;
        loop {
            match self.fetch_once(&request, &mut expected, retry.refresh, lane, deadline).await {
                Ok(fetched) => return Ok(fetched),
                Err(error) => self.after_failure(error, &request, &mut retry, deadline).await?,
            }
        }
    }

    /// Pauses before another try, or says for good why the read failed.
    pub(crate) async fn after_failure(
        &self,
        error: Error,
        request: &FetchRequest,
        retry: &mut Retry,
        deadline: Deadline,
    ) -> Result<()> {
        let error = match error.kafka_code() {
            Some(code::OFFSET_OUT_OF_RANGE) => Box::pin(self.out_of_range(request, deadline)).await,
            _ => error,
        };
        retry.after(error).await.map_err(|error| {
            self.doubt_leader(&request.topic, &error);
            final_error(error, request)
        })
    }

    /// Says on which side of the log the offset lies.
    async fn out_of_range(&self, request: &FetchRequest, deadline: Deadline) -> Error {
        let (topic, partition, offset) = (request.topic.clone(), request.partition, request.offset);
        let find = async |at| {
            let listed =
                self.list_offset(&topic, partition, at, Isolation::ReadUncommitted, deadline.remaining()).await?;
            listed.offset.ok_or_else(|| Error::NoLeader { topic: topic.clone(), partition })
        };
        match futures::try_join!(find(OffsetAt::Earliest), find(OffsetAt::Latest)) {
            Ok((start, end)) if (start..=end).contains(&offset) => self.refused_in_range(request, deadline).await,
            Ok((log_start_offset, end_offset)) => {
                Error::OffsetOutOfRange { topic, partition, offset, log_start_offset, end_offset }
            }
            Err(error) => error,
        }
    }

    /// The leader refused an offset that its log holds. It does so too if it never heard of the epoch that was read before the offset:
    /// then its log is another one, as that of a cluster that was restored from an older copy.
    async fn refused_in_range(&self, request: &FetchRequest, deadline: Deadline) -> Error {
        let (topic, partition, offset) = (request.topic.clone(), request.partition, request.offset);
        if let Some(epoch) = request.last_epoch {
            let asked = BTreeMap::from([(partition, epoch)]);
            let found = self.epoch_ends(&topic, &asked, deadline.remaining()).await;
            match found.map(|mut ends| ends.remove(&partition)) {
                Ok(Some(Ok(end))) if !end.is_some_and(|end| end.holds(epoch, offset)) => {
                    let end_offset = end.map_or(0, |end| end.end_offset.min(offset));
                    return Error::LogTruncated { topic, partition, offset, epoch, end_offset };
                }
                Ok(Some(Err(error))) | Err(error) => return error,
                Ok(_) => {}
            }
        }
        // The log changed between the answers, or a new leader is not as far yet.
        Error::NoLeader { topic, partition }
    }

    async fn fetch_once(
        &self,
        request: &FetchRequest,
        expected: &mut Option<KafkaTopicId>,
        refresh: bool,
        lane: FetchLane,
        deadline: Deadline,
    ) -> Result<Fetched> {
        let place = self.locate(request, expected, refresh, deadline).await?;
        self.fetch_at(place, request, lane, deadline).await
    }

    /// Finds the leader. The first topic found is the one `expected` from then on.
    pub(crate) async fn locate(
        &self,
        request: &FetchRequest,
        expected: &mut Option<KafkaTopicId>,
        refresh: bool,
        deadline: Deadline,
    ) -> Result<FetchPlace> {
        let topic = match refresh {
            true => self.refresh_topic(&request.topic, deadline).await?,
            false => self.cached_topic(&request.topic, deadline).await?,
        };
        let found = topic.topic_id;
        let expected = *expected.get_or_insert(found);
        if expected != found {
            return Err(Error::TopicReplaced { topic: topic.name.clone(), expected, found });
        }
        let (leader, epoch) = topic.leader(request.partition)?;
        Ok(FetchPlace { leader, epoch, topic_id: found })
    }

    /// Asks one broker once.
    pub(crate) async fn fetch_at(
        &self,
        place: FetchPlace,
        request: &FetchRequest,
        lane: FetchLane,
        deadline: Deadline,
    ) -> Result<Fetched> {
        let (lane, pass) = match lane {
            FetchLane::Own(number) => (Lane::OwnFetch(number), None),
            FetchLane::Shared(share) => {
                let gate = self.inner.gates.of(place.leader);
                let pass = deadline.bound(gate.enter(share)).await?;
                (Lane::Fetch(pass.lane), Some(pass))
            }
        };
        let wait = request.max_wait.min(deadline.remaining().saturating_sub(MARGIN));
        let wire = wire_request(request, place.topic_id, place.epoch, wait);
        let client = self.clone();
        // A task of its own: a caller that goes away must not hand a connection with an unanswered poll to the next.
        let work = tokio::spawn(async move {
            let _until_answered = pass;
            let connection = client.connection(place.leader, lane, deadline).await?;
            connection.call(&wire, wait, deadline.at_most(wait + client.inner.config.request_timeout)).await
        });
        let response = work.await.map_err(|_| Error::Protocol("fetch task ended early".to_owned()))??;
        read_response(response, place.topic_id, request)
    }
}

/// Builds the request for one partition, outside any fetch session.
pub(crate) fn wire_request(
    request: &FetchRequest,
    topic_id: KafkaTopicId,
    epoch: i32,
    wait: Duration,
) -> FetchRequestData {
    let max_bytes = i32::try_from(request.max_bytes).unwrap_or(i32::MAX);
    let partition = fetch_request::FetchPartition {
        partition: request.partition,
        current_leader_epoch: epoch,
        fetch_offset: request.offset,
        last_fetched_epoch: request.last_epoch.unwrap_or(-1),
        log_start_offset: -1,
        partition_max_bytes: max_bytes,
        ..Default::default()
    };
    FetchRequestData {
        max_wait_ms: i32::try_from(wait.as_millis()).unwrap_or(i32::MAX),
        min_bytes: i32::try_from(request.min_bytes.max(1)).unwrap_or(i32::MAX),
        max_bytes,
        isolation_level: request.isolation.wire(),
        session_id: 0,
        session_epoch: -1,
        topics: vec![fetch_request::FetchTopic {
            topic_id: to_uuid(topic_id),
            partitions: vec![partition],
            ..Default::default()
        }],
        ..Default::default()
    }
}

fn read_response(response: FetchResponseData, topic_id: KafkaTopicId, request: &FetchRequest) -> Result<Fetched> {
    KafkaError::check(response.error_code, None)?;
    throttled_answer(&response)?;
    let data = response
        .responses
        .into_iter()
        .filter(|answer| from_uuid(answer.topic_id) == topic_id)
        .flat_map(|answer| answer.partitions)
        .find(|data| data.partition_index == request.partition)
        .ok_or_else(|| Error::Protocol("fetch answer lacks the partition".to_owned()))?;
    if let Some(epoch) = request.last_epoch
        && data.error_code == 0
        && data.diverging_epoch.end_offset >= 0
    {
        return Err(Error::LogTruncated {
            topic: request.topic.clone(),
            partition: request.partition,
            offset: request.offset,
            epoch,
            end_offset: data.diverging_epoch.end_offset,
        });
    }
    partition_result(data, topic_id)
}

/// A fetch that would exceed a quota is answered at once, with no partition and with when to come back.
pub(crate) fn throttled_answer(response: &FetchResponseData) -> Result<()> {
    let pause = Duration::from_millis(u64::try_from(response.throttle_time_ms).unwrap_or(0));
    match response.responses.is_empty() && !pause.is_zero() {
        true => Err(Error::Throttled { pause }),
        false => Ok(()),
    }
}

/// Turns one partition's answer into ours.
pub(crate) fn partition_result(data: fetch_response::PartitionData, topic_id: KafkaTopicId) -> Result<Fetched> {
    KafkaError::check(data.error_code, None)?;
    let aborted = data.aborted_transactions.unwrap_or_default();
    Ok(Fetched {
        topic_id,
        batches: data.records.unwrap_or_default(),
        high_watermark: data.high_watermark,
        last_stable_offset: data.last_stable_offset,
        log_start_offset: data.log_start_offset,
        aborted: aborted
            .into_iter()
            .map(|aborted| AbortedTransaction { producer_id: aborted.producer_id, first_offset: aborted.first_offset })
            .collect(),
    })
}

/// Gives errors that callers decide by their own variant.
pub(crate) fn final_error(error: Error, request: &FetchRequest) -> Error {
    let topic = request.topic.clone();
    match error.kafka_code() {
        Some(code::UNKNOWN_TOPIC_ID | code::INCONSISTENT_TOPIC_ID) => Error::UnknownTopic { topic },
        Some(code::UNKNOWN_TOPIC_OR_PARTITION) if matches!(error, Error::Kafka(_)) => Error::UnknownTopic { topic },
        _ => error,
    }
}
