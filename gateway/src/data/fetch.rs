//! Reading one partition from a position, with long poll.
//!
//! Bytes are counted against the tenant before they are asked for: a read holds its `max_bytes` of the tenant's bytes in
//! flight; one that waits at the end of the log asks for, and holds, little, since it returns with the first record. Records
//! that inflate are decoded until they hold as much, and what one batch takes beyond it is counted too, as is what an answer in
//! protobuf takes beyond it. All is held until the client's transport has the answer.
//!
//! Records count as delivered when the client's transport has taken the whole answer. Their bytes are booked against the tenant's rate
//! before that, and taken back if the answer never left.
//!
//! An answer in protobuf can be many times what is stored, so it is cut where default clients would not take it any more.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sluice_log::LogicalOffset;
use sluice_proto::stream::v1::fetch_request::Start;
use sluice_proto::stream::v1::{FetchRequest, FetchResponse, Isolation as AskedIsolation, PayloadEncoding, Position};
use sluice_proto::wkt;
use sluice_runtime::server::LongCall;
use sluice_types::error::Error;
use sluice_types::limits::{
    FETCH_BYTES_DEFAULT, FETCH_BYTES_MAX, FETCH_RECORDS_DEFAULT, FETCH_RECORDS_MAX, FETCH_WAIT_MS_MAX,
};
use sluice_types::{ErrorKind, Reason};
use sluice_wire::{DecodeLimits, Isolation, OffsetAt};

use crate::access::DataCall;
use crate::clusters::{Log, Read, ReadRequest};
use crate::data::encode::{ANSWER_MESSAGE_BYTES_MAX, Bounds, Shown, answer_json, encode};
use crate::data::{Data, answer_by, failure, time_left};
use crate::quota::InFlightGuard;
use crate::transport::TrackedAnswer;
use crate::view::ResolvedTopic;

/// Bytes asked for by a read that waits.
const WAITING_BYTES: u32 = 64 << 10;
/// Who asks for no more than gRPC clients take by default gets no more, whatever becomes of the records on the way.
const DEFAULT_CLIENT_BYTES: u64 = 4 << 20;

/// The form in which an answer goes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Json,
    /// In protobuf, which clients take up to a size only.
    Message,
}

/// A request whose fields are good.
#[derive(Debug)]
struct CheckedFetch {
    partition: i32,
    start: Start,
    bounds: Bounds,
    wait: Duration,
    isolation: Isolation,
    encoding: PayloadEncoding,
    form: Form,
}

/// An answer in no protocol's form yet.
pub(super) struct Answer {
    records: Vec<Shown>,
    /// The answer without its records.
    rest: FetchResponse,
    /// Counts the delivery, or takes back what was booked for it.
    pub(super) parcel: Option<TrackedAnswer>,
}

/// What a call found.
struct Found {
    records: Vec<Shown>,
    /// The answer without its records.
    rest: FetchResponse,
    /// Logical bytes of the records.
    bytes: u64,
    /// What it holds of the tenant's bytes in flight.
    held: InFlightGuard,
}

impl Answer {
    pub(super) fn into_message(self) -> FetchResponse {
        FetchResponse { records: self.records.into_iter().map(Shown::into_message).collect(), ..self.rest }
    }

    pub(super) fn into_json(self) -> Result<Vec<u8>, Error> {
        answer_json(self.records, &self.rest).map_err(Error::internal)
    }
}

impl Data {
    pub(super) async fn fetch_records(
        &self,
        call: &DataCall,
        request: FetchRequest,
        form: Form,
    ) -> Result<Answer, Error> {
        let topic = call.topic("topic", &request.topic)?;
        let checked = check(&request, form, &topic)?;
        let waits = (!checked.wait.is_zero()).then(|| call.waits()).transpose()?;
        call.limiter.check_egress()?;
        let log = self.log(call, &topic)?;
        let until = answer_by(call);
        let fetch = async {
            let fetch = Fetch { log: &log, call, checked: &checked, until };
            fetch.run().await.map_err(|error| failure::in_time(error, until, log.answers()))
        };
        // What waits is given up when its caller may not go on; what came is given to who still may have it.
        let still = |call: &DataCall| match call.topic("topic", &request.topic)?.topic_uid == topic.topic_uid {
            true => Ok(()),
            // Deleted and made again: another topic.
            false => Err(Error::not_found(&request.topic)),
        };
        let found = match checked.wait.is_zero() {
            true => {
                let fetched = fetch.await?;
                call.holds(still)?;
                fetched
            }
            false => call.while_holds(still, fetch).await?,
        };
        Ok(self.answer(call, topic, checked.partition, found, waits))
    }
}

