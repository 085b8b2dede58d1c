//! What becomes of a request body that nobody read to its end, because the answer was ready before.
//!
//! A socket that is closed over unread bytes is reset, and the reset takes the answer from the client. So the rest of the
//! body is read on and thrown away while the answer leaves, for at most [`Edge::unread_bytes_max`] and
//! [`Edge::unread_time`]. An HTTP/1.1 connection goes on afterwards if the rest is known and small; else the answer says
//! `connection: close`. A client that waits for `100 Continue` gets its answer instead, and none of its body is asked for.
//! HTTP/2 needs no header: the stream is closed when the rest has been read, or cut with NO_ERROR when there is too much.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http_body::Body;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use parking_lot::Mutex;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::edge::Edge;
use super::io::ConnState;

/// A rest of this size is read to save the connection.
const KEEP_ALIVE_BYTES_MAX: u64 = 256 << 10;

/// What the rests of one connection need.
#[derive(Debug)]
pub(super) struct Drains {
    pub(super) edge: Edge,
    pub(super) state: Arc<ConnState>,
    pub(super) tasks: TaskTracker,
    /// HTTP/2 streams whose rest keeps a draining connection open are cut; HTTP/1.1 has only the one.
    pub(super) cut: Option<CancellationToken>,
}

/// The rest of one request's body, shared by the body and by who answers.
#[derive(Debug, Clone)]
pub(super) struct Rest(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    slot: Mutex<Slot>,
    /// The client needs no invitation, or has had it.
    asked: AtomicBool,
    drains: Arc<Drains>,
}

#[derive(Debug)]
enum Slot {
    /// Somebody may still read.
    Reading,
    /// Nobody will.
    Left(Incoming),
    /// The answer is on its way; what is left from now on is read on at once.
    Answered,
}

impl Rest {
    /// `expects`: the client waits for `100 Continue`, which leaves when its body is first asked for.
    pub(super) fn new(drains: Arc<Drains>, expects: bool) -> Self {
        Self(Arc::new(Shared { slot: Mutex::new(Slot::Reading), asked: AtomicBool::new(!expects), drains }))
    }

    /// Somebody reads.
    pub(super) fn asked(&self) {
        self.0.asked.store(true, Ordering::Relaxed);
    }

    /// The reader is gone before the end.
    pub(super) fn leave(&self, body: Incoming) {
        let mut slot = self.0.slot.lock();
        match *slot {
            Slot::Answered => drop(self.read_on(body)),
            _ => *slot = Slot::Left(body),
        }
    }

    /// The answer's head is ready. Says whether an HTTP/1.1 connection can take another request after this one.
    pub(super) fn answer(&self) -> bool {
        let before = std::mem::replace(&mut *self.0.slot.lock(), Slot::Answered);
        let Slot::Left(body) = before else { return true };
        let keep = body.size_hint().exact().is_some_and(|left| left <= KEEP_ALIVE_BYTES_MAX);
        self.read_on(body) && keep
    }

    /// False if the client was not asked for its body: it sends none, or goes on after a while, and only the end of the
    /// connection tells that body and the next request apart.
    fn read_on(&self, body: Incoming) -> bool {
        let asked = self.0.asked.load(Ordering::Relaxed);
        if asked {
            read_on(body, &self.0.drains);
        }
        asked
    }
}

fn read_on(mut body: Incoming, drains: &Arc<Drains>) {
    let drains = Arc::clone(drains);
    let tasks = drains.tasks.clone();
    tasks.spawn(async move {
        let _draining = drains.state.drain();
        let edge = &drains.edge;
        let rest = async {
            let mut left = edge.unread_bytes_max;
            while let Ok(Some(Ok(frame))) = timeout(edge.unread_idle, body.frame()).await {
                left = left.saturating_sub(frame.data_ref().map_or(0, |data| data.len() as u64));
                if left == 0 {
                    break;
                }
            }
        };
        let cut = async {
            match &drains.cut {
                Some(cut) => cut.cancelled().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // However it ends, nothing more is read.
            _ = timeout(edge.unread_time, rest) => {}
            () = cut => {}
        }
    });
}
