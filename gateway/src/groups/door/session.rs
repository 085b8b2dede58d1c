//! One open stream of a consumer: from the dispatcher to the client and back, over as many dispatchers as it takes.
//!
//! The client's credit is kept here, so a stream that finds another dispatcher goes on with what is left of it. What was sent to
//! a dispatcher that has gone and was not answered is answered UNAVAILABLE: nobody knows. Before every delivery, every 10 s, when
//! the credential expires, and whenever something of the tenant changes, the stream is checked anew; its end is an error that
//! says why.
//!
//! Records are asked for one event at a time, when the client's transport comes for it and the tenant's limits allow it, so no
//! lease runs while a record waits here. What the transport does not take is in transit: its lease does not run out, until the
//! stream is given up and the records are handed back.

mod pacing;
mod timing;
mod transit;
mod unsettled;

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use futures::{Stream, StreamExt};
use tokio::sync::{mpsc, watch};

use sluice_proto::stream::v1::{DeliveryState, Notice, PayloadEncoding, SettleResult, Settled};
use sluice_types::error::Error;
use sluice_types::{ErrorKind, Reason};

use crate::groups::door::Shared;
use crate::groups::door::admission::Place;
use crate::groups::door::credit::Credit;
use crate::groups::door::dispatching::{DispatchRequest, NoAnswer};
use crate::groups::door::outlet::{Outlet, Said};
use crate::groups::door::settle::{Read, Unknown};
use crate::groups::door::stream_access::StreamAccess;
use crate::groups::model::{AttachCommand, AttachEvent, AttachOptions, Attachment, Leased, Owner, Settle};

use self::timing::DeliveryNotices;
use self::transit::Transit;
pub(super) use self::transit::{GIVE_UP_MIN, PROMPT};
use self::unsettled::Unsettled;

/// How often a stream is checked, if nothing tells to.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// How long a search for a dispatcher goes on before it begins anew.
const SEARCH: Duration = Duration::from_secs(30);
/// After a dispatcher could not take the stream for the moment.
const ATTACH_PAUSE: Duration = Duration::from_millis(500);
/// What a dispatcher that has lost the group may still say.
const LAST_WORD: Duration = Duration::from_millis(1_500);
/// What a stream of a gateway that drains may still take for answers.
const FAREWELL: Duration = Duration::from_secs(1);
/// Messages that wait for the client, beyond which it is not listened to.
const WAITING_MAX: usize = 32;

/// What a client says on its stream.
#[derive(Debug)]
pub(super) enum Ask {
    Credit(Credit),
    Settle { sequence: i64, settle: Settle, ids: Vec<String> },
}

/// All that a client says.
pub(super) type Input = Pin<Box<dyn Stream<Item = Result<Ask, Error>> + Send>>;

/// How a stream begins.
#[derive(Debug, Clone, Copy)]
pub(super) struct Opening {
    pub(super) encoding: PayloadEncoding,
    pub(super) batch_records: usize,
    /// All that may be out at a time (`returns_credit`), or the first credit.
    pub(super) credit: Credit,
    pub(super) returns_credit: bool,
}

/// A stream.
pub(super) struct Session {
    door: Arc<Shared>,
    standing: StreamAccess,
    opening: Opening,
    /// What is left of the client's credit.
    left: Credit,
    commands: VecDeque<AttachCommand>,
    waiting: VecDeque<Said>,
    /// Names it, whatever dispatcher it is attached to.
    name: u64,
    attached: bool,
    /// The dispatcher may send an event.
    room_given: bool,
    /// The tenant's limits hold records back until then at least.
    held_until: Option<Instant>,
    /// Records that the client's transport has not taken yet.
    transit: Option<Transit>,
    /// Records that came beside those, from a dispatcher that was not asked for them.
    behind: Option<Vec<Leased>>,
    expires_at: Option<Instant>,
    unsettled: Unsettled,
    notices: DeliveryNotices,
    input_ended: bool,
    look_again_at: Instant,
    lost_at: Option<Instant>,
    leave_at: Option<Instant>,
    _open: Open,
}

/// Counts the stream as open.
struct Open(Arc<Shared>, #[expect(dead_code, reason = "held until the stream ends")] Place);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.metrics.streams.dec();
    }
}

/// What happened.
enum Step {
    Sent,
    Event(Option<AttachEvent>),
    Asked(Option<Result<Ask, Error>>),
    Attached(Result<Attachment, NoAnswer>),
    CommandsEnded,
    Closing,
    Changed,
    OwnersChanged,
    Timer,
    Gone,
}

