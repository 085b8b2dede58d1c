//! Errors as users meet them: a kind (which is a gRPC code and an HTTP status), a stable reason, a sentence.
//!
//! [`Error`] is what a handler returns. Its `message` is for the caller and names the field, the limit and the remedy;
//! what happened inside goes to `source` and to our logs, never into an answer. "Absent" and "not yours" are built by the
//! same function, [`Error::not_found`], so they cannot differ.

use std::fmt;
use std::time::Duration;

/// What kind of failure; one to one with a gRPC code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The request is wrong whatever the state.
    InvalidArgument,
    /// No valid credential.
    Unauthenticated,
    /// Known, but not allowed.
    PermissionDenied,
    /// Absent, or not visible to the caller.
    NotFound,
    /// The name is taken.
    AlreadyExists,
    /// Right request, wrong state.
    FailedPrecondition,
    /// A concurrent change won.
    Aborted,
    /// A position outside the log.
    OutOfRange,
    /// A limit.
    ResourceExhausted,
    /// Try again.
    Unavailable,
    /// Time was over.
    DeadlineExceeded,
    /// The caller went away.
    Cancelled,
    /// Not served here.
    Unimplemented,
    /// Our fault.
    Internal,
}

impl ErrorKind {
    /// The number of `google.rpc.Code`.
    pub const fn grpc_code(self) -> i32 {
        match self {
            Self::Cancelled => 1,
            Self::InvalidArgument => 3,
            Self::DeadlineExceeded => 4,
            Self::NotFound => 5,
            Self::AlreadyExists => 6,
            Self::PermissionDenied => 7,
            Self::ResourceExhausted => 8,
            Self::FailedPrecondition => 9,
            Self::Aborted => 10,
            Self::OutOfRange => 11,
            Self::Unimplemented => 12,
            Self::Internal => 13,
            Self::Unavailable => 14,
            Self::Unauthenticated => 16,
        }
    }

    /// The HTTP status that `google.rpc.Code` documents.
    pub const fn http_status(self) -> u16 {
        match self {
            Self::Cancelled => 499,
            Self::InvalidArgument | Self::FailedPrecondition | Self::OutOfRange => 400,
            Self::DeadlineExceeded => 504,
            Self::NotFound => 404,
            Self::AlreadyExists | Self::Aborted => 409,
            Self::PermissionDenied => 403,
            Self::ResourceExhausted => 429,
            Self::Unimplemented => 501,
            Self::Internal => 500,
            Self::Unavailable => 503,
            Self::Unauthenticated => 401,
        }
    }

