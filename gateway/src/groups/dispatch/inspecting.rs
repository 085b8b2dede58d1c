//! What a group does not know of itself is asked of Kafka, before its status is told.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::time::Instant;

use sluice_proto::stream::v1::{GroupStatus, PartitionStatus};
use sluice_wire::OffsetAt;

use crate::groups::dispatch::command::Reply;
use crate::groups::dispatch::shared::Io;
use crate::groups::dispatch::{explaining, positions, resting};
use crate::groups::model::{Inspected, ResolvedGroup};
use crate::view::ResolvedTopic;

/// Everything but ends that have to be asked for.
pub(super) struct Draft {
    pub(super) status: GroupStatus,
    /// By topic in Kafka: partitions whose end is not known, with their places in the status.
    pub(super) unknown: BTreeMap<Arc<str>, Vec<(i32, usize)>>,
    /// By topic and number: the places of partitions that are not open. What is committed tells how the group stands there.
    pub(super) closed: BTreeMap<(String, i32), usize>,
    pub(super) notes: explaining::Notes,
}

/// A status that is to be completed by what Kafka says, by a time.
pub(super) struct Inspection {
    pub(super) draft: Draft,
    pub(super) config: Arc<ResolvedGroup>,
    pub(super) closed_topics: Vec<Arc<ResolvedTopic>>,
    pub(super) half: Instant,
    pub(super) reply: Reply<Inspected>,
}

impl Inspection {
    /// Completes it, and answers.
    pub(super) async fn run(self, io: &Io) {
        let Self { draft, config, closed_topics, half, reply } = self;
        let Draft { mut status, unknown, closed, mut notes } = draft;
        let looking = async {
            match closed_topics.is_empty() {
                true => Ok(Vec::new()),
                false => resting::look(io, &config, &closed_topics, half).await,
            }
        };
        let ask = async {
            for (topic, partitions) in unknown {
                let numbers: Vec<i32> = partitions.iter().map(|(partition, _)| *partition).collect();
                let find = |at| positions::find_each(&io.handles.wire, &topic, &numbers, at);
                let (starts, ends) = tokio::join!(find(OffsetAt::Earliest), find(OffsetAt::Latest));
                for (partition, at) in partitions {
                    if let Some(Ok(end)) = ends.get(&partition) {
                        status.partitions[at].end_offset = *end;
                        notes.parts[at].is_end_unknown = false;
                    }
                    if let Some(Ok(start)) = starts.get(&partition) {
                        notes.parts[at].begin_at(*start);
                    }
                }
            }
        };
        let (_as_far_as_it_came, looked) =
            tokio::join!(tokio::time::timeout_at(half, ask), tokio::time::timeout_at(half, looking));
        for (seen, note) in looked.ok().and_then(Result::ok).into_iter().flatten() {
            if let Some(&at) = closed.get(&(seen.topic.clone(), seen.partition)) {
                stands_as(&mut status.partitions[at], &mut notes.parts[at], seen, note);
            }
        }
        explaining::complete(&mut status, &notes);
        let _gone = reply.send(Ok(Inspected { dispatching: true, status }));
    }
}

/// A partition that is not open stands as what is committed says.
fn stands_as(
    status: &mut PartitionStatus,
    note: &mut explaining::PartNote,
    seen: PartitionStatus,
    seen_note: explaining::PartNote,
) {
    let state = if seen_note.trouble.is_some() { seen.state } else { status.state };
    *status = PartitionStatus { state, ..seen };
    *note = explaining::PartNote { trouble: note.trouble.take().or(seen_note.trouble), ..seen_note };
}
