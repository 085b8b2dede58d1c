//! Looking at partitions: their ends, and the offset of a position. Each partition has its own result.

use std::time::Instant;

use sluice_proto::stream::v1::list_offsets_request::At;
use sluice_proto::stream::v1::{
    GetTopicMetadataRequest, ListOffsetsRequest, ListOffsetsResponse, PartitionFailure, PartitionMetadata,
    PartitionOffset, Position, TopicMetadata,
};
use sluice_types::error::Error;
use sluice_wire::{Isolation, OffsetAt};

use crate::access::DataCall;
use crate::clusters::{Log, Offsets};
use crate::data::fetch::check_partition;
use crate::data::{Data, answer_by, failure, time_left};
use crate::view::ResolvedTopic;

impl Data {
    pub(super) async fn topic_metadata(
        &self,
        call: &DataCall,
        request: GetTopicMetadataRequest,
    ) -> Result<TopicMetadata, Error> {
        let topic = call.topic("topic", &request.topic)?;
        let log = self.log(call, &topic)?;
        let all: Vec<i32> = (0..topic.partitions).collect();
        // The high watermark, not the last stable offset: where the next record goes.
        let until = answer_by(call);
        let ends = |at| list(&log, &all, at, until);
        let (starts, ends) = tokio::try_join!(ends(OffsetAt::Earliest), ends(OffsetAt::Latest))?;
        let offset = |listed: &Offsets, partition| Some(listed.get(&partition)?.as_ref().ok()?.as_ref()?.get());
        let partitions = all.iter().map(|&partition| {
            let (start, end) = (offset(&starts, partition), offset(&ends, partition));
            PartitionMetadata {
                partition,
                log_start_offset: start.unwrap_or(0),
                end_offset: end.unwrap_or(0),
                available: start.is_some() && end.is_some(),
            }
        });
        Ok(TopicMetadata {
            topic: topic.name.clone(),
            uid: topic.topic_uid.to_string(),
            partitions: partitions.collect(),
        })
    }

    pub(super) async fn offsets(
        &self,
        call: &DataCall,
        request: ListOffsetsRequest,
    ) -> Result<ListOffsetsResponse, Error> {
        let topic = call.topic("topic", &request.topic)?;
        let partitions = partitions(&request, &topic)?;
        let at = match request.at {
            None => OffsetAt::Latest,
            Some(At::Position(position)) => match Position::try_from(position) {
                Ok(Position::Earliest) => OffsetAt::Earliest,
                Ok(Position::Latest | Position::Unspecified) => OffsetAt::Latest,
                Err(_) => return Err(Error::invalid("position", "must be EARLIEST or LATEST")),
            },
            Some(At::Time(time)) if time.is_valid() => OffsetAt::TimestampMs(time.as_millis()),
            Some(At::Time(_)) => return Err(Error::invalid("time", "must be a time of the years 1..9999")),
        };
        let log = self.log(call, &topic)?;
        let until = answer_by(call);
        let mut found = match at {
            OffsetAt::TimestampMs(_) => list_at_time(&log, &partitions, at, until).await?,
            _ => list(&log, &partitions, at, until).await?,
        };
        let mut answer = ListOffsetsResponse::default();
        for partition in partitions {
            let listed = found.remove(&partition).unwrap_or(Err(sluice_wire::Error::DeadlineExceeded));
            match listed.and_then(|offset| offset.ok_or_else(lacks_offset)) {
                Ok(offset) => answer.offsets.push(PartitionOffset { partition, offset: offset.get() }),
                Err(error) => {
                    let error = failure::in_time(failure::reading(error, &topic.name), until, log.answers());
                    failure::log(&error);
                    let error = Some(failure::to_status(&error));
                    answer.failures.push(PartitionFailure { partition, error });
                }
            }
        }
        Ok(answer)
    }
}

/// The first record at or after a time, and the end where there is none. The end is asked first, so that a record that comes
/// meanwhile is not jumped over; within half of the time, so that a silent leader leaves the others enough for the rest.
async fn list_at_time(log: &Log, partitions: &[i32], at: OffsetAt, until: Instant) -> Result<Offsets, Error> {
    let mut found = list(log, partitions, OffsetAt::Latest, Instant::now() + time_left(until) / 2).await?;
    let told: Vec<i32> = found.iter().filter(|(_, end)| end.is_ok()).map(|(&partition, _)| partition).collect();
    let at_time = list(log, &told, at, until).await?;
    found.extend(at_time.into_iter().filter(|(_, listed)| !matches!(listed, Ok(None))));
    Ok(found)
}

/// An error is of all partitions.
async fn list(log: &Log, partitions: &[i32], at: OffsetAt, until: Instant) -> Result<Offsets, Error> {
    let failed = |error| failure::in_time(failure::reading(error, &log.topic().name), until, log.answers());
    let listed = log.offsets(partitions, at, Isolation::ReadUncommitted, time_left(until)).await.map_err(failed)?;
    // One partition without leader is that partition's matter; none that answers is the cluster's.
    if listed.values().any(Result::is_ok) {
        return Ok(listed);
    }
    Err(failed(listed.into_values().find_map(Result::err).unwrap_or(sluice_wire::Error::DeadlineExceeded)))
}

fn lacks_offset() -> sluice_wire::Error {
    sluice_wire::Error::Protocol("the leader named no offset".to_owned())
}

/// The partitions asked for, in order, each once; all if none is named.
fn partitions(request: &ListOffsetsRequest, topic: &ResolvedTopic) -> Result<Vec<i32>, Error> {
    if request.partitions.is_empty() {
        return Ok((0..topic.partitions).collect());
    }
    for (at, &partition) in request.partitions.iter().enumerate() {
        check_partition(&format!("partitions[{at}]"), partition, topic)?;
    }
    let mut partitions = request.partitions.clone();
    partitions.sort_unstable();
    partitions.dedup();
    Ok(partitions)
}