    /// The name in `google.rpc.Code`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cancelled => "CANCELLED",
            Self::InvalidArgument => "INVALID_ARGUMENT",
            Self::DeadlineExceeded => "DEADLINE_EXCEEDED",
            Self::NotFound => "NOT_FOUND",
            Self::AlreadyExists => "ALREADY_EXISTS",
            Self::PermissionDenied => "PERMISSION_DENIED",
            Self::ResourceExhausted => "RESOURCE_EXHAUSTED",
            Self::FailedPrecondition => "FAILED_PRECONDITION",
            Self::Aborted => "ABORTED",
            Self::OutOfRange => "OUT_OF_RANGE",
            Self::Unimplemented => "UNIMPLEMENTED",
            Self::Internal => "INTERNAL",
            Self::Unavailable => "UNAVAILABLE",
            Self::Unauthenticated => "UNAUTHENTICATED",
        }
    }
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// Why, in one stable word for programs: `ErrorInfo.reason` in the domain `sluice`. Each has a paragraph in the
        /// error reference.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Reason {
            $($(#[$doc])* $name,)*
        }

        impl Reason {
            /// All reasons, for the reference and its test.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// As it stands in `ErrorInfo.reason`.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

reasons! {
    /// A field is missing, malformed or over its limit.
    InvalidField = "INVALID_FIELD",
    /// The body is not what its content type says.
    MalformedBody = "MALFORMED_BODY",
    /// The body, a batch or a record is over its size limit.
    TooLarge = "TOO_LARGE",
    /// The record is older than its topic keeps records.
    TimestampTooOld = "TIMESTAMP_TOO_OLD",
    /// No such route or method.
    RouteNotFound = "ROUTE_NOT_FOUND",
    /// No credential was sent.
    CredentialMissing = "CREDENTIAL_MISSING",
    /// The credential does not work: malformed, unknown, revoked or expired.
    CredentialInvalid = "CREDENTIAL_INVALID",
    /// The credential cannot be checked at the moment.
    CredentialUnverified = "CREDENTIAL_UNVERIFIED",
    /// One process of the service could not verify another, for instance because their clocks differ.
    CallerUnverified = "CALLER_UNVERIFIED",
    /// The tenant is switched off.
    TenantSuspended = "TENANT_SUSPENDED",
    /// The principal lacks the permission.
    PermissionMissing = "PERMISSION_MISSING",
    /// The resource is absent, or not visible to the caller.
    ResourceNotFound = "RESOURCE_NOT_FOUND",
    /// The id is taken.
    ResourceExists = "RESOURCE_EXISTS",
    /// The etag is not the current one.
    EtagMismatch = "ETAG_MISMATCH",
    /// The request id was used with another request.
    RequestIdReused = "REQUEST_ID_REUSED",
    /// The resource is protected against deletion.
    DeletionProtected = "DELETION_PROTECTED",
    /// The resource still has children.
    ResourceNotEmpty = "RESOURCE_NOT_EMPTY",
    /// A consumer group would read topics on several Kafka clusters.
    TopicsOnSeveralClusters = "TOPICS_ON_SEVERAL_CLUSTERS",
    /// The resource is being made.
    ResourcePending = "RESOURCE_PENDING",
    /// The resource is not in a state that allows this.
    ResourceState = "RESOURCE_STATE",
    /// A rate limit.
    RateLimited = "RATE_LIMITED",
    /// Too many failed authentications from this address.
    AuthenticationRateLimited = "AUTHENTICATION_RATE_LIMITED",
    /// Too much in flight.
    InFlightLimited = "IN_FLIGHT_LIMITED",
    /// A count limit of the plan.
    QuotaExceeded = "QUOTA_EXCEEDED",
    /// The process has more work than it can take.
    Overloaded = "OVERLOADED",
    /// The offset is outside the log.
    OffsetOutOfRange = "OFFSET_OUT_OF_RANGE",
    /// The streaming cluster does not answer.
    ClusterUnavailable = "CLUSTER_UNAVAILABLE",
    /// The record was never sent.
    NotSent = "NOT_SENT",
    /// The record was sent and no answer came.
    OutcomeUnknown = "OUTCOME_UNKNOWN",
    /// The control plane or its database does not answer.
    ControlPlaneUnavailable = "CONTROL_PLANE_UNAVAILABLE",
    /// Usage cannot be read at the moment.
    BillingUnavailable = "BILLING_UNAVAILABLE",
    /// Other work on the same things took longer than this call may wait.
    Contended = "CONTENDED",
    /// The reporting process does not hold the lease any more; between our processes only.
    LeaseLost = "LEASE_LOST",
    /// This gateway has not yet applied the revision that the caller has seen.
    RevisionBehind = "REVISION_BEHIND",
    /// The consumer group is moving to another gateway.
    GroupMoving = "GROUP_MOVING",
    /// The gateway that was asked does not dispatch the group; between gateways only.
    NotDispatcher = "NOT_DISPATCHER",
    /// Consumers of the group are connected.
    ConsumersConnected = "CONSUMERS_CONNECTED",
    /// The group has no dead-letter topic.
    NoDeadLetterTopic = "NO_DEAD_LETTER_TOPIC",
    /// The lease is over; the record comes again.
    StaleLease = "STALE_LEASE",
    /// The client of a stream has taken nothing of it for too long.
    ClientNotReading = "CLIENT_NOT_READING",
    /// Not an ack id of this group.
    AckIdInvalid = "ACK_ID_INVALID",
    /// The process is shutting down.
    ShuttingDown = "SHUTTING_DOWN",
    /// Time was over.
    DeadlineExceeded = "DEADLINE_EXCEEDED",
    /// Our fault.
    Internal = "INTERNAL",
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A cause, for our logs.
pub type Source = Box<dyn std::error::Error + Send + Sync + 'static>;

/// A failure to be answered. `Display` is for operators: kind and reason; `message` is for the caller.
#[derive(Debug, thiserror::Error)]
#[error("{} ({reason})", kind.as_str())]
pub struct Error {
    /// The kind.
    pub kind: ErrorKind,
    /// The reason.
    pub reason: Reason,
    /// For the caller.
    pub message: String,
    /// The request field at fault, in `BadRequest` and the message.
    pub field: Option<String>,
    /// When to come back, in `RetryInfo` and `Retry-After`.
    pub retry_after: Option<Duration>,
    /// More for programs, in `ErrorInfo.metadata`.
    pub metadata: Vec<(&'static str, String)>,
    /// For our logs only.
    #[source]
    pub source: Option<Source>,
}

impl Error {
    /// An error with a sentence for the caller.
    pub fn new(kind: ErrorKind, reason: Reason, message: impl Into<String>) -> Self {
        Self {
            kind,
            reason,
            message: message.into(),
            field: None,
            retry_after: None,
            metadata: Vec::new(),
            source: None,
        }
    }

    /// A field that breaks a rule: `"{field}: {what is wrong and what to do}"`.
    pub fn invalid(field: impl Into<String>, what: impl fmt::Display) -> Self {
        let field = field.into();
        let mut error = Self::new(ErrorKind::InvalidArgument, Reason::InvalidField, format!("{field}: {what}"));
        error.field = Some(field);
        error
    }

    /// Absent, or not the caller's: one text for both, made of what the caller sent.
    pub fn not_found(name: &str) -> Self {
        Self::new(ErrorKind::NotFound, Reason::ResourceNotFound, format!("{name} does not exist"))
    }

    /// Our fault; the cause goes to the log, the caller gets the request id to quote.
    pub fn internal(source: impl Into<Source>) -> Self {
        Self::new(ErrorKind::Internal, Reason::Internal, "internal error; quote the request id when you report it")
            .with_source(source)
    }

    /// Try again, with a reason.
    pub fn unavailable(reason: Reason, message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unavailable, reason, message)
    }

    /// With the cause, for our logs.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Source>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// With the time to come back.
    #[must_use]
    pub fn with_retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    /// With a pair for programs.
    #[must_use]
    pub fn with_metadata(mut self, key: &'static str, value: impl Into<String>) -> Self {
        self.metadata.push((key, value.into()));
        self
    }
}
