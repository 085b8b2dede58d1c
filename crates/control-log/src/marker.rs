//! The record that says that the log is complete, and when it is believed.

use sluice_proto::internal::control::v1::control_record::Resource;
use sluice_wire::{KafkaTopicId, Record};
use uuid::Uuid;

use crate::change::decode;

/// Which record that says that the log is complete is believed: of a log that lost something only one that answers the wait
/// that began then, or was appended after all that was read of it before. Times are those of appending; the broker that leads
/// now may have an earlier clock than the one before, and a control plane of an older version answers no wait.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Marker {
    /// When the latest record was appended that was read.
    read_ms: i64,
    awaited: Option<Awaited>,
}

/// What a record must be to count.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Awaited {
    answers: String,
    or_after_ms: i64,
}

impl Marker {
    /// All was read that was appended until then.
    pub(crate) fn after(read_ms: i64) -> Self {
        Self { read_ms, awaited: None }
    }

    pub(crate) fn read_ms(&self) -> i64 {
        self.read_ms
    }

    pub(crate) fn read(&mut self, record: &Record) {
        self.read_ms = self.read_ms.max(record.timestamp_ms);
    }

    /// The log lost something that was read: a new wait begins.
    pub(crate) fn lost(&mut self) {
        self.awaited = Some(Awaited { answers: Uuid::now_v7().simple().to_string(), or_after_ms: self.read_ms });
    }

    /// The wait is over.
    pub(crate) fn found(&mut self) {
        self.awaited = None;
    }

    /// The wait, if there is one.
    pub(crate) fn wait(&self) -> Option<&str> {
        self.awaited.as_ref().map(|awaited| awaited.answers.as_str())
    }

    /// Whether this record says it of the log with this id.
    pub(crate) fn is_complete(&self, record: &Record, log: Option<KafkaTopicId>) -> bool {
        let said = record.value.as_ref().and_then(decode);
        let Some(Resource::Complete(complete)) = said.and_then(|said| said.resource) else { return false };
        log.is_some_and(|log| complete.control_topic_id == log.to_string())
            && self.awaited.as_ref().is_none_or(|awaited| {
                record.timestamp_ms > awaited.or_after_ms || complete.answers.contains(&awaited.answers)
            })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use prost::Message as _;
    use sluice_proto::internal::control::v1::{ControlRecord, LogComplete};
    use sluice_types::physical::CONTROL_COMPLETE_KEY;
    use sluice_wire::TimestampType;

    use super::*;

    pub(crate) const LOG: KafkaTopicId = KafkaTopicId([7; 16]);
    pub(crate) const OTHER: KafkaTopicId = KafkaTopicId([8; 16]);

    pub(crate) fn said_of(log: KafkaTopicId, timestamp_ms: i64) -> Record {
        answering(Vec::new(), log, timestamp_ms)
    }

    pub(crate) fn answering(answers: Vec<String>, log: KafkaTopicId, timestamp_ms: i64) -> Record {
        let complete = LogComplete { resources: 1, control_topic_id: log.to_string(), answers };
        let record = ControlRecord { resource: Some(Resource::Complete(complete)), ..ControlRecord::default() };
        Record {
            offset: 0,
            timestamp_ms,
            timestamp_type: TimestampType::LogAppendTime,
            key: Some(CONTROL_COMPLETE_KEY.into()),
            value: Some(record.encode_to_vec().into()),
            headers: Vec::new(),
        }
    }

    #[test]
    fn a_log_that_lost_something_is_complete_when_that_is_said_again() {
        let mut marker = Marker::default();
        assert!(marker.is_complete(&said_of(LOG, 5), Some(LOG)));
        assert!(!marker.is_complete(&said_of(OTHER, 5), Some(LOG)), "said of another log");
        assert!(!marker.is_complete(&said_of(LOG, 5), None), "of which log is not known yet");
        assert!(!marker.is_complete(&Record { value: None, ..said_of(LOG, 5) }, Some(LOG)));
        marker.read(&said_of(LOG, 5));
        marker.read(&Record { key: None, ..said_of(LOG, 9) });
        marker.lost();
        assert!(!marker.is_complete(&said_of(LOG, 5), Some(LOG)), "it was said before the loss");
        // What is read again is not later than what was lost.
        marker.read(&said_of(LOG, 5));
        assert!(!marker.is_complete(&said_of(LOG, 9), Some(LOG)));
        assert!(marker.is_complete(&said_of(LOG, 10), Some(LOG)));
    }

    #[test]
    fn an_answer_to_the_wait_counts_by_any_clock() {
        let mut marker = Marker::default();
        marker.read(&Record { key: None, ..said_of(LOG, 9) });
        marker.lost();
        let wait = |marker: &Marker| marker.wait().expect("a wait").to_owned();
        let first = wait(&marker);
        let answer = |waits: &[&str], log| answering(waits.iter().map(|wait| (*wait).to_owned()).collect(), log, 1);
        assert!(marker.is_complete(&answer(&["another", &first], LOG), Some(LOG)));
        assert!(!marker.is_complete(&answer(&[&first], OTHER), Some(LOG)), "said of another log");
        marker.lost();
        assert!(!marker.is_complete(&answer(&[&first], LOG), Some(LOG)), "what was lost since may be missing still");
        assert!(marker.is_complete(&answer(&[&wait(&marker)], LOG), Some(LOG)));
    }
}
