//! Whether a stream may go on: its credential, its tenant, its grants, its group, looked up again while it lives.

use std::sync::Arc;

use tokio::sync::watch;

use sluice_types::OpContext;
use sluice_types::error::Error;

use crate::groups::model::ResolvedGroup;
use crate::ports::DataCall;

/// What a consumer needs on each topic.
pub(super) const CONSUME: &str = "records.consume";

/// Who is at the other end of a stream, as of the last look.
#[derive(Clone)]
pub(super) struct Standing {
    call: Arc<DataCall>,
    group: Arc<ResolvedGroup>,
}

impl Standing {
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
