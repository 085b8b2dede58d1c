//! Dead letters of a group: listing them, and publishing them once more.
//!
//! The dead-letter topic is an ordinary topic of the tenant and may hold letters of several groups and other records; a letter says in
//! its headers whose it is. Which ones were redriven is kept as committed offsets ([`redriven`]). A page does a bounded amount of
//! reading, so it may be empty and not the last. Its letters count as delivered when the client's transport has taken it. A partition
//! that cannot be read fails alone.

mod failing;
mod filling;
mod letter;
mod page;
mod reading;
mod redrive;
mod redriven;

use std::sync::Arc;

use sluice_proto::stream::v1::{ListDeadLettersRequest, ListDeadLettersResponse, PayloadEncoding};
use sluice_types::error::Error;
use sluice_types::limits::{PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX};
use sluice_types::{ErrorKind, Reason};

use crate::access::DataCall;
use crate::data::{answer_by, failure};
use crate::groups::door::stream_access::CONSUME;
use crate::groups::door::{Shared, fields};
use crate::groups::model::ResolvedGroup;
use crate::quota::InFlightGuard;
use crate::transport::TrackedAnswer;
use crate::view::ResolvedTopic;

use self::filling::Filling;
use self::page::{Pages, Place};
use self::reading::{Letters, Ready};

/// What looking at a group needs on each of its topics.
const DESCRIBE: &str = "records.describe";
/// What a call may hold while it looks for letters.
const HELD_BYTES: u64 = 4 << 20;

impl Shared {
    pub(super) async fn list_dead_letters(
        &self,
        call: &Arc<DataCall>,
        request: ListDeadLettersRequest,
    ) -> Result<(ListDeadLettersResponse, Option<TrackedAnswer>), Error> {
        let group = call.group("group", &request.group, DESCRIBE)?;
        let topic = dead_letter_topic(call, &group)?;
        // As every list has it: a page of more than the most is one of the most.
        let size = request.page_size.min(PAGE_SIZE_MAX);
        let most = fields::bounded("pageSize", size, PAGE_SIZE_DEFAULT as usize, PAGE_SIZE_MAX as usize)?;
        let encoding = fields::encoding(request.encoding)?;
        let pages = Pages::new(self.ack_ids.keys(), call, &group, &topic, encoding);
        let from = pages.read(&request.page_token)?;
        call.limiter.check_egress()?;
        let held = call.limiter.in_flight(HELD_BYTES)?;
        let until = answer_by(call);
        let log = self.clusters.log(&topic)?;
        let late = |error| failure::in_time(error, until, log.answers());
        let mut letters = Letters::open(&log, &group, from, until).await.map_err(late)?;
        let mut page = Filling::default();
        let mut counts = Counts::default();
        let next = loop {
            if page.len() >= most {
                break Some(letters.place());
            }
            match letters.next().await.map_err(late)? {
                Ready::Letter(letter) => {
                    let (shown, size) = letter.show(encoding);
                    if !page.push(shown)? {
                        break Some(letter.place());
                    }
                    counts.add(letter.partition, size);
                }
                Ready::Pause => break Some(letters.place()),
                Ready::End => break None,
            }
        };
        let (page, mut failing) = (page.letters(), letters.take_failing());
        if page.is_empty() {
            failing = failing.unless_all(topic.partitions.unsigned_abs() as usize).map_err(late)?;
        }
        let parcel = (!page.is_empty()).then(|| self.parcel(call, Arc::clone(&topic), counts, held));
        let next_page_token = next.map(|place| pages.token(place)).unwrap_or_default();
        Ok((ListDeadLettersResponse { dead_letters: page, next_page_token, failures: failing.told() }, parcel))
    }

    /// Books a page; counts its delivery, or takes back what was booked.
    fn parcel(&self, call: &DataCall, topic: Arc<ResolvedTopic>, counts: Counts, held: InFlightGuard) -> TrackedAnswer {
        call.limiter.charge_egress(counts.bytes);
        let (limiter, meter) = (Arc::clone(&call.limiter), self.meter.clone());
        TrackedAnswer::new(move |taken| {
            if taken {
                for (partition, records, bytes) in counts.runs {
                    meter.delivered(&topic, partition, records, bytes);
                }
            } else {
                limiter.refund_egress(counts.bytes);
            }
            drop(held);
        })
    }
}

/// What a page holds.
#[derive(Debug, Default)]
struct Counts {
    /// Logical bytes of all.
    bytes: u64,
    /// Partition, records, bytes, in order.
    runs: Vec<(i32, u64, u64)>,
}

impl Counts {
    fn add(&mut self, partition: i32, size: u64) {
        self.bytes += size;
        match self.runs.last_mut() {
            Some((of, records, bytes)) if *of == partition => {
                *records += 1;
                *bytes += size;
            }
            _ => self.runs.push((partition, 1, size)),
        }
    }
}

/// The topic that holds the letters; the caller may read it.
fn dead_letter_topic(call: &DataCall, group: &ResolvedGroup) -> Result<Arc<ResolvedTopic>, Error> {
    let none = |what: String| Err(Error::new(ErrorKind::FailedPrecondition, Reason::NoDeadLetterTopic, what));
    let Some(id) = &group.dead_letter_topic else {
        return none(format!("{} has no dead-letter topic; update the group to give it one", group.name));
    };
    let name = format!("namespaces/{}/topics/{id}", group.namespace_id);
    call.permit_other(CONSUME, &name)?;
    let tenant = call.view().tenant(group.tenant_uid);
    match tenant.and_then(|tenant| tenant.names().topic_in(group.namespace_uid, id)) {
        Some(topic) => Ok(topic),
        None => none(format!("the dead-letter topic {name} does not exist; create it, or change the group")),
    }
}

/// The beginning of the first partition.
const FIRST: Place = Place { partition: 0, offset: 0 };

/// What decides the content of a page beside its place.
fn word_of(encoding: PayloadEncoding) -> &'static str {
    encoding.as_str_name()
}
