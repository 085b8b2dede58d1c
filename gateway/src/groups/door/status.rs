//! How a group fares, and moving its positions.

use std::sync::Arc;
use std::time::Instant;

use sluice_proto::stream::v1::reset_offsets_request::To;
use sluice_proto::stream::v1::{
    DeliveryState, Finding, GetGroupStatusRequest, GroupStatus, Position, ResetOffsetsRequest, ResetOffsetsResponse,
};
use sluice_types::error::Error;
use sluice_types::{ErrorKind, Reason, ResourceName};

use crate::access::DataCall;
use crate::data::{answer_by, failure};
use crate::groups::door::Shared;
use crate::groups::door::dispatching::{DispatchRequest, NoAnswer, dispatcher_ends};
use crate::groups::door::stream_access::CONSUME;
use crate::groups::model::{Owner, ResolvedGroup};
use crate::view::TopicLookup;

/// What looking at a group needs on each of its topics.
const DESCRIBE: &str = "records.describe";

impl Shared {
    pub(super) async fn status(
        &self,
        call: &Arc<DataCall>,
        request: GetGroupStatusRequest,
    ) -> Result<GroupStatus, Error> {
        let group = call.group("group", &request.group, DESCRIBE)?;
        let until = answer_by(call);
        let over = dispatcher_ends(until);
        let asking = DispatchRequest { caller: &call.context, call: self.group_call(call, Arc::clone(&group)), until };
        let inspected = self.dispatching.inspect(&asking).await;
        let inspected = inspected.map_err(|error| self.told(error, call, &group, over))?;
        let mut status = inspected.status;
        status.group.clone_from(&group.name);
        if inspected.dispatching && status.dispatcher.is_empty() {
            status.dispatcher = match self.dispatching.owners.owner(group.group_uid) {
                Owner::Here => self.gateway_id.to_string(),
                Owner::There(peer) => peer.gateway_id.to_string(),
                Owner::Nobody => String::new(),
            };
        }
        if let Err(error) = call.limiter.check_egress() {
            let message = format!("this gateway holds records back: {}", error.message);
            let finding = Finding { state: DeliveryState::Throttled.into(), message, ..Finding::default() };
            status.findings.insert(0, finding);
        }
        Ok(status)
    }

    pub(super) async fn reset(
        &self,
        call: &Arc<DataCall>,
        request: ResetOffsetsRequest,
    ) -> Result<ResetOffsetsResponse, Error> {
        let group = call.group("group", &request.group, CONSUME)?;
        check(call, &group, &request)?;
        let until = answer_by(call);
        let over = dispatcher_ends(until);
        let asking = DispatchRequest { caller: &call.context, call: self.group_call(call, Arc::clone(&group)), until };
        let answer = self.dispatching.reset(&asking, request).await;
        answer.map_err(|error| self.told(error, call, &group, over))
    }

    fn told(&self, error: NoAnswer, call: &DataCall, group: &ResolvedGroup, over: Instant) -> Error {
        failure::in_time(error.into_error(&group.name), over, self.answers(call, group))
    }
}

fn check(call: &DataCall, group: &ResolvedGroup, request: &ResetOffsetsRequest) -> Result<(), Error> {
    match request.to {
        None => return Err(Error::invalid("position", "is required, or one of time and offset")),
        Some(To::Position(position)) => match Position::try_from(position) {
            Ok(Position::Earliest | Position::Latest) => {}
            _ => return Err(Error::invalid("position", "must be POSITION_EARLIEST or POSITION_LATEST")),
        },
        Some(To::Time(time)) if !time.is_valid() => {
            return Err(Error::invalid("time", "must be a time of the years 1..9999"));
        }
        Some(To::Offset(offset)) if offset < 0 => {
            return Err(Error::invalid("offset", format!("is {offset}; it must be 0 or more")));
        }
        Some(To::Time(_) | To::Offset(_)) => {}
    }
    if request.topic.is_empty() {
        return match request.partitions.is_empty() {
            true => Ok(()),
            false => Err(Error::invalid("partitions", "needs a topic; name the topic that they belong to")),
        };
    }
    let (namespace, topic) =
        ResourceName::parse_topic(&request.topic).map_err(|error| Error::invalid("topic", error))?;
    if namespace != group.namespace_id || !group.topics.contains(&topic) {
        return Err(Error::invalid("topic", "is not one of the group's topics; describe the group to see them"));
    }
    let partitions = match call.view().topic_lookup(&call.context.tenant, &namespace, &topic) {
        TopicLookup::Active(topic) => topic.partitions,
        TopicLookup::Pending | TopicLookup::Absent => {
            return Err(Error::new(
                ErrorKind::FailedPrecondition,
                Reason::ResourceState,
                format!("{} does not exist at the moment, so the group has no positions in it", request.topic),
            ));
        }
    };
    for (at, partition) in request.partitions.iter().enumerate() {
        if !(0..partitions).contains(partition) {
            let what = format!("is {partition}, but the topic has the partitions 0..{}", partitions - 1);
            return Err(Error::invalid(format!("partitions[{at}]"), what));
        }
    }
    Ok(())
}