impl Data {
    /// `waits`: it is one of the calls of its connection that wait, until its answer has left.
    fn answer(
        &self,
        call: &DataCall,
        topic: Arc<ResolvedTopic>,
        partition: i32,
        found: Found,
        waits: Option<LongCall>,
    ) -> Answer {
        let Found { records, rest, bytes, held } = found;
        if records.is_empty() {
            return Answer { records, rest, parcel: None };
        }
        call.limiter.charge_egress(bytes);
        let (limiter, meter, count) = (Arc::clone(&call.limiter), self.meter.clone(), records.len() as u64);
        let parcel = TrackedAnswer::new(move |taken| {
            match taken {
                true => meter.delivered(&topic, partition, count, bytes),
                false => limiter.refund_egress(bytes),
            }
            drop((held, waits));
        });
        Answer { records, rest, parcel: Some(parcel) }
    }
}

/// One call under way.
struct Fetch<'a> {
    log: &'a Log,
    call: &'a DataCall,
    checked: &'a CheckedFetch,
    until: Instant,
}

impl Fetch<'_> {
    async fn run(&self) -> Result<Found, Error> {
        let wait_until = self.until.min(Instant::now() + self.checked.wait);
        let max_bytes = u32::try_from(self.checked.bounds.bytes_max).unwrap_or(u32::MAX);
        let mut offset = self.start().await?;
        // What is there now; then, if nothing is, a small read that waits. Batches without records move us on.
        let mut waiting = false;
        loop {
            let asked = if waiting { max_bytes.min(WAITING_BYTES) } else { max_bytes };
            let wait = if waiting { time_left(wait_until) } else { Duration::ZERO };
            let mut held = self.call.limiter.in_flight(asked.into())?;
            let found = self.read(offset, asked, wait).await?;
            held.add((found.held_bytes as u64).saturating_sub(asked.into()));
            let encoded = encode(found.records, self.checked.partition, self.checked.encoding, self.checked.bounds);
            let next_offset = encoded.cut_at.unwrap_or(found.next_offset.get());
            let over = Instant::now() >= wait_until;
            if !encoded.records.is_empty()
                || (over && (waiting || self.checked.wait.is_zero() || next_offset == offset.get()))
            {
                let rest = FetchResponse {
                    records: Vec::new(),
                    next_offset,
                    log_start_offset: found.log_start.get(),
                    end_offset: found.end.get(),
                };
                if self.checked.form == Form::Message {
                    let more = encoded.message_bytes.saturating_sub(found.held_bytes.max(asked as usize));
                    held.add(more as u64);
                }
                return Ok(Found { records: encoded.records, rest, bytes: encoded.bytes, held });
            }
            waiting = next_offset == offset.get() && !over;
            offset = LogicalOffset::new(next_offset).map_err(Error::internal)?;
        }
    }

    async fn start(&self) -> Result<LogicalOffset, Error> {
        let at = match self.checked.start {
            Start::Offset(offset) => return LogicalOffset::new(offset).map_err(Error::internal),
            Start::Position(position) if position == Position::Latest as i32 => OffsetAt::Latest,
            Start::Position(_) => OffsetAt::Earliest,
            Start::Time(time) => OffsetAt::TimestampMs(time.as_millis()),
        };
        match self.find(at).await? {
            Some(offset) => Ok(offset),
            // No record that late: wait for the next one.
            None => Ok(self.find(OffsetAt::Latest).await?.unwrap_or(LogicalOffset::ZERO)),
        }
    }

    async fn find(&self, at: OffsetAt) -> Result<Option<LogicalOffset>, Error> {
        let Self { checked, log, .. } = self;
        let found = log.offset(checked.partition, at, checked.isolation, time_left(self.until)).await;
        found.map_err(|error| failure::reading(error, &log.topic().name))
    }

    async fn read(&self, offset: LogicalOffset, max_bytes: u32, max_wait: Duration) -> Result<Read, Error> {
        // Beside the records' bytes, what each takes in memory; as many as go into an answer.
        let records = self.checked.bounds.records_max * size_of::<sluice_wire::Record>();
        let request = ReadRequest {
            partition: self.checked.partition,
            offset,
            max_bytes,
            max_wait,
            isolation: self.checked.isolation,
            limits: DecodeLimits::held_bytes(max_bytes as usize + records),
        };
        match self.log.read(request, time_left(self.until)).await {
            Ok(found) => Ok(found),
            Err(sluice_wire::Error::OffsetOutOfRange { log_start_offset, end_offset, .. }) => {
                Err(out_of_range(offset.get(), log_start_offset, end_offset))
            }
            Err(error) => Err(failure::reading(error, &self.log.topic().name)),
        }
    }
}

fn out_of_range(offset: i64, start: i64, end: i64) -> Error {
    Error::new(
        ErrorKind::OutOfRange,
        Reason::OffsetOutOfRange,
        format!(
            "offset: {offset} is outside of the log, which holds {start}..{end}; begin at EARLIEST, LATEST or a time"
        ),
    )
    .with_metadata("logStartOffset", start.to_string())
    .with_metadata("endOffset", end.to_string())
}

