//! Placements as they stand in the control log.

use sluice_proto::internal::control::v1::{self as pb, topic_span};
use sluice_types::{ClusterUid, LogUid, TopicUid};

use crate::{ClusterLog, Epoch, LogicalOffset, Place, Placement, PlacementError, Span};

/// A placement in the control log that cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// A field is not what it must be.
    #[error("the placement's {0} cannot be read")]
    Field(&'static str),
    /// It contradicts itself.
    #[error(transparent)]
    Placement(#[from] PlacementError),
}

impl Placement {
    /// Reads what the record of `topic` says. Without a placement the topic is in its first log on the installation's first
    /// cluster: so it was with all topics when records had no placement.
    pub fn of_record(record: Option<&pb::TopicPlacement>, topic: TopicUid) -> Result<Self, RecordError> {
        let Some(record) = record else {
            return Ok(Self::unmoved(ClusterUid::FIRST, LogUid::first_of(topic)));
        };
        let epoch = Epoch::new(record.epoch).ok_or(RecordError::Field("epoch"))?;
        let cluster = record.cluster_uid.parse().map_err(|_| RecordError::Field("cluster_uid"))?;
        let log = record.log_uid.parse().map_err(|_| RecordError::Field("log_uid"))?;
        let spans = |partition: &pb::PartitionSpans| partition.spans.iter().map(span).collect::<Result<Vec<_>, _>>();
        let moved = record.moved.iter().map(spans).collect::<Result<Vec<_>, _>>()?;
        Ok(Self::new(epoch, cluster, log, moved)?)
    }

    /// What the topic's record says of it.
    pub fn record(&self) -> pb::TopicPlacement {
        let (cluster, log) = self.appends();
        let spans = |spans: &[Span]| pb::PartitionSpans { spans: spans.iter().map(written).collect() };
        pb::TopicPlacement {
            epoch: self.epoch().get(),
            cluster_uid: cluster.to_string(),
            log_uid: log.to_string(),
            moved: self.moved().map(spans).collect(),
        }
    }
}

fn span(record: &pb::TopicSpan) -> Result<Span, RecordError> {
    let offset = |value, field| LogicalOffset::new(value).map_err(|_| RecordError::Field(field));
    let place = match record.place.as_ref().ok_or(RecordError::Field("place"))? {
        topic_span::Place::Tier(_) => Place::Tier,
        topic_span::Place::Log(log) => Place::Cluster(ClusterLog {
            cluster: log.cluster_uid.parse().map_err(|_| RecordError::Field("span's cluster_uid"))?,
            log: log.log_uid.parse().map_err(|_| RecordError::Field("span's log_uid"))?,
            delta: log.delta,
        }),
    };
    let end = record.end.map(|end| offset(end, "end")).transpose()?;
    Ok(Span { start: offset(record.start, "start")?, end, place })
}

fn written(span: &Span) -> pb::TopicSpan {
    let place = match span.place {
        Place::Tier => topic_span::Place::Tier(pb::TierSpan {}),
        Place::Cluster(log) => topic_span::Place::Log(pb::LogSpan {
            cluster_uid: log.cluster.to_string(),
            log_uid: log.log.to_string(),
            delta: log.delta,
        }),
    };
    pb::TopicSpan { start: span.start.get(), end: span.end.map(LogicalOffset::get), place: Some(place) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_without_placement_means_the_first_log_on_the_first_cluster() {
        let topic = TopicUid::random();
        let read = Placement::of_record(None, topic).expect("old records stay valid");
        assert_eq!(read.appends(), (ClusterUid::FIRST, LogUid::first_of(topic)));
        assert_eq!(Placement::of_record(Some(&read.record()), topic), Ok(read));
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let good = Placement::unmoved(ClusterUid::random(), LogUid::random()).record();
        let of = |record: pb::TopicPlacement| Placement::of_record(Some(&record), TopicUid::random());
        let cases = [
            (pb::TopicPlacement { epoch: -1, ..good.clone() }, "epoch"),
            (pb::TopicPlacement { cluster_uid: "x".into(), ..good.clone() }, "cluster_uid"),
            (pb::TopicPlacement { log_uid: String::new(), ..good.clone() }, "log_uid"),
        ];
        for (record, field) in cases {
            assert_eq!(of(record), Err(RecordError::Field(field)));
        }
        let moved = |span| vec![pb::PartitionSpans { spans: vec![span] }];
        let tier = || Some(topic_span::Place::Tier(pb::TierSpan {}));
        for (span, field) in [
            (pb::TopicSpan { start: -1, end: None, place: tier() }, "start"),
            (pb::TopicSpan { start: 0, end: Some(-1), place: tier() }, "end"),
            (pb::TopicSpan::default(), "place"),
        ] {
            assert_eq!(
                of(pb::TopicPlacement { epoch: 1, moved: moved(span), ..good.clone() }),
                Err(RecordError::Field(field))
            );
        }
        let closed = pb::TopicSpan { start: 0, end: Some(1), place: tier() };
        let contradicts = of(pb::TopicPlacement { epoch: 1, moved: moved(closed), ..good });
        assert_eq!(contradicts, Err(PlacementError::Open { partition: 0, span: 0 }.into()));
    }
}