/// The way to the dispatcher, as far as there is one.
#[derive(Default)]
struct Link {
    commands: Option<mpsc::Sender<AttachCommand>>,
    events: Option<mpsc::Receiver<AttachEvent>>,
    owner: Option<Owner>,
    attaching: Option<BoxFuture<'static, Result<Attachment, NoAnswer>>>,
}

impl Link {
    async fn event(events: &mut Option<mpsc::Receiver<AttachEvent>>) -> Option<AttachEvent> {
        match events {
            Some(events) => events.recv().await,
            None => std::future::pending().await,
        }
    }

    async fn room(
        commands: &mut Option<mpsc::Sender<AttachCommand>>,
    ) -> Result<mpsc::Permit<'_, AttachCommand>, mpsc::error::SendError<()>> {
        match commands {
            Some(commands) => commands.reserve().await,
            None => std::future::pending().await,
        }
    }

    async fn attached(
        attaching: &mut Option<BoxFuture<'static, Result<Attachment, NoAnswer>>>,
    ) -> Result<Attachment, NoAnswer> {
        match attaching {
            Some(attaching) => attaching.await,
            None => std::future::pending().await,
        }
    }
}

impl Session {
    pub(super) fn new(door: Arc<Shared>, standing: StreamAccess, opening: Opening, place: Place) -> Self {
        let (now, expires_at) = (Instant::now(), standing.expires_at());
        door.metrics.streams.inc();
        Self {
            _open: Open(Arc::clone(&door), place),
            left: opening.credit,
            door,
            standing,
            opening,
            commands: VecDeque::new(),
            waiting: VecDeque::new(),
            name: random_name(),
            attached: false,
            room_given: false,
            held_until: None,
            transit: None,
            behind: None,
            expires_at,
            unsettled: Unsettled::default(),
            notices: DeliveryNotices::new(now),
            input_ended: false,
            look_again_at: now + LOOK_AGAIN,
            lost_at: None,
            leave_at: None,
        }
    }

    /// Runs until either side ends it.
    pub(super) async fn run(mut self, input: Input, mut out: Outlet) {
        let mut link = Link { attaching: Some(self.attach(Duration::ZERO)), ..Link::default() };
        let end = self.work(input, &mut out, &mut link).await;
        self.give_up(&mut link, &out);
        let code = end.as_ref().map_or("OK", |error| error.kind.as_str());
        self.door.metrics.ended(code);
        tracing::debug!(group = %self.standing.group().name, code, "stream ended");
        out.end(end);
    }

    /// The stream's life; gives its end.
    async fn work(&mut self, mut input: Input, out: &mut Outlet, link: &mut Link) -> Option<Error> {
        let mut changes = self.standing.changes();
        let mut owners = self.door.dispatching.owners.changes();
        let closing = self.door.closing.clone();
        let mut asked = out.progress.asked();
        loop {
            if let Some(end) = self.over() {
                return end;
            }
            self.look_at_transport(out);
            if self.transit.is_none()
                && let Some(records) = self.behind.take()
                && let Err(error) = self.records(records)
            {
                return Some(error);
            }
            let listens = !self.input_ended && self.waiting.len() < WAITING_MAX && self.unsettled.has_room();
            // Whatever the client does: a dispatcher whose answers nobody takes hears of nothing, and leases in transit run out.
            // There are as many answers as settlements, which have their bound.
            let takes = self.behind.is_none();
            let step = tokio::select! {
                permit = out.messages.reserve(), if !self.waiting.is_empty() => match (permit, self.waiting.pop_front()) {
                    (Ok(permit), Some(said)) => {
                        permit.send(said);
                        Step::Sent
                    }
                    _ => Step::Gone,
                },
                permit = Link::room(&mut link.commands), if !self.commands.is_empty() => match permit {
                    Ok(permit) => {
                        if let Some(command) = self.commands.pop_front() {
                            if let AttachCommand::Settle { sequence, .. } = &command {
                                self.unsettled.sent(*sequence);
                            }
                            permit.send(command);
                        }
                        continue;
                    }
                    Err(_) => Step::CommandsEnded,
                },
                event = Link::event(&mut link.events), if takes => Step::Event(event),
                attached = Link::attached(&mut link.attaching) => Step::Attached(attached),
                asked = input.next(), if listens => Step::Asked(asked),
                () = closing.cancelled(), if self.leave_at.is_none() => Step::Closing,
                () = changed(&mut changes) => Step::Changed,
                () = owners_changed(&mut owners) => Step::OwnersChanged,
                () = tokio::time::sleep_until(self.next_look().into()) => Step::Timer,
                () = asked_for_more(&mut asked) => continue,
                () = out.messages.closed() => Step::Gone,
            };
            match step {
                Step::Sent => self.sent(out.sent()),
                Step::Event(Some(event)) => {
                    if let Err(error) = self.happened(event) {
                        return Some(error);
                    }
                }
                Step::Event(None) => self.detach(link),
                // The dispatcher is leaving: its last events say so.
                Step::CommandsEnded => link.commands = None,
                Step::Attached(attached) => {
                    if let Err(error) = self.attached(attached, link) {
                        return Some(error);
                    }
                }
                Step::Asked(Some(Ok(ask))) => self.asked(ask),
                Step::Asked(Some(Err(error))) => return Some(error),
                Step::Asked(None) => self.input_ended = true,
                Step::Closing => self.farewell(),
                Step::Changed => {
                    if let Err(error) = self.look_again() {
                        return Some(error);
                    }
                }
                Step::OwnersChanged => self.watch_owner(link),
                Step::Timer => {
                    let now = Instant::now();
                    if self.look_again_at <= now || self.expires_at.is_some_and(|at| at <= now) {
                        if let Err(error) = self.look_again() {
                            return Some(error);
                        }
                        changes = self.standing.changes();
                    }
                    if let Err(error) = self.on_time(now, link) {
                        return Some(error);
                    }
                }
                Step::Gone => return None,
            }
        }
    }

