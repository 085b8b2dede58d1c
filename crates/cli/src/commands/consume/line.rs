//! A connection to a group, over either transport.

use std::time::Duration;

use sluice_proto::stream::v1::{DeliveryState, ReceivedRecord, SettleResult};
use tonic::Status;

use super::orders::Order;
use super::pull::PullLine;
use super::room::Demand;
use super::stream::StreamLine;
use crate::args::consume::Transport;
use crate::connect::Session;

/// What comes from the server.
pub(super) enum Event {
    Records(Vec<ReceivedRecord>),
    /// Why records come or do not, when it changed.
    State(DeliveryState),
    /// The answer to an order, one result per id.
    Settled {
        sequence: i64,
        results: Vec<SettleResult>,
    },
    /// The gateway shuts down.
    Reconnect,
}

/// What a connection is opened with.
#[derive(Clone, Copy)]
pub(super) struct Opening<'a> {
    pub(super) session: &'a Session,
    pub(super) group: &'a str,
    /// To make the group with if it does not exist.
    pub(super) topics: &'a [String],
    /// How long one call may take.
    pub(super) timeout: Duration,
    /// What is asked for at once.
    pub(super) demand: Option<Demand>,
}

/// A connection.
pub(super) enum Line<'a> {
    Stream(Box<StreamLine>),
    Pull(Box<PullLine<'a>>),
}

impl<'a> Line<'a> {
    /// Opens it.
    pub(super) async fn open(opening: Opening<'a>, transport: Transport) -> Result<Self, Status> {
        Ok(match transport {
            Transport::Stream => Self::Stream(Box::new(StreamLine::open(opening).await?)),
            Transport::Pull => Self::Pull(Box::new(PullLine::new(opening))),
        })
    }

    /// The next event. Cancel-safe.
    pub(super) async fn next(&mut self) -> Result<Event, Status> {
        match self {
            Self::Stream(line) => line.next().await,
            Self::Pull(line) => line.next().await,
        }
    }

    /// Asks for more records.
    pub(super) fn ask(&mut self, demand: Demand) {
        match self {
            Self::Stream(line) => line.ask(demand),
            Self::Pull(line) => line.ask(demand),
        }
    }

    /// Begins no new call for records.
    pub(super) fn stop(&mut self) {
        match self {
            // What comes is given back, and no credit follows.
            Self::Stream(_) => {}
            Self::Pull(line) => line.stop(),
        }
    }

    /// Settles records; answered by [`Event::Settled`] with the same sequence.
    pub(super) fn settle(&mut self, sequence: i64, order: &Order) {
        match self {
            Self::Stream(line) => line.settle(sequence, order),
            Self::Pull(line) => line.settle(sequence, order),
        }
    }
}
