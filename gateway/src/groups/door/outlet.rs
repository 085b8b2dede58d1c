//! What a stream says to its client, on its way out.
//!
//! The way is one message long, and the stream knows when the transport comes for the next one ([`Progress`]): whoever does not
//! read stops his own stream and costs no more than that. How the stream ended is kept beside the way, so a full one cannot
//! swallow it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::Stream;
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};

use sluice_proto::stream::v1::{Notice, Settled};
use sluice_types::error::Error;

use crate::groups::door::delivery::Received;
use crate::transport::Progress;

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
    pub(super) progress: Progress,
    asked: watch::Receiver<u64>,
    /// Messages that were sent.
    sent: u64,
}

/// The client's end.
pub(super) struct Outgoing {
    messages: mpsc::Receiver<Said>,
    end: Arc<Mutex<Option<Error>>>,
    progress: Progress,
}

pub(super) fn outlet() -> (Outlet, Outgoing) {
    let (sender, receiver) = mpsc::channel(WAITING);
    let end = Arc::default();
    let progress = Progress::new();
    let asked = progress.asked();
    let outlet = Outlet { messages: sender, end: Arc::clone(&end), progress: progress.clone(), asked, sent: 0 };
    (outlet, Outgoing { messages: receiver, end, progress })
}

impl Outlet {
    /// One more message was sent; gives its number.
    pub(super) fn sent(&mut self) -> u64 {
        self.sent += 1;
        self.sent
    }

    /// The number of the message that the transport comes for: all before it have left.
    pub(super) fn asked(&self) -> u64 {
        *self.asked.borrow()
    }

    /// Whether the transport would take a message at once.
    pub(super) fn is_asked(&self) -> bool {
        self.asked() > self.sent
    }

    /// Ends the stream; with an error or well.
    pub(super) fn end(self, error: Option<Error>) {
        *self.end.lock() = error;
    }
}

impl Outgoing {
    /// For the answer's extensions.
    pub(super) fn progress(&self) -> Progress {
        self.progress.clone()
    }
}

impl Stream for Outgoing {
    type Item = Result<Said, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.messages.poll_recv(cx).map(|said| match said {
            Some(said) => {
                self.progress.hand();
                Some(Ok(said))
            }
            None => self.end.lock().take().map(Err),
        })
    }
}
