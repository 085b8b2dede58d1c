//! Looking at groups, and deleting them.

use std::time::Duration;

use crate::client::Client;
use crate::codec::{
    ConsumerGroupDescribeRequestData, DeleteGroupsRequestData, ListGroupsRequestData, consumer_group_describe_response,
    from_uuid, text,
};
use crate::deadline::Deadline;
use crate::error::{Error, KafkaError, Result};
use crate::group::member::TopicPartition;
use crate::pool::Lane;

/// A group as its coordinator sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupDescription {
    /// `Empty`, `Assigning`, `Reconciling`, `Stable` or `Dead`.
    pub state: String,
    /// Grows with every change of members or subscriptions.
    pub epoch: i32,
    /// Epoch for which the target assignment was made.
    pub assignment_epoch: i32,
    /// Members, in the coordinator's order.
    pub members: Vec<GroupMemberDescription>,
}

/// A member as its coordinator sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupMemberDescription {
    /// Its id.
    pub member_id: String,
    /// Its epoch.
    pub epoch: i32,
    /// Client id it connected with.
    pub client_id: String,
    /// Address it connected from.
    pub client_host: String,
    /// Topics it asked for.
    pub topics: Vec<String>,
    /// What it may use now.
    pub assignment: Vec<TopicPartition>,
    /// What it will have once everybody has given up what they must.
    pub target: Vec<TopicPartition>,
}

/// An entry of [`Client::list_groups`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedGroup {
    /// The group's id.
    pub group: String,
    /// Its state, e.g. `Stable`.
    pub state: String,
    /// `consumer`, `classic` (also those that have offsets and never had members), `share` or `streams`.
    pub kind: String,
}

impl Client {
    /// Describes a group of the broker-driven protocol. One that does not exist, or never had a member that speaks
    /// this protocol, is `GROUP_ID_NOT_FOUND`.
    pub async fn describe_group(&self, group: &str, timeout: Duration) -> Result<GroupDescription> {
        let request = ConsumerGroupDescribeRequestData { group_ids: vec![text(group)], ..Default::default() };
        let codes = |response: &crate::codec::ConsumerGroupDescribeResponseData| {
            response.groups.iter().map(|group| group.error_code).collect()
        };
        let response = self.call_coordinator(group, Lane::Admin, &request, codes, Deadline::after(timeout)).await?;
        let found = response.groups.into_iter().find(|found| found.group_id.as_str() == group);
        let found = found.ok_or_else(|| Error::Protocol("answer lacks the group".to_owned()))?;
        KafkaError::check(found.error_code, found.error_message.map(|text| text.to_string()))?;
        let members = found.members.into_iter().map(|member| GroupMemberDescription {
            member_id: member.member_id.to_string(),
            epoch: member.member_epoch,
            client_id: member.client_id.to_string(),
            client_host: member.client_host.to_string(),
            topics: member.subscribed_topic_names.iter().map(ToString::to_string).collect(),
            assignment: partitions(member.assignment),
            target: partitions(member.target_assignment),
        });
        Ok(GroupDescription {
            state: found.group_state.to_string(),
            epoch: found.group_epoch,
            assignment_epoch: found.assignment_epoch,
            members: members.collect(),
        })
    }

    /// Lists the groups of all brokers, of some states only if any are given. Fails if one broker does not answer.
    pub async fn list_groups(&self, states: &[&str], timeout: Duration) -> Result<Vec<ListedGroup>> {
        let deadline = Deadline::after(timeout);
        let metadata = self.metadata(&[], timeout).await?;
        let request = ListGroupsRequestData {
            states_filter: states.iter().map(|state| text(*state)).collect(),
            ..Default::default()
        };
        let mut listed = Vec::new();
        for &broker in metadata.brokers.keys() {
            let connection = self.connection(broker, Lane::Admin, deadline).await?;
            let response = connection.call(&request, Duration::ZERO, deadline).await?;
            KafkaError::check(response.error_code, None)?;
            listed.extend(response.groups.into_iter().map(|group| ListedGroup {
                group: group.group_id.to_string(),
                state: group.group_state.to_string(),
                kind: group.group_type.to_string(),
            }));
        }
        Ok(listed)
    }

    /// Deletes a group and its offsets. With members it is `NON_EMPTY_GROUP`, absent `GROUP_ID_NOT_FOUND`.
    pub async fn delete_group(&self, group: &str, timeout: Duration) -> Result<()> {
        let request = DeleteGroupsRequestData { groups_names: vec![text(group)], ..Default::default() };
        let codes = |response: &crate::codec::DeleteGroupsResponseData| {
            response.results.iter().map(|result| result.error_code).collect()
        };
        let response = self.call_coordinator(group, Lane::Admin, &request, codes, Deadline::after(timeout)).await?;
        let result = response.results.into_iter().next();
        let result = result.ok_or_else(|| Error::Protocol("answer lacks the group".to_owned()))?;
        Ok(KafkaError::check(result.error_code, None)?)
    }
}

fn partitions(assignment: consumer_group_describe_response::Assignment) -> Vec<TopicPartition> {
    let topics = assignment.topic_partitions.into_iter().flat_map(|topic| {
        let (name, topic_id) = (std::sync::Arc::<str>::from(topic.topic_name.as_str()), from_uuid(topic.topic_id));
        topic.partitions.into_iter().map(move |partition| TopicPartition { topic: name.clone(), topic_id, partition })
    });
    topics.collect()
}
