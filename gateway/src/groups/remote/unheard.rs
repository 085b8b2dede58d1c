//! What the dispatcher has leased for this door and this door has not got: the dispatcher is told.

use std::time::{Duration, Instant};

use sluice_proto::internal::gateway::v1 as wire;

use crate::groups::model::{DispatchError, GroupCall};

use super::{Remote, answered};

/// How long the dispatcher is told. A dispatcher that cannot be reached for longer has lost its groups, most likely.
const TELL_WITHIN: Duration = Duration::from_secs(5);
const TRY_WITHIN: Duration = Duration::from_secs(1);
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// What the dispatcher was asked for, under a name.
#[derive(Debug, Clone, Copy)]
enum Asked {
    Take,
    /// So many messages of the attachment were taken.
    Attachment {
        taken: u64,
    },
}

/// A take that has no answer yet, or an attachment that goes on. If it is dropped so, because the connection broke, because it took
/// too long or because nobody waits for it any more, records that have not arrived are handed back.
pub(super) struct Unheard(Option<Pending>);

struct Pending {
    remote: Remote,
    call: GroupCall,
    id: String,
    asked: Asked,
}

impl Unheard {
    /// A take that begins.
    pub(super) fn take(remote: &Remote, call: &GroupCall) -> Self {
        Self::of(remote, call, Asked::Take)
    }

    /// An attachment that begins.
    pub(super) fn attachment(remote: &Remote, call: &GroupCall) -> Self {
        Self::of(remote, call, Asked::Attachment { taken: 0 })
    }

    fn of(remote: &Remote, call: &GroupCall, asked: Asked) -> Self {
        let id = uuid::Uuid::new_v4().simple().to_string();
        Self(Some(Pending { remote: remote.clone(), call: call.clone(), id, asked }))
    }

    /// The name of the take or the attachment.
    pub(super) fn id(&self) -> String {
        self.0.as_ref().map(|pending| pending.id.clone()).unwrap_or_default()
    }

    /// One more message of the attachment was taken.
    pub(super) fn message_taken(&mut self) {
        if let Some(Pending { asked: Asked::Attachment { taken }, .. }) = &mut self.0 {
            *taken += 1;
        }
    }

    /// All has arrived.
    pub(super) fn heard(mut self) {
        self.0 = None;
    }
}

impl Drop for Unheard {
    fn drop(&mut self) {
        // Without a runtime the process ends.
        if let (Some(pending), Ok(runtime)) = (self.0.take(), tokio::runtime::Handle::try_current()) {
            runtime.spawn(tell(pending));
        }
    }
}

async fn tell(Pending { remote, call, id, asked }: Pending) {
    let until = Instant::now() + TELL_WITHIN;
    let mut pause = PAUSE_MIN;
    loop {
        let call = GroupCall { deadline: until.min(Instant::now() + TRY_WITHIN), ..call.clone() };
        let group = Some(remote.group(&call));
        let told = match remote.request(&call, wire::SettleRequest { group, ..asked.word(id.clone()) }) {
            Ok(request) => answered(&call, remote.client().settle(request)).await,
            Err(error) => Err(error),
        };
        match told {
            Err(DispatchError::Moving(_)) if Instant::now() < until => {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
            Err(error) => {
                return tracing::debug!(%error, "records that have not arrived come again when their leases end");
            }
            Ok(_) => return,
        }
    }
}

impl Asked {
    fn word(self, id: String) -> wire::SettleRequest {
        match self {
            Self::Take => wire::SettleRequest { unheard_take: id, ..wire::SettleRequest::default() },
            Self::Attachment { taken } => {
                let taken = i64::try_from(taken).unwrap_or(i64::MAX);
                let unheard_attachment = Some(wire::UnheardAttachment { attachment_id: id, taken });
                wire::SettleRequest { unheard_attachment, ..wire::SettleRequest::default() }
            }
        }
    }
}
