//! Where the frame and the data path meet: what each needs of the other, and nothing else.
//!
//! The frame (listeners, layers, view) has authenticated, limited and coarsely authorized a call before the data path sees
//! it, and has put an `Arc<DataCall>` into the request's extensions. [`DataCall::topic`] is the only way from a name to a
//! physical topic: it checks the grammar, the grants and the tenant's names together, so a handler cannot forget one, and
//! "absent" and "not yours" come from the same line.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use sluice_kafka::ProduceSink;
use sluice_log::Placement;
use sluice_runtime::config::KafkaConfig;
use sluice_runtime::server::{ConnHandle, LongCall};
use sluice_runtime::{Health, Metrics, TaskSet};
use sluice_types::error::Error;
use sluice_types::physical::PhysicalTopic;
use sluice_types::role;
use sluice_types::{
    ErrorKind, GroupId, NamespaceId, NamespaceUid, OpContext, Reason, ResourceName, TenantUid, TopicId, TopicUid,
};

use crate::groups::model::ResolvedGroup;
use crate::metering::Meter;
use crate::quota::TenantLimiter;
use crate::view::{TopicLookup, View};
use sluice_edge::admit::long_call;

pub use sluice_edge::Body;

/// A boxed future, for object-safe ports.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// In the extensions of an answer of which some parts failed: over HTTP its status is 207.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SomeFailed;

/// Whether a topic can be served: asked before a revision counts as applied.
pub trait TopicReadiness: Send + Sync + 'static {
    /// Waits until the leaders of all `partitions` are known to the producer and to the reading side; false if that could
    /// not be seen. The caller bounds the wait (1.5 s) by dropping the future.
    fn ready<'a>(&'a self, name: &'a PhysicalTopic, partitions: i32) -> BoxFuture<'a, bool>;
    /// The topic is gone for good: drop what is cached about it.
    fn forget(&self, name: &PhysicalTopic);
}

/// What the frame drives of the data path beside the RPCs of `StreamService`.
pub trait DataPath: TopicReadiness {
    /// `POST …/records`: JSON, or a raw record, or protobuf, by content type.
    fn http_produce(&self, call: HttpCall) -> BoxFuture<'_, Result<http::Response<Body>, Error>>;
    /// `GET …/records`.
    fn http_fetch(&self, call: HttpCall) -> BoxFuture<'_, Result<http::Response<Body>, Error>>;
    /// What consumer groups use of it.
    fn tools(&self) -> DataTools;
    /// Called when no call is in flight any more: flush the producers, then close the usage windows (`last = true`).
    /// Returns by `deadline`.
    fn shutdown(&self, deadline: Instant) -> BoxFuture<'_, ()>;
}

/// What the data path lends to consumer groups; clones are the same.
#[derive(Clone)]
pub struct DataTools {
    /// Appends records.
    pub sink: Arc<dyn ProduceSink>,
    /// Our Kafka client.
    pub wire: sluice_wire::Client,
    /// Reads records for many.
    pub reader: sluice_wire::Reader,
    /// Counts usage.
    pub meter: Meter,
}

/// What the data path is built from.
pub struct DataParts {
    /// `{gateway id}`, stable over restarts.
    pub gateway_id: String,
    /// This start of it.
    pub boot_id: String,
    /// The cluster.
    pub kafka: KafkaConfig,
    /// Our Kafka client, shared with the rest of the gateway.
    pub wire: sluice_wire::Client,
    /// Where the data path says how it fares.
    pub health: Health,
    /// Where its figures go.
    pub metrics: Metrics,
    /// Its tasks; their token is cancelled after [`DataPath::shutdown`].
    pub tasks: TaskSet,
}

/// An HTTP call on a hot route: the body is whole, inflated and within the body limit.
pub struct HttpCall {
    /// Method, URI with query, headers, extensions.
    pub parts: http::request::Parts,
    /// The path's variable `topic`, percent-decoded, e.g. `namespaces/prod/topics/orders`; its grammar is not checked yet.
    pub topic: String,
    /// The body.
    pub body: Bytes,
    /// The authenticated call.
    pub call: Arc<DataCall>,
}

/// A tenant's topic that is in service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedTopic {
    /// Its name in Kafka.
    pub physical: PhysicalTopic,
    /// The tenant.
    pub tenant_uid: TenantUid,
    /// The namespace.
    pub namespace_uid: NamespaceUid,
    /// This life of the topic.
    pub topic_uid: TopicUid,
    /// Where its records lie.
    pub placement: Placement,
    /// Partitions in service, at least 1.
    pub partitions: i32,
    /// Whether it is compacted: it takes no record without key.
    pub compacted: bool,
    /// How old a record may be that it takes, ms; `None`: as old as it likes.
    pub record_age_ms_max: Option<i64>,
    /// Whether it keeps the time of appending: a producer's time goes into a header.
    pub log_append_time: bool,
    /// The tenants' name: `namespaces/{namespace}/topics/{topic}`.
    pub name: String,
}

/// One authenticated call of the data plane; in the request's extensions as `Arc<DataCall>`.
pub struct DataCall {
    /// Tenant, principal, deadline, request id, trace, peer.
    pub context: Arc<OpContext>,
    /// The tenant's limits.
    pub limiter: Arc<TenantLimiter>,
    permission: &'static str,
    view: Arc<View>,
    connection: ConnHandle,
}

