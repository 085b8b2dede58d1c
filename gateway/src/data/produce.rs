//! Publishing: one batch, one completion, a result per record.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use sluice_kafka::{Batch, Failure, OnResolved, RecordOutcome, SinkRecord};
use sluice_proto::google::rpc;
use sluice_proto::stream::v1::{Outcome, ProduceRequest, ProduceResponse, RecordResult};
use sluice_proto::wkt::Timestamp;
use sluice_types::error::Error;
use sluice_types::record::producers_time_ms;

use crate::access::DataCall;
use crate::data::records::{Rules, check, now_ms};
use crate::data::{Data, answer_by, failure};
use crate::metering::Meter;
use crate::view::ResolvedTopic;

impl Data {
    pub(super) async fn produce_records(
        &self,
        call: &DataCall,
        request: ProduceRequest,
    ) -> Result<ProduceResponse, Error> {
        self.produce_as_of(call, request, now_ms()).await
    }

    /// `now_ms` is what the clock of this gateway says.
    pub(super) async fn produce_as_of(
        &self,
        call: &DataCall,
        request: ProduceRequest,
        now_ms: i64,
    ) -> Result<ProduceResponse, Error> {
        let topic = call.topic("topic", &request.topic)?;
        let turn = self.rotation.fetch_add(1, Ordering::Relaxed);
        let rules = Rules {
            partitions: topic.partitions,
            keyless: i32::try_from(turn % topic.partitions.max(1).unsigned_abs()).unwrap_or(0),
            compacted: topic.compacted,
            age_ms_max: topic.record_age_ms_max,
            log_append_time: topic.log_append_time,
            traceparent: call.context.traceparent.as_deref(),
            now_ms,
        };
        let checked = check(request.records, &rules)?;
        if checked.records.is_empty() {
            return Ok(ProduceResponse { results: checked.rejected.put_back(Vec::new()) });
        }
        let log = self.log(call, &topic)?;
        call.limiter.take_ingress(checked.bytes)?;

        let places: Vec<Place> = checked.records.iter().map(|record| Place::of(record, &topic)).collect();
        let sizes: Arc<[u32]> = checked.sizes.into();
        let on_resolved = Some(count(self.meter.clone(), Arc::clone(&topic), Arc::clone(&sizes)));
        let batch = Batch { records: checked.records, on_resolved };
        let outcomes = log.append(batch, answer_by(call)).await;

        call.limiter.refund_ingress(unsent_bytes(&outcomes, &sizes));
        let gone = |outcome: &RecordOutcome| *outcome == RecordOutcome::NotPersisted(Failure::UnknownTopic);
        if outcomes.iter().all(gone) {
            return Err(Error::not_found(&topic.name));
        }
        let results = results(&outcomes, &places, &topic.name);
        Ok(ProduceResponse { results: checked.rejected.put_back(results) })
    }
}

/// What an answer says of a record besides its outcome.
#[derive(Debug, Clone, Copy)]
struct Place {
    partition: i32,
    /// The producer's time, if Kafka keeps another one.
    time_ms: Option<i64>,
}

impl Place {
    fn of(record: &SinkRecord, topic: &ResolvedTopic) -> Self {
        let time_ms = topic.log_append_time.then(|| producers_time_ms(&record.headers)).flatten();
        Self { partition: record.partition, time_ms }
    }
}

/// Counts what got into the log, whether or not its caller still waits.
fn count(meter: Meter, topic: Arc<ResolvedTopic>, sizes: Arc<[u32]>) -> OnResolved {
    Box::new(move |records: &[SinkRecord], outcomes: &[RecordOutcome]| {
        let persisted =
            records.iter().zip(outcomes).zip(sizes.iter()).filter_map(|((record, outcome), size)| match outcome {
                RecordOutcome::Persisted { offset, .. } => Some((record.partition, *offset, u64::from(*size))),
                _ => None,
            });
        meter.produced(&topic, persisted);
    })
}

fn unsent_bytes(outcomes: &[RecordOutcome], sizes: &[u32]) -> u64 {
    let unsent = outcomes.iter().zip(sizes).filter(|(outcome, _)| matches!(outcome, RecordOutcome::NotPersisted(_)));
    unsent.map(|(_, size)| u64::from(*size)).sum()
}

fn results(outcomes: &[RecordOutcome], places: &[Place], name: &str) -> Vec<RecordResult> {
    // Failures mostly repeat: the last one's status is made once.
    let mut last: Option<(Failure, rpc::Status)> = None;
    let mut status_of = |failure: Failure| match &last {
        Some((known, status)) if *known == failure => status.clone(),
        _ => {
            let status = failure::to_status(&failure::not_persisted(failure, name));
            last = Some((failure, status.clone()));
            status
        }
    };
    let one = |(outcome, place): (&RecordOutcome, &Place)| {
        let result = RecordResult { partition: place.partition, ..Default::default() };
        match outcome {
            RecordOutcome::Persisted { offset, timestamp_ms } => RecordResult {
                outcome: Outcome::Persisted.into(),
                offset: *offset,
                timestamp: place.time_ms.or(Some(*timestamp_ms).filter(|ms| *ms > 0)).map(Timestamp::from_millis),
                ..result
            },
            RecordOutcome::NotPersisted(failure) => RecordResult {
                outcome: Outcome::NotPersisted.into(),
                error: Some(status_of(*failure)),
                retriable: failure.is_retriable(),
                ..result
            },
            RecordOutcome::PossiblyPersisted(_) => RecordResult {
                outcome: Outcome::PossiblyPersisted.into(),
                error: Some(failure::to_status(&failure::possibly_persisted())),
                retriable: true,
                ..result
            },
        }
    };
    outcomes.iter().zip(places).map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_is_told_as_what_it_is() {
        let outcomes = [
            RecordOutcome::Persisted { offset: Some(7), timestamp_ms: 1_000 },
            RecordOutcome::Persisted { offset: None, timestamp_ms: -1 },
            RecordOutcome::NotPersisted(Failure::Deadline),
            RecordOutcome::NotPersisted(Failure::TooLarge),
            RecordOutcome::PossiblyPersisted(Failure::Deadline),
        ];
        let places: Vec<Place> = (0..5).map(|partition| Place { partition, time_ms: None }).collect();
        let results = results(&outcomes, &places, "namespaces/a/topics/b");
        assert_eq!((results[0].offset, results[0].retriable), (Some(7), false));
        assert_eq!((results[1].outcome(), results[1].offset), (Outcome::Persisted, None));
        assert_eq!(results[1].timestamp, None);
        let told: Vec<(Outcome, bool)> = results[2..].iter().map(|r| (r.outcome(), r.retriable)).collect();
        let wanted =
            [(Outcome::NotPersisted, true), (Outcome::NotPersisted, false), (Outcome::PossiblyPersisted, true)];
        assert_eq!(told, wanted);
        assert_eq!(results.iter().map(|r| r.partition).collect::<Vec<_>>(), vec![0, 1, 2, 3, 4]);
        assert!(results[2..].iter().all(|r| r.error.as_ref().is_some_and(|error| error.code != 0)));
    }

    #[test]
    fn only_what_was_certainly_not_stored_is_refunded() {
        let outcomes = [
            RecordOutcome::Persisted { offset: None, timestamp_ms: 1 },
            RecordOutcome::NotPersisted(Failure::Overloaded),
            RecordOutcome::PossiblyPersisted(Failure::Deadline),
        ];
        assert_eq!(unsent_bytes(&outcomes, &[1, 10, 100]), 10);
    }
}