    /// Whether the stream is over, and how.
    fn over(&self) -> Option<Option<Error>> {
        let has_records = self.transit.is_some() || self.behind.is_some();
        let quiet = self.waiting.is_empty() && self.unsettled.is_empty() && !has_records;
        if let Some(leave_at) = self.leave_at
            && (quiet || leave_at <= Instant::now())
        {
            return Some(Some(shutting_down()));
        }
        // A client that has said its last word and has no credit can get nothing any more.
        let starved = self.input_ended && !self.opening.returns_credit && self.left.records == 0;
        (starved && quiet).then_some(None)
    }

    /// Begins to look for the dispatcher.
    fn attach(&self, pause: Duration) -> BoxFuture<'static, Result<Attachment, NoAnswer>> {
        let door = Arc::clone(&self.door);
        let caller = Arc::clone(self.standing.context());
        let call = door.group_call(self.standing.call(), Arc::clone(self.standing.group()));
        // What comes back by itself is a constant: the dispatcher knows what is out.
        let credit = if self.opening.returns_credit { self.opening.credit } else { self.left };
        let options = AttachOptions {
            credit_records: credit.records,
            credit_bytes: credit.bytes,
            batch_records: self.opening.batch_records,
            returns_credit: self.opening.returns_credit,
            stream: self.name,
            paced: true,
        };
        Box::pin(async move {
            tokio::time::sleep(pause).await;
            let asking = DispatchRequest { caller: &caller, call, until: Instant::now() + SEARCH };
            door.dispatching.attach(&asking, options).await
        })
    }

    fn attached(&mut self, attached: Result<Attachment, NoAnswer>, link: &mut Link) -> Result<(), Error> {
        link.attaching = None;
        match attached {
            Ok(attachment) => {
                self.notices.attached(true);
                self.attached = true;
                // Credit that came meanwhile; what was there before went with the options.
                link.commands = Some(attachment.commands);
                link.events = Some(attachment.events);
                link.owner = Some(self.door.dispatching.owners.owner(self.standing.group().group_uid));
                Ok(())
            }
            Err(NoAnswer::Moving | NoAnswer::Late) => {
                link.attaching = Some(self.reattach(Duration::ZERO));
                Ok(())
            }
            Err(NoAnswer::Refused(error)) if error.kind == ErrorKind::Unavailable => {
                tracing::debug!(%error, group = %self.standing.group().name, "no stream at the dispatcher yet");
                link.attaching = Some(self.reattach(ATTACH_PAUSE));
                Ok(())
            }
            Err(NoAnswer::Refused(error)) => Err(error),
        }
    }

    /// As [`Session::attach`]: the credit goes with the options, not beside it.
    fn reattach(&mut self, pause: Duration) -> BoxFuture<'static, Result<Attachment, NoAnswer>> {
        self.commands.retain(|command| !matches!(command, AttachCommand::Credit { .. } | AttachCommand::Room { .. }));
        self.room_given = false;
        self.attach(pause)
    }

    /// The dispatcher has let go of the stream.
    fn detach(&mut self, link: &mut Link) {
        self.door.metrics.reattached.inc();
        self.notices.attached(false);
        self.attached = false;
        self.lost_at = None;
        for (sequence, read) in self.unsettled.take_sent() {
            self.answer(sequence, &read.results(&[], Unknown::Moving));
        }
        *link = Link { attaching: Some(self.reattach(Duration::ZERO)), ..Link::default() };
    }

    fn happened(&mut self, event: AttachEvent) -> Result<(), Error> {
        match event {
            AttachEvent::Records(records) if self.transit.is_some() => self.behind = Some(records),
            AttachEvent::Records(records) => return self.records(records),
            AttachEvent::Settled { sequence, outcomes } => {
                if let Some((sequence, read)) = self.unsettled.take(sequence) {
                    self.answer(sequence, &read.results(&outcomes, Unknown::Moving));
                }
            }
            AttachEvent::State(state) => self.notices.dispatcher(state),
        }
        Ok(())
    }

    fn asked(&mut self, ask: Ask) {
        match ask {
            Ask::Credit(more) => {
                let added = self.left.add(more);
                if let Some(AttachCommand::Credit { records, bytes }) = self.commands.back_mut() {
                    *records += added.records;
                    *bytes += added.bytes;
                } else if added != Credit::default() {
                    self.commands.push_back(AttachCommand::Credit { records: added.records, bytes: added.bytes });
                }
            }
            Ask::Settle { sequence, settle, ids } => {
                let mut read = Read::of(&self.door.ack_ids, self.standing.group().group_uid, &ids);
                let leases = std::mem::take(&mut read.leases);
                if leases.is_empty() {
                    self.answer(sequence, &read.results(&[], Unknown::Moving));
                    return;
                }
                let sequence = self.unsettled.put(sequence, read);
                self.commands.push_back(AttachCommand::Settle { sequence, settle, leases });
            }
        }
    }

    fn answer(&mut self, sequence: i64, results: &[SettleResult]) {
        self.door.metrics.settled(results.iter().map(SettleResult::outcome));
        self.waiting.push_back(Said::Settled(Settled { sequence, results: results.to_vec() }));
    }

    fn look_again(&mut self) -> Result<(), Error> {
        self.look_again_at = Instant::now() + LOOK_AGAIN;
        self.standing.look_again()?;
        self.expires_at = self.standing.expires_at();
        Ok(())
    }

    /// A dispatcher that has lost the group mostly says so itself; one that was stopped does not.
    fn watch_owner(&mut self, link: &Link) {
        let now_owner = self.door.dispatching.owners.owner(self.standing.group().group_uid);
        self.lost_at = match &link.owner {
            Some(owner) if *owner != now_owner => self.lost_at.or_else(|| Some(Instant::now() + LAST_WORD)),
            _ => None,
        };
    }

    fn on_time(&mut self, now: Instant, link: &mut Link) -> Result<(), Error> {
        if self.lost_at.is_some_and(|at| at <= now) {
            self.detach(link);
        }
        for (sequence, read) in self.unsettled.take_late(now) {
            self.answer(sequence, &read.results(&[], Unknown::Moving));
        }
        self.held_until.take_if(|until| *until <= now);
        // Behind what waits it would be told later than it is so.
        if self.waiting.is_empty()
            && let Some(state) = self.notices.due(now)
        {
            self.notice(state, false);
        }
        self.mind_transit(now)
    }

    fn next_look(&self) -> Instant {
        let transit = self.transit.as_ref().map(Transit::next);
        let notice = self.notices.due_at().filter(|_| self.waiting.is_empty());
        let settled = self.unsettled.late_at();
        let times = [self.held_until, transit, notice, settled, self.lost_at, self.leave_at, self.expires_at];
        times.into_iter().flatten().fold(self.look_again_at, Instant::min)
    }

    /// This gateway drains: the client may go to another one at once.
    fn farewell(&mut self) {
        self.notice(self.notices.state(), true);
        self.leave_at = Some(Instant::now() + FAREWELL);
    }

    fn notice(&mut self, state: DeliveryState, reconnect: bool) {
        self.waiting.push_back(Said::Notice(Notice { state: state.into(), reconnect }));
    }
}

/// Not 0, which is no name.
fn random_name() -> u64 {
    use std::hash::{BuildHasher as _, RandomState};
    RandomState::new().hash_one(std::time::SystemTime::now()).max(1)
}

fn shutting_down() -> Error {
    Error::unavailable(
        Reason::ShuttingDown,
        "this gateway is shutting down; connect again: acknowledgements decide what comes again",
    )
    .with_retry_after(Duration::from_millis(100))
}

async fn changed(changes: &mut Option<watch::Receiver<u64>>) {
    match changes {
        Some(watched) => {
            if watched.changed().await.is_err() {
                // The view was replaced: the next look finds the new one.
                *changes = None;
            }
        }
        None => std::future::pending().await,
    }
}

/// Ends when the transport has come for another message.
async fn asked_for_more(asked: &mut watch::Receiver<u64>) {
    if asked.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

async fn owners_changed(owners: &mut watch::Receiver<u64>) {
    if owners.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}
