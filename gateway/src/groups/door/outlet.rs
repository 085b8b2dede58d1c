//! What a stream says to its client, on its way out.
//!
//! The way is two messages long: whoever does not read stops his own stream and costs no more than that. How the stream ended is
//! kept beside the way, so a full one cannot swallow it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::Stream;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use sluice_proto::stream::v1::{Notice, Settled};
use sluice_types::error::Error;

use crate::groups::door::delivery::Received;

/// Messages that wait for the connection.
const WAITING: usize = 1;

/// A message.
#[derive(Debug)]
pub(super) enum Said {
    Records(Vec<Received>),
    Settled(Settled),
    Notice(Notice),
}

/// The stream's end of the way.
pub(super) struct Outlet {
    pub(super) messages: mpsc::Sender<Said>,
    end: Arc<Mutex<Option<Error>>>,
}

/// The client's end.
pub(super) struct Outgoing {
    messages: mpsc::Receiver<Said>,
    end: Arc<Mutex<Option<Error>>>,
}

pub(super) fn outlet() -> (Outlet, Outgoing) {
    let (sender, receiver) = mpsc::channel(WAITING);
    let end = Arc::default();
    (Outlet { messages: sender, end: Arc::clone(&end) }, Outgoing { messages: receiver, end })
}

impl Outlet {
    /// Ends the stream; with an error or well.
    pub(super) fn end(self, error: Option<Error>) {
        *self.end.lock() = error;
    }
}

impl Stream for Outgoing {
    type Item = Result<Said, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.messages.poll_recv(cx).map(|said| match said {
            Some(said) => Some(Ok(said)),
            None => self.end.lock().take().map(Err),
        })
    }
}
