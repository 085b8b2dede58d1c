//! From a name to a group, made on first use where the call names its topics and the caller may make groups.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;

use sluice_types::error::Error;
use sluice_types::{ErrorKind, GroupId, NamespaceId, OpContext, Reason};

use crate::access::DataCall;
use crate::groups::door::stream_access::CONSUME;
use crate::groups::door::{Shared, fields};
use crate::groups::home;
use crate::groups::model::{GroupCall, ResolvedGroup};

/// How long a group that was just made may take to come into this gateway's view.
const VISIBLE_WITHIN: Duration = Duration::from_secs(5);

/// Makes groups, as the caller and with the caller's rights.
pub trait MakeGroups: Send + Sync + 'static {
    /// Makes a group with defaults. One that exists already is as good.
    fn make<'a>(
        &'a self,
        caller: &'a OpContext,
        namespace: &'a NamespaceId,
        group: &'a GroupId,
        topics: &'a [String],
    ) -> BoxFuture<'a, Result<(), Error>>;
}

impl Shared {
    /// The group that the caller may consume.
    pub(super) async fn group(
        &self,
        call: &Arc<DataCall>,
        name: &str,
        topics: &[String],
        until: Instant,
    ) -> Result<Arc<ResolvedGroup>, Error> {
        match call.group("group", name, CONSUME) {
            Err(error) if error.kind == ErrorKind::NotFound && !topics.is_empty() => {
                // What the caller may not see stays absent.
                let (namespace, group) = call.check_group("group", name)?;
                fields::topics(topics)?;
                self.maker.make(&call.context, &namespace, &group, topics).await?;
                self.made(call, name, until.min(Instant::now() + VISIBLE_WITHIN)).await
            }
            found => found,
        }
    }

    /// Waits until the view has the group.
    async fn made(&self, call: &Arc<DataCall>, name: &str, until: Instant) -> Result<Arc<ResolvedGroup>, Error> {
        let tenant = call.view().tenant(call.context.tenant.uid()).ok_or_else(|| Error::not_found(name))?;
        let mut changes = tenant.changes();
        loop {
            changes.mark_unchanged();
            match call.group("group", name, CONSUME) {
                Err(error) if error.kind == ErrorKind::NotFound => {}
                found => return found,
            }
            if !matches!(tokio::time::timeout_at(until.into(), changes.changed()).await, Ok(Ok(()))) {
                return Err(Error::unavailable(
                    Reason::ResourcePending,
                    format!("{name} was just made and is not known here yet; try again"),
                )
                .with_retry_after(Duration::from_millis(500)));
            }
        }
    }

    /// Whether the cluster that the group lives on answers, as far as it is known.
    pub(super) fn answers(&self, call: &DataCall, group: &ResolvedGroup) -> bool {
        let Some(tenant) = call.view().tenant(group.tenant_uid) else { return true };
        let cluster = home::of_group(group, &tenant).and_then(|uid| self.clusters.get(uid));
        cluster.is_ok_and(|cluster| cluster.answers())
    }

    /// A call for the dispatcher; its deadline is set when it is made.
    pub(super) fn group_call(&self, call: &DataCall, group: Arc<ResolvedGroup>) -> GroupCall {
        GroupCall {
            group,
            account: call.context.principal.account_id.as_str().into(),
            door: Arc::clone(&self.gateway_id),
            deadline: call.context.deadline,
        }
    }
}
