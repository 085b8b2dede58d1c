//! Taking a group: being its only member.
//!
//! Kafka checks who commits, not who owns the partition. So nothing is delivered before the coordinator shows nobody but us: a
//! member whose gateway is gone is made to leave at once, another one gets a moment to leave by itself. From then on Kafka refuses
//! the other's commits, whatever it believes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use sluice_wire::{Error, GroupDescription, code};

use crate::groups::dispatch::shared::Io;
use crate::members::live::Liveness;

const CALL: Duration = Duration::from_secs(2);
const LOOK_MIN: Duration = Duration::from_millis(10);
const LOOK_MAX: Duration = Duration::from_millis(100);

/// What is ours: topic and partition.
pub(super) type Target = BTreeSet<(Arc<str>, i32)>;

/// What a look at the group showed.
pub(super) enum Look {
    /// Nobody else is a member: this is ours.
    Alone(Target),
    /// Nobody else is a member, or will be in a moment: the coordinator gives us the rest when it hears of us again.
    Beat,
    /// Look again.
    NotYet,
}

/// Whether nobody else is a member. That it cannot be told is no proof.
pub(super) async fn is_alone(io: &Io, group: &str, member_id: &str) -> bool {
    let described = io.handles.wire.describe_group(group, CALL).await;
    described.is_ok_and(|group| group.members.iter().all(|other| other.member_id == *member_id))
}

/// Looks until we are the only member, or should be heard of; `since` is when we began to ask. An error is told, and means:
/// look again.
pub(super) async fn alone(io: Arc<Io>, group: Arc<str>, member_id: Arc<str>, since: Instant) -> Result<Look, Error> {
    let mut pause = LOOK_MIN;
    loop {
        match look(&io, &group, &member_id, since).await? {
            Look::NotYet => {}
            found => return Ok(found),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LOOK_MAX);
    }
}

async fn look(io: &Io, group: &str, member_id: &str, since: Instant) -> Result<Look, Error> {
    let described = match io.handles.wire.describe_group(group, CALL).await {
        Ok(described) => described,
        // We have not joined yet.
        Err(error) if error.kafka_code() == Some(code::GROUP_ID_NOT_FOUND) => return Ok(Look::NotYet),
        Err(error) => return Err(error),
    };
    let others: Vec<&str> =
        described.members.iter().map(|member| &*member.member_id).filter(|id| *id != member_id).collect();
    if others.is_empty() {
        return Ok(settled(&described, member_id));
    }
    let patient = since.elapsed() < io.shared.setting.timing.patience;
    let mut left = 0;
    for other in others {
        let liveness = io.shared.owners.liveness(other);
        if liveness != Liveness::Gone && patient {
            left += 1;
            continue;
        }
        tracing::info!(group, member = other, ?liveness, "makes another member leave");
        if io.handles.wire.leave_group_for(group, other, CALL).await? {
            io.shared.setting.metrics.evictions.inc();
        }
    }
    Ok(if left == 0 { Look::Beat } else { Look::NotYet })
}

/// Whether the coordinator has given us everything.
fn settled(described: &GroupDescription, member_id: &str) -> Look {
    match described.members.iter().find(|member| member.member_id == member_id) {
        Some(own) if described.assignment_epoch == described.epoch => {
            let target = own.target.iter().map(|partition| (Arc::clone(&partition.topic), partition.partition));
            Look::Alone(target.collect())
        }
        Some(_) => Look::Beat,
        None => Look::NotYet,
    }
}