fn check(request: &FetchRequest, form: Form, topic: &ResolvedTopic) -> Result<CheckedFetch, Error> {
    check_partition("partition", request.partition, topic)?;
    let start = request.start.unwrap_or(Start::Position(Position::Earliest.into()));
    match start {
        Start::Offset(offset) if offset < 0 => {
            return Err(Error::invalid("offset", format!("is {offset}; it must be 0 or more")));
        }
        Start::Position(position) if Position::try_from(position).is_err() => {
            return Err(Error::invalid("position", format!("is {position}; it must be EARLIEST or LATEST")));
        }
        Start::Time(time) if !time.is_valid() => {
            return Err(Error::invalid("time", "must be a time of the years 1..9999"));
        }
        _ => {}
    }
    let isolation = match AskedIsolation::try_from(request.isolation) {
        Ok(AskedIsolation::ReadUncommitted) => Isolation::ReadUncommitted,
        Ok(AskedIsolation::Unspecified | AskedIsolation::ReadCommitted) => Isolation::ReadCommitted,
        Err(_) => {
            let what = format!("is {}; it must be READ_COMMITTED or READ_UNCOMMITTED", request.isolation);
            return Err(Error::invalid("isolation", what));
        }
    };
    let encoding = PayloadEncoding::try_from(request.encoding)
        .map_err(|_| Error::invalid("encoding", format!("is {}; it must be BYTES, TEXT or JSON", request.encoding)))?;
    let bytes_max = bounded("maxBytes", request.max_bytes, FETCH_BYTES_DEFAULT, FETCH_BYTES_MAX)? as u64;
    let message_bytes_max = match form {
        Form::Json => usize::MAX,
        Form::Message if bytes_max <= DEFAULT_CLIENT_BYTES => ANSWER_MESSAGE_BYTES_MAX,
        Form::Message => bytes_max as usize,
    };
    Ok(CheckedFetch {
        partition: request.partition,
        start,
        bounds: Bounds {
            bytes_max,
            message_bytes_max,
            records_max: bounded("maxRecords", request.max_records, FETCH_RECORDS_DEFAULT, FETCH_RECORDS_MAX)?,
        },
        wait: wait_of(request.wait)?,
        isolation,
        encoding,
        form,
    })
}

/// A partition that the topic has.
pub(super) fn check_partition(field: &str, partition: i32, topic: &ResolvedTopic) -> Result<(), Error> {
    if (0..topic.partitions).contains(&partition) {
        return Ok(());
    }
    let what = format!("is {partition}, but the topic has the partitions 0..{}", topic.partitions - 1);
    Err(Error::invalid(field, what))
}

fn bounded(field: &str, value: i32, default: usize, max: usize) -> Result<usize, Error> {
    match usize::try_from(value) {
        Ok(0) => Ok(default),
        Ok(value) if value <= max => Ok(value),
        _ => Err(Error::invalid(field, format!("is {value}; it must be 1..{max}, or 0 for {default}"))),
    }
}

fn wait_of(wait: Option<wkt::Duration>) -> Result<Duration, Error> {
    let millis = wait.map_or(0, |wait| wait.as_millis());
    match u64::try_from(millis) {
        Ok(millis) if millis <= FETCH_WAIT_MS_MAX => Ok(Duration::from_millis(millis)),
        _ => Err(Error::invalid("wait", format!("is {millis} ms; it must be 0..{FETCH_WAIT_MS_MAX} ms"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic() -> ResolvedTopic {
        ResolvedTopic::example(2)
    }

    #[test]
    fn what_is_not_said_has_the_documented_defaults() {
        let checked = check(&FetchRequest::default(), Form::Message, &topic()).expect("good");
        assert_eq!(checked.start, Start::Position(Position::Earliest.into()));
        assert_eq!((checked.bounds.bytes_max, checked.bounds.records_max), (1 << 20, 1_000));
        assert_eq!(checked.bounds.message_bytes_max, ANSWER_MESSAGE_BYTES_MAX);
        assert_eq!((checked.wait, checked.isolation), (Duration::ZERO, Isolation::ReadCommitted));
    }

    #[test]
    fn each_field_out_of_bounds_is_named() {
        let base = FetchRequest::default;
        let cases = [
            (FetchRequest { partition: 2, ..base() }, "partition"),
            (FetchRequest { partition: -1, ..base() }, "partition"),
            (FetchRequest { start: Some(Start::Offset(-1)), ..base() }, "offset"),
            (FetchRequest { start: Some(Start::Position(9)), ..base() }, "position"),
            (FetchRequest { isolation: 9, ..base() }, "isolation"),
            (FetchRequest { encoding: 9, ..base() }, "encoding"),
            (FetchRequest { max_bytes: -1, ..base() }, "maxBytes"),
            (FetchRequest { max_bytes: (8 << 20) + 1, ..base() }, "maxBytes"),
            (FetchRequest { max_records: 10_001, ..base() }, "maxRecords"),
            (FetchRequest { wait: Some(wkt::Duration::from_millis(30_001)), ..base() }, "wait"),
            (FetchRequest { wait: Some(wkt::Duration::from_millis(-1)), ..base() }, "wait"),
        ];
        for (request, field) in cases {
            let error = check(&request, Form::Json, &topic()).expect_err(field);
            assert_eq!(error.field.as_deref(), Some(field));
        }
    }
}
