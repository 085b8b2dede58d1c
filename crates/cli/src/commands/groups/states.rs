//! Delivery states in words: what one means, and what to do about it.

use sluice_proto::stream::v1::{DeliveryState, GroupStatus};

/// How a whole group fares, in a word or two and in a sentence. Where nobody consumes nothing is held back, and nothing flows.
pub(super) fn of_group(status: &GroupStatus) -> (&'static str, &'static str) {
    let state = status.state();
    let is_quiet = matches!(
        state,
        DeliveryState::Unspecified
            | DeliveryState::Flowing
            | DeliveryState::NoRecords
            | DeliveryState::CatchingUp
            | DeliveryState::NoCredit
    );
    match status.consumers.is_empty() {
        true if is_quiet && status.lag > 0 => ("idle", "nobody consumes"),
        true if is_quiet => ("idle", "nobody consumes, and nothing waits"),
        _ => (short(state), meaning(state)),
    }
}

/// Two or three words, for a column.
pub(crate) fn short(state: DeliveryState) -> &'static str {
    match state {
        DeliveryState::Unspecified => "-",
        DeliveryState::Flowing => "flowing",
        DeliveryState::NoRecords => "no records",
        DeliveryState::Assigning => "assigning",
        DeliveryState::WaitingForAcks => "waiting",
        DeliveryState::WindowFull => "window full",
        DeliveryState::Throttled => "throttled",
        DeliveryState::CatchingUp => "catching up",
        DeliveryState::ClusterUnavailable => "no cluster",
        DeliveryState::NoCredit => "no credit",
        DeliveryState::NoTopics => "no topics",
    }
}

/// A sentence.
pub(crate) fn meaning(state: DeliveryState) -> &'static str {
    match state {
        DeliveryState::Unspecified => "nothing is known yet",
        DeliveryState::Flowing => "records flow",
        DeliveryState::NoRecords => "all records were delivered and acknowledged",
        DeliveryState::Assigning => "the group is taking its partitions",
        DeliveryState::WaitingForAcks => {
            "all ready records are out: with consumers, in backoff, or behind an unacknowledged record of their key"
        }
        DeliveryState::WindowFull => "too many records lie behind one that is not acknowledged",
        DeliveryState::Throttled => "the tenant's limit holds records back",
        DeliveryState::CatchingUp => "a backlog is being read; records will come",
        DeliveryState::ClusterUnavailable => "a partition has no leader, or Kafka is away",
        DeliveryState::NoCredit => "the consumer has as many records out as it wants",
        DeliveryState::NoTopics => "none of the group's topics exists",
    }
}

/// What to do, if there is anything.
pub(crate) fn remedy(state: DeliveryState) -> Option<&'static str> {
    match state {
        DeliveryState::WaitingForAcks => {
            Some("acknowledge or refuse what is out; `sluice groups describe` shows how much that is, and where")
        }
        DeliveryState::WindowFull => {
            Some("acknowledge or refuse the oldest record, or give the group a dead-letter topic")
        }
        DeliveryState::Throttled => Some("read less, or ask for a larger limit"),
        DeliveryState::ClusterUnavailable => Some("wait: delivery goes on by itself when Kafka is back"),
        DeliveryState::NoCredit => Some("acknowledge, or give the consumer more credit"),
        DeliveryState::NoTopics => Some("create a topic, or change the topics with `sluice groups update`"),
        DeliveryState::Assigning => Some("wait a few seconds; if it stays so, see `sluice groups describe`"),
        _ => None,
    }
}
