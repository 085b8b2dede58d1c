//! The isolation gate: from a name that a caller sent to what it means for this caller.
//!
//! The frame (listeners, layers, view) has authenticated, limited and coarsely authorized a call before a handler sees it, and has
//! put an `Arc<DataCall>` into the request's extensions. [`DataCall::topic`] is the only way from a name to a physical topic: it
//! checks the grammar, the grants and the tenant's names together, so a handler cannot forget one, and "absent" and "not
//! yours" come from the same line.

use std::sync::{Arc, OnceLock};

use sluice_edge::admit::long_call;
use sluice_runtime::server::{ConnHandle, LongCall};
use sluice_types::error::Error;
use sluice_types::{ErrorKind, GroupId, NamespaceId, OpContext, Reason, ResourceName, TopicId, role};

use crate::groups::model::ResolvedGroup;
use crate::quota::TenantLimiter;
use crate::view::{ResolvedTopic, TopicLookup, View};

/// One authenticated call of the data plane; in the request's extensions as `Arc<DataCall>`.
pub struct DataCall {
    /// Tenant, principal, deadline, request id, trace, peer.
    pub context: Arc<OpContext>,
    /// The tenant's limits.
    pub limiter: Arc<TenantLimiter>,
    permission: &'static str,
    view: Arc<View>,
    connection: ConnHandle,
    /// The resource that the grants were found to cover: the layer asks before the handler does, and grants of a call do not change.
    permitted: OnceLock<Box<str>>,
}

impl DataCall {
    /// For the frame, once the credential is verified. `permission` is the one of the RPC's option.
    pub fn new(
        context: Arc<OpContext>,
        limiter: Arc<TenantLimiter>,
        permission: &'static str,
        view: Arc<View>,
    ) -> Self {
        Self { context, limiter, permission, view, connection: ConnHandle::default(), permitted: OnceLock::new() }
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
        Self { context, limiter, permission: self.permission, view, connection, permitted: OnceLock::new() }
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
        if self.permitted.get().is_some_and(|permitted| **permitted == *resource) {
            return Ok(());
        }
        let grants = &self.context.principal.grants;
        if role::allows(grants, self.permission, resource) {
            // Another one of the same call is decided by itself.
            self.permitted.get_or_init(|| resource.into());
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
