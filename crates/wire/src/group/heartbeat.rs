//! The heartbeat on the wire, and leaving in somebody's name.

use std::collections::BTreeSet;
use std::time::Duration;

use super::coordinator::lane_of;
use super::state::{Answer, Beat, PartitionKey};
use crate::client::Client;
use crate::codec::{
    ConsumerGroupHeartbeatRequestData, ConsumerGroupHeartbeatResponseData, consumer_group_heartbeat_request, from_uuid,
    text, to_uuid,
};
use crate::deadline::Deadline;
use crate::error::{KafkaError, Result, code};
use crate::pool::Lane;

/// Epoch that says "I leave".
const LEAVE_EPOCH: i32 = -1;
/// An interval outside these bounds is not believed.
const INTERVAL_MIN: Duration = Duration::from_millis(100);
const INTERVAL_MAX: Duration = Duration::from_secs(60);

impl Client {
    /// Makes another member leave its group, so that its partitions go to the others at once instead of after its
    /// session: for taking over from a process that is gone. Its later commits and heartbeats are refused. `false` if
    /// it is no member any more.
    pub async fn leave_group_for(&self, group: &str, member_id: &str, timeout: Duration) -> Result<bool> {
        let request = ConsumerGroupHeartbeatRequestData {
            group_id: text(group),
            member_id: text(member_id),
            member_epoch: LEAVE_EPOCH,
            ..Default::default()
        };
        let lane = Lane::Heartbeat(lane_of(group));
        let response = self.call_coordinator(group, lane, &request, errors, Deadline::after(timeout)).await?;
        match response.error_code {
            code::UNKNOWN_MEMBER_ID | code::GROUP_ID_NOT_FOUND => Ok(false),
            _ => check(&response).map(|()| true),
        }
    }

    /// One heartbeat, sent once.
    pub(super) async fn heartbeat(&self, beat: Beat, deadline: Deadline) -> Result<Answer> {
        let lane = Lane::Heartbeat(lane_of(&beat.group));
        let request = ConsumerGroupHeartbeatRequestData {
            group_id: text(&*beat.group),
            member_id: text(&*beat.member_id),
            member_epoch: beat.epoch,
            rebalance_timeout_ms: beat.rebalance_timeout_ms.unwrap_or(-1),
            subscribed_topic_names: beat
                .topics
                .as_ref()
                .map(|topics| topics.iter().map(|topic| text(&**topic)).collect()),
            topic_partitions: beat.owned.as_ref().map(by_topic),
            ..Default::default()
        };
        let response = self.call_coordinator_once(&beat.group, lane, &request, errors, deadline).await?;
        check(&response)?;
        let interval = Duration::from_millis(u64::try_from(response.heartbeat_interval_ms).unwrap_or(0));
        let assignment = response.assignment.map(|assignment| {
            let topics = assignment.topic_partitions.into_iter();
            topics
                .flat_map(|topic| {
                    let topic_id = from_uuid(topic.topic_id);
                    topic.partitions.into_iter().map(move |partition| (topic_id, partition))
                })
                .collect()
        });
        let interval = interval.clamp(INTERVAL_MIN, INTERVAL_MAX);
        Ok(Answer { epoch: response.member_epoch, interval, assignment })
    }
}

fn errors(response: &ConsumerGroupHeartbeatResponseData) -> Vec<i16> {
    vec![response.error_code]
}

fn check(response: &ConsumerGroupHeartbeatResponseData) -> Result<()> {
    let message = response.error_message.as_ref().map(ToString::to_string);
    Ok(KafkaError::check(response.error_code, message)?)
}

fn by_topic(owned: &BTreeSet<PartitionKey>) -> Vec<consumer_group_heartbeat_request::TopicPartitions> {
    let mut topics: Vec<consumer_group_heartbeat_request::TopicPartitions> = Vec::new();
    for &(topic_id, partition) in owned {
        let topic_id = to_uuid(topic_id);
        match topics.last_mut() {
            Some(last) if last.topic_id == topic_id => last.partitions.push(partition),
            _ => topics.push(consumer_group_heartbeat_request::TopicPartitions {
                topic_id,
                partitions: vec![partition],
                ..Default::default()
            }),
        }
    }
    topics
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ClientConfig;

    #[test]
    fn a_heartbeat_under_way_takes_little_memory() {
        let client = Client::new(ClientConfig::new(["localhost:1"])).unwrap();
        let beat = Beat {
            group: "g".into(),
            member_id: "m".into(),
            epoch: 1,
            rebalance_timeout_ms: None,
            topics: None,
            owned: None,
        };
        let bytes = size_of_val(&client.heartbeat(beat, Deadline::after(Duration::from_secs(1))));
        assert!(bytes <= 4_096, "{bytes} bytes");
    }
}