impl DataCall {
    /// For the frame, once the credential is verified. `permission` is the one of the RPC's option.
    pub fn new(
        context: Arc<OpContext>,
        limiter: Arc<TenantLimiter>,
        permission: &'static str,
        view: Arc<View>,
    ) -> Self {
        Self { context, limiter, permission, view, connection: ConnHandle::default() }
    }

    /// The connection that it came on.
    #[must_use]
    pub fn on(self, connection: ConnHandle) -> Self {
        Self { connection, ..self }
    }

    /// Counts a call that waits for records among those of its connection, until the guard is dropped.
    ///
    /// RESOURCE_EXHAUSTED: as many wait as may; the others of the connection's streams are for calls that do not.
    pub fn waits(&self) -> Result<LongCall, Error> {
        long_call(&self.connection)
    }

    /// The call that the frame left in the extensions of a tonic or an HTTP request.
    pub fn of(extensions: &http::Extensions) -> Result<Arc<Self>, Error> {
        extensions
            .get::<Arc<Self>>()
            .cloned()
            .ok_or_else(|| Error::internal("a data call reached its handler past the authorization layer"))
    }

    /// The topic that `name` means to this caller. `field` is the request field that holds it, for the error.
    ///
    /// INVALID_ARGUMENT: not a topic's name. PERMISSION_DENIED: a grant covers the name but lacks the permission, whether
    /// or not the topic exists. NOT_FOUND: absent or not visible, one text for both. UNAVAILABLE: being created.
    pub fn topic(&self, field: &str, name: &str) -> Result<Arc<ResolvedTopic>, Error> {
        let (namespace, topic) = self.check(field, name)?;
        match self.view.topic_lookup(&self.context.tenant, &namespace, &topic) {
            TopicLookup::Active(topic) => Ok(topic),
            TopicLookup::Pending => Err(Error::unavailable(
                Reason::ResourcePending,
                format!("{name} is being created; wait for its operation, or try again"),
            )
            .with_retry_after(std::time::Duration::from_millis(500))),
            TopicLookup::Absent => Err(self.absent(name)),
        }
    }

    /// What is not in the view does not exist, unless the view may be old.
    fn absent(&self, name: &str) -> Error {
        match self.view.is_behind() {
            false => Error::not_found(name),
            true => Error::unavailable(
                Reason::RevisionBehind,
                format!("this gateway has just started and cannot tell yet whether {name} exists; try again"),
            )
            .with_retry_after(std::time::Duration::from_millis(500)),
        }
    }

    /// The group that `name` means to this caller, who must have the RPC's permission on it and `topic_permission` on each of
    /// its topics.
    ///
    /// Errors as those of [`DataCall::topic`], without UNAVAILABLE.
    pub fn group(&self, field: &str, name: &str, topic_permission: &str) -> Result<Arc<ResolvedGroup>, Error> {
        let (namespace, id) = self.check_group(field, name)?;
        let tenant = self.view.tenant(self.context.tenant.uid());
        let group = tenant.and_then(|tenant| tenant.names().group(&namespace, &id));
        let group = group.ok_or_else(|| self.absent(name))?;
        for topic in &group.topics {
            self.permit_other(topic_permission, &format!("namespaces/{namespace}/topics/{topic}"))?;
        }
        Ok(group)
    }

    /// The part of [`DataCall::group`] that needs no look-up: grammar and grants.
    pub fn check_group(&self, field: &str, name: &str) -> Result<(NamespaceId, GroupId), Error> {
        let ids = ResourceName::parse_group(name).map_err(|error| Error::invalid(field, error))?;
        self.permit(name)?;
        Ok(ids)
    }

    /// Whether the caller has another permission, on a resource that the call touches besides the one it names.
    pub fn permit_other(&self, permission: &str, resource: &str) -> Result<(), Error> {
        match role::allows(&self.context.principal.grants, permission, resource) {
            true => Ok(()),
            false => Err(permission_missing(permission, resource)),
        }
    }

    /// The same call of the same caller, with what is known of it now.
    pub fn with_context(&self, context: Arc<OpContext>, limiter: Arc<TenantLimiter>) -> Self {
        let (view, connection) = (Arc::clone(&self.view), self.connection.clone());
        Self { context, limiter, permission: self.permission, view, connection }
    }

    /// The permission of the RPC.
    pub fn permission(&self) -> &'static str {
        self.permission
    }

    /// The view, for look-ups of what the group names.
    pub fn view(&self) -> &Arc<View> {
        &self.view
    }

    /// The part of [`DataCall::topic`] that needs no look-up: grammar and grants.
    pub fn check(&self, field: &str, name: &str) -> Result<(NamespaceId, TopicId), Error> {
        let ids = ResourceName::parse_topic(name).map_err(|error| Error::invalid(field, error))?;
        self.permit(name)?;
        Ok(ids)
    }

    /// Decides without asking whether the resource exists, so the answer cannot tell.
    fn permit(&self, resource: &str) -> Result<(), Error> {
        let grants = &self.context.principal.grants;
        if role::allows(grants, self.permission, resource) {
            Ok(())
        } else if role::sees(grants, resource) {
            Err(permission_missing(self.permission, resource))
        } else {
            Err(Error::not_found(resource))
        }
    }
}

/// The principal sees the resource but may not do this.
pub fn permission_missing(permission: &str, resource: &str) -> Error {
    Error::new(
        ErrorKind::PermissionDenied,
        Reason::PermissionMissing,
        format!("the credential lacks the permission {permission} on {resource}; ask an owner of the tenant for a role that has it"),
    )
    .with_metadata("permission", permission)
}
