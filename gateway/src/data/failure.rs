//! What failed in Kafka, as callers meet it. Physical names and brokers stay in the cause, which only our log sees.

use std::time::Instant;

use sluice_kafka::Failure;
use sluice_proto::Any;
use sluice_proto::google::rpc;
use sluice_runtime::statuses::DOMAIN;
use sluice_types::error::Error;
use sluice_types::{ErrorKind, Reason};

use crate::clusters::unavailable;

/// Kafka's code for records that a compacted topic cannot take: those without a key. We keep them from it, if we know of the
/// compaction; everything else that it would refuse with this code is refused by us before.
const INVALID_RECORD: i32 = 87;

/// Whose fault a failure was that came when the caller's own time was over: nobody's, unless the cluster is known not to answer.
pub(crate) fn in_time(error: Error, until: Instant, cluster_answers: bool) -> Error {
    let is_over = error.reason == Reason::ClusterUnavailable && Instant::now() >= until;
    if !is_over || !cluster_answers {
        return error;
    }
    let late = Error::new(
        ErrorKind::DeadlineExceeded,
        Reason::DeadlineExceeded,
        "the call's time was over before the streaming cluster answered; give the call more time, or try again",
    );
    Error { source: error.source, ..late }
}

/// A caller's own time was over before a group's dispatcher had done what it was asked for.
pub(crate) fn late_dispatcher() -> Error {
    Error::new(
        ErrorKind::DeadlineExceeded,
        Reason::DeadlineExceeded,
        "the call's time was over before the group's dispatcher answered; give the call more time, or try again",
    )
}

/// A failed read. `name` is the tenant's name of the topic.
pub(crate) fn reading(error: sluice_wire::Error, name: &str) -> Error {
    use sluice_wire::Error as Wire;
    match error {
        // The view is a moment behind: the topic, or this life of it, is gone.
        Wire::UnknownTopic { .. } | Wire::TopicReplaced { .. } => Error::not_found(name).with_source(error),
        Wire::Decode(_) | Wire::Unsupported { .. } | Wire::InvalidRequest(_) | Wire::Authentication { .. } => {
            Error::internal(error)
        }
        Wire::Throttled { pause } => Error::unavailable(
            Reason::Overloaded,
            "the streaming cluster limits how much is read from it at the moment; try again",
        )
        .with_retry_after(pause)
        .with_source(error),
        other => unavailable(other),
    }
}

/// Errors that gRPC's own path would not log.
pub(crate) fn log(error: &Error) {
    let source = error.source.as_deref().map(|source| source as &dyn std::error::Error);
    match error.kind {
        ErrorKind::Internal => tracing::error!(%error, source, "call failed"),
        ErrorKind::Unavailable => tracing::debug!(%error, source, "call failed"),
        _ => {}
    }
}

/// A record without key, for a compacted topic.
pub(crate) fn keyless() -> Error {
    Error::new(
        ErrorKind::FailedPrecondition,
        Reason::ResourceState,
        "the topic is compacted and the record has no key; it was not stored; give it a key, or write to a topic that is not \
         compacted",
    )
}

/// Why a record was certainly not stored.
pub(crate) fn not_persisted(failure: Failure, name: &str) -> Error {
    match failure {
        Failure::Deadline => Error::new(
            ErrorKind::DeadlineExceeded,
            Reason::NotSent,
            "the call's time was over before the record was sent; it was not stored; send it again, with more time",
        ),
        Failure::Unavailable => Error::unavailable(
            Reason::NotSent,
            "the streaming cluster could not take the record; it was not stored; send it again",
        ),
        Failure::Overloaded => Error::unavailable(
            Reason::Overloaded,
            "too much waits for the streaming cluster; the record was not stored; send it again later",
        ),
        Failure::Closing => Error::unavailable(
            Reason::ShuttingDown,
            "this gateway is shutting down; the record was not stored; send it again",
        ),
        Failure::UnknownTopic | Failure::UnknownPartition => Error::not_found(name),
        Failure::TooLarge => Error::new(
            ErrorKind::InvalidArgument,
            Reason::TooLarge,
            "the record is larger than the topic allows; it was not stored; make it smaller",
        ),
        Failure::Refused(INVALID_RECORD) => keyless(),
        Failure::Refused(code) => Error::new(
            ErrorKind::FailedPrecondition,
            Reason::ResourceState,
            "the topic's settings do not allow this record; it was not stored; change the record or the settings",
        )
        .with_source(format!("kafka code {code}")),
    }
}

/// Why it is not known whether a record was stored.
pub(crate) fn possibly_persisted() -> Error {
    Error::new(
        ErrorKind::DeadlineExceeded,
        Reason::OutcomeUnknown,
        "the record was sent and no answer came in time; it may be stored, now or soon; sending it again may store it twice",
    )
}

/// An error inside of an answer.
pub(crate) fn to_status(error: &Error) -> rpc::Status {
    let metadata = error.metadata.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
    let info = rpc::ErrorInfo { reason: error.reason.as_str().to_owned(), domain: DOMAIN.to_owned(), metadata };
    let mut details = vec![Any::pack(&info)];
    if let Some(field) = &error.field {
        let violation = rpc::bad_request::FieldViolation {
            field: field.clone(),
            description: error.message.clone(),
            ..Default::default()
        };
        details.push(Any::pack(&rpc::BadRequest { field_violations: vec![violation] }));
    }
    rpc::Status { code: error.kind.grpc_code(), message: error.message.clone(), details }
}
