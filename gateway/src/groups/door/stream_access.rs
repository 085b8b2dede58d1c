//! Whether a stream may go on: its credential, its tenant, its grants, its group, looked up again while it lives.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::watch;

use sluice_types::error::Error;
use sluice_types::{Credential, OpContext};

use crate::access::DataCall;
use crate::groups::model::ResolvedGroup;

/// What a consumer needs on each topic.
pub(super) const CONSUME: &str = "records.consume";

/// Who is at the other end of a stream, as of the last look.
#[derive(Clone)]
pub(super) struct StreamAccess {
    call: Arc<DataCall>,
    group: Arc<ResolvedGroup>,
}

impl StreamAccess {
    pub(super) fn new(call: Arc<DataCall>, group: Arc<ResolvedGroup>) -> Self {
        Self { call, group }
    }

    pub(super) fn call(&self) -> &Arc<DataCall> {
        &self.call
    }

    pub(super) fn context(&self) -> &Arc<OpContext> {
        &self.call.context
    }

    /// The group, as the view had it at the last look.
    pub(super) fn group(&self) -> &Arc<ResolvedGroup> {
        &self.group
    }

    /// Tells when something of the tenant changes; `None`: the tenant is gone.
    pub(super) fn changes(&self) -> Option<watch::Receiver<u64>> {
        self.call.view().tenant(self.context().tenant.uid()).map(|tenant| tenant.changes())
    }

    /// When the credential expires, if it does.
    pub(super) fn expires_at(&self) -> Option<Instant> {
        let Credential::ApiKey(key) = self.context().principal.credential else { return None };
        let expire_time_ms = u64::try_from(self.call.view().key(key)?.expire_time_ms).ok().filter(|ms| *ms > 0)?;
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(expire_time_ms);
        // The wall clock may be moved meanwhile: the regular look finds it.
        Instant::now().checked_add(at.duration_since(SystemTime::now()).unwrap_or_default())
    }

    /// Looks everything up again. The error is the stream's end.
    pub(super) fn look_again(&mut self) -> Result<(), Error> {
        if let Some(renewed) = self.call.renewed()? {
            self.call = Arc::new(renewed);
        }
        let group = self.call.group("group", &self.group.name, CONSUME)?;
        if group.group_uid != self.group.group_uid {
            // Deleted and made again: another group.
            return Err(Error::not_found(&self.group.name));
        }
        self.group = group;
        Ok(())
    }
}
