//! The same call by call: a long poll for records, and calls that settle them.

use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use sluice_proto::google::rpc;
use sluice_proto::stream::v1::consumer_service_client::ConsumerServiceClient;
use sluice_proto::stream::v1::{
    AckRequest, DeliveryState, ExtendLeaseRequest, NackRequest, PayloadEncoding, PullRequest, PullResponse,
    SettleOutcome, SettleResult,
};
use sluice_types::limits::PULL_RECORDS_MAX;
use tonic::Status;
use tonic::transport::Channel;

use super::line::{Event, Opening};
use super::orders::{Order, Verb};
use super::room::Demand;

/// How long one call waits for a first record.
const WAIT: Duration = Duration::from_secs(10);
/// After an answer without records that came at once.
const PAUSE: Duration = Duration::from_millis(250);

type Pulling<'a> = Pin<Box<dyn Future<Output = Result<PullResponse, Status>> + 'a>>;
type Settling<'a> = Pin<Box<dyn Future<Output = Result<Event, Status>> + 'a>>;

pub(super) struct PullLine<'a> {
    opening: Opening<'a>,
    client: ConsumerServiceClient<Channel>,
    wished: u32,
    stopped: bool,
    pulling: Option<Pulling<'a>>,
    settling: FuturesUnordered<Settling<'a>>,
    state: DeliveryState,
}

impl<'a> PullLine<'a> {
    pub(super) fn new(opening: Opening<'a>) -> Self {
        let client = ConsumerServiceClient::new(opening.session.channel.clone()).max_decoding_message_size(usize::MAX);
        Self {
            opening,
            client,
            wished: opening.demand.map_or(0, |demand| demand.records),
            stopped: false,
            pulling: None,
            settling: FuturesUnordered::new(),
            state: DeliveryState::Unspecified,
        }
    }

    pub(super) async fn next(&mut self) -> Result<Event, Status> {
        loop {
            if self.pulling.is_none() && self.wished > 0 && !self.stopped {
                self.pulling = Some(self.pull());
            }
            let pulling = async {
                match self.pulling.as_mut() {
                    Some(pulling) => pulling.await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                answer = pulling => {
                    self.pulling = None;
                    let answer = answer?;
                    let state = if answer.records.is_empty() { answer.state() } else { DeliveryState::Flowing };
                    if !answer.records.is_empty() {
                        self.wished = self.wished.saturating_sub(answer.records.len() as u32);
                        self.state = state;
                        return Ok(Event::Records(answer.records));
                    }
                    if state != self.state {
                        self.state = state;
                        return Ok(Event::State(state));
                    }
                }
                Some(event) = self.settling.next(), if !self.settling.is_empty() => return event,
            }
        }
    }

    pub(super) fn ask(&mut self, demand: Demand) {
        self.wished += demand.records;
    }

    pub(super) fn stop(&mut self) {
        self.stopped = true;
        self.pulling = None;
    }

    fn pull(&self) -> Pulling<'a> {
        let mut client = self.client.clone();
        let Opening { session, group, topics, timeout, .. } = self.opening;
        let request = PullRequest {
            group: group.to_owned(),
            max_records: self.wished.min(PULL_RECORDS_MAX as u32) as i32,
            max_bytes: 0,
            wait: Some(WAIT.into()),
            encoding: PayloadEncoding::Bytes.into(),
            topics: topics.to_vec(),
        };
        Box::pin(async move {
            let begun = Instant::now();
            let request = session.request_within(request, timeout.max(WAIT + Duration::from_secs(5)));
            let answer = client.pull(request).await?;
            session.observe(&answer);
            let answer = answer.into_inner();
            if answer.records.is_empty() && begun.elapsed() < PAUSE {
                tokio::time::sleep(PAUSE).await;
            }
            Ok(answer)
        })
    }

    pub(super) fn settle(&mut self, sequence: i64, order: &Order) {
        let mut client = self.client.clone();
        let Opening { session, group, timeout, .. } = self.opening;
        let (group, Order { verb, ids: ack_ids, reason }) = (group.to_owned(), order.clone());
        self.settling.push(Box::pin(async move {
            let count = ack_ids.len();
            let answer = match verb {
                Verb::Ack => {
                    let request = session.request_within(AckRequest { group, ack_ids }, timeout);
                    client.ack(request).await.map(|answer| answer.into_inner().results)
                }
                Verb::Nack(delay) | Verb::Release(delay) => {
                    let release = matches!(verb, Verb::Release(_));
                    let request = NackRequest { group, ack_ids, delay: delay.map(Into::into), reason, release };
                    client
                        .nack(session.request_within(request, timeout))
                        .await
                        .map(|answer| answer.into_inner().results)
                }
                Verb::Extend(time) => {
                    let request = ExtendLeaseRequest { group, ack_ids, ack_deadline: time.map(Into::into) };
                    let request = session.request_within(request, timeout);
                    client.extend_lease(request).await.map(|answer| answer.into_inner().results)
                }
            };
            let results = match answer {
                Ok(results) => results,
                // As a stream would say it: nothing is known, try again.
                Err(status) if super::is_passing(&status) || session.is_unanswered(&status) => {
                    let error = rpc::Status {
                        code: status.code().into(),
                        message: status.message().to_owned(),
                        ..Default::default()
                    };
                    let result = SettleResult { outcome: SettleOutcome::Unavailable.into(), error: Some(error) };
                    vec![result; count]
                }
                Err(status) => return Err(status),
            };
            Ok(Event::Settled { sequence, results })
        }));
    }
}
