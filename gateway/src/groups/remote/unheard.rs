//! A take whose answer has not come: the dispatcher is told, for it may have leased records for it.

use std::time::{Duration, Instant};

use sluice_proto::internal::gateway::v1 as wire;

use crate::groups::model::{DispatchError, GroupCall};

use super::{Remote, answered};

/// How long the dispatcher is told. A dispatcher that cannot be reached for longer has lost its groups, most likely.
const TELL_WITHIN: Duration = Duration::from_secs(5);
const TRY_WITHIN: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(50);

/// A take that has no answer yet. If it is dropped so, because the connection broke, because it took too long or because nobody
/// waits for it any more, its records are handed back.
pub(super) struct Unheard(Option<(Remote, GroupCall, String)>);

impl Unheard {
    pub(super) fn new(remote: &Remote, call: &GroupCall) -> Self {
        Self(Some((remote.clone(), call.clone(), uuid::Uuid::new_v4().simple().to_string())))
    }

    /// The name of the take.
    pub(super) fn id(&self) -> String {
        self.0.as_ref().map(|(_, _, id)| id.clone()).unwrap_or_default()
    }

    /// An answer has come.
    pub(super) fn heard(mut self) {
        self.0 = None;
    }
}

impl Drop for Unheard {
    fn drop(&mut self) {
        // Without a runtime the process ends.
        if let (Some((remote, call, id)), Ok(runtime)) = (self.0.take(), tokio::runtime::Handle::try_current()) {
            runtime.spawn(tell(remote, call, id));
        }
    }
}

async fn tell(remote: Remote, call: GroupCall, id: String) {
    let until = Instant::now() + TELL_WITHIN;
    loop {
        let call = GroupCall { deadline: until.min(Instant::now() + TRY_WITHIN), ..call.clone() };
        let group = Some(remote.group(&call));
        let message = wire::SettleRequest { group, settlement: None, unheard_take: id.clone() };
        let told = match remote.request(&call, message) {
            Ok(request) => answered(&call, remote.client().settle(request)).await,
            Err(error) => Err(error),
        };
        match told {
            Err(DispatchError::Moving(_)) if Instant::now() < until => tokio::time::sleep(PAUSE).await,
            Err(error) => {
                return tracing::debug!(%error, "records of an answer that did not come, come again when their leases end");
            }
            Ok(_) => return,
        }
    }
}
